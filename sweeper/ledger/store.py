"""The connection to the SQL store: SQLite beside the user's work by default, any other by its URL.

SQLite runs in WAL mode with full synchronisation: what was committed survives a kill and a power cut, and readers never
wait. A writing transaction begins IMMEDIATE, so that two writers queue up instead of failing half way.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection as Connection  # part of this module's interface: what `read` and `write` hand out
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError, SQLAlchemyError

from sweeper.errors import LedgerError
from sweeper.ledger.migrations import is_current, upgrade

BUSY_MS = 30_000


class Ledger:
    """The store of sweeps, studies, trials, costs and runs to deliver.

    Args:
        url: an SQLAlchemy URL, e.g. "sqlite:///sweeper-data/ledger.db".
        create: make the store (and its folder) where there is none; otherwise its absence is an error.

    Raises:
        LedgerError: the URL is none, there is no store, or it can't be opened.
    """

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = _checked(url, create)
        try:
            self._engine = create_engine(self.url)
            if self._engine.dialect.name == "sqlite":
                _tune_sqlite(self._engine)
            self._writer = self._engine.execution_options(writes=True)
            self._migrate()
        except (SQLAlchemyError, ImportError) as error:  # ImportError: the database's driver is not installed
            raise LedgerError(f"the store {self.masked_url} can't be opened: {error}. Check its URL.") from error

    @property
    def masked_url(self) -> str:
        """The URL with any password masked."""
        return make_url(self.url).render_as_string(hide_password=True)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to ask questions on; it sees one moment of the store.

        Raises:
            LedgerError: the store can't be reached.
        """
        with self._reachable(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: all of what happens inside is kept, or nothing of it.

        Raises:
            LedgerError: the store can't be reached, is locked for long, or has no room left.
        """
        with self._reachable(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:  # what a database says of its own state, not of our statements
            raise LedgerError(
                f"the store {self.masked_url} fails: {error.orig}. Nothing committed is lost. See to it (its disk, "
                f"its server, other processes that lock it) and go on with: sweeper resume NAME"
            ) from error

    def _migrate(self) -> None:
        try:
            with self.read() as connection:
                current = is_current(connection)
            if not current:
                with self.write() as connection:
                    upgrade(connection)
        except BaseException:
            self.close()
            raise


def sqlite_url(home: Path) -> str:
    """The URL of the ledger that lives in a home folder."""
    return f"sqlite:///{home.resolve() / 'ledger.db'}"


def _checked(url: str, create: bool) -> str:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError, ImportError) as error:  # ValueError: a port that is no number
        shown = re.sub("(?<=://).*(?=@)", "***", url)  # what is no URL may hold a password all the same
        raise LedgerError(
            f"--store {shown!r} is no database URL: {error}. Right would be sqlite:///FILE or postgresql+psycopg://..."
        ) from error
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        path = Path(parsed.database)
        if not create and not path.exists():
            raise LedgerError(
                f"there is no ledger at {path} yet. Launch a sweep first: sweeper run studies/digits.yaml"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerError(
                f"the ledger's folder {path.parent} can't be made: {error.strerror}. Choose another with --home."
            ) from error
    return url


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # transactions begin where SQLAlchemy says so, see below
        for pragma in (
            "journal_mode = WAL",
            "synchronous = FULL",
            "foreign_keys = ON",
            f"busy_timeout = {BUSY_MS}",
        ):
            raw.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
