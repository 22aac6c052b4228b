"""A worker process's life: choose how to compute, hold a lease, work until done, stop cleanly when told to."""

from __future__ import annotations

import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from types import FrameType
from typing import Any

from sweeper.engine import DeviceFacts, Engine, can_compile, device_facts, find_device, keep_freed_memory
from sweeper.errors import EngineError
from sweeper.ledger import sweeps, workers
from sweeper.ledger.heartbeat import Heartbeat
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.scheduler import Scheduler
from sweeper.timesheet import Timesheet
from sweeper.workload import Workload

MOST_SLOTS = 64
# Compiling takes 10 to 20 seconds on two cores and makes a step about five times as fast: below this much eager work
# it does not pay.
COMPILE_ABOVE_S = 60.0
IDLE_LOOK_S = 1.0
NO_COMPILER = "no C++ compiler and Python headers were found. Install g++ (or clang) and python3-dev."


class Ending(StrEnum):
    """Why a worker stopped."""

    DONE = "done"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class Numerics:
    """What decides the last bits of a fit's result on one machine; chosen at launch and kept.

    Attributes:
        compiled: whether the training step is compiled.
        torch: PyTorch's version.
        device: "cpu" or "cuda".
    """

    compiled: bool
    torch: str
    device: str


@dataclass(frozen=True)
class Setup:
    """An engine ready to work, and what is known of it before.

    Attributes:
        device: where it computes.
        tick_s: seconds of one tick with all slots, measured.
        notes: what a user should know about how it was chosen.
    """

    engine: Engine
    device: DeviceFacts
    numerics: Numerics
    tick_s: float
    notes: tuple[str, ...]

    def estimate_s(self, workload: Workload) -> tuple[float, float]:
        """Least and most seconds that the sweep's trials take: all fits ending after a quarter of the epochs, or none.

        An estimate, from one measured tick.
        """
        fits = workload.trials * workload.folds_per_trial
        most = fits * workload.training.epochs * self.tick_s / self.engine.slots
        return (most / 4 if workload.training.patience else most), most


def set_up(
    workload: Workload, *, device: str, slots: int | None, compiling: bool | None, pinned: Mapping[str, Any] | None
) -> Setup:
    """Build the engine for a workload, and measure a tick.

    Args:
        workload: what to train.
        device: "cpu", "cuda", "cuda:1", ...
        slots: K; None for as many as the sweep can keep busy, up to 64.
        compiling: whether to compile; None decides by what the sweep's work would take without.
        pinned: the numerics that the sweep was launched with, which a resumed sweep keeps.
    """
    device = find_device(device)
    keep_freed_memory()
    if slots is None:
        slots = min(MOST_SLOTS, len(workload.studies()) * workload.folds_per_trial)
    slots = max(slots, workload.folds_per_trial)
    wanted = pinned["compiled"] if pinned else compiling
    if wanted is not False and not can_compile(device):
        return _eager_instead(workload, device, slots, NO_COMPILER, pinned)
    if not wanted:
        eager = _measured(workload, device, slots, compiled=False)
        if wanted is False or eager.estimate_s(workload)[1] <= COMPILE_ABOVE_S:
            return eager
    try:
        return _measured(workload, device, slots, compiled=True)
    except EngineError as error:
        if compiling:
            raise
        return _eager_instead(workload, device, slots, str(error), pinned)


def _eager_instead(workload: Workload, device: str, slots: int, why: str, pinned: Mapping[str, Any] | None) -> Setup:
    notes = [f"training runs eager, several times slower than compiled: {why}"]
    if pinned and pinned["compiled"]:
        notes.append("this sweep was launched compiled; results of eager code differ in their last bits.")
    return replace(_measured(workload, device, slots, compiled=False), notes=tuple(notes))


def _measured(workload: Workload, device: str, slots: int, compiled: bool) -> Setup:
    engine = Engine(
        workload.build,
        workload.engine_folds,
        workload.training,
        workload.task,
        slots=slots,
        device=device,
        compiled=compiled,
    )
    facts = device_facts(device)
    numerics = Numerics(compiled, facts.torch, facts.kind)
    return Setup(engine, facts, numerics, engine.rehearse(), ())


class StopRequest:
    """Set by the first SIGINT or SIGTERM; the second SIGINT interrupts for good."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask the worker to stop at its next tick."""
        self._event.set()

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listen to the signals inside the block."""

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if self and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.set()

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def work(
    ledger: Ledger,
    sweep: Sweep,
    workload: Workload,
    setup: Setup,
    times: Timesheet,
    *,
    stop: StopRequest,
    on_turn: Callable[[Scheduler], None] = lambda scheduler: None,
) -> Ending:
    """Work on a sweep until it is done, stopped, or this process is told to end.

    Whatever was not finished stays in the ledger and is done again by whoever comes next.
    """
    with ledger.write() as connection:
        worker_id = workers.register(connection, setup.device.name, _details(setup))
    identity = {"worker": f"{socket.gethostname()}:{os.getpid()}", "device": setup.device.name}
    scheduler = Scheduler(ledger, sweep, workload, setup.engine, worker_id=worker_id, times=times, identity=identity)
    with Heartbeat(ledger, worker_id):
        try:
            scheduler.open()
            return _loop(scheduler, stop, on_turn)
        finally:
            scheduler.close()


def _loop(scheduler: Scheduler, stop: StopRequest, on_turn: Callable[[Scheduler], None]) -> Ending:
    while True:
        on_turn(scheduler)
        if stop or scheduler.state != sweeps.OPEN:
            scheduler.give_up()
            return Ending.INTERRUPTED if stop else Ending.STOPPED
        if not scheduler.is_idle:
            scheduler.turn()
        elif scheduler.is_done():
            return Ending.DONE
        else:
            scheduler.wait(IDLE_LOOK_S)


def _details(setup: Setup) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        **vars(setup.device),
        "compiled": setup.numerics.compiled,
        "slots": setup.engine.slots,
        "tick_s": setup.tick_s,
    }
