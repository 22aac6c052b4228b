"""Workers, their leases, and what happens to the trials of those that died.

A worker has one lease, by the server's clock; it covers the trials it runs and the studies it proposes for. A worker is
dead when it said so, when its lease ran out, or when it lived where this process lives and its process is gone: a sweep
that was killed goes on at once. No clock but the server's says so, whatever the clocks and time zones of the machines.

On PostgreSQL many of these transactions run at once. Each locks in one order, so that none waits for another that waits
for it: the sweep, workers, trials by id, attempts, then the share-out of studies. A worker holds its own row while it
writes: whoever would bury it passes it by, and it does not write what only a living one may.
"""

from __future__ import annotations

import os
import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Float,
    Update,
    bindparam,
    case,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)

from sweeper import machine
from sweeper.ledger import tallies
from sweeper.ledger.rows import Meter
from sweeper.ledger.schema import (
    AttemptRow,
    LeaseRow,
    StudyRow,
    TrialRow,
    WorkerMeterRow,
    WorkerRow,
    WorkerTimeRow,
    clock,
    upsert,
)
from sweeper.records import TrialState

LEASE_S = 120.0
RETURN_S = LEASE_S / 2  # that workers have to beat again after the server was away: their leases ran out meanwhile
LOST, RELEASED = "LOST", "RELEASED"
LOSSES = 5  # dead workers, after which a trial is trained alone; three more that die soon, and it has failed for good
SOON = timedelta(minutes=10)  # an attempt that lived longer moved on, if checkpoints are kept
SHARED_KINDS = ("train", "evaluate")  # what a worker's time and its attempts' costs both tell

_COMPANY = (
    select(TrialRow.id)
    .join(StudyRow)
    .where(
        TrialRow.state == TrialState.RUNNING,
        TrialRow.worker_id != bindparam("worker"),
        StudyRow.sweep_id == bindparam("sweep"),
    )
    .limit(1)
)

_COLLEAGUES = (
    select(WorkerMeterRow.worker_id)
    .join(WorkerRow)
    .where(
        WorkerMeterRow.sweep_id == bindparam("sweep"),
        WorkerMeterRow.worker_id != bindparam("worker"),
        WorkerRow.ended_at.is_(None),
    )
)
_SHARING = 5_107_733_018_620_911_873  # PostgreSQL's advisory lock on who proposes for which study: any number
_ENDED = select(WorkerRow.ended_at).where(WorkerRow.id == bindparam("worker")).with_for_update(read=True)
_UNFINISHED = (
    select(StudyRow.id, StudyRow.proposer_id)
    .where(StudyRow.sweep_id == bindparam("sweep"), StudyRow.trials > tallies.finished)
    .order_by(StudyRow.turn, StudyRow.id)
)


def register(connection: Connection, device: str, details: Mapping[str, Any]) -> int:
    """Enter this process as a worker with a fresh lease; returns its id."""
    values = {
        "host": socket.gethostname(),
        "place": machine.place(),
        "pid": os.getpid(),
        "process_started": machine.since_boot(os.getpid()),
        "device": device,
        "details": dict(details),
        "started_at": datetime.now(UTC),
        "lease_until": clock(connection.dialect.name) + LEASE_S,
    }
    return connection.execute(insert(WorkerRow).values(**values).returning(WorkerRow.id)).scalar_one()


def beat(connection: Connection, worker_id: int) -> None:
    """Renew a worker's lease."""
    connection.execute(beating(connection.dialect.name, worker_id))


def beating(dialect: str, worker_id: int) -> Update:
    """The statement that renews a worker's lease."""
    return update(WorkerRow).where(WorkerRow.id == worker_id).values(lease_until=clock(dialect) + LEASE_S)


def retire(connection: Connection, worker_id: int) -> None:
    """Enter that a worker has ended; its studies are free for others."""
    connection.execute(update(WorkerRow).where(WorkerRow.id == worker_id).values(ended_at=datetime.now(UTC)))
    _share_alone(connection)
    connection.execute(update(StudyRow).where(StudyRow.proposer_id == worker_id).values(proposer_id=None))


def has_ended(connection: Connection, worker_id: int) -> bool:
    """Whether a worker has retired, or was buried as dead while it only slept.

    Where it has not, nobody can bury it before this transaction ends.
    """
    return connection.scalar(_ENDED, {"worker": worker_id}) is not None


def has_company(connection: Connection, sweep_id: int, worker_id: int) -> bool:
    """Whether another worker trains a trial of a sweep."""
    return connection.scalar(_COMPANY, {"sweep": sweep_id, "worker": worker_id}) is not None


@dataclass(frozen=True)
class Share:
    """A worker's part in a sweep.

    Attributes:
        studies: ids of the unfinished ones that it proposes for.
        colleagues: how many others work on the sweep.
        crowd: how many workers live on what one of them proposes, at least 1.
        is_fair: False where it had to change, while another worker's was being changed: to be tried again soon.
    """

    studies: list[int]
    colleagues: int
    crowd: int
    is_fair: bool = True


def share_studies(connection: Connection, sweep_id: int, worker_id: int) -> Share:
    """Propose for a fair share of a sweep's unfinished studies: take what is free, let go of what is too much."""
    unfinished, colleagues, fair = _fair_share(connection, sweep_id, worker_id)
    mine = [study.id for study in unfinished if study.proposer_id == worker_id]
    free = [study.id for study in unfinished if study.proposer_id is None]
    is_fair = len(mine) == fair or (len(mine) < fair and not free)
    if not is_fair and _may_share(connection):
        mine, is_fair = _changed_hands(connection, sweep_id, worker_id), True
    crowd = -(-(colleagues + 1) // max(1, len(unfinished)))
    return Share(mine, colleagues, crowd, is_fair)


def _changed_hands(connection: Connection, sweep_id: int, worker_id: int) -> list[int]:
    """Let go of what is more than a worker's share, or take what is free up to it; returns the studies it has then."""
    unfinished, _, fair = _fair_share(connection, sweep_id, worker_id)
    mine = [study.id for study in unfinished if study.proposer_id == worker_id]
    free = [study.id for study in unfinished if study.proposer_id is None][: max(0, fair - len(mine))]
    for studies, proposer in ((mine[fair:], None), (free, worker_id)):
        if studies:
            connection.execute(update(StudyRow).where(StudyRow.id.in_(studies)).values(proposer_id=proposer))
    return (mine + free)[:fair]


def _fair_share(connection: Connection, sweep_id: int, worker_id: int) -> tuple[Sequence[Any], int, int]:
    """A sweep's unfinished studies, how many others work on it, and how many studies are this worker's due."""
    asked = {"sweep": sweep_id, "worker": worker_id}
    colleagues = connection.scalars(
        _COLLEAGUES.where(lease_end(connection) >= clock(connection.dialect.name)), asked
    ).all()
    unfinished = connection.execute(_UNFINISHED, asked).all()
    each, left_over = divmod(len(unfinished), len(colleagues) + 1)
    fair = each + (sum(other < worker_id for other in colleagues) < left_over)  # the oldest have one more
    return unfinished, len(colleagues), fair


def _may_share(connection: Connection) -> bool:
    """As `_share_alone`, unless another has the right to: a crowd that waited in line would do nothing else."""
    if connection.dialect.name != "postgresql":
        return True
    return bool(connection.scalar(select(func.pg_try_advisory_xact_lock(_SHARING))))


def _share_alone(connection: Connection) -> None:
    """Until this transaction ends, nobody else changes who proposes for which study."""
    if connection.dialect.name == "postgresql":  # a writing transaction of SQLite's has the store to itself
        connection.execute(select(func.pg_advisory_xact_lock(_SHARING)))


def bury_dead(connection: Connection) -> int:
    """Retire workers that died and put their trials back to WAITING, in the caller's transaction; returns how many."""
    suspects = [worker.id for worker in connection.execute(_living(connection)) if is_dead(worker)]
    if not suspects:
        return 0
    # Who holds its row is writing, or beating, or is being buried by another.
    unheld = _living(connection).where(WorkerRow.id.in_(suspects)).order_by(WorkerRow.id)
    unheld = unheld.with_for_update(of=WorkerRow, skip_locked=True, key_share=True)
    dead = [worker.id for worker in connection.execute(unheld) if is_dead(worker)]
    requeued = sum(give_back(connection, worker_id, LOST) for worker_id in dead)
    for worker_id in dead:
        retire(connection, worker_id)
    return requeued


def has_died(connection: Connection, worker_id: int) -> bool:
    """Whether a worker is dead, or was buried already; its process may leave results behind (`scheduler.spool`)."""
    found = connection.execute(_living(connection).where(WorkerRow.id == worker_id)).one_or_none()
    return found is None or is_dead(found)


def give_back(connection: Connection, worker_id: int, state: str) -> int:
    """Put a worker's running trials back to WAITING and close their attempts as `state`; returns how many.

    What the worker had spent on lost attempts is what its time rows hold beyond its settled ones; it is split evenly,
    anew where a worker that was taken for dead went on.
    """
    running = TrialRow.worker_id == worker_id, TrialRow.state == TrialState.RUNNING
    trials = connection.scalars(select(TrialRow.id).where(*running).order_by(TrialRow.id).with_for_update()).all()
    unfinished = AttemptRow.worker_id == worker_id, AttemptRow.ended_at.is_(None)
    waiting: dict[str, Any] = {"state": TrialState.WAITING, "worker_id": None, "started_at": None}
    if state == LOST:
        waiting |= _suspicion(connection.scalars(select(AttemptRow.started_at).where(*unfinished)).all())
        _share_out(connection, worker_id)
    connection.execute(update(AttemptRow).where(*unfinished).values(state=state, ended_at=datetime.now(UTC)))
    connection.execute(update(TrialRow).where(*running).values(**waiting))
    return len(trials)


def _suspicion(started: Sequence[datetime]) -> dict[str, Any]:
    """What is held against the trials of a worker that died, by when their attempts began.

    A machine that is taken back after an hour is nobody's fault; nor is anybody's what happened to several.
    """
    held: dict[str, Any] = {"losses": TrialRow.losses + 1}
    if len(started) == 1 and datetime.now(UTC) - started[0] < SOON:
        held["failures"] = TrialRow.failures + case((TrialRow.losses >= LOSSES, 1), else_=0)
    return held


def set_times(connection: Connection, worker_id: int, sweep_id: int, seconds: Mapping[str, float]) -> None:
    """Enter what a worker's time for a sweep has gone into so far, kind by kind."""
    entered = upsert(connection.dialect.name, WorkerTimeRow, ("worker_id", "sweep_id", "kind"), ("seconds",))
    rows = [
        {"worker_id": worker_id, "sweep_id": sweep_id, "kind": kind, "seconds": value}
        for kind, value in seconds.items()
    ]
    connection.execute(entered, rows)


def make_up_times(connection: Connection, worker_id: int, sweep_id: int) -> None:
    """Raise a dead worker's times to what its attempts cost: it died before it could enter the last of them."""
    costs = {kind: _settled(connection, worker_id, sweep_id, f"{kind}_s") for kind in SHARED_KINDS}
    more = {kind: cost for kind, cost in costs.items() if cost > _spent(connection, worker_id, sweep_id, kind)}
    if more:
        set_times(connection, worker_id, sweep_id, more)


def set_meter(connection: Connection, worker_id: int, sweep_id: int, meter: Meter) -> None:
    """Enter what the slots of a worker's engine have done for a sweep so far."""
    columns = tuple(Meter.__dataclass_fields__)
    entered = upsert(connection.dialect.name, WorkerMeterRow, ("worker_id", "sweep_id"), columns)
    connection.execute(entered, {"worker_id": worker_id, "sweep_id": sweep_id, **asdict(meter)})


def take_lease(connection: Connection, name: str, owner: str, seconds: float) -> bool:
    """Take or renew a named lease; False while another owner's has not run out."""
    now = clock(connection.dialect.name)
    holder = connection.scalar(select(LeaseRow.owner).where(LeaseRow.name == name))
    gone = holder is not None and is_gone(holder)
    free = or_(LeaseRow.owner == owner, LeaseRow.until < now, LeaseRow.owner == (holder if gone else owner))
    taken = connection.execute(
        update(LeaseRow).where(LeaseRow.name == name, free).values(owner=owner, until=now + seconds)
    )
    if taken.rowcount:
        return True
    first = upsert(connection.dialect.name, LeaseRow, ("name",), ())
    entered = first.values(name=name, owner=owner, until=now + seconds).returning(LeaseRow.name)
    return connection.scalar(entered) is not None


def keep_lease(connection: Connection, name: str, owner: str, seconds: float) -> bool:
    """Renew a named lease; False where it ran out, so that another may have had it since, or has it."""
    now = clock(connection.dialect.name)
    held = update(LeaseRow).where(LeaseRow.name == name, LeaseRow.owner == owner, LeaseRow.until >= now)
    return bool(connection.execute(held.values(until=now + seconds)).rowcount)


def this_process() -> str:
    """A lease's owner: this process, by place, pid and start."""
    return f"{machine.place()}/{os.getpid()}/{machine.since_boot(os.getpid())}"


def is_gone(owner: str) -> bool:
    """Whether a process, as `this_process` tells it, lived where this one does and lives no more."""
    place, pid, started = owner.rsplit("/", 2)
    return place == machine.place() and not machine.is_alive(int(pid), float(started))


def drop_lease(connection: Connection, name: str, owner: str) -> None:
    """Let go of a named lease."""
    connection.execute(update(LeaseRow).where(LeaseRow.name == name, LeaseRow.owner == owner).values(until=0.0))


def _living(connection: Connection) -> Any:
    """Workers that have not ended, and those that went on after they were taken for dead."""
    expired = (lease_end(connection) < clock(connection.dialect.name)).label("expired")
    query = select(WorkerRow.id, WorkerRow.place, WorkerRow.pid, WorkerRow.process_started, expired)
    running = select(TrialRow.worker_id).where(TrialRow.state == TrialState.RUNNING)
    proposing = select(StudyRow.proposer_id).where(StudyRow.proposer_id.is_not(None))
    holds = WorkerRow.id.in_(running) | WorkerRow.id.in_(proposing)
    return query.where(WorkerRow.ended_at.is_(None) | holds)


def lease_end(connection: Connection) -> ColumnElement[float]:
    """When a worker's lease ends; none does while a server that was away is just back."""
    if connection.dialect.name == "sqlite":
        return WorkerRow.lease_until.expression
    started = literal_column("extract(epoch from pg_postmaster_start_time())", Float)
    return func.greatest(WorkerRow.lease_until, started + RETURN_S)


def is_dead(worker: Any) -> bool:
    """Whether a worker is dead, by a row with its place, pid, process_started, and whether its lease expired."""
    if worker.expired:
        return True
    return worker.place == machine.place() and not machine.is_alive(worker.pid, worker.process_started)


def _share_out(connection: Connection, worker_id: int) -> None:
    lost = or_(AttemptRow.ended_at.is_(None), AttemptRow.state == LOST)
    by_sweep: dict[int, list[int]] = defaultdict(list)
    query = select(AttemptRow.id, StudyRow.sweep_id).join(TrialRow, TrialRow.id == AttemptRow.trial_id)
    for attempt_id, sweep_id in connection.execute(query.join(StudyRow).where(AttemptRow.worker_id == worker_id, lost)):
        by_sweep[sweep_id].append(attempt_id)
    for sweep_id, attempts in by_sweep.items():
        unsettled = _unsettled(connection, worker_id, sweep_id)
        shares: dict[str, float | None] = {f"{kind}_s": left / len(attempts) for kind, left in unsettled.items()}
        joules = _unsettled_joules(connection, worker_id, sweep_id)
        shares["joules"] = None if joules is None else joules / len(attempts)
        connection.execute(update(AttemptRow).where(AttemptRow.id.in_(attempts)).values(**shares))


def _unsettled(connection: Connection, worker_id: int, sweep_id: int) -> dict[str, float]:
    """A worker's seconds for a sweep beyond those that its settled attempts account for, by kind.

    Slots share a tick evenly and fits that end cost more of one kind, so that a kind alone may be overdrawn: the other
    makes up for it, and together they are what is left.
    """
    left = {
        kind: _spent(connection, worker_id, sweep_id, kind) - _settled(connection, worker_id, sweep_id, f"{kind}_s")
        for kind in SHARED_KINDS
    }
    total = max(0.0, sum(left.values()))
    return {kind: min(total, max(0.0, seconds)) for kind, seconds in left.items()}


def _spent(connection: Connection, worker_id: int, sweep_id: int, kind: str) -> float:
    """A worker's seconds for a sweep, as far as it entered them."""
    seconds = select(WorkerTimeRow.seconds).where(
        WorkerTimeRow.worker_id == worker_id, WorkerTimeRow.sweep_id == sweep_id, WorkerTimeRow.kind == kind
    )
    return connection.scalar(seconds) or 0.0


def _unsettled_joules(connection: Connection, worker_id: int, sweep_id: int) -> float | None:
    """The same of the energy: the share of the slots with a fit, less what settled attempts account for."""
    metered = select(WorkerMeterRow.busy_steps, WorkerMeterRow.slot_steps, WorkerMeterRow.joules).where(
        WorkerMeterRow.worker_id == worker_id, WorkerMeterRow.sweep_id == sweep_id
    )
    row = connection.execute(metered).one_or_none()
    if row is None or row.joules is None:
        return None
    spent = row.joules * row.busy_steps / row.slot_steps if row.slot_steps else 0.0
    return max(0.0, spent - _settled(connection, worker_id, sweep_id, "joules"))


def _settled(connection: Connection, worker_id: int, sweep_id: int, column: str) -> float:
    """What a worker's attempts that ended, and were not lost, account for."""
    ended = select(func.sum(getattr(AttemptRow, column))).join(TrialRow, TrialRow.id == AttemptRow.trial_id)
    settled = connection.scalar(
        ended.join(StudyRow).where(
            AttemptRow.worker_id == worker_id,
            StudyRow.sweep_id == sweep_id,
            AttemptRow.ended_at.is_not(None),
            AttemptRow.state != LOST,
        )
    )
    return settled or 0.0
