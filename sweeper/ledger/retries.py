"""Which failures of a store pass by themselves, and how long to wait before the next try."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from sqlalchemy.exc import DBAPIError, OperationalError

PATIENCE_S = 900.0  # that a worker waits for a server that is away: an upgrade, a failover, a reboot
HURRY_S = 10.0
_FIRST_S, _LONGEST_S = 0.05, 5.0
_AWAY = ("08", "57P01", "57P02", "57P03", "53300")  # no connection, shut down, starting up, no connection left
_VICTIM = ("40001", "40P01")  # undone in favour of another transaction: not serializable, deadlock


def passes(error: DBAPIError) -> bool:
    """Whether a server's failure says nothing against trying again: it is away, or undid this for another's sake.

    SQLite has no server: what it fails with (a full disk, a lock that is held for long) does not pass by waiting more.
    """
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_AWAY + _VICTIM)
    never_answered = isinstance(error, OperationalError) and type(error.orig).__module__.startswith("psycopg")
    return error.connection_invalidated or never_answered


def pauses(patience_s: float, is_hurried: Callable[[], bool] = lambda: False) -> Iterator[bool]:
    """Sleep a little longer each time that it is asked; True while there is patience for another try.

    Pauses double from 50 ms up to 5 s, each drawn from its upper half, so that workers don't come back in step.

    Args:
        patience_s: for all pauses together.
        is_hurried: cuts what is left to HURRY_S, as where a worker was told to end.
    """
    deadline, pause = time.monotonic() + patience_s, _FIRST_S
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(left, random.uniform(pause / 2, pause)))
        pause = min(2 * pause, _LONGEST_S)
        if is_hurried():
            deadline, is_hurried = min(deadline, time.monotonic() + HURRY_S), lambda: False
        yield True
    while True:
        yield False
