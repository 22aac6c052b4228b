"""One contract for every database: what takes `ledger_url` must hold on each that is listed here."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from ledger.makers import launched, registered
from postgres import Postgres
from stores import sqlite_store
from sweeper.ledger import workers
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger, sqlite_url


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a store without tables; a test that takes an open store gets it from a template where it can."""
    if request.param == "sqlite":
        home = tmp_path / "home"
        yield sqlite_store(home) if "ledger" in request.fixturenames else sqlite_url(home)
        return
    monkeypatch.setattr(workers, "RETURN_S", -math.inf)  # the server has just started, and leases are to run out
    postgres: Postgres = request.getfixturevalue("postgres")
    with postgres.database(migrated="ledger" in request.fixturenames) as url:
        yield url


@pytest.fixture
def sqlite_file(ledger_url: str) -> Path:
    """Where a SQLite store lives, for tests of what SQLite alone does."""
    if not ledger_url.startswith("sqlite"):
        pytest.skip("SQLite only")
    return Path(ledger_url.removeprefix("sqlite:///"))


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    """An open store without a sweep."""
    opened = Ledger(ledger_url)
    yield opened
    opened.close()


@pytest.fixture
def sweep(ledger: Ledger) -> Sweep:
    """Two spaces, two replicates, eight trials each, nothing tried."""
    return launched(ledger)


@pytest.fixture
def worker(ledger: Ledger) -> int:
    """This process as a worker."""
    return registered(ledger)
