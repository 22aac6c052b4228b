"""A worker's part in a sweep that several workers share: which studies it proposes for.

Studies are shared out evenly, and anew from time to time: a worker that joins gets its part, and so does one that has
nothing left while others have. A study that changes hands takes its history along; trials of it that are under way stay
where they are, and its new proposer reads in the ledger how they end.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import partial

from sweeper.ledger import trials, workers
from sweeper.ledger.rows import PastTrial
from sweeper.ledger.store import Connection, Ledger
from sweeper.scheduler.cases import Case
from sweeper.scheduler.desks import Desks

SHARE_S = 1.0


class Part:
    """What one worker has of a sweep.

    Args:
        sweep_id: which sweep.
        worker_id: whose part.
        desks: where it proposes.
    """

    def __init__(self, sweep_id: int, worker_id: int, desks: Desks) -> None:
        self._sweep, self._worker, self._desks = sweep_id, worker_id, desks
        self._share, self._shared_at = workers.Share([], 0, 1), 0.0
        self._has_met_others = False

    @property
    def crowd(self) -> int:
        """How many workers live on what this one proposes."""
        return self._share.crowd

    @property
    def is_due(self) -> bool:
        """Whether the studies were last shared a while ago."""
        return time.perf_counter() - self._shared_at >= SHARE_S

    def take(self, connection: Connection) -> list[int]:
        """Take this worker's share; returns the ids of all its studies."""
        self._share = workers.share_studies(connection, self._sweep, self._worker)
        self._shared_at = time.perf_counter()
        self._has_met_others = self._has_met_others or self._share.colleagues > 0
        return self._share.studies

    def ended_elsewhere(self, ledger: Ledger, cases: Iterable[Case]) -> list[PastTrial]:
        """What the ledger knows of trials that this worker proposed and others may train.

        Args:
            ledger: the store.
            cases: what this worker trains itself.
        """
        away = self._desks.away(cases) if self._has_met_others else {}
        if not away:
            return []
        first = min(number for numbers in away.values() for number in numbers)
        return ledger.ask(partial(trials.past, study_ids=sorted(away), first=first))
