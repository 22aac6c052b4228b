"""Brings a store's tables to the present revision with Alembic, under a version table of our own name.

MLflow and Optuna both claim `alembic_version`; ours can stand beside them.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from sweeper.errors import LedgerError

VERSION_TABLE = "sweeper_alembic_version"
HEAD = "0006"


def is_current(connection: Connection) -> bool:
    """Whether the store is at this program's revision.

    Raises:
        LedgerError: the store was made by a newer program.
    """
    found = revision(connection)
    if found is not None and found > HEAD:
        raise LedgerError(f"the store is at revision {found}, newer than this sweeper's {HEAD}. Update sweeper.")
    return found == HEAD


def revision(connection: Connection) -> str | None:
    """The revision that a store is at; None where it has no tables of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))
    return None if found is None else str(found)


def upgrade(connection: Connection) -> None:
    """Run the migrations that a store lacks, inside the caller's transaction; whoever comes second finds them done."""
    from alembic import command
    from alembic.config import Config

    if connection.dialect.name == "postgresql":  # on SQLite a writing transaction has the whole store to itself
        connection.execute(text(f"SELECT pg_advisory_xact_lock(hashtext('{VERSION_TABLE}'))"))
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
