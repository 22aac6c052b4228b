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
from typing import Any, Generic, TypeVar

from sqlalchemy import ClauseElement, create_engine, event
from sqlalchemy import Connection as Connection  # part of this module's interface: what `read` and `write` hand out
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError, SQLAlchemyError

from sweeper.errors import ForbiddenError, LedgerError, StoreAwayError
from sweeper.ledger import retries
from sweeper.ledger.migrations import HEAD, is_current, revision, upgrade
from sweeper.ledger.receipts import Receipts
from sweeper.ledger.rights import is_refusal
from sweeper.urls import masked

BUSY_MS = 30_000
DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
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
        migrates: bring its tables to the present revision; otherwise the store is taken as it is.
        patience_s: how long to wait for a server that is away.

    Raises:
        LedgerError: the URL is none, there is no store, or it can't be opened; a ForbiddenError where its tables must
            be migrated, and its user may not.
    """

    patience_s = 0.0
    """How long to wait for a server that is away before it is an error; workers set retries.PATIENCE_S."""

    is_hurried: Callable[[], bool] = staticmethod(lambda: False)
    """Whether to wait no longer than for a few seconds all the same: this process was told to end."""

    def __init__(self, url: str, *, create: bool = True, migrates: bool = True, patience_s: float = 0.0) -> None:
        self.url, self.patience_s = _checked(url, create), patience_s
        self._receipts = Receipts()
        try:
            self._engine, self._reader, self._writer = _engines(make_url(self.url), as_it_is=not migrates)
            self._open(migrates)
        except (SQLAlchemyError, ImportError) as error:  # ImportError: the database's driver is not installed
            why = masked(str(error), url)
            raise LedgerError(f"the store {self.masked_url} can't be opened: {why}. Check its URL.") from error

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

    def ask(self, act: Callable[[Connection], T], *, waits: bool = True) -> T:
        """What `act` answers in a `read`; it is asked again, for `patience_s`, where the server goes away meanwhile.

        Args:
            act: the question.
            waits: False asks once.
        """
        patience_s = self.patience_s if waits else 0.0
        pauses = retries.pauses(patience_s, self.is_hurried)
        while True:
            try:
                with self._begun(self._reader, patience_s) as connection:
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
        return self.insist(self.promise(act))

    def promise(self, act: Callable[[Connection], T]) -> Promise[T]:
        """The same, to be tried by the caller whenever it likes; nothing else may be kept before that is."""
        return Promise(self, act, self._receipts.next())

    def insist(self, promise: Promise[T]) -> T:
        """Keep a promise now, as `keep` does."""
        pauses = retries.pauses(self.patience_s, self.is_hurried)
        while True:
            try:
                return promise.tried()
            except StoreAwayError:
                if not next(pauses):
                    raise

    def close(self) -> None:
        """Let go of every connection."""
        self._engine.dispose()

    @contextmanager
    def at_once(self) -> Iterator[Connection]:
        """A `write` that does not wait for a server that is away."""
        with self._begun(self._writer, patience_s=0.0) as connection:
            yield connection

    def has_kept(self, connection: Connection, number: int) -> bool:
        """At a transaction's beginning: whether it was kept before. SQLite's COMMIT is never in doubt."""
        return self.dialect != "sqlite" and not self._receipts.enter(connection, number)

    @contextmanager
    def _begun(self, engine: Engine, patience_s: float | None = None) -> Iterator[Connection]:
        """A transaction; where the server is away at its beginning, nothing has happened yet, and it is waited for."""
        pauses = retries.pauses(self.patience_s if patience_s is None else patience_s, self.is_hurried)
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
            if is_refusal(error):
                raise ForbiddenError(self._refusal(error)) from error
            if isinstance(error, OperationalError):  # what a database says of its own state, not of our statements
                raise LedgerError(self._failure(error)) from error
            raise

    def _failure(self, error: DBAPIError) -> str:
        why = masked(" ".join(str(error.orig).split()), self.url)
        return (
            f"the store {self.masked_url} fails: {why}. Nothing committed is lost. See to it (its disk, "
            f"its server, other processes that lock it) and go on with: sweeper resume NAME"
        )

    @property
    def _user(self) -> str:
        name = make_url(self.url).username
        return f"its user {name!r}" if name else "this login"

    def _refusal(self, error: DBAPIError) -> str:
        why = str(error.orig).splitlines()[0]
        return (
            f"the store {self.masked_url} does not let {self._user} do this: {why}. `sweeper doctor` says what the "
            f"user may do, and `sweeper doctor --roles` shows how its owner gives users what workers or analysts need."
        )

    def _open(self, migrates: bool) -> None:
        try:
            with self.read() as connection:
                is_old = migrates and not is_current(connection)
                found = revision(connection) if is_old else None
            if is_old:
                with self._as_owner(found), self.write() as connection:
                    upgrade(connection)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def _as_owner(self, found: str | None) -> Iterator[None]:
        try:
            yield
        except ForbiddenError as error:
            has = f"is at revision {found}" if found else "has no tables of sweeper's yet"
            raise ForbiddenError(
                f"the store {self.masked_url} {has}, this sweeper needs revision {HEAD}, and only the owner of the "
                f"tables may change them, which {self._user} is not. Ask the owner to run any command of this sweeper "
                f"on the store, such as: sweeper status"
            ) from error


class Promise(Generic[T]):
    """A transaction that is tried until it is kept, and is kept once; see `Ledger.promise`."""

    def __init__(self, ledger: Ledger, act: Callable[[Connection], T], number: int) -> None:
        self._ledger, self._act, self._number = ledger, act, number
        self._answers: list[T] = []

    def tried(self) -> T:
        """Try now; returns what the run that was kept answered.

        Raises:
            StoreAwayError: the server is away; whether it kept this, the next try tells.
            LedgerError: as `Ledger.write`.
        """
        ledger = self._ledger
        with ledger.at_once() as connection:
            if not ledger.has_kept(connection, self._number):
                self._answers.append(self._act(connection))
        return self._answers[-1]


def sqlite_url(home: Path) -> str:
    """The URL of the ledger that lives in a home folder."""
    return f"sqlite:///{home.resolve() / 'ledger.db'}"


def sqlite_path(url: str) -> Path | None:
    """The file of an SQLite store; None for another, or where the URL is none."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return None
    return Path(parsed.database) if parsed.get_backend_name() == "sqlite" and parsed.database else None


def _checked(url: str, create: bool) -> str:
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ValueError, ImportError) as error:  # ValueError: a port that is no number
        shown = re.sub("(?<=://).*(?=@)", "***", url)  # what is no URL may hold a password all the same
        raise LedgerError(
            f"--store {shown!r} is no database URL: {masked(str(error), url)}. Right would be sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/DATABASE"
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


def _engines(url: URL, *, as_it_is: bool) -> tuple[Engine, Engine, Engine]:
    """An engine, and itself as one that reads and one that writes."""
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url)
        _tune_sqlite(engine, as_it_is)
        return engine, engine.execution_options(), engine.execution_options(writes=True)
    engine = create_engine(url, connect_args=_timeouts(url), pool_pre_ping=True, isolation_level="READ COMMITTED")
    reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    return engine, reader, engine.execution_options()


def _timeouts(url: URL) -> dict[str, Any]:
    """Those that the URL does not set itself."""
    return {name: value for name, value in TIMEOUTS.items() if name not in url.query}


def _tune_sqlite(engine: Engine, as_it_is: bool) -> None:
    @event.listens_for(engine, "connect")
    def _connect(raw: Any, _record: Any) -> None:
        raw.isolation_level = None  # transactions begin where SQLAlchemy says so, see below
        for pragma in (f"busy_timeout = {BUSY_MS}", "synchronous = FULL", "foreign_keys = ON"):
            raw.execute(f"PRAGMA {pragma}")
        if not as_it_is:
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
