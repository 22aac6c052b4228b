"""What the database's user may do with the store: analysts look, workers change rows, the owner changes tables."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from importlib.resources import files

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from sweeper.ledger.migrations import VERSION_TABLE
from sweeper.ledger.schema import Base

_REFUSED = ("42501", "25006")  # the user may not; the session or the server takes no writes

# A row per table that is there: whether the user may read it, change its rows, and change the table itself.
_TABLES = text(
    "SELECT c.relname, has_table_privilege(c.oid, 'SELECT'), "
    "has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') "
    "AND has_table_privilege(c.oid, 'DELETE'), pg_has_role(c.relowner, 'USAGE') "
    "FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' "
    "AND c.relname = ANY(:names)"
)


class Role(StrEnum):
    """What a user's rights amount to."""

    OWNER = "owner"
    WORKER = "worker"
    ANALYST = "analyst"
    NONE = "none of them"


@dataclass(frozen=True)
class Rights:
    """What the database's user may do.

    Attributes:
        user: its name.
        reads, writes, alters: tables of the ledger that it may read, whose rows it may change, that it may change.
        tables: how many there are.
        creates: whether it may make new ones.
    """

    user: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    alters: tuple[str, ...]
    tables: int
    creates: bool

    @property
    def sees_revision(self) -> bool:
        """Whether it may look which revision the tables are at; where there are none, there is nothing to hide."""
        return VERSION_TABLE in self.reads or not self.tables

    @property
    def role(self) -> Role:
        """The most that all of it suffices for; without tables, whether they can be made decides."""
        if self.creates and len(self.alters) == self.tables:
            return Role.OWNER
        if self.tables and len(self.reads) == self.tables:
            return Role.WORKER if len(self.writes) == self.tables else Role.NONE if self.writes else Role.ANALYST
        return Role.NONE


def rights(connection: Connection) -> Rights:
    """What this connection's user may do; of SQLite, whose file has no users, see `sweeper.doctor`."""
    names = [*Base.metadata.tables, VERSION_TABLE]
    user, creates = connection.execute(
        text("SELECT current_user, coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)")
    ).one()
    found = connection.execute(_TABLES, {"names": names}).all()
    may = [tuple(sorted(row[0] for row in found if row[column])) for column in (1, 2, 3)]
    return Rights(user, may[0], may[1], may[2], len(found), creates)


def is_refusal(error: DBAPIError) -> bool:
    """Whether the database says that its user may not do this."""
    return getattr(error.orig, "sqlstate", None) in _REFUSED


def roles_sql() -> str:
    """SQL that makes the roles on PostgreSQL."""
    return files("sweeper.ledger").joinpath("roles.sql").read_text(encoding="utf-8")
