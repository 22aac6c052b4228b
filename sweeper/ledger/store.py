"""The connection to the SQL store: SQLite beside the user's work by default, any other by its URL.

SQLite runs in WAL mode with full synchronisation: what was committed survives a kill and a power cut, and readers never
wait. A writing transaction begins IMMEDIATE, so that two writers queue up instead of failing half way.

PostgreSQL is for sweeps that many machines share. Its writing transactions lock the rows that they decide by (see
`workers` and `trials`); reading ones see one moment. A server that goes away is waited for, see `Ledger.patience_s`.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import ClauseElement, create_engine, event
from sqlalchemy import Connection as Connection  # part of this module's interface: what `read` and `write` hand out
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError

from sweeper.errors import LedgerError, StoreAwayError
from sweeper.ledger import retries
from sweeper.ledger.migrations import is_current, upgrade
from sweeper.ledger.receipts import Receipts

BUSY_MS = 30_000
DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
SECRETS = ("password", "sslpassword")  # that a URL may hold behind its question mark
# What libpq waits for by itself is without end, or a quarter of an hour where the server's host is gone.
TIMEOUTS = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}

T = TypeVar("T")


class Ledger:
    """The store of sweeps, studies, trials, costs and runs to deliver.

    Args:
        url: an SQLAlchemy URL, e.g. "sqlite:///sweeper-data/ledger.db".
        create: make the store (and its folder) where there is none; otherwise its absence is an error.

    Raises:
        LedgerError: the URL is none, there is no store, or it can't be opened.
    """

    patience_s = 0.0
    """How long to wait for a server that is away before it is an error; workers set retries.PATIENCE_S."""

    is_hurried: Callable[[], bool] = staticmethod(lambda: False)
    """Whether to wait no longer than for a few seconds all the same: this process was told to end."""

    def __init__(self, url: str, *, create: bool = True) -> None:
        self.url = _checked(url, create)
        self._receipts = Receipts()
        try:
            self._engine, self._reader, self._writer = _engines(make_url(self.url))
            self._migrate()
        except (SQLAlchemyError, ImportError) as error:  # ImportError: the database's driver is not installed
            raise LedgerError(f"the store {self.masked_url} can't be opened: {error}. Check its URL.") from error

    @property
    def masked_url(self) -> str:
        """The URL with any password masked."""
        return masked(self.url)

    @property
    def dialect(self) -> str:
        """The kind of database, as SQLAlchemy calls it."""
        return self._engine.dialect.name

    @property
    def driver(self) -> tuple[str, dict[str, Any]]:
        """The module that speaks to the database, and what its `connect` takes; a password is in it as it is."""
        url = self._engine.url
        if self.dialect == "sqlite":
            return "sqlite3", {"database": url.database, "timeout": BUSY_MS / 1000}
        dialect = url.get_dialect()()
        return dialect.driver, {**_timeouts(url), **dialect.create_connect_args(url)[1]}

    def literal(self, statement: ClauseElement) -> str:
        """A statement as the database's own words, its values among them."""
        return str(statement.compile(self._engine, compile_kwargs={"literal_binds": True}))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to ask questions on; it sees one moment of the store.

        Raises:
            LedgerError: the store can't be reached; a StoreAwayError where that may pass.
        """
        with self._begun(self._reader) as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One transaction: all of what happens inside is kept, or nothing of it.

        Raises:
            LedgerError: the store can't be reached, is locked for long, or has no room left; a StoreAwayError where
                that may pass.
        """
        with self._begun(self._writer) as connection:
            yield connection

    def ask(self, act: Callable[[Connection], T]) -> T:
        """What `act` answers in a `read`; it is asked again, for `patience_s`, where the server goes away meanwhile."""
        pauses = retries.pauses(self.patience_s, self.is_hurried)
        while True:
            try:
                with self.read() as connection:
                    return act(connection)
            except StoreAwayError:
                if not next(pauses):
                    raise

    def keep(self, act: Callable[[Connection], T]) -> T:
        """Run `act` in a `write`, again and again for `patience_s` where the server goes away; it is kept once.

        Args:
            act: may run several times, so it changes nothing but the store. What the run that was kept returns is the
                answer, also where the server went away before it could say that it kept it.

        Raises:
            LedgerError: as `write`.
        """
        pauses, number, answers = retries.pauses(self.patience_s, self.is_hurried), self._receipts.next(), list[T]()
        while True:
            try:
                with self.write() as connection:
                    if self._has_receipts and not self._receipts.enter(connection, number):
                        return answers[-1]
                    answers.append(act(connection))
                return answers[-1]
            except StoreAwayError:
                if not next(pauses):
                    raise

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    @property
    def _has_receipts(self) -> bool:
        return self.dialect != "sqlite"  # whose COMMIT is a call of this process's own

    @contextmanager
    def _begun(self, engine: Engine) -> Iterator[Connection]:
        """A transaction; where the server is away at its beginning, nothing has happened yet, and it is waited for."""
        pauses = retries.pauses(self.patience_s, self.is_hurried)
        while True:
            try:
                with self._reachable():
                    connection = engine.connect()
                break
            except StoreAwayError:
                if not next(pauses):
                    raise
        with self._reachable(), connection:
            if engine is self._reader:
                yield connection
            else:
                with connection.begin():
                    yield connection

    @contextmanager
    def _reachable(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            if self.dialect != "sqlite" and retries.passes(error):
                raise StoreAwayError(self._failure(error)) from error
            if isinstance(error, OperationalError):  # what a database says of its own state, not of our statements
                raise LedgerError(self._failure(error)) from error
            raise

    def _failure(self, error: DBAPIError) -> str:
        why = " ".join(str(error.orig).split())
        return (
            f"the store {self.masked_url} fails: {why}. Nothing committed is lost. See to it (its disk, "
            f"its server, other processes that lock it) and go on with: sweeper resume NAME"
        )

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


def masked(url: str) -> str:
    """A database's URL as others may see it: any password is masked."""
    parsed = make_url(url)
    shown = parsed.set(query={name: "hidden" if name in SECRETS else value for name, value in parsed.query.items()})
    return shown.render_as_string(hide_password=True)


def _checked(url: str, create: bool) -> str:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError, ImportError) as error:  # ValueError: a port that is no number
        shown = re.sub("(?<=://).*(?=@)", "***", url)  # what is no URL may hold a password all the same
        raise LedgerError(
            f"--store {shown!r} is no database URL: {error}. Right would be sqlite:///FILE or postgresql+psycopg://..."
        ) from error
    if parsed.drivername not in DRIVERS:
        raise LedgerError(
            f"--store names {parsed.drivername!r}, and a ledger is on SQLite (sqlite:///FILE) or, where "
            "sweeper[postgres] is installed, on PostgreSQL (postgresql+psycopg://USER@HOST/DATABASE)."
        )
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


def _engines(url: URL) -> tuple[Engine, Engine, Engine]:
    """An engine, and itself as one that reads and one that writes."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url)
        _tune_sqlite(engine)
        return engine, engine.execution_options(), engine.execution_options(writes=True)
    engine = create_engine(url, connect_args=_timeouts(url), pool_pre_ping=True, isolation_level="READ COMMITTED")
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine, reader, engine.execution_options()


def _timeouts(url: URL) -> dict[str, Any]:
    """Those that the URL does not set itself."""
    return {name: value for name, value in TIMEOUTS.items() if name not in url.query}


def _tune_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # transactions begin where SQLAlchemy says so, see below
        for pragma in (f"busy_timeout = {BUSY_MS}", "synchronous = FULL", "foreign_keys = ON"):
            raw.execute(f"PRAGMA {pragma}")
        _enter_wal(raw)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _enter_wal(raw: sqlite3.Connection) -> None:
    """Write ahead; where another process makes the same of a fresh store, SQLite fails at once instead of waiting."""
    deadline = time.monotonic() + BUSY_MS / 1000
    while True:
        try:
            raw.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)
