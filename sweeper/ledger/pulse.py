"""The process that beats for a worker: started by `heartbeat`, with nothing to do but this, and nothing large to load.

It is no thread of the worker's, because a thread waits for whoever holds Python's lock; and it is no proof of the
worker's life by itself, because it lives on while the worker hangs. So it beats only while its worker

    lives           its standard input is open
    is not stopped  by a signal (SIGSTOP, Ctrl-Z), asked of the system at each beat
    gets on         it has sent a byte down the pipe, as it does at its turns, in the last `patience_s`

The last is the widest, since a turn may hold a compilation, or a tick of many minutes on a GPU.

The order comes as one line of JSON down the same pipe, so that no password is in the arguments or in the environment.
It says what to execute and how to connect, ready for the database's driver: SQLAlchemy is not loaded here.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from sweeper.machine import is_stopped


@dataclass(frozen=True)
class Order:
    """What a worker asks for.

    Attributes:
        driver: the module that speaks to the database, e.g. "sqlite3".
        connect: what its `connect` takes.
        statement: renews the lease.
        every_s: seconds between two beats.
        patience_s: for how long a worker may send nothing.
    """

    driver: str
    connect: dict[str, Any]
    statement: str
    every_s: float
    patience_s: float

    def beat(self) -> None:
        """Renew the lease, on a connection of this beat's own: an open one would only grow stale."""
        with closing(importlib.import_module(self.driver).connect(**self.connect)) as connection:
            connection.execute(self.statement)
            connection.commit()


def main() -> None:
    """Beat until standard input is closed."""
    parent, order = os.getppid(), Order(**json.loads(_line()))
    heard, due = time.monotonic(), time.monotonic() + order.every_s
    while os.getppid() == parent:
        if select.select([0], [], [], max(0.0, due - time.monotonic()))[0]:
            if not os.read(0, 65536):
                return
            heard = time.monotonic()
        elif is_stopped(parent) or time.monotonic() - heard > order.patience_s:
            due = time.monotonic() + order.every_s
        else:
            due = time.monotonic() + _tried(order)


def _tried(order: Order) -> float:
    """Beat; returns in how many seconds to beat again: soon where the store could not be reached."""
    with suppress(Exception):  # whatever a driver fails with, the next try is the answer; the worker meets it as well
        order.beat()
        return order.every_s
    return order.every_s / 5


def _line() -> bytes:
    """The first line of the standard input, and nothing after it."""
    read = b""
    while not read.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit
        read += byte
    return read


if __name__ == "__main__":
    main()
