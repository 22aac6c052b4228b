"""Keeps a worker's lease alive while its main thread trains."""

from __future__ import annotations

import threading

from sweeper.errors import LedgerError
from sweeper.ledger import workers
from sweeper.ledger.store import Ledger


class Heartbeat:
    """Renews a worker's lease from a thread of its own; a missed beat is tried again at the next."""

    def __init__(self, ledger: Ledger, worker_id: int) -> None:
        self._ledger, self._worker_id, self._ended = ledger, worker_id, threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(workers.LEASE_S / 4):
            try:
                with self._ledger.write() as connection:
                    workers.beat(connection, self._worker_id)
            except LedgerError:
                continue  # the lease covers several beats, and a store that stays away ends the worker's next turn
