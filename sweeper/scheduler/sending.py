"""A worker's transaction on its way to the store, which may be away while the engine trains on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sweeper.errors import StoreAwayError
from sweeper.ledger.store import Promise
from sweeper.scheduler.exchange import Answer, News

FIRST_S, LONGEST_S = 0.05, 5.0
PATIENT = 4.0  # a try that took so long is followed by this many times as long without one


@dataclass
class Sending:
    """One transaction until it is kept.

    Attributes:
        news: what it tells the store.
        promise: the transaction.
        answer: what came of it; None until it is kept.
        took_s: seconds of the try that was kept, or of the last one.
    """

    news: News
    promise: Promise[Answer]
    answer: Answer | None = None
    took_s: float = 0.0
    error: StoreAwayError | None = None
    _pause_s: float = FIRST_S
    _due: float = 0.0
    _since: float = field(default_factory=time.monotonic)

    @property
    def is_due(self) -> bool:
        """Whether to try again by now."""
        return time.monotonic() >= self._due

    @property
    def away_s(self) -> float:
        """For how long the store has been away."""
        return time.monotonic() - self._since if self.error else 0.0

    def is_kept(self) -> bool:
        """Try; whether the store has kept it."""
        began = time.perf_counter()
        try:
            self.answer = self.promise.tried()
        except StoreAwayError as error:
            self.error = error
        self.took_s = time.perf_counter() - began
        if self.answer is None:
            self._due = time.monotonic() + max(self._pause_s, PATIENT * self.took_s)
            self._pause_s = min(2 * self._pause_s, LONGEST_S)
        return self.answer is not None
