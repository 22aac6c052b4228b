"""A worker's part in a sweep that several workers share: which studies it proposes for.

Studies are shared out evenly, and anew from time to time: a worker that joins gets its part, and so does one that has
nothing left while others have. A study that changes hands takes its history along; trials of it that are under way stay
where they are, and its new proposer reads in the ledger how they end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from functools import partial

from sweeper.ledger import trials, workers
from sweeper.ledger.rows import History, PastTrial
from sweeper.ledger.store import Connection, Ledger
from sweeper.scheduler.cases import Case
from sweeper.scheduler.desks import Desks

SHARE_S = 1.0
CROWD = 8  # workers of one sweep, from which on each of them looks for studies and trials more rarely
AT_ONCE = 10_000  # trials that samplers are rebuilt from in one turn: about a second; the rest follows while it trains


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
        self._sought_at = -math.inf
        self._has_met_others = self._looks_anyway = self._is_behind = False

    @property
    def crowd(self) -> int:
        """How many workers live on what this one proposes."""
        return self._share.crowd

    @property
    def is_due(self) -> bool:
        """Whether the studies were last shared a while ago, or not all of it could be done then."""
        return self._is_behind or time.perf_counter() - self._shared_at >= SHARE_S * self.patience

    @property
    def seeks_dead(self) -> bool:
        """Whether a worker without a trial is to look for others that died: it asks the system for each of them."""
        return time.perf_counter() - self._sought_at >= SHARE_S * self.patience

    @property
    def patience(self) -> float:
        """How many times as long as one alone a worker is to wait before it looks again; of use to a crowd's store."""
        return max(1.0, (1 + self._share.colleagues) / CROWD)

    def take(self, connection: Connection) -> list[int]:
        """Take this worker's share; returns the ids of all its studies."""
        self._share = workers.share_studies(connection, self._sweep, self._worker)
        self._shared_at, self._is_behind = time.perf_counter(), not self._share.is_fair
        self._has_met_others = self._has_met_others or self._share.colleagues > 0
        return self._share.studies

    def take_anew(self, connection: Connection) -> list[int]:
        """As `take`, by a worker without a trial: next it looks at what became of all that it proposed."""
        self._looks_anyway = True
        if self.seeks_dead:
            self._sought_at = time.perf_counter()
        return self.take(connection)

    def history(self, connection: Connection, studies: Sequence[int]) -> History:
        """What proposing for these studies takes, or for as many of them as are taken on in one turn."""
        asked = trials.asked(connection, studies)
        if not self._desks.need_history:
            return History(asked, trials.past(connection, studies, unfinished=True))
        chosen: dict[int, int] = {}
        for id_, count in asked.items():
            if chosen and sum(chosen.values()) + count > AT_ONCE:
                break
            chosen[id_] = count
        self._is_behind |= len(chosen) < len(asked)
        return History(chosen, trials.past(connection, chosen))

    def ended_elsewhere(self, ledger: Ledger, cases: Iterable[Case]) -> list[PastTrial]:
        """What the ledger knows of trials that this worker proposed and others may train.

        Args:
            ledger: the store.
            cases: what this worker trains itself.

        Raises:
            StoreAwayError: it is away, and is not waited for.
        """
        away = self._desks.away(cases) if self._has_met_others or self._looks_anyway else {}
        found = ledger.ask(partial(trials.ended, numbers=away), waits=False) if away else []
        self._looks_anyway = False
        return found
