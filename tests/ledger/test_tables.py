"""Flat rows for spreadsheets and data frames: every trial and fit, each value under its own column."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from ledger.makers import claimed, launched, plan, proposed, registered, rows, settled, settlement, study_ids
from sweeper.ledger import reads, tables
from sweeper.ledger.rows import Sweep
from sweeper.ledger.schema import AttemptRow, FitRow
from sweeper.ledger.store import Ledger
from sweeper.records import TrialState


def table(ledger: Ledger, sweep: Sweep, made: Any) -> list[dict[str, Any]]:
    with ledger.read() as connection:
        flat = made(connection, sweep.id)
        return [dict(zip(flat.columns, row, strict=True)) for row in flat.rows]


@pytest.fixture
def worked(ledger: Ledger, sweep: Sweep, worker: int) -> Sweep:
    """One trial complete, one running, one waiting, beside another sweep that must not show."""
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 3)
    first, _ = claimed(ledger, sweep, worker, 2)
    settled(ledger, sweep, worker, settlement(first))
    other = launched(ledger, plan(name="other"))
    proposed(ledger, study_ids(ledger, other)["none", 0], 2)
    return sweep


def test_the_trials_are_those_of_the_ledger(ledger: Ledger, worked: Sweep) -> None:
    found = table(ledger, worked, tables.trial_table)
    with ledger.read() as connection:
        known = reads.trials(connection, worked.id)
    assert len(found) == len(known) == 3
    for row, trial in zip(found, known, strict=True):
        assert (row["space"], row["replicate"], row["trial"], row["state"]) == (
            trial.space, trial.replicate, trial.number, trial.state,
        )  # fmt: skip
        assert [row[f"keep_prob_{layer}"] for layer in range(len(trial.setting.keep_prob))] == [
            *trial.setting.keep_prob
        ]
        assert [row[f"lambda_{layer + 1}"] for layer in range(len(trial.setting.lambda_))] == [*trial.setting.lambda_]
        assert json.loads(row["parameters"]) == trial.params
        losses = ("train_loss", "validation_loss", "validation_metric", "test_loss", "test_metric", "best_epoch")
        assert [row[name] for name in losses] == [getattr(trial, name) for name in losses]
        assert row["train_s"] == trial.cost.train_s
        assert (row["started_at"], row["ended_at"]) == (trial.started_at, trial.ended_at)
    assert [row["state"] for row in found] == [TrialState.COMPLETE, TrialState.RUNNING, TrialState.WAITING]


def test_the_fits_are_those_of_the_ledger(ledger: Ledger, worked: Sweep) -> None:
    found = table(ledger, worked, tables.fit_table)
    known = rows(ledger, FitRow)
    assert len(found) == len(known) >= 1
    for row, fit in zip(found, known, strict=True):
        assert (row["space"], row["replicate"], row["trial"]) == ("none", 0, 0)
        assert row["attempt"] == rows(ledger, AttemptRow, id=fit.attempt_id)[0].attempt
        for name in ("fold", "seed", "outcome", "best_epoch", "validation_loss", "test_metric", "steps", "train_s"):
            assert row[name] == getattr(fit, name)
        assert [row[f"squared_norm_{layer + 1}"] for layer in range(len(fit.squared_norms))] == fit.squared_norms


def test_every_value_has_the_type_of_its_column(ledger: Ledger, worked: Sweep) -> None:
    for made in (tables.trial_table, tables.fit_table):
        with ledger.read() as connection:
            flat = made(connection, worked.id)
            for row in flat.rows:
                for (name, kind), value in zip(flat.columns.items(), row, strict=True):
                    fits = isinstance(value, (int, float) if kind is float else kind)
                    assert value is None or fits, name
                    assert not (kind is float and value is not None and math.isnan(value))


def test_a_sweep_without_a_trial_has_a_table_without_rows(ledger: Ledger, sweep: Sweep) -> None:
    assert table(ledger, sweep, tables.trial_table) == []
    assert table(ledger, sweep, tables.fit_table) == []


def test_only_those_who_worked_on_a_sweep_are_its_workers(ledger: Ledger, worked: Sweep) -> None:
    registered(ledger)
    with ledger.read() as connection:
        assert tables.workers(connection, worked.id) == []  # nobody entered time for it yet
