"""A fresh SQLite store without its migrations, which take a dozen times longer than opening it.

Tests of the migrations, and all that start real processes, make their stores as users do.
"""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from sweeper.ledger.store import Ledger, sqlite_url


@cache
def _migrated() -> bytes:
    """The file of a store with the ledger's tables and nothing in them."""
    with tempfile.TemporaryDirectory() as folder:
        Ledger(sqlite_url(Path(folder))).close()
        return Path(folder, "ledger.db").read_bytes()


def sqlite_store(home: Path) -> str:
    """The URL of a home's store, which is there with the ledger's tables; one that was there is left as it is."""
    path = home / "ledger.db"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_migrated())
    return sqlite_url(home)
