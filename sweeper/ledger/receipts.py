"""Receipts: whether a transaction whose COMMIT was not answered was kept or not.

A server that goes away between a COMMIT and its answer leaves the client in doubt. Each client numbers its
transactions, and enters the number first of all in each, in a row of its own: a transaction that is run again meets
its number where it had been kept. (PostgreSQL's pg_xact_status answers the same question, but a crash may give a
transaction's id to another.)
"""

from __future__ import annotations

import secrets
import threading

from sqlalchemy import Connection

from sweeper.ledger.schema import ReceiptRow, upsert


class Receipts(threading.local):
    """The receipts of one client: of one thread of a `Ledger`'s, whose transactions follow each other."""

    def __init__(self) -> None:
        self._client, self._last = secrets.token_hex(8), 0

    def next(self) -> int:
        """The number of a new transaction."""
        self._last += 1
        return self._last

    def enter(self, connection: Connection, number: int) -> bool:
        """Enter a transaction at its very beginning; False where it was kept before.

        Where that one is still under way at the server, this waits for its end.
        """
        inserted = upsert(connection.dialect.name, ReceiptRow, ("client",), ("number",), grows="number")
        entered = inserted.values(client=self._client, number=number).returning(ReceiptRow.number)
        return connection.scalar(entered) is not None
