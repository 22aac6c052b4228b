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
from sweeper.errors import OutOfMemoryError, StoreAwayError, TrainingError
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
    MOVED = "left for another sweep"
    SPENT = sweeps.SPENT


class StopRequest:
    """Set by the first SIGINT or SIGTERM; the second SIGINT interrupts for good.

    Attributes:
        exit_code: of a process that ends because of it: 130 after Ctrl-C; 0 after SIGTERM, by which a machine is taken
            back in good order.
    """

    def __init__(self) -> None:
        self._event, self._is_obeyed_at_once = threading.Event(), False
        self._then: list[Callable[[], None]] = []
        self.exit_code = 0

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        """Ask the worker to stop at its next tick."""
        self._event.set()
        for act in self._then:
            act()

    def then(self, act: Callable[[], None]) -> None:
        """Have something done as soon as it is set; again, where it is set again."""
        self._then.append(act)

    def wait(self, seconds: float) -> None:
        """Until it is set, for so long at most."""
        self._event.wait(seconds)

    @contextmanager
    def obeyed_at_once(self) -> Iterator[None]:
        """Inside the block nothing is in hand that would have to be saved: a signal ends the process there and then."""
        if self:
            raise SystemExit(self.exit_code)
        self._is_obeyed_at_once = True
        try:
            yield
        finally:
            self._is_obeyed_at_once = False

    @contextmanager
    def listening(self) -> Iterator[StopRequest]:
        """Listen to the signals inside the block."""

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if self and number == signal.SIGINT:
                raise KeyboardInterrupt
            if not self and number == signal.SIGINT:
                self.exit_code = 130
            self.set()
            if self._is_obeyed_at_once:
                raise SystemExit(self.exit_code)

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
    is_wanted_elsewhere: Callable[[], bool] = lambda: False,
    on_turn: Callable[[Scheduler], None] = lambda scheduler: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Ending:
    """Work on a sweep until it is done, stopped, or this process is told to end or wanted elsewhere.

    Whatever was not finished stays in the ledger and is gone on with by whoever comes next. A worker that runs out of
    memory ends like any other; another with half the slots takes its place. So does another with a fresh engine where
    training fails; its trials are tried again.

    Args:
        ledger: the store.
        sweep: what to work on.
        workload: the sweep made concrete.
        setup: its engine; in the end perhaps a smaller one.
        times: where this process's time went so far.
        stop: asks for an end.
        saving: where trials that are under way are kept, and how often.
        is_wanted_elsewhere: asked before every turn whether to let go of this sweep for another.
        on_turn: called at every turn.
        on_note: told what a user should know.

    Raises:
        OutOfMemoryError: there is no room for a single trial.
        TrainingError: training fails with no trial as well.
    """
    ledger.patience_s, ledger.is_hurried = retries.PATIENCE_S, lambda: bool(stop)
    while True:
        ended = _life(ledger, sweep, workload, setup, times, stop, saving, is_wanted_elsewhere, on_turn)
        if isinstance(ended, Ending):
            return ended
        times = Timesheet()
        with times.on("start"):
            if isinstance(ended, OutOfMemoryError):
                setup.halve(str(ended))
            else:
                setup.renew(str(ended))
        on_note(setup.notes[-1])


def _life(
    ledger: Ledger,
    sweep: Sweep,
    workload: Workload,
    setup: Setup,
    times: Timesheet,
    stop: StopRequest,
    saving: Saving,
    is_wanted_elsewhere: Callable[[], bool],
    on_turn: Callable[[Scheduler], None],
) -> Ending | OutOfMemoryError | TrainingError:
    """One worker from its registration to its end; returns why it ended, or what another has to take its place for."""
    worker_id = ledger.keep(partial(workers.register, device=setup.device.name, details=_details(setup)))
    identity = {"worker": f"{socket.gethostname()}:{os.getpid()}", "device": setup.device.name}
    scheduler = Scheduler(
        ledger,
        sweep,
        workload,
        setup.engine,
        worker_id=worker_id,
        times=times,
        identity=identity,
        saving=saving,
        tick_s=setup.tick_s,
    )
    with Heartbeat(ledger, worker_id) as beating:

        def turned(at: Scheduler) -> None:
            beating()
            on_turn(at)

        try:
            scheduler.open()
            return _loop(scheduler, stop, is_wanted_elsewhere, turned)
        except OutOfMemoryError as error:
            scheduler.give_up(saves=False)
            return error
        except TrainingError as error:
            scheduler.fail(error)
            return error
        except StoreAwayError:
            ledger.patience_s = 0.0  # its end was waited for already
            raise
        finally:
            scheduler.close()


def _loop(
    scheduler: Scheduler,
    stop: StopRequest,
    is_wanted_elsewhere: Callable[[], bool],
    on_turn: Callable[[Scheduler], None],
) -> Ending:
    while True:
        on_turn(scheduler)
        if stop or scheduler.state == sweeps.STOPPED:
            scheduler.give_up()
            return Ending.INTERRUPTED if stop else Ending.STOPPED
        if scheduler.spending.is_over:
            scheduler.give_up()
            return Ending.DONE if scheduler.is_done() else Ending.SPENT
        if scheduler.is_done():
            return Ending.DONE
        if is_wanted_elsewhere():
            scheduler.give_up()
            return Ending.MOVED
        if scheduler.is_idle:
            scheduler.wait(IDLE_LOOK_S)
        else:
            scheduler.turn()


def _details(setup: Setup) -> dict[str, Any]:
    return {"python": platform.python_version(), **vars(setup.device), **setup.recorded()}
