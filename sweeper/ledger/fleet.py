"""The ledger's answers to what is going on now: who works on what, how fast, and what has come to a halt.

Nothing here looks at more rows than there are workers, running trials, and trials that ended within the last minute.
Leases are told by the server's clock; the minute is told by the workers' own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, func, select

from sweeper.ledger import workers
from sweeper.ledger.deliveries import REFUSALS
from sweeper.ledger.rows import Meter
from sweeper.ledger.schema import (
    AttemptRow,
    LeaseRow,
    OutboxRow,
    SweepRow,
    TrialRow,
    WorkerMeterRow,
    WorkerRow,
    clock,
)
from sweeper.records import TrialState

MINUTE_S = 60.0
SILENT_S = workers.LEASE_S / 2  # of a lease that is renewed four times in its span: two beats are missing
SETTLED = TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED
EXPORT = "export:"  # begins the names of the leases of those who deliver, see `courier`


class Life(StrEnum):
    """What a worker's lease says of it."""

    WORKS = "works"
    SILENT = "silent"
    DEAD = "dead"


@dataclass(frozen=True)
class Hand:
    """A worker that has not ended.

    Attributes:
        name: its host and pid.
        sweep: which it serves; None before it has begun.
        life: dead where its lease ran out, or its process lived where this one does and is gone: whoever works next
            takes over what it has in hand.
        lease_s: what is left of its lease; below zero since when it ran out.
        running: trials that it has in hand.
        trials_per_s: that it ended within the last minute, or since it began.
        occupancy: busy slot-steps over all slot-steps; None where it has trained nothing yet.
    """

    name: str
    device: str
    sweep: str | None
    life: Life
    lease_s: float
    running: int
    trials_per_s: float
    occupancy: float | None

    @property
    def is_stale(self) -> bool:
        """Whether it is dead and holds trials all the same."""
        return self.life is Life.DEAD and self.running > 0


@dataclass(frozen=True)
class Delivery:
    """How far a sweep's delivery to MLflow is behind.

    Attributes:
        oldest_s: for how long the oldest run that is still to be delivered has waited; None where none is.
        lease_s: what is left of the lease of the process that delivers; below zero since when it ran out, and the
            process with it; None where nobody delivers.
    """

    oldest_s: float | None
    lease_s: float | None

    @property
    def is_stale(self) -> bool:
        """Whether a process that was to deliver died over it."""
        return self.oldest_s is not None and self.lease_s is not None and self.lease_s < 0


def hands(connection: Connection, sweep_id: int | None = None) -> list[Hand]:
    """The workers of a sweep, or of all sweeps, in the order in which they came."""
    left = (workers.lease_end(connection) - clock(connection.dialect.name)).label("left")
    expired = (workers.lease_end(connection) < clock(connection.dialect.name)).label("expired")
    columns = WorkerRow.id, WorkerRow.host, WorkerRow.place, WorkerRow.pid, WorkerRow.process_started, WorkerRow.device
    meter = WorkerRow.started_at, WorkerMeterRow.busy_steps, WorkerMeterRow.slot_steps
    query = select(*columns, SweepRow.name.label("sweep"), *meter, left, expired).select_from(WorkerRow)
    query = query.outerjoin(WorkerMeterRow, WorkerMeterRow.worker_id == WorkerRow.id)
    query = query.outerjoin(SweepRow, SweepRow.id == WorkerMeterRow.sweep_id).where(WorkerRow.ended_at.is_(None))
    if sweep_id is not None:
        query = query.where(WorkerMeterRow.sweep_id == sweep_id)
    now, running = _now(connection), _running(connection)
    settled = _settled(connection, now)
    rows = connection.execute(query.order_by(WorkerRow.id)).all()
    return [_hand(row, running[row.id], settled[row.id] / _span_s(now, row.started_at)) for row in rows]


def trials_per_s(connection: Connection, sweep_id: int) -> float:
    """How many trials of a sweep ended per second within the last minute, or since its first worker began."""
    now = _now(connection)
    settled = _settled(connection, now)
    here = select(WorkerMeterRow.worker_id).where(WorkerMeterRow.sweep_id == sweep_id)
    count = sum(settled[id_] for id_ in connection.scalars(here.where(WorkerMeterRow.worker_id.in_(list(settled)))))
    first = select(func.min(WorkerRow.started_at)).join(WorkerMeterRow).where(WorkerMeterRow.sweep_id == sweep_id)
    return count / _span_s(now, connection.scalar(first)) if count else 0.0


def delivery(connection: Connection, sweep_id: int) -> Delivery:
    """How far a sweep's delivery to MLflow is behind."""
    waiting = OutboxRow.sweep_id == sweep_id, OutboxRow.delivered_at.is_(None), OutboxRow.refusals < REFUSALS
    oldest = connection.scalar(select(OutboxRow.created_at).where(*waiting).order_by(OutboxRow.id).limit(1))
    left = select(LeaseRow.until - clock(connection.dialect.name)).where(
        LeaseRow.name == f"{EXPORT}{sweep_id}", LeaseRow.until > 0
    )
    age = None if oldest is None else max(0.0, (_now(connection) - oldest).total_seconds())
    return Delivery(age, connection.scalar(left))


def _running(connection: Connection) -> Counter[int]:
    """How many trials each worker has in hand."""
    counts = select(TrialRow.worker_id, func.count()).where(TrialRow.state == TrialState.RUNNING)
    return _counted(connection.execute(counts.group_by(TrialRow.worker_id)).all())


def _settled(connection: Connection, now: datetime) -> Counter[int]:
    """How many trials each worker, also one that has ended since, ended within the last minute."""
    span = AttemptRow.ended_at >= now - timedelta(seconds=MINUTE_S), AttemptRow.ended_at <= now
    counts = select(AttemptRow.worker_id, func.count()).where(*span, AttemptRow.state.in_(SETTLED))
    return _counted(connection.execute(counts.group_by(AttemptRow.worker_id)).all())


def _counted(rows: Sequence[Any]) -> Counter[int]:
    return Counter({row[0]: row[1] for row in rows})


def _now(connection: Connection) -> datetime:
    """The server's time."""
    return datetime.fromtimestamp(float(connection.scalar(select(clock(connection.dialect.name))) or 0.0), UTC)


def _span_s(now: datetime, began: datetime | None) -> float:
    """The minute, or what has passed of it since something began; a second at least."""
    passed_s = MINUTE_S if began is None else (now - began).total_seconds()
    return min(MINUTE_S, max(1.0, passed_s))


def _hand(row: Any, running: int, trials_per_s: float) -> Hand:
    life = Life.DEAD if workers.is_dead(row) else Life.SILENT if row.left < SILENT_S else Life.WORKS
    occupancy = Meter(row.busy_steps, row.slot_steps).occupancy if row.slot_steps else None
    name, left = f"{row.host}:{row.pid}", float(row.left)
    return Hand(name, row.device, row.sweep, life, left, running, trials_per_s, occupancy)
