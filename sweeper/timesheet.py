"""Where a worker's time goes: every second from its start on belongs to one kind."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

KINDS = ("start", "train", "evaluate", "idle", "suggest", "storage", "prepare", "wait")
"""start: loading, building and compiling. train, evaluate: the device's time of the slots with fits; idle: of those
without. suggest: Optuna. storage: SQL. prepare: initial weights. wait: nothing to do. The rest is `other`.

What the host does while the device works by itself takes nobody's time: it is not on the sheet, only on the trials."""


class Timesheet:
    """Seconds by kind on the monotonic clock; `other` is what no kind claimed."""

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._seconds = dict.fromkeys(KINDS, 0.0)

    @contextmanager
    def on(self, kind: str) -> Iterator[None]:
        """Enter the block's time under a kind."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(kind, time.perf_counter() - start)

    def add(self, kind: str, seconds: float) -> None:
        """Enter seconds under a kind."""
        self._seconds[kind] += seconds

    def mark(self) -> Mapping[str, float]:
        """How things stand, for `hide`."""
        return dict(self._seconds)

    def hide(self, mark: Mapping[str, float], *, behind: float, within: float) -> None:
        """Of what was entered since a mark, keep only what nobody could have spared: the rest ran beside the device.

        Args:
            mark: how things stood when the device began.
            behind: seconds that the device worked.
            within: seconds that went by.
        """
        entered = sum(self._seconds.values()) - sum(mark.values())
        kept = min(1.0, max(0.0, within - behind) / entered) if entered else 1.0
        self._seconds = {kind: mark[kind] + (self._seconds[kind] - mark[kind]) * kept for kind in mark}

    def __getitem__(self, kind: str) -> float:
        return self._seconds[kind]

    @property
    def held_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self._began

    def totals(self) -> dict[str, float]:
        """All kinds and `other`; together `held_s`."""
        return {**self._seconds, "other": max(0.0, self.held_s - sum(self._seconds.values()))}
