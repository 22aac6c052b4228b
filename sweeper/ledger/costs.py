"""What a sweep's time went into: what its trials are charged, attempt by attempt, beside what its workers report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, case, func, null, select

from sweeper.ledger.schema import COST_COLUMNS, AttemptRow, StudyRow, TrialRow, WorkerRow, WorkerTimeRow
from sweeper.records import Cost

SUM = "sum_"  # begins the names of the columns of `sums`


@dataclass(frozen=True)
class Charged:
    """What the attempts of one space that ended in one way are charged.

    Attributes:
        state: how they ended: a TrialState, RELEASED, LOST or SUPERSEDED.
        attempts: how many.
        cost: their sum.
        solo_s: device seconds that they would have taken one by one; None where a worker did not calibrate that.
    """

    space: str
    state: str
    attempts: int
    cost: Cost
    solo_s: float | None = None


def charged(connection: Connection, sweep_id: int) -> list[Charged]:
    """Every attempt of a sweep, by space in the order of their launch and by how it ended."""
    query = (
        select(StudyRow.space, AttemptRow.state, func.count(), solo(), *sums())
        .join(TrialRow, TrialRow.id == AttemptRow.trial_id)
        .join(StudyRow, StudyRow.id == TrialRow.study_id)
        .join(WorkerRow, WorkerRow.id == AttemptRow.worker_id)
        .where(StudyRow.sweep_id == sweep_id)
        .group_by(StudyRow.space, AttemptRow.state)
        .order_by(func.min(StudyRow.id), AttemptRow.state)
    )
    rows = connection.execute(query)
    return [Charged(space, state, count, summed(values), solo_s) for space, state, count, solo_s, *values in rows]


def workers(connection: Connection, sweep_id: int) -> int:
    """How many workers worked on a sweep."""
    query = select(func.count(WorkerTimeRow.worker_id.distinct())).where(WorkerTimeRow.sweep_id == sweep_id)
    return connection.scalar(query) or 0


def sums() -> list[Any]:
    """The cost of grouped attempts, column by column; energy only where all that used a device measured it."""
    unmeasured = and_(AttemptRow.joules.is_(None), AttemptRow.train_s + AttemptRow.evaluate_s > 0)
    totals = {name: func.coalesce(func.sum(getattr(AttemptRow, name)), 0) for name in COST_COLUMNS}
    totals["joules"] = unless_any(unmeasured, func.sum(AttemptRow.joules))
    return [total.label(f"{SUM}{name}") for name, total in totals.items()]


def solo() -> Any:
    """Device seconds of grouped attempts, had each trained alone, by the calibration of its worker."""
    per_step = WorkerRow.details["solo_step_s"].as_float()
    unmeasured = and_(per_step.is_(None), AttemptRow.steps > 0)
    return unless_any(unmeasured, func.coalesce(func.sum(AttemptRow.steps * per_step), 0.0)).label("solo_s")


def unless_any(unmeasured: Any, total: Any) -> Any:
    """A sum that is NULL where any of its rows was not measured."""
    return case((func.sum(case((unmeasured, 1), else_=0)) > 0, null()), else_=total)


def summed(values: Sequence[Any]) -> Cost:
    """What the columns of `sums` hold."""
    by_name = dict(zip(COST_COLUMNS, values, strict=True))
    joules = by_name.pop("joules")
    typed: dict[str, Any] = {n: float(v) if n.endswith("_s") else int(v) for n, v in by_name.items()}
    return Cost(**typed, joules=None if joules is None else float(joules))
