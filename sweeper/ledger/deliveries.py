"""The outbox: runs that MLflow is to be told of, written with what they tell and delivered by another process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, and_, bindparam, case, func, select, update

from sweeper.ledger.rows import Letter, Posted
from sweeper.ledger.schema import OutboxRow, upsert

REFUSALS = 5  # after which a run is parked, its error kept for the user to see
_WAITING = OutboxRow.delivered_at.is_(None), OutboxRow.refusals < REFUSALS


def post(connection: Connection, sweep_id: int, letters: Sequence[Letter]) -> None:
    """Put runs into the outbox; a run that is posted again with the same status is delivered again."""
    if not letters:
        return
    posted = upsert(connection.dialect.name, OutboxRow, ("uid", "status"), ("payload", "refusals", "delivered_at"))
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


def counts(connection: Connection, sweep_id: int) -> tuple[int, int, int]:
    """How many runs of a sweep MLflow has, and how many wait or are parked; a run that is posted twice is one run."""
    is_waiting = func.max(case((and_(*_WAITING), 1), else_=0)).label("is_waiting")
    is_open = func.max(case((OutboxRow.delivered_at.is_(None), 1), else_=0)).label("is_open")
    runs = select(is_waiting, is_open).where(OutboxRow.sweep_id == sweep_id).group_by(OutboxRow.uid).subquery()
    query = select(func.count(), func.sum(runs.c.is_open), func.sum(runs.c.is_waiting)).select_from(runs)
    total, undelivered, waiting = (int(value or 0) for value in connection.execute(query).one())
    return total - undelivered, waiting, undelivered - waiting
