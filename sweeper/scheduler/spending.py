"""A worker keeps to its sweep's budget: before a tick it asks the ledger for what it was not granted yet.

Where a sweep has no budget, there is nothing of this but a question that is answered at once. Where the store is away,
a worker goes on with what it was granted, and then waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from sweeper.engine import Engine
from sweeper.errors import EngineError, StoreAwayError
from sweeper.ledger import budgets, deliveries, reads, sweeps, workers
from sweeper.ledger.budgets import Amount
from sweeper.ledger.store import Connection, Ledger
from sweeper.letters import spent_letter
from sweeper.scheduler import refusals
from sweeper.scheduler.books import Books
from sweeper.scheduler.purse import Purse, Share, Verdict

WAIT_S = 0.25  # before a worker asks again for what others hold

T = TypeVar("T")


class Spending:
    """What one worker spends of one sweep's budget.

    Args:
        ledger: the store.
        books: the worker's.
        engine: that trains the fits.
        tick_s: seconds that a tick with all slots takes, as far as is known before there was one.
    """

    def __init__(self, ledger: Ledger, books: Books, engine: Engine, tick_s: float) -> None:
        self._ledger, self._books, self._engine = ledger, books, engine
        self._sweep, self._worker = books.sweep, books.worker
        self._limit, self._before = budgets.limit_of(books.sweep.config), Amount()
        self._purse = Purse(Amount(tick_s), engine.slots) if self._limit != budgets.UNLIMITED else None

    @property
    def is_over(self) -> bool:
        """Whether not even a tick can be paid for any more."""
        return self._purse is not None and self._purse.verdict is Verdict.SPENT

    def may_begin(self) -> bool:
        """Whether there is anything to spend, so that trials may be claimed."""
        return self._purse is None or self._purse.verdict is Verdict.GO_ON or self._has_asked(self._purse, 1)

    def has_room(self, *, may_ask: bool) -> bool:
        """Whether a tick may begin. Where others hold what it takes, this waits for a while.

        Args:
            may_ask: whether the store is there to be asked for more.
        """
        fits = self._engine.slots - self._engine.free
        if self._purse is None or self._purse.has_room(self._spent, fits):
            return True
        return may_ask and self._has_asked(self._purse, fits)

    def enter_tick(self, fits: int) -> None:
        """Note a tick with so many fits, once it is in the books.

        Raises:
            EngineError: energy is what the budget is in, and it could not be measured.
        """
        if self._purse is None:
            return
        if not self._is_measured:
            raise EngineError(
                f"the energy of this worker's device can't be measured any more, and the sweep {self._sweep.name!r} "
                "has a budget of joules (search.budget.joules). Nothing is lost. Go on where it can be measured: "
                f"sweeper resume {self._sweep.name}"
            )
        spent = self._spent
        self._purse.enter(spent - self._before, fits)
        self._before = spent

    def give_back(self) -> None:
        """Let others have what was granted and not spent: this worker has nothing to train."""
        if self._purse is not None and self._purse.give_back():
            self._tried(self._returned)

    def settle_up(self, connection: Connection) -> None:
        """Give back what is left, at the worker's end; where it pays for no tick, that is the sweep's end for now."""
        if self._purse is None:
            return
        sweeps.lock(connection, self._sweep.id)
        standing = budgets.standing(connection, self._sweep.id, self._worker)
        self._drop(connection)
        is_spent = self._purse.share(standing, self._spent, 1).verdict is Verdict.SPENT
        if is_spent and standing.unused == Amount():  # else it is for those who hold that to say
            self._close_sweep(connection)

    def _close_sweep(self, connection: Connection) -> None:
        progress = reads.progress(connection, self._sweep.id)
        is_open = sweeps.state_of(connection, self._sweep.id) == sweeps.OPEN
        if not is_open or all(space.is_complete for space in progress):
            return
        sweeps.set_state(connection, self._sweep.id, sweeps.SPENT)
        letter = spent_letter(self._sweep, progress, reads.total_cost(connection, self._sweep.id))
        deliveries.post(connection, self._sweep.id, [letter])

    def _has_asked(self, purse: Purse, fits: int) -> bool:
        """Ask for more; whether it was granted."""
        granted = self._tried(lambda connection: self._share(connection, purse, fits))
        if granted is not None:
            purse.take(granted)
        if granted is None or granted.verdict is Verdict.WAIT:
            with self._books.times.on("wait"):
                time.sleep(WAIT_S)
            if self._tried(self._books.bury_dead) is not None:  # who can give nothing back any more
                self._books.forget_handed_in()
        return granted is not None and granted.verdict is Verdict.GO_ON

    def _share(self, connection: Connection, purse: Purse, fits: int) -> Share:
        """The transaction in which a worker asks."""
        self._books.refuse_if_forgotten(connection)
        sweeps.lock(connection, self._sweep.id)
        if workers.has_ended(connection, self._worker):
            raise refusals.taken_over(self._sweep.name)
        self._books.enter_times(connection)
        standing = budgets.standing(connection, self._sweep.id, self._worker)
        granted = purse.share(standing, self._spent, fits)
        budgets.set_grant(connection, self._worker, self._sweep.id, granted.until)
        return granted

    def _returned(self, connection: Connection) -> None:
        """The transaction in which a worker gives back; what it has spent is entered with that."""
        self._books.refuse_if_forgotten(connection)
        self._books.enter_times(connection)
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        if self._is_measured:  # else what was granted is all that is known of what was spent
            budgets.set_grant(connection, self._worker, self._sweep.id, self._spent)

    def _tried(self, act: Callable[[Connection], T]) -> T | None:
        """What a transaction that may well be kept twice answers; None where the store is away."""
        with self._books.times.on("storage"), suppress(StoreAwayError), self._ledger.at_once() as connection:
            return act(connection)
        return None

    @property
    def _spent(self) -> Amount:
        return budgets.spent_by(self._books.times, self._books.meter)

    @property
    def _is_measured(self) -> bool:
        meter = self._books.meter
        return math.isinf(self._limit.joules) or not meter.slot_steps or meter.joules is not None
