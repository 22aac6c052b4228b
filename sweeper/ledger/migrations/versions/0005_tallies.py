"""Counts that are kept as rows change, that answers take no longer in a sweep of a million trials than in a small one.

`study_tally` has what a study's finished trials and its ended attempts come to, `outbox_tally` what a sweep's letters
do. Triggers keep them, so that they are exact whoever writes, whatever is undone, and whoever is killed. On PostgreSQL
each connection adds to rows of its own (`slice`): writers never wait for each other's counts, and readers add them up.

Rows of trials, attempts and letters go with their study or sweep alone, and their tallies with them.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

COUNTS = ("complete", "failed", "pruned", "attempts", "measured", "unmeasured")
STATES = {"complete": "COMPLETE", "failed": "FAIL", "pruned": "PRUNED"}
WHOLE = ("steps", "epochs", "examples", "flops")
# A trial's operations are a big integer, and those of a million trials more. (SQLite goes on with floats there.)
HUGE = sa.BigInteger().with_variant(sa.Numeric(38, 0), "postgresql")
SECONDS = ("train_s", "evaluate_s", "suggest_s", "storage_s", "checkpoint_s")
BEST = "best_validation_loss"
SLICE = {"postgresql": "pg_backend_pid()", "sqlite": "0"}
LEAST = {"postgresql": "least({0}, {1})", "sqlite": "min(coalesce({0}, {1}), coalesce({1}, {0}))"}  # of two, or of one

Value = Callable[[str], str]  # of a row, by what it is called: NEW or OLD


def _of_state(state: str) -> Value:
    return lambda row: f"CASE WHEN {row}.state = '{state}' THEN 1 ELSE 0 END"


def _when_ended(value: str) -> Value:
    return lambda row: f"CASE WHEN {row}.ended_at IS NULL THEN 0 ELSE {value.format(row)} END"


def _when_closing(value: str) -> Value:
    return lambda row: f"CASE WHEN {row}.status = 'RUNNING' THEN 0 ELSE {value.format(row)} END"


USED = "CASE WHEN {0}.joules IS NULL AND {0}.train_s + {0}.evaluate_s > 0 THEN 1 ELSE 0 END"
TRIAL = {name: _of_state(state) for name, state in STATES.items()}
ATTEMPT = {
    "attempts": _when_ended("1"),
    "measured": _when_ended("CASE WHEN {0}.joules IS NULL THEN 0 ELSE 1 END"),
    "unmeasured": _when_ended(USED),
    **{name: _when_ended(f"{{0}}.{name}") for name in (*WHOLE, *SECONDS)},
    "joules": _when_ended("coalesce({0}.joules, 0)"),
}
LETTER = {
    "letters": _when_closing("1"),
    "undelivered": _when_closing("CASE WHEN {0}.delivered_at IS NULL THEN 1 ELSE 0 END"),
}
# table: its tally, the tally's key, the key of a row, what rows of it add, and which of them add anything
TALLIED = {
    "trial": ("study_tally", "study_id", "{0}.study_id", TRIAL, "{0}.state IN ('COMPLETE', 'FAIL', 'PRUNED')"),
    "attempt": (
        "study_tally",
        "study_id",
        "(SELECT study_id FROM trial WHERE trial.id = {0}.trial_id)",
        ATTEMPT,
        "{0}.ended_at IS NOT NULL",
    ),
    "outbox": ("outbox_tally", "sweep_id", "{0}.sweep_id", LETTER, "{0}.status <> 'RUNNING'"),
}


def upgrade() -> None:
    """Add the tallies, with what they would have come to, and what finds the few rows that they leave out."""
    _create_tables()
    for table in TALLIED:
        _keep(table, "INSERT", ("NEW",))
        _keep(table, "UPDATE", ("NEW", "OLD"))
    for table in TALLIED:  # nobody else writes any more: a table that gets a trigger is locked
        _fill(table)
    for name, condition in (("begun", "status = 'RUNNING'"), ("refused", "delivered_at IS NULL AND refusals > 0")):
        where = sa.text(condition)
        op.create_index(f"ix_outbox_{name}", "outbox", ["sweep_id"], sqlite_where=where, postgresql_where=where)


def _create_tables() -> None:
    op.create_table(
        "study_tally",
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0") for name in (*COUNTS, *WHOLE[:-1])),
        sa.Column("flops", HUGE, nullable=False, server_default="0"),
        *(sa.Column(name, sa.Double(), nullable=False, server_default="0") for name in (*SECONDS, "joules")),
        sa.Column(BEST, sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"], name=op.f("fk_study_tally_study_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("study_id", "slice", name=op.f("pk_study_tally")),
    )
    op.create_table(
        "outbox_tally",
        sa.Column("sweep_id", sa.Integer(), nullable=False),
        sa.Column("slice", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False, server_default="0") for name in LETTER),
        sa.ForeignKeyConstraint(["sweep_id"], ["sweep.id"], name=op.f("fk_outbox_tally_sweep_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sweep_id", "slice", name=op.f("pk_outbox_tally")),
    )


def _fill(table: str) -> None:
    """Count what stands."""
    tally, key, owner, values, counts = TALLIED[table]
    sums = {name: f"sum({value('r')})" for name, value in values.items()}
    if table == "trial":
        sums[BEST] = "min(CASE WHEN r.state = 'COMPLETE' THEN r.validation_loss END)"
    added = f"SELECT {owner.format('r')}, 0, {', '.join(sums.values())} FROM {table} AS r WHERE {counts.format('r')}"
    op.execute(_added(tally, key, list(sums), f"{added} GROUP BY 1"))


def _keep(table: str, event: str, rows: tuple[str, ...]) -> None:
    """Add what each change of a row changes."""
    tally, key, owner, values, counts = TALLIED[table]
    changes = {name: " - ".join(f"({value(row)})" for row in rows) for name, value in values.items()}
    if table == "trial":
        changes[BEST] = "CASE WHEN NEW.state = 'COMPLETE' THEN NEW.validation_loss END"
    dialect = op.get_bind().dialect.name
    change = f"SELECT {owner.format('NEW')}, {SLICE[dialect]}, {', '.join(changes.values())} WHERE true"
    adding = _added(tally, key, list(changes), change)
    when = " OR ".join(counts.format(row) for row in rows)
    name = f"tally_{table}_{event.lower()}"
    if dialect == "sqlite":
        op.execute(f"CREATE TRIGGER {name} AFTER {event} ON {table} WHEN {when} BEGIN {adding}; END")
        return
    body = f"BEGIN {adding}; RETURN NULL; END"
    op.execute(f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $body$ {body} $body$")
    op.execute(f"CREATE TRIGGER {name} AFTER {event} ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {name}()")


def _added(tally: str, key: str, names: list[str], values: str) -> str:
    """A statement that adds values, one for each name, to the row of the tally that they belong to."""
    least = LEAST[op.get_bind().dialect.name].format(f"{tally}.{BEST}", f"excluded.{BEST}")
    sums = (f"{name} = " + (least if name == BEST else f"{tally}.{name} + excluded.{name}") for name in names)
    return (
        f"INSERT INTO {tally} ({key}, slice, {', '.join(names)}) {values} "
        f"ON CONFLICT ({key}, slice) DO UPDATE SET {', '.join(sums)}"
    )
