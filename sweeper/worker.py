"""A worker process's life: hold a lease, work until done, stop when told to, go on smaller when out of memory."""

from __future__ import annotations

import os
import platform
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from types import FrameType
from typing import Any

from sweeper.calibration import Setup
from sweeper.errors import OutOfMemoryError, StoreAwayError
from sweeper.ledger import retries, sweeps, workers
from sweeper.ledger.heartbeat import Heartbeat
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.scheduler import NEVER, Saving, Scheduler
from sweeper.timesheet import Timesheet
from sweeper.workload import Workload

IDLE_LOOK_S = 0.25


class Ending(StrEnum):
    """Why a worker stopped."""

    DONE = "done"
    STOPPED = "stopped"
    INTERRUPTED = "interrupted"


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
    saving: Saving = NEVER,
    on_turn: Callable[[Scheduler], None] = lambda scheduler: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Ending:
    """Work on a sweep until it is done, stopped, or this process is told to end.

    Whatever was not finished stays in the ledger and is gone on with by whoever comes next. A worker that runs out of
    memory ends like any other; another with half the slots takes its place.

    Args:
        ledger: the store.
        sweep: what to work on.
        workload: the sweep made concrete.
        setup: its engine; in the end perhaps a smaller one.
        times: where this process's time went so far.
        stop: asks for an end.
        saving: where trials that are under way are kept, and how often.
        on_turn: called at every turn.
        on_note: told what a user should know.

    Raises:
        OutOfMemoryError: there is no room for a single trial.
    """
    ledger.patience_s, ledger.is_hurried = retries.PATIENCE_S, lambda: bool(stop)
    while True:
        ended = _life(ledger, sweep, workload, setup, times, stop, saving, on_turn)
        if isinstance(ended, Ending):
            return ended
        times = Timesheet()
        with times.on("start"):
            setup.halve(ended)
        on_note(setup.notes[-1])


def _life(
    ledger: Ledger,
    sweep: Sweep,
    workload: Workload,
    setup: Setup,
    times: Timesheet,
    stop: StopRequest,
    saving: Saving,
    on_turn: Callable[[Scheduler], None],
) -> Ending | str:
    """One worker from its registration to its end; returns why it ended, or what it said as it ran out of memory."""
    worker_id = ledger.keep(partial(workers.register, device=setup.device.name, details=_details(setup)))
    identity = {"worker": f"{socket.gethostname()}:{os.getpid()}", "device": setup.device.name}
    scheduler = Scheduler(
        ledger, sweep, workload, setup.engine, worker_id=worker_id, times=times, identity=identity, saving=saving
    )
    with Heartbeat(ledger, worker_id) as beating:

        def turned(at: Scheduler) -> None:
            beating()
            on_turn(at)

        try:
            scheduler.open()
            return _loop(scheduler, stop, turned)
        except OutOfMemoryError as error:
            scheduler.give_up(saves=False)
            return str(error)
        except StoreAwayError:
            ledger.patience_s = 0.0  # its end was waited for already
            raise
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
    return {"python": platform.python_version(), **vars(setup.device), **setup.recorded()}
