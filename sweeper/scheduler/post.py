"""What a worker has for the store, which may be away while the engine trains on.

One transaction at a time is on its way, and is tried until it is kept. What ends meanwhile waits for the next, and on
the local disk for the case that this worker dies.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

from sweeper.errors import StoreAwayError
from sweeper.ledger.rows import Settlement
from sweeper.ledger.store import Connection, Ledger
from sweeper.scheduler.cases import Case
from sweeper.scheduler.exchange import Answer, News
from sweeper.scheduler.sending import Sending
from sweeper.scheduler.spool import Spool
from sweeper.timesheet import Timesheet

REST_S = 0.25  # between two looks at a store that is away, with nothing left to train


class Post:
    """One worker's results on their way to the store.

    Args:
        ledger: the store.
        spool: where results wait that it can't take yet.
        times: the worker's timesheet.
        sweep: the sweep's unique name.
        worker: this worker in the ledger.
    """

    def __init__(self, ledger: Ledger, spool: Spool, times: Timesheet, sweep: str, worker: int) -> None:
        self._ledger, self._times = ledger, times
        self._leave_behind = partial(spool.keep, sweep, worker)
        self._take_back = partial(spool.forget, sweep)
        self._over: dict[Case, Settlement] = {}
        self._sending: Sending | None = None

    @property
    def over(self) -> bool:
        """Whether there are results for a transaction to come."""
        return bool(self._over)

    @property
    def is_empty(self) -> bool:
        """Whether the store knows all."""
        return not self._over and self._sending is None

    @property
    def is_under_way(self) -> bool:
        """Whether a transaction is not kept yet."""
        return self._sending is not None

    def add(self, case: Case, result: Settlement) -> None:
        """A trial is over."""
        self._over[case] = result
        if self._sending is not None:
            self._leave_behind([result])

    def collect(self) -> dict[Case, Settlement]:
        """All that is over, for a transaction."""
        over, self._over = self._over, {}
        return over

    def send(self, news: News, act: Callable[[Connection], Answer]) -> Sending | None:
        """Have the store keep it; None where the store is away, and `again` is to be called."""
        self._sending = Sending(news, self._ledger.promise(act))
        return self._tried(self._sending)

    def again(self) -> Sending | None:
        """Try what is under way again, if that is due; what was kept, or None."""
        return self._tried(self._sending) if self._sending is not None and self._sending.is_due else None

    def flush(self) -> Sending | None:
        """Wait for the store to keep what is under way, if anything is; returns it.

        Raises:
            StoreAwayError: it is away for longer than the ledger's patience.
        """
        kept = self._sending
        if kept is not None:
            with self._times.on("storage"), self._refusable():
                kept.answer = self._ledger.insist(kept.promise)
            self._kept(kept)
        return kept

    def last(self, news: News, act: Callable[[Connection], None]) -> None:
        """Have the store keep the last results, waiting for it; those that it can't take stay on the local disk.

        Raises:
            StoreAwayError: as `flush`.
        """
        try:
            with self._times.on("storage"):
                self._ledger.keep(act)
        except StoreAwayError:
            self._leave_behind(news.settlements)
            raise

    def rest(self) -> None:
        """Wait a little for the store: nothing is left to train.

        Raises:
            StoreAwayError: it has been away for longer than the ledger's patience.
        """
        sending = self._sending
        if sending is not None and sending.error is not None and sending.away_s >= self._ledger.patience_s:
            raise sending.error
        with self._times.on("wait"):
            time.sleep(REST_S)

    @contextmanager
    def _refusable(self) -> Iterator[None]:
        """What the store refuses for good is on its way no longer: this worker can still let go of what it has."""
        try:
            yield
        except StoreAwayError:
            raise
        except BaseException:
            self._sending = None
            raise

    def _tried(self, sending: Sending) -> Sending | None:
        is_first = sending.error is None
        with self._refusable():
            is_kept = sending.is_kept()
        self._times.add("storage", sending.took_s)
        if is_kept:
            self._kept(sending)
            return sending
        if is_first:
            with self._times.on("storage"):
                self._leave_behind([*sending.news.settlements, *self._over.values()])
        return None

    def _kept(self, sending: Sending) -> None:
        self._sending = None
        if sending.error is not None:
            with self._times.on("storage"), suppress(OSError):
                self._take_back(sending.news.settlements)
