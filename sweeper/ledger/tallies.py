"""What triggers have counted, study by study: answers that take no longer the more trials there are.

They are exact at every moment that a transaction sees (tests/ledger/test_tallies.py compares them with the rows).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, Connection, bindparam, func, select

from sweeper.ledger.rows import Finished
from sweeper.ledger.schema import COST_COLUMNS, AttemptRow, StudyRow, StudyTallyRow, TrialRow
from sweeper.records import Cost, TrialState


def _total(column: Any) -> ColumnElement[Any]:
    return func.coalesce(func.sum(column), 0)


finished = (
    select(_total(StudyTallyRow.complete + StudyTallyRow.failed + StudyTallyRow.pruned))
    .where(StudyTallyRow.study_id == StudyRow.id)
    .correlate(StudyRow)
    .scalar_subquery()
)
"""How many trials of a study need nothing more, as a column beside those of `StudyRow`."""

_ENDS = (
    _total(StudyTallyRow.complete),
    _total(StudyTallyRow.failed),
    _total(StudyTallyRow.pruned),
    func.min(StudyTallyRow.best_validation_loss),
)
_IN_SWEEP = StudyRow.sweep_id == bindparam("sweep")
_AMONG = StudyRow.id.in_(bindparam("studies", expanding=True))
_BY_SPACE = select(StudyRow.space, *_ENDS).join(StudyTallyRow).where(_IN_SWEEP).group_by(StudyRow.space)
_BY_STUDY = select(StudyRow.id, *_ENDS).join(StudyTallyRow).where(_AMONG).group_by(StudyRow.id)
_RUNNING = select(func.count()).where(TrialRow.study_id == StudyRow.id, TrialRow.state == TrialState.RUNNING)
_PERHAPS_COMPLETE = (
    select(StudyRow.id)
    .where(_AMONG, StudyRow.trials <= finished + _RUNNING.correlate(StudyRow).scalar_subquery())
    .order_by(StudyRow.id)
)
_COSTS = tuple(getattr(StudyTallyRow, name) for name in COST_COLUMNS)
_SPENT = (
    select(*map(_total, (StudyTallyRow.measured, StudyTallyRow.unmeasured, *_COSTS)))
    .join(StudyRow, StudyRow.id == StudyTallyRow.study_id)
    .where(_IN_SWEEP)
    .group_by(StudyRow.id)
)
_SUGGESTED = (  # attempts under way have cost nothing else yet
    select(_total(AttemptRow.suggest_s))
    .join(TrialRow, TrialRow.id == AttemptRow.trial_id)
    .join(StudyRow)
    .where(_IN_SWEEP, TrialRow.state == TrialState.RUNNING, AttemptRow.ended_at.is_(None))
)


def by_space(connection: Connection, sweep_id: int) -> dict[str, Finished]:
    """The finished trials of a sweep, by space; spaces without any may be missing."""
    return {name: _finished(*ends) for name, *ends in connection.execute(_BY_SPACE, {"sweep": sweep_id})}


def by_study(connection: Connection, study_ids: Iterable[int]) -> dict[int, Finished]:
    """The finished trials of some studies, by study; those without any may be missing."""
    return {id_: _finished(*ends) for id_, *ends in connection.execute(_BY_STUDY, {"studies": list(study_ids)})}


def perhaps_complete(connection: Connection, study_ids: Iterable[int]) -> list[int]:
    """Those of some studies whose trials are all finished or, as far as this transaction sees, under way."""
    return list(connection.scalars(_PERHAPS_COMPLETE, {"studies": list(study_ids)}))


def total_cost(connection: Connection, sweep_id: int) -> Cost:
    """All attempts of a sweep together, however they ended; energy only where all that used a device measured it."""
    studies = connection.execute(_SPENT, {"sweep": sweep_id}).all()  # added up here: SQLite's sums are of 64 bits
    totals: list[Any] = [sum(column) for column in zip(*studies, strict=True)] or [0] * (2 + len(COST_COLUMNS))
    measured, unmeasured, *values = totals
    spent = dict(zip(COST_COLUMNS, values, strict=True))
    joules = spent.pop("joules")
    spent["suggest_s"] += connection.scalar(_SUGGESTED, {"sweep": sweep_id}) or 0.0
    typed: dict[str, Any] = {name: float(v) if name.endswith("_s") else int(v) for name, v in spent.items()}
    return Cost(**typed, joules=float(joules) if measured and not unmeasured else None)


def _finished(complete: Any, failed: Any, pruned: Any, best: float | None) -> Finished:
    return Finished(int(complete), int(failed), int(pruned), best)  # PostgreSQL's sum of big integers is a decimal
