"""The condition that a store is in, for `sweeper doctor`; asked in a reading transaction that changes nothing."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from sqlalchemy import Connection, select, text

from sweeper.ledger.migrations import HEAD, revision
from sweeper.ledger.rights import Rights, rights
from sweeper.ledger.schema import clock
from sweeper.ledger.store import Ledger

ROUND_TRIPS = 9


@dataclass(frozen=True)
class Condition:
    """A store that answers.

    Attributes:
        server: what answers, with its version, e.g. "PostgreSQL 15.18" or "SQLite 3.45.1".
        round_trip_s: the median of a few questions that need no table.
        revision: of its tables; None where there are none of sweeper's, or its user may not look.
        needed: the revision that this sweeper works with.
        clock_ahead_s: of this machine's clock, by at most half a round trip wrong.
        rights: of its user; None on SQLite, whose file knows no users.
    """

    server: str
    round_trip_s: float
    revision: str | None
    needed: str
    clock_ahead_s: float
    rights: Rights | None


def condition(ledger: Ledger) -> Condition:
    """Ask a store how it is.

    Raises:
        LedgerError: it does not answer, or does not let its user look.
    """
    with ledger.read() as connection:
        took = [_asked(connection) for _ in range(ROUND_TRIPS)]
        may = rights(connection) if ledger.dialect == "postgresql" else None
        found = revision(connection) if may is None or may.sees_revision else None
        return Condition(_server(connection), median(took), found, HEAD, _clock_ahead(connection), may)


def _asked(connection: Connection) -> float:
    began = time.perf_counter()
    connection.scalar(text("SELECT 1"))
    return time.perf_counter() - began


def _server(connection: Connection) -> str:
    if connection.dialect.name == "sqlite":
        return f"SQLite {connection.scalar(text('SELECT sqlite_version()'))}"
    return f"PostgreSQL {connection.scalar(text('SHOW server_version'))}"


def _clock_ahead(connection: Connection) -> float:
    before = time.time()
    there = connection.scalar(select(clock(connection.dialect.name)))
    return (before + time.time()) / 2 - float(there or 0.0)
