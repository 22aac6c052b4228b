"""How a command computes: the options that say so, the calibration, and the words for what it chose and expects."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

from sweeper.calibration import Estimate, Setup, Wish, estimate, rehearsed_pace, set_up
from sweeper.checkpoints import Checkpoints
from sweeper.cli.console import errors
from sweeper.cli.estimates import span_words
from sweeper.cli.places import CheckpointsOption as CheckpointsOption
from sweeper.cli.places import DeviceOption as DeviceOption
from sweeper.cli.places import Places
from sweeper.ledger import reads, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.quantities import energy
from sweeper.scheduler import Saving, Spool
from sweeper.workload import Workload


class Compile(StrEnum):
    """Whether the training step is compiled."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


SlotsOption = Annotated[
    int | None,
    typer.Option(
        "--slots",
        min=1,
        help="Fits that each process trains at once; default: what the sweep can use, up to 64 (256 on a GPU), and "
        "the memory holds.",
    ),
]
CompileOption = Annotated[Compile, typer.Option("--compile", help="Compile the training step; auto where it pays.")]
ThreadsOption = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="CPU threads of each process; default: as many as make it faster."),
]
ProcessesOption = Annotated[
    int | None,
    typer.Option(
        "--processes",
        "-n",
        min=1,
        help="Processes that train side by side on this machine; default: one per GPU; without a GPU one, or one per "
        "core (but MLflow's) where the work is long enough.",
    ),
]
MlflowOption = Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="Deliver to MLflow while training.")]


EveryOption = Annotated[
    float,
    typer.Option(
        "--checkpoint-every",
        min=0,
        help="Seconds from one checkpoint of a trial to the next, at least; 0 saves only when told to end.",
    ),
]
EVERY_S = 60.0


@dataclass(frozen=True)
class Saved:
    """Where and how often a user wants trials that are under way to be saved."""

    url: str | None
    every_s: float

    def at(self, places: Places) -> Saving:
        """For a worker."""
        place = Checkpoints(self.url or str(places.checkpoints))
        return Saving(place, self.every_s or math.inf, errors.print, Spool(places.unsettled))

    @property
    def environment(self) -> dict[str, str]:
        """The variable that leads another process to the same place: a command line is for all to see."""
        return {} if self.url is None else {"SWEEPER_CHECKPOINTS": self.url}


def wish_of(
    device: str,
    slots: int | None,
    threads: int | None,
    processes: int | None,
    compiling: Compile,
    *,
    mlflow: bool,
) -> Wish:
    """What the options ask for; delivering to MLflow keeps a core busy."""
    wanted = {Compile.AUTO: None, Compile.ON: True, Compile.OFF: False}[compiling]
    return Wish(device, slots, threads, processes, wanted, spared=1 if mlflow else 0)


def calibrated(workload: Workload, wish: Wish, pinned: Mapping[str, Any] | None) -> Setup:
    """Choose how to compute a workload, and say so.

    Args:
        workload: what to train.
        wish: what the options ask for.
        pinned: the numerics that the sweep was launched with; None for one that was not.
    """
    with busy("measuring this machine, and compiling the training step where it pays"):
        setup = set_up(workload, wish, pinned)
    for note in setup.notes:
        errors.print(f"note: {note}")
    errors.print(setup.words + (f" (on {setup.device.name})" if setup.device.kind == "cuda" else ""))
    return setup


def agreed(ledger: Ledger, sweep: Sweep, setup: Setup, wish: Wish, known: Mapping[str, Any]) -> Setup:
    """Enter how a sweep's fits are computed, where nobody did; where another was first, do as it does.

    Args:
        ledger: the store.
        sweep: which sweep.
        setup: what was chosen here.
        wish: what it was chosen by.
        known: the numerics that were known as it was chosen; empty where the sweep had none.

    Returns:
        The setup to work with: `setup`, or one that was made anew.
    """
    with ledger.write() as connection:
        pinned = sweeps.pin(connection, sweep.id, vars(setup.numerics))
    return setup if known or pinned == vars(setup.numerics) else calibrated(setup.workload, wish, pinned)


def foretell(ledger: Ledger, sweep: Sweep, setup: Setup) -> None:
    """Show what the trials that are left will take, and keep what all of them would for `status`."""
    with ledger.read() as connection:
        spaces = reads.progress(connection, sweep.id)
    planned, done = sum(space.planned for space in spaces), sum(space.finished for space in spaces)
    pace = rehearsed_pace(setup)
    if planned > done:
        show_estimate(estimate(setup, pace, planned - done), is_rest=done > 0, prunes=setup.workload.prunes)
    if sweep.estimate is None or sweep.estimate["trials"] != planned:
        with ledger.write() as connection:
            sweeps.set_estimate(connection, sweep.id, estimate(setup, pace, planned).recorded(setup))


def show_estimate(expected: Estimate, *, is_rest: bool, prunes: bool) -> None:
    """The estimate in a line."""
    which = f"the {expected.trials} trials that are left" if is_rest else f"all {expected.trials} trials"
    words = f"estimate: {span_words(expected.seconds)} for {which}"
    if expected.joules is not None:
        words += f", {span_words(expected.joules, energy)}"
    if expected.epochs[0] < expected.epochs[1]:
        ends = "stopping and pruning allow" if prunes else "stopping allows"
        words += f"; the least if every fit ends as early as early {ends}, the most if none does"
    errors.print(words)


@contextmanager
def busy(what: str) -> Iterator[None]:
    """Show that something is under way."""
    if not errors.is_terminal:
        errors.print(f"{what} ...")
        yield
        return
    with errors.status(what):
        yield
