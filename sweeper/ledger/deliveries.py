"""The outbox: runs that MLflow is to be told of, written with what they tell and delivered by another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, and_, bindparam, case, func, select, text, update

from sweeper.ledger.rows import Letter, Posted
from sweeper.ledger.schema import OutboxRow, OutboxTallyRow, upsert

RENEWED = "payload", "refusals", "delivered_at", "created_at"  # where a run is posted again
REFUSALS = 5  # after which a run is parked, its error kept for the user to see
_WAITING = OutboxRow.delivered_at.is_(None), OutboxRow.refusals < REFUSALS

_PARKED_NOW = OutboxRow.delivered_at.is_(None), OutboxRow.refusals >= REFUSALS

# Conditions as partial indexes have them, word for word: no database finds those by a parameter.
_BEGAN, _REFUSED = text("began.status = 'RUNNING'"), text("outbox.delivered_at IS NULL AND outbox.refusals > 0")
_BEGINNING = OutboxRow.__table__.alias("began").c
_ENDS = OutboxRow.status != "RUNNING"
_TALLIED = select(
    func.coalesce(func.sum(OutboxTallyRow.letters), 0), func.coalesce(func.sum(OutboxTallyRow.undelivered), 0)
).where(OutboxTallyRow.sweep_id == bindparam("sweep"))
_PARKED = (
    select(func.count())
    .select_from(OutboxRow)
    .where(OutboxRow.sweep_id == bindparam("sweep"), _REFUSED, _ENDS, *_PARKED_NOW)
)


def _has(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
    return func.max(case((and_(*conditions), 1), else_=0))


def _number(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
    return func.sum(case((and_(*conditions), 1), else_=0))


_BEGUN = (
    select(
        _has(OutboxRow.delivered_at.is_(None)).label("is_open"),
        _has(*_WAITING).label("is_waiting"),
        _number(_ENDS).label("ends"),
        _number(_ENDS, OutboxRow.delivered_at.is_(None)).label("open_ends"),
        _number(_ENDS, *_PARKED_NOW).label("parked_ends"),
    )
    .where(OutboxRow.uid.in_(select(_BEGINNING.uid).where(_BEGINNING.sweep_id == bindparam("sweep"), _BEGAN)))
    .group_by(OutboxRow.uid)
)


def post(connection: Connection, sweep_id: int, letters: Sequence[Letter]) -> None:
    """Put runs into the outbox; a run that is posted again with the same status is delivered again."""
    if not letters:
        return
    posted = upsert(connection.dialect.name, OutboxRow, ("uid", "status"), RENEWED)
    now = datetime.now(UTC)
    rows = [
        {
            "sweep_id": sweep_id,
            "uid": letter.uid,
            "status": letter.status,
            "payload": letter.payload,
            "attempts": 0,
            "refusals": 0,
            "created_at": now,
            "delivered_at": None,
        }
        for letter in letters
    ]
    connection.execute(posted, rows)


def take(connection: Connection, sweep_id: int, limit: int) -> list[Posted]:
    """The oldest undelivered runs, their `attempts` grown by one: parents were posted before their children."""
    query = select(OutboxRow.id, OutboxRow.attempts + 1, OutboxRow.payload)
    rows = connection.execute(
        query.where(OutboxRow.sweep_id == sweep_id, *_WAITING).order_by(OutboxRow.id).limit(limit)
    ).all()
    connection.execute(
        update(OutboxRow).where(OutboxRow.id.in_([row.id for row in rows])).values(attempts=OutboxRow.attempts + 1)
    )
    return [Posted(*row) for row in rows]


def record_delivered(connection: Connection, run_ids: Mapping[int, str]) -> None:
    """Enter under which run ids rows of the outbox stand in MLflow."""
    if not run_ids:
        return
    now = datetime.now(UTC)
    delivered = (
        update(OutboxRow)
        .where(OutboxRow.id == bindparam("row"))
        .values(run_id=bindparam("run"), delivered_at=bindparam("now"), error=None)
    )
    rows = [{"row": key, "run": run_id, "now": now} for key, run_id in run_ids.items()]
    connection.execute(delivered, rows)


def record_refused(connection: Connection, row_id: int, error: str) -> None:
    """Enter that MLflow refused a run, and why."""
    refused = update(OutboxRow).where(OutboxRow.id == row_id)
    connection.execute(refused.values(refusals=OutboxRow.refusals + 1, error=error))


def run_ids(connection: Connection, uids: Sequence[str]) -> dict[str, str]:
    """The MLflow run ids of those uids that were delivered before."""
    query = select(OutboxRow.uid, OutboxRow.run_id).where(OutboxRow.uid.in_(uids), OutboxRow.run_id.is_not(None))
    return {uid: run_id for uid, run_id in connection.execute(query) if run_id is not None}


def ended(connection: Connection, uids: Sequence[str]) -> set[str]:
    """Those of some runs whose end was posted, delivered or not."""
    return set(connection.scalars(select(OutboxRow.uid).where(OutboxRow.uid.in_(uids), _ENDS)))


def counts(connection: Connection, sweep_id: int) -> tuple[int, int, int]:
    """How many runs of a sweep MLflow has, and how many wait or are parked; a run that is posted twice is one run.

    A run is posted twice where it was posted as it began. Those, and parked ones, are few and looked at one by one; of
    all others `outbox_tally` has counted the letters.
    """
    here = {"sweep": sweep_id}
    letters, undelivered = connection.execute(_TALLIED, here).one()
    parked = connection.scalar(_PARKED, here) or 0
    begun = connection.execute(_BEGUN, here).all()
    runs = int(letters) - sum(run.ends for run in begun) + len(begun)
    open_runs = int(undelivered) - sum(run.open_ends for run in begun) + sum(run.is_open for run in begun)
    stuck = parked - sum(run.parked_ends for run in begun) + sum(run.is_open and not run.is_waiting for run in begun)
    return runs - open_runs, open_runs - stuck, stuck
