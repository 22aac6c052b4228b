"""Which sweep each process serves: what a worker that serves every sweep chooses by.

A seat says so from the moment of the choice, before anything is loaded or compiled; it is a row of the lease table, one
per process. Choosing and sitting down are one transaction, and one at a time: of two workers that come at once, the
second sees where the first went. Once a worker is registered its lease says that it lives, as it does of workers that
chose nothing, such as `sweeper run`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select

from sweeper.ledger import reads, sweeps, workers
from sweeper.ledger.schema import LeaseRow, StudyRow, SweepRow, WorkerMeterRow, WorkerRow, clock, upsert

SEAT_S = 300.0  # that choosing how to compute a sweep may take; after that the seat says nothing
_SEAT = "seat:"
_SEATING = 5_107_733_018_620_911_874  # PostgreSQL's advisory lock on who goes where: any number


@dataclass(frozen=True)
class Demand:
    """An open sweep in want of workers.

    Attributes:
        workers: how many other processes serve it.
        served: id of the last worker that began at it, 0 where none did: a clock that all machines share.
    """

    sweep_id: int
    workers: int = 0
    served: int = 0


def one_by_one(connection: Connection) -> None:
    """Until this transaction ends, nobody else chooses."""
    if connection.dialect.name == "postgresql":  # a writing transaction of SQLite's has the store to itself
        connection.execute(select(func.pg_advisory_xact_lock(_SEATING)))


def planned(connection: Connection) -> dict[int, int]:
    """How many trials each open sweep is to have, oldest first; those that it has already are counted in."""
    trials = select(SweepRow.id, func.sum(StudyRow.trials)).join(StudyRow).where(SweepRow.state == sweeps.OPEN)
    rows = connection.execute(trials.group_by(SweepRow.id).order_by(SweepRow.id))
    return {sweep_id: int(count) for sweep_id, count in rows}


def is_done(connection: Connection, sweep_id: int) -> bool:
    """Whether a sweep has all its trials."""
    return all(space.is_complete for space in reads.progress(connection, sweep_id))


def demands(connection: Connection, sweep_ids: Sequence[int]) -> list[Demand]:
    """Who serves some sweeps, and when they were served last."""
    if not sweep_ids:
        return []
    others, served = _others(connection), _served(connection, sweep_ids)
    return [Demand(sweep_id, others[sweep_id], served.get(sweep_id, 0)) for sweep_id in sweep_ids]


def sit(connection: Connection, sweep_id: int) -> None:
    """Enter which sweep this process serves from now on; seats that ran out are cleared away."""
    now = clock(connection.dialect.name)
    process, started = _this_process()
    connection.execute(delete(LeaseRow).where(LeaseRow.name.startswith(_SEAT), LeaseRow.until < now))
    seated = upsert(connection.dialect.name, LeaseRow, ("name",), ("owner", "until"))
    connection.execute(seated.values(name=_SEAT + process, owner=f"{sweep_id}/{started}", until=now + SEAT_S))


def stand_up(connection: Connection) -> None:
    """This process serves nothing."""
    connection.execute(delete(LeaseRow).where(LeaseRow.name == _SEAT + _this_process()[0]))


def _others(connection: Connection) -> Counter[int]:
    """How many other processes serve each sweep; one whose seat and worker differ is on its way to the seat."""
    serving = _at_work(connection) | _seated(connection)
    serving.pop(_this_process()[0], None)
    return Counter(serving.values())


def _seated(connection: Connection) -> dict[str, int]:
    """The sweeps of those who sit, by process."""
    seats = select(LeaseRow.name, LeaseRow.owner).where(LeaseRow.name.startswith(_SEAT))
    found = {}
    for name, owner in connection.execute(seats.where(LeaseRow.until >= clock(connection.dialect.name))):
        process, (sweep_id, started) = name.removeprefix(_SEAT), owner.split("/")
        if not workers.is_gone(f"{process}/{started}"):
            found[process] = int(sweep_id)
    return found


def _at_work(connection: Connection) -> dict[str, int]:
    """The sweeps of living workers, by process."""
    expired = (workers.lease_end(connection) < clock(connection.dialect.name)).label("expired")
    columns = WorkerRow.id, WorkerRow.place, WorkerRow.pid, WorkerRow.process_started, WorkerMeterRow.sweep_id, expired
    living = select(*columns).join(WorkerMeterRow).where(WorkerRow.ended_at.is_(None)).order_by(WorkerRow.id)
    rows = connection.execute(living).all()
    return {f"{row.place}/{row.pid}": row.sweep_id for row in rows if not workers.is_dead(row)}


def _served(connection: Connection, sweep_ids: Sequence[int]) -> dict[int, int]:
    """The last worker that began at each sweep."""
    last = select(WorkerMeterRow.sweep_id, func.max(WorkerMeterRow.worker_id)).group_by(WorkerMeterRow.sweep_id)
    rows = connection.execute(last.where(WorkerMeterRow.sweep_id.in_(sweep_ids)))
    return {row[0]: row[1] for row in rows}


def _this_process() -> tuple[str, str]:
    """Its name, and when it was started."""
    process, _, started = workers.this_process().rpartition("/")
    return process, started
