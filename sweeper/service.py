"""A worker that stays and serves every open sweep of a store, a fair share of its time each.

Workers spread by themselves: whoever is free goes to the sweep with the fewest, stays for a quantum, and moves on where
another sweep has fewer workers than its own. So one worker takes turns, two take a sweep each, and nobody moves without
need. Moving is what an interrupted worker does: what is under way is saved and released, and whoever comes next goes on
with it, bit for bit.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from sweeper.calibration import Setup
from sweeper.engine import let_go_of_memory, use_threads
from sweeper.errors import LedgerError, OutdatedError, StoreAwayError, SweepChangedError, SweeperError
from sweeper.ledger import retries, seats, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.seats import Demand
from sweeper.ledger.store import Connection, Ledger
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending, StopRequest

QUANTUM_S = 60.0  # that a worker stays at a sweep at least; a move costs a checkpoint, and perhaps a calibration
JITTER = 0.1  # of the quantum, either way: workers that began together don't move in step
LOOK_S = 1.0  # between two looks for work of a worker that has none
AGAIN_S = 5.0  # between two looks of one that has been at a sweep for a quantum
ALONE_S = 600.0  # that a sweep is let alone which this worker can't serve
MOST_KEPT = {"cpu": 4, "cuda": 1}  # sweeps whose engines stay in memory: coming back to one of them takes no time


def choose(demands: Sequence[Demand], here: int | None = None) -> int | None:
    """The sweep that a worker is to serve: the one with the fewest others, and of those the one served least recently.

    Args:
        demands: the sweeps with work left that it can serve.
        here: the one that it serves; it goes elsewhere only where there are fewer than here, itself counted.

    Returns:
        The sweep's id; None where there is nothing to serve.
    """
    at = next((one for one in demands if one.sweep_id == here), None)
    others = [one for one in demands if one.sweep_id != here]
    best = min(others, key=lambda one: (one.workers, one.served, one.sweep_id), default=None)
    if best is None or (at is not None and best.workers >= at.workers + 1):
        return None if at is None else at.sweep_id
    return best.sweep_id


@dataclass
class Memory:
    """The engines of the sweeps that were served last, ready to go on."""

    _kept: OrderedDict[tuple[int, str], Setup] = field(default_factory=OrderedDict)

    def recall(self, sweep: Sweep) -> Setup | None:
        """What is ready for a sweep as its file is now."""
        setup = self._kept.get(_key(sweep))
        if setup is not None:
            self._kept.move_to_end(_key(sweep))
            use_threads(setup.device.threads)  # the other sweep's were the process's
        return setup

    def keep(self, sweep: Sweep, setup: Setup) -> None:
        """Remember what was made ready."""
        self._kept[_key(sweep)] = setup

    def make_room(self) -> None:
        """Forget those that were served longest ago, so that another fits beside the rest."""
        while self._kept and len(self._kept) >= MOST_KEPT[next(iter(self._kept.values())).device.kind]:
            self._forget(next(iter(self._kept)))

    def forget(self, sweep: Sweep) -> None:
        """Forget a sweep, whatever its file was."""
        for key in [key for key in self._kept if key[0] == sweep.id]:
            self._forget(key)

    def _forget(self, key: tuple[int, str]) -> None:
        device = str(self._kept.pop(key).engine.device)
        let_go_of_memory(device)


def _key(sweep: Sweep) -> tuple[int, str]:
    return sweep.id, sweep.file_text


@dataclass(frozen=True)
class Rest:
    """Until when a sweep is let alone, unless its file changes before."""

    file_text: str
    until: float


@dataclass
class Service:
    """One worker's rounds.

    Attributes:
        ledger: the store.
        prepare: makes a sweep concrete and its engine ready; raises a SweeperError where this worker can't.
        work: works on a sweep until it ends or the last argument says that the worker is wanted elsewhere.
        say: tells the user something.
        stop: asks for an end.
        bound: the name of the only sweep to serve; None serves all.
        until_done: end when nothing is left to do, instead of waiting for more.
        quantum_s: see QUANTUM_S.
        problems: why sweeps can't be served here, by their ids.
    """

    ledger: Ledger
    prepare: Callable[[Sweep, Timesheet], Setup]
    work: Callable[[Sweep, Setup, Timesheet, Callable[[], bool]], Ending]
    say: Callable[[str], None]
    stop: StopRequest
    bound: str | None = None
    until_done: bool = False
    quantum_s: float = QUANTUM_S
    problems: dict[int, str] = field(default_factory=dict)
    _memory: Memory = field(default_factory=Memory)
    _done: dict[int, int] = field(default_factory=dict)
    _rests: dict[int, Rest] = field(default_factory=dict)
    _next: int | None = None
    _waits: bool = False

    def serve(self) -> Ending:
        """Serve until told to end, or until nothing is left to do where that is wanted.

        Raises:
            SweeperError: the only sweep can't be served, or the store fails.
        """
        self.ledger.patience_s, self.ledger.is_hurried = retries.PATIENCE_S, lambda: bool(self.stop)
        try:
            return self._serve_one(self.bound) if self.bound else self._serve_all()
        finally:
            with suppress(LedgerError):  # a seat that stays runs out by itself
                self.ledger.keep(seats.stand_up)

    def _serve_one(self, name: str) -> Ending:
        while not self.stop:
            with self.ledger.read() as connection:
                sweep = sweeps.find(connection, name)
            self.ledger.keep(partial(seats.sit, sweep_id=sweep.id))
            try:
                return self._visit(sweep, lambda: False)
            except OutdatedError as error:
                self._begin_anew(sweep, error)
        return Ending.INTERRUPTED

    def _serve_all(self) -> Ending:
        while not self.stop:
            sweep = self._seated()
            if sweep is not None:
                self._waits = False
                self._try(sweep)
            elif self.until_done:
                self.say("nothing is left to do" + (" here" if self.problems else ""))
                return Ending.DONE
            else:
                self._wait()
        return Ending.INTERRUPTED

    def _wait(self) -> None:
        if not self._waits:
            self.ledger.keep(seats.stand_up)
            self.say(f"waiting for sweeps at {self.ledger.masked_url}; launch one with: sweeper launch FILE")
        self._waits = True
        self.stop.wait(LOOK_S)

    # a sweep --------------------------------------------------------------------------------------------------------

    def _try(self, sweep: Sweep) -> None:
        """Serve a sweep for a while; what is in the way of that is no end."""
        try:
            ending = self._visit(sweep, self._turn(sweep))
        except OutdatedError as error:
            self._begin_anew(sweep, error)
        except SweeperError as error:
            if isinstance(error, LedgerError) and not isinstance(error, SweepChangedError):
                raise  # the store's trouble is every sweep's
            self._memory.forget(sweep)
            self._let_alone(sweep, str(error))
        else:
            self.problems.pop(sweep.id, None)
            if ending not in (Ending.MOVED, Ending.STOPPED, Ending.INTERRUPTED):  # it has nothing left for anybody
                self._rests[sweep.id] = Rest(sweep.file_text, time.monotonic() + ALONE_S)

    def _visit(self, sweep: Sweep, is_wanted_elsewhere: Callable[[], bool]) -> Ending:
        times, setup = Timesheet(), self._memory.recall(sweep)
        if setup is None:
            self._memory.make_room()
            setup = self.prepare(sweep, times)
            self._memory.keep(sweep, setup)
        return self.work(sweep, setup, times, is_wanted_elsewhere)

    def _begin_anew(self, sweep: Sweep, error: OutdatedError) -> None:
        self._memory.forget(sweep)
        self.say(f"{sweep.name}: {str(error).partition('. ')[0]}. This worker goes on with what the store has now.")

    def _let_alone(self, sweep: Sweep, why: str) -> None:
        self._rests[sweep.id] = Rest(sweep.file_text, time.monotonic() + ALONE_S)
        if self.problems.get(sweep.id) != why:
            self.say(
                f"{sweep.name} can't be served here: {why}\nIt is let alone until its file changes, or for "
                f"{ALONE_S / 60:.0f} minutes."
            )
        self.problems[sweep.id] = why

    # where to go ----------------------------------------------------------------------------------------------------

    def _seated(self) -> Sweep | None:
        """The sweep that this process is to serve next."""
        sweep_id, self._next = self._next, None
        if sweep_id is None and self.ledger.ask(self._wanted):  # who waits only reads
            sweep_id = self.ledger.keep(partial(self._sit, here=None))
        if sweep_id is None:
            return None
        with self.ledger.read() as connection:
            return sweeps.by_id(connection, sweep_id)

    def _sit(self, connection: Connection, here: int | None) -> int | None:
        """Choose, and say so in the store; returns the sweep, `here` where there is no need to move."""
        seats.one_by_one(connection)
        chosen = choose(seats.demands(connection, self._wanted(connection)), here)
        if chosen is not None and chosen != here:
            seats.sit(connection, chosen)
        return chosen

    def _wanted(self, connection: Connection) -> list[int]:
        """The sweeps with work left for this worker; one that is done stays so for as long as it is not extended."""
        planned = seats.planned(connection)
        asked = [sweep_id for sweep_id, trials in planned.items() if self._done.get(sweep_id) != trials]
        self._done |= {sweep_id: planned[sweep_id] for sweep_id in asked if seats.is_done(connection, sweep_id)}
        unfinished = [sweep_id for sweep_id in asked if self._done.get(sweep_id) != planned[sweep_id]]
        return [sweep_id for sweep_id in unfinished if not self._rests_from(connection, sweep_id)]

    def _rests_from(self, connection: Connection, sweep_id: int) -> bool:
        rest = self._rests.get(sweep_id)
        if rest is None or time.monotonic() > rest.until:
            return False
        sweep = sweeps.by_id(connection, sweep_id)
        return sweep is not None and sweep.file_text == rest.file_text

    def _turn(self, sweep: Sweep) -> Callable[[], bool]:
        """Says, when a worker has been at a sweep for a quantum or so, whether another is in greater need of it."""
        due: float | None = None

        def is_wanted_elsewhere() -> bool:
            nonlocal due
            if due is None:  # nothing was trained yet
                due = time.monotonic() + self.quantum_s * random.uniform(1 - JITTER, 1 + JITTER)
                return False
            if time.monotonic() < due:
                return False
            due = time.monotonic() + min(AGAIN_S, self.quantum_s)
            with suppress(StoreAwayError), self.ledger.at_once() as connection:  # nobody moves while the store is away
                chosen = self._sit(connection, sweep.id)
                self._next = chosen if chosen != sweep.id else None
            return self._next is not None

        return is_wanted_elsewhere
