"""What a sweep's time went into: what its trials are charged, attempt by attempt, beside what its workers report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, case, func, null, select

from sweeper.ledger.schema import COST_COLUMNS, AttemptRow, StudyRow, TrialRow, WorkerTimeRow
from sweeper.records import Cost


@dataclass(frozen=True)
class Charged:
    """What the attempts of one space that ended in one way are charged.

    Attributes:
        state: how they ended: a TrialState, RELEASED, LOST or SUPERSEDED.
        attempts: how many.
        cost: their sum.
    """

    space: str
    state: str
    attempts: int
    cost: Cost


def charged(connection: Connection, sweep_id: int) -> list[Charged]:
    """Every attempt of a sweep, by space in the order of their launch and by how it ended."""
    names = [name for name in COST_COLUMNS if name != "joules"]
    sums = [func.sum(getattr(AttemptRow, name)) for name in names]
    unmeasured = and_(AttemptRow.joules.is_(None), AttemptRow.train_s + AttemptRow.evaluate_s > 0)
    joules = case((func.sum(case((unmeasured, 1), else_=0)) > 0, null()), else_=func.sum(AttemptRow.joules))
    query = (
        select(StudyRow.space, AttemptRow.state, func.count(), joules, *sums)
        .join(TrialRow, TrialRow.id == AttemptRow.trial_id)
        .join(StudyRow, StudyRow.id == TrialRow.study_id)
        .where(StudyRow.sweep_id == sweep_id)
        .group_by(StudyRow.space, AttemptRow.state)
        .order_by(func.min(StudyRow.id), AttemptRow.state)
    )
    found = []
    for space, state, attempts, energy, *values in connection.execute(query):
        typed: dict[str, Any] = {
            name: float(value) if name.endswith("_s") else int(value) for name, value in zip(names, values, strict=True)
        }
        measured = None if energy is None else float(energy)
        found.append(Charged(space, state, attempts, Cost(**typed, joules=measured)))
    return found


def workers(connection: Connection, sweep_id: int) -> int:
    """How many workers worked on a sweep."""
    query = select(func.count(WorkerTimeRow.worker_id.distinct())).where(WorkerTimeRow.sweep_id == sweep_id)
    return connection.scalar(query) or 0
