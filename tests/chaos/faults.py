"""What is wrong with a process, as wrappers put around the product's own functions in that process alone.

`processes.Crash` kills a process at a point, or freezes it there. These starve it of disk, set its clock and its time
zone wrong, or shorten leases so that a test needs no minutes.
"""

from __future__ import annotations

import datetime as datetimes
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from processes import replace_function

HOUR_S = 3600.0
SHORT_LEASE_S = 1.0


@dataclass(frozen=True)
class Values:
    """Constants of modules that have other values here."""

    values: dict[str, Any] = field(default_factory=dict)

    def arm(self) -> None:
        """Set them; their names are written as module:name."""
        for where, value in self.values.items():
            module, _, name = where.partition(":")
            setattr(import_module(module), name, value)


SHORT_LEASES = Values(
    {
        "sweeper.ledger.workers:LEASE_S": SHORT_LEASE_S,
        "sweeper.ledger.workers:RETURN_S": -math.inf,  # the server of the tests may have started a moment ago
        "sweeper.courier:LEASE_S": SHORT_LEASE_S,
        "sweeper.courier:RENEW_S": SHORT_LEASE_S / 4,
        "sweeper.export.mlflow:HELD_UP_S": SHORT_LEASE_S / 2,
    }
)
EAGER_COURIER = Values(
    {
        "sweeper.export.outbox:BACK_OFF_START_S": 0.02,
        "sweeper.export.outbox:BACK_OFF_CAP_S": 0.2,
        "sweeper.export.outbox:POLL_S": 0.05,
        "sweeper.courier:RETRY_S": 0.05,
    }
)
REPORT_BYTES = 200


@dataclass(frozen=True)
class PlainReport:
    """A courier's report is so many bytes: to draw a real one takes seconds, and is tested elsewhere."""

    size: int = REPORT_BYTES

    def arm(self) -> None:
        """Stand in for the report."""

        def write_report(ledger: Any, sweep: Any, folder: Path) -> None:
            (folder / "report.html").write_bytes(b"r" * self.size)

        replace_function("sweeper.courier:write_report", lambda function: write_report)


@dataclass(frozen=True)
class FileLimit:
    """No file may grow beyond so many bytes: the kernel breaks off the write that would, as a full disk does."""

    size: int

    def arm(self) -> None:
        """Set this process's own limit."""
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


@dataclass(frozen=True)
class FullSqlite:
    """The disk of a SQLite store has no room for more than so many pages beyond those that it has."""

    pages: int

    def arm(self) -> None:
        """Limit every connection that is opened from here on."""

        def limited(enter_wal: Callable[[Any], None]) -> Callable[[Any], None]:
            def enter(raw: Any) -> None:
                enter_wal(raw)
                [used] = raw.execute("PRAGMA page_count").fetchone()
                raw.execute(f"PRAGMA max_page_count = {used + self.pages}")

            return enter

        replace_function("sweeper.ledger.store:_enter_wal", limited)


@dataclass(frozen=True)
class Clock:
    """A process's clock is wrong by so many seconds; what counts from no certain date (`time.monotonic`) is not."""

    ahead_s: float

    def arm(self) -> None:
        """Set `time.time`, and `datetime.now` in every module of ours that knows it."""
        true, ahead = time.time, datetimes.timedelta(seconds=self.ahead_s)
        time.time = lambda: true() + self.ahead_s

        class Wrong(datetimes.datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return datetimes.datetime.now(tz) + ahead

        for name, module in list(sys.modules.items()):
            if name.startswith("sweeper.") and getattr(module, "datetime", None) is datetimes.datetime:
                module.datetime = Wrong  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Zone:
    """A process, and its sessions at the server, live in a time zone."""

    name: str

    def arm(self) -> None:
        """Move there."""
        os.environ |= {"TZ": self.name, "PGTZ": self.name}
        time.tzset()
