"""A sweep that trains within a second, run in this process, and what its ledger says came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from stores import sqlite_store
from sweeper.calibration import Wish, set_up
from sweeper.config import parse_sweep
from sweeper.engine.meter import Stopwatch
from sweeper.ledger import deliveries, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.schema import AttemptRow, FitRow, StudyRow, TrialRow
from sweeper.ledger.store import Ledger
from sweeper.letters import opening_letters
from sweeper.scheduler import NEVER, Saving, Scheduler
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending, StopRequest, work
from sweeper.workload import Workload, differences, workload_of

SMALL = """\
name: small
data: {source: "npz:rows.npz", train: 24, validation: 0.5}
model: {kind: mlp, hidden: [6, 5]}
train: {epochs: 4, batch_size: 8, learning_rate: 1.0e-2}
search: {sampler: random, trials: 5, replicates: 2}
ranges: {keep_prob: [0.2, 1.0], lambda: [1.0e-3, 30.0]}
spaces:
  shared: {keep_prob: shared}
  both: {keep_prob: per_layer, lambda: per_layer}
"""
TRIALS = 20

Change = tuple[str, str]
TPE: Change = ("sampler: random", "sampler: {kind: tpe, n_startup_trials: 2}")
ONE_STEP: Change = ("batch_size: 8, learning_rate: 1.0e-2", "batch_size: 40, learning_rate: 3.0e-1")  # per epoch
FOLDS: Change = ("train: 24, validation: 0.5", "folds: 3")
START: Change = ("shared: {keep_prob: shared}", "shared: {keep_prob: shared, start: [{keep_prob: 0.5}]}")
DIVERGING: Change = ("learning_rate: 1.0e-2", "optimizer: sgd, learning_rate: 1.0e+2")


def small_text(*changes: Change) -> str:
    """SMALL with pieces of text replaced, each of which it has."""
    text = SMALL
    for old, new in changes:
        assert old in text, f"{old!r} is not in the sweep"
        text = text.replace(old, new, 1)
    return text


def write_sweep(folder: Path, *changes: Change, file: str = "small.yaml") -> Path:
    """The sweep and its data: 60 rows of 4 inputs and 3 classes."""
    random = np.random.default_rng(0)
    x = random.normal(size=(60, 4))
    y = (x[:, 0] + x[:, 1] * x[:, 2] + 0.3 * random.normal(size=60) > 0).astype(int) + (x[:, 3] > 0.5)
    np.savez(folder / "rows.npz", x=x, y=y)
    path = folder / file
    path.write_text(small_text(*changes), encoding="utf-8")
    return path


def small_workload(folder: Path, *changes: Change) -> Workload:
    """The sweep, made concrete."""
    path = write_sweep(folder, *changes)
    return workload_of(parse_sweep(path.read_text(encoding="utf-8"), str(path), folder))


def device_that_takes(patch: pytest.MonkeyPatch, *, train: float, evaluate: float, test: float) -> None:
    """In place of the clock: seconds of a tick's training and evaluation, and of the last look at a fit that ended."""
    take, known_s = Stopwatch.take, {"train": train, "evaluate": evaluate, "test": test}
    patch.setattr(Stopwatch, "take", lambda self, name: known_s[name] if name in known_s else take(self, name))


@dataclass(frozen=True)
class Ran:
    """A sweep that was worked on in this process."""

    ledger: Ledger
    sweep: Sweep
    scheduler: Scheduler
    times: Timesheet
    ending: Ending
    turns: int


def run_here(
    workload: Workload,
    home: Path,
    *,
    slots: int = 4,
    stop_after: int | None = None,
    at_turn: Mapping[int, Callable[[Ledger], object]] | None = None,
    saving: Saving = NEVER,
    ledger: Ledger | None = None,
) -> Ran:
    """Launch a workload, or go on with it, and work on it until it is done, or until so many turns have passed.

    What is to happen before a certain turn, counted from 1, is handed in by its number.
    """
    times, stop, seen = Timesheet(), StopRequest(), list[Scheduler]()
    ledger = ledger or Ledger(sqlite_store(home))
    setup = set_up(workload, Wish("cpu", slots=slots, threads=1, processes=1, compiling=False))
    with ledger.write() as connection:
        sweep = sweeps.launch(connection, workload.plan(vars(setup.numerics)), fresh=False, differences=differences)
        deliveries.post(connection, sweep.id, opening_letters(sweep, sweeps.studies(connection, sweep.id)))

    def on_turn(scheduler: Scheduler) -> None:
        seen.append(scheduler)
        if stop_after is not None and len(seen) > stop_after:
            stop.set()
        if at_turn and len(seen) in at_turn:
            at_turn[len(seen)](ledger)

    ending = work(ledger, sweep, workload, setup, times, stop=stop, saving=saving, on_turn=on_turn)
    return Ran(ledger, sweep, seen[0], times, ending, len(seen))


TRIAL = (
    "state", "origin", "params", "keep_prob", "lambda_", "error", "validation_loss", "validation_metric", "test_loss",
    "test_metric", "train_loss", "best_epoch",
)  # fmt: skip
FIT = (
    "fold", "seed", "outcome", "best_epoch", "train_loss", "validation_loss", "validation_metric", "test_loss",
    "test_metric", "squared_norms", "curves", "steps", "epochs", "examples", "flops",
)  # fmt: skip
Outcome = dict[tuple[str, int, int], dict[str, Any]]


def outcome(ledger: Ledger) -> Outcome:
    """All that a sweep found, and nothing of when, where or how: by space, replicate and number."""
    found: Outcome = {}
    names = StudyRow.space, StudyRow.replicate, TrialRow.number
    trials = select(TrialRow.id, *names, *(getattr(TrialRow, name) for name in TRIAL)).join(StudyRow)
    counted = (FitRow.attempt_id == AttemptRow.id) & (AttemptRow.trial_id == TrialRow.id)
    counted &= AttemptRow.attempt == TrialRow.attempt
    with ledger.read() as connection:
        for id_, space, replicate, number, *values in connection.execute(trials):
            fits = select(*(getattr(FitRow, name) for name in FIT)).where(counted, TrialRow.id == id_)
            rows = connection.execute(fits.order_by(FitRow.fold)).all()
            found[space, replicate, number] = {
                **dict(zip(TRIAL, values, strict=True)),
                "fits": [_timeless(dict(zip(FIT, row, strict=True))) for row in rows],
            }
    return found


def _timeless(fit: dict[str, Any]) -> dict[str, Any]:
    return {**fit, "curves": {name: curve for name, curve in fit["curves"].items() if name != "at_ms"}}
