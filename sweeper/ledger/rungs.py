"""Rung scores: what trials had reached when they were judged, for their peers to be judged by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, bindparam, func, insert, select

from sweeper.ledger.rows import Peer, RungScore
from sweeper.ledger.schema import RungRow, TrialRow
from sweeper.records import TrialState

_ENTER = insert(RungRow)
_PEERS = (
    select(TrialRow.study_id, TrialRow.number, TrialRow.state, RungRow.epoch, RungRow.score)
    .outerjoin(RungRow, RungRow.trial_id == TrialRow.id)
    .where(TrialRow.study_id.in_(bindparam("studies", expanding=True)), TrialRow.number >= bindparam("first"))
    .order_by(TrialRow.study_id, TrialRow.number, RungRow.attempt)
)

last_epoch = (
    select(func.max(RungRow.epoch))
    .where(RungRow.trial_id == TrialRow.id, RungRow.attempt == TrialRow.attempt)
    .correlate(TrialRow)
    .scalar_subquery()
)
"""The epoch of a trial's latest rung score, as a column beside those of `TrialRow`."""


def enter(connection: Connection, scores: Sequence[RungScore]) -> None:
    """Keep rung scores of claimed trials, each of them once."""
    rows = [
        {
            "trial_id": one.claimed.trial_id,
            "attempt": one.claimed.attempt,
            "epoch": one.epoch,
            "score": one.score,
        }
        for one in scores
    ]
    if rows:
        connection.execute(_ENTER, rows)


def peers(connection: Connection, study_ids: Iterable[int], first: int = 0) -> list[Peer]:
    """The trials of some studies from a number on, whatever their state, with their rung scores so far."""
    found: dict[tuple[int, int], tuple[str, dict[int, float]]] = {}
    for study_id, number, state, epoch, score in connection.execute(
        _PEERS, {"studies": list(study_ids), "first": first}
    ):
        scores = found.setdefault((study_id, number), (state, {}))[1]
        if epoch is not None:
            scores[epoch] = score  # a later attempt's after an earlier one's
    return [Peer(study_id, number, TrialState(state), scores) for (study_id, number), (state, scores) in found.items()]
