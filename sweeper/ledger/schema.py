"""The ledger's tables. One row of `attempt` per start of a trial, so that nothing that was spent is forgotten.

    sweep 1-n study 1-n trial 1-n attempt 1-n fit          worker 1-n worker_time          outbox
                        trial 1-n rung                     worker 1-n worker_meter
    sweep 1-n outbox_tally  study 1-n study_tally: what triggers count (migration 0005)

Times are UTC. Leases alone use the server's clock, as seconds since 1970 (`clock`), so that no worker's clock matters.
Numbers that are not finite are NULL.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    MetaData,
    Numeric,
    String,
    Text,
    UniqueConstraint,
    literal_column,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator


class Utc(TypeDecorator[datetime]):
    """A moment: aware and in UTC on both sides, also where the database forgets the zone (SQLite)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Store UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Hand back UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def clock(dialect: str) -> ColumnElement[float]:
    """The server's time in seconds since 1970, as an SQL expression; `dialect` is the connection's, by name."""
    if dialect == "sqlite":
        return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Float)
    return literal_column("extract(epoch from clock_timestamp())", Float)


@cache
def upsert(
    dialect: str, table: type[Base], keys: tuple[str, ...], renewed: tuple[str, ...], grows: str | None = None
) -> Any:
    """An INSERT that, where a row with the same keys stands, gives that row's `renewed` columns the new values.

    Args:
        dialect: the connection's, by name.
        table: whose rows are inserted.
        keys: the columns of the table's unique constraint.
        renewed: may be empty; then the row that stands is left as it is.
        grows: a column; a row that stands with as much of it, or more, is left as it is.
    """
    inserted = (postgresql if dialect == "postgresql" else sqlite).insert(table)
    if not renewed:
        return inserted.on_conflict_do_nothing(index_elements=keys)
    new = inserted.excluded
    where = None if grows is None else getattr(table, grows) < new[grows]
    return inserted.on_conflict_do_update(index_elements=keys, set_={name: new[name] for name in renewed}, where=where)


class Base(DeclarativeBase):
    """The root of the ledger's tables."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {datetime: Utc, dict[str, Any]: JSON, list[Any]: JSON}  # noqa: RUF012


# SQLite gives the ids of deleted rows to new ones otherwise; a worker of a sweep that was launched afresh would mistake
# the new sweep's rows for its own. (PostgreSQL's sequences never go back.)
NEVER_AGAIN = {"sqlite_autoincrement": True}


class CostColumns:
    """`records.Cost`, column by column."""

    steps: Mapped[int] = mapped_column(BigInteger, default=0)
    epochs: Mapped[int] = mapped_column(BigInteger, default=0)
    examples: Mapped[int] = mapped_column(BigInteger, default=0)
    flops: Mapped[int] = mapped_column(BigInteger, default=0)
    train_s: Mapped[float] = mapped_column(default=0.0)
    evaluate_s: Mapped[float] = mapped_column(default=0.0)
    suggest_s: Mapped[float] = mapped_column(default=0.0)
    storage_s: Mapped[float] = mapped_column(default=0.0)
    checkpoint_s: Mapped[float] = mapped_column(default=0.0)
    joules: Mapped[float | None]  # NULL: not measured


COST_COLUMNS = tuple(CostColumns.__annotations__)


class SweepRow(Base):
    """One sweep: the file as it was launched, and how its fits are computed."""

    __tablename__ = "sweep"
    __table_args__ = NEVER_AGAIN

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200), unique=True)
    token: Mapped[str] = mapped_column(String(16), unique=True)  # tells two sweeps of one name apart in MLflow
    state: Mapped[str] = mapped_column(String(16))  # open, stopped, budget spent
    mode: Mapped[str] = mapped_column(String(16))  # measurement, product
    file_path: Mapped[str] = mapped_column(Text)
    file_text: Mapped[str] = mapped_column(Text)
    config: Mapped[dict[str, Any]]
    data_sha256: Mapped[str] = mapped_column(String(64))
    numerics: Mapped[dict[str, Any]]  # eager or compiled, versions: what decides the last bits
    estimate: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))  # what `run` said beforehand
    created_at: Mapped[datetime]


class StudyRow(Base):
    """One Optuna study: one space in one replicate."""

    __tablename__ = "study"
    __table_args__ = (UniqueConstraint("sweep_id", "space", "replicate"), NEVER_AGAIN)

    id: Mapped[int] = mapped_column(primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweep.id", ondelete="CASCADE"))
    space: Mapped[str] = mapped_column(String(200))
    replicate: Mapped[int]
    dimensions: Mapped[int]
    sampler: Mapped[dict[str, Any]]  # kind and every argument
    seed: Mapped[int] = mapped_column(BigInteger)
    trials: Mapped[int]  # the budget
    turn: Mapped[int]  # random: interleaves the spaces
    proposer_id: Mapped[int | None] = mapped_column(ForeignKey("worker.id", ondelete="SET NULL"))


class TrialRow(Base):
    """One setting, tried."""

    __tablename__ = "trial"
    __table_args__ = (UniqueConstraint("study_id", "number"), Index(None, "state", "number"), NEVER_AGAIN)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))  # records.TrialState
    attempt: Mapped[int] = mapped_column(default=0)  # the fencing token: a result of another attempt does not count
    failures: Mapped[int] = mapped_column(default=0, server_default="0")  # attempts that an error ended
    losses: Mapped[int] = mapped_column(default=0, server_default="0")  # attempts whose worker died
    worker_id: Mapped[int | None] = mapped_column(ForeignKey("worker.id"), index=True)
    origin: Mapped[str] = mapped_column(String(16))  # sampled, start
    params: Mapped[dict[str, Any]]
    keep_prob: Mapped[list[Any]]
    lambda_: Mapped[list[Any]] = mapped_column("lambda", key="lambda_")
    told: Mapped[int]  # how many finished trials the suggestion knew
    running: Mapped[list[Any]]  # numbers of the trials that were under way then
    suggest_s: Mapped[float]
    validation_loss: Mapped[float | None]
    validation_metric: Mapped[float | None]
    test_loss: Mapped[float | None]
    test_metric: Mapped[float | None]
    train_loss: Mapped[float | None]
    best_epoch: Mapped[float | None]  # mean over folds
    error: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class RungRow(Base):
    """What a trial had reached at an epoch at which trials are judged; an attempt that starts anew enters it anew."""

    __tablename__ = "rung"

    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    score: Mapped[float]  # mean over folds of the lowest validation loss so far


class AttemptRow(CostColumns, Base):
    """One start of a trial, and what it cost, however it ended."""

    __tablename__ = "attempt"
    __table_args__ = (
        UniqueConstraint("trial_id", "attempt"),
        Index(None, "ended_at", "worker_id", "state"),  # the last minute's, without a look at the table
        NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    trial_id: Mapped[int] = mapped_column(ForeignKey("trial.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    worker_id: Mapped[int] = mapped_column(ForeignKey("worker.id"), index=True)
    state: Mapped[str] = mapped_column(String(16))  # a TrialState, or RELEASED, LOST, SUPERSEDED, ERROR
    error: Mapped[str | None] = mapped_column(Text)  # what ended an attempt in ERROR
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class FitRow(CostColumns, Base):
    """One training run that ended in an attempt, on one fold, and what all of it cost, wherever it began."""

    __tablename__ = "fit"
    __table_args__ = (UniqueConstraint("attempt_id", "fold"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    attempt_id: Mapped[int] = mapped_column(ForeignKey("attempt.id", ondelete="CASCADE"))
    fold: Mapped[int]
    seed: Mapped[int] = mapped_column(BigInteger)
    outcome: Mapped[str] = mapped_column(Text)
    best_epoch: Mapped[int]
    train_loss: Mapped[float | None]
    validation_loss: Mapped[float | None]
    validation_metric: Mapped[float | None]
    test_loss: Mapped[float | None]
    test_metric: Mapped[float | None]
    squared_norms: Mapped[list[Any]]
    curves: Mapped[dict[str, Any]]  # one list per measure, one number per epoch


class WorkerRow(Base):
    """One worker process. Its lease covers every trial that it runs and every study that it proposes for."""

    __tablename__ = "worker"

    id: Mapped[int] = mapped_column(primary_key=True)
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int]
    place: Mapped[str | None] = mapped_column(String(255))  # where the pid means something; NULL: not known
    process_started: Mapped[float]  # seconds since that machine was booted; a pid alone is used again
    device: Mapped[str] = mapped_column(String(255))
    details: Mapped[dict[str, Any]]  # versions, threads, slots
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    lease_until: Mapped[float] = mapped_column(Float)  # the server's clock


class WorkerTimeRow(Base):
    """What a worker's time went into, for one sweep; together the time that it held its device."""

    __tablename__ = "worker_time"

    worker_id: Mapped[int] = mapped_column(ForeignKey("worker.id", ondelete="CASCADE"), primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweep.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), primary_key=True)
    seconds: Mapped[float]


class WorkerMeterRow(Base):
    """What the slots of a worker's engine did for one sweep, to the last tick that it entered."""

    __tablename__ = "worker_meter"

    worker_id: Mapped[int] = mapped_column(ForeignKey("worker.id", ondelete="CASCADE"), primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweep.id", ondelete="CASCADE"), primary_key=True)
    busy_steps: Mapped[int] = mapped_column(BigInteger)  # steps of slots with a fit
    slot_steps: Mapped[int] = mapped_column(BigInteger)  # steps of all slots that were computed
    joules: Mapped[float | None]  # of the device in all of them; NULL: not measured
    granted_s: Mapped[float] = mapped_column(default=0.0, server_default="0")  # of the sweep's budget, see `budgets`
    granted_joules: Mapped[float] = mapped_column(default=0.0, server_default="0")


def _few(name: str, condition: str) -> Index:
    """An index of those few of a sweep's letters that `deliveries.counts` looks at one by one."""
    return Index(name, "sweep_id", sqlite_where=text(condition), postgresql_where=text(condition))


class OutboxRow(Base):
    """A run that MLflow is to be told of."""

    __tablename__ = "outbox"
    __table_args__ = (
        UniqueConstraint("uid", "status"),
        Index(None, "sweep_id", "delivered_at", "id"),
        _few("ix_outbox_begun", "status = 'RUNNING'"),
        _few("ix_outbox_refused", "delivered_at IS NULL AND refusals > 0"),
        NEVER_AGAIN,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweep.id", ondelete="CASCADE"))
    uid: Mapped[str] = mapped_column(String(255))
    status: Mapped[str] = mapped_column(String(16))
    payload: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(default=0)
    refusals: Mapped[int] = mapped_column(default=0)
    error: Mapped[str | None] = mapped_column(Text)
    run_id: Mapped[str | None] = mapped_column(String(64))
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]


class StudyTallyRow(Base):
    """What a study's finished trials and ended attempts come to: the sum over its rows, which triggers keep."""

    __tablename__ = "study_tally"

    study_id: Mapped[int] = mapped_column(ForeignKey("study.id", ondelete="CASCADE"), primary_key=True)
    slice: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # PostgreSQL: who counted, by connection
    complete: Mapped[int] = mapped_column(BigInteger, server_default="0")
    failed: Mapped[int] = mapped_column(BigInteger, server_default="0")
    pruned: Mapped[int] = mapped_column(BigInteger, server_default="0")
    attempts: Mapped[int] = mapped_column(BigInteger, server_default="0")
    measured: Mapped[int] = mapped_column(BigInteger, server_default="0")  # attempts whose energy was measured
    unmeasured: Mapped[int] = mapped_column(BigInteger, server_default="0")  # those that used a device unmeasured
    steps: Mapped[int] = mapped_column(BigInteger, server_default="0")
    epochs: Mapped[int] = mapped_column(BigInteger, server_default="0")
    examples: Mapped[int] = mapped_column(BigInteger, server_default="0")
    flops: Mapped[int] = mapped_column(BigInteger().with_variant(Numeric(38, 0), "postgresql"), server_default="0")
    train_s: Mapped[float] = mapped_column(server_default="0")
    evaluate_s: Mapped[float] = mapped_column(server_default="0")
    suggest_s: Mapped[float] = mapped_column(server_default="0")
    storage_s: Mapped[float] = mapped_column(server_default="0")
    checkpoint_s: Mapped[float] = mapped_column(server_default="0")
    joules: Mapped[float] = mapped_column(server_default="0")
    best_validation_loss: Mapped[float | None]  # of complete trials


class OutboxTallyRow(Base):
    """What a sweep's letters come to but those of runs that have only begun: kept as `study_tally` is."""

    __tablename__ = "outbox_tally"

    sweep_id: Mapped[int] = mapped_column(ForeignKey("sweep.id", ondelete="CASCADE"), primary_key=True)
    slice: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    letters: Mapped[int] = mapped_column(BigInteger, server_default="0")
    undelivered: Mapped[int] = mapped_column(BigInteger, server_default="0")


class LeaseRow(Base):
    """Something that one process at a time may do, such as delivering a sweep's runs."""

    __tablename__ = "lease"

    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    owner: Mapped[str] = mapped_column(String(255))
    until: Mapped[float] = mapped_column(Float)


class ReceiptRow(Base):
    """The last transaction that one client has kept (`receipts`)."""

    __tablename__ = "receipt"

    client: Mapped[str] = mapped_column(String(16), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
