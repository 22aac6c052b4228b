"""What a worker and the ledger tell each other in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sweeper.ledger.rows import Claimed, History, NewTrial, RungScore, Settlement
from sweeper.scheduler.cases import Case


class News(NamedTuple):
    """What the ledger is to keep."""

    over: Sequence[Case]
    settlements: Sequence[Settlement]
    reached: Sequence[RungScore]
    proposed: Sequence[NewTrial] = ()


class Answer(NamedTuple):
    """What comes of it: whether the results were too late; else what to train next, and this worker's studies.

    `history` is of those studies that are new to it, as many as are taken on at once.
    """

    is_late: bool
    claimed: Sequence[Claimed] = ()
    mine: Sequence[int] = ()
    history: History = History()
