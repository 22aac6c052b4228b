"""Results that the store could not take yet, on a local disk: whoever comes after a worker that died hands them in.

A file per attempt, as JSON, written at once or not at all. The fencing token decides whether a result still counts. A
disk that takes nothing costs nothing but that: the trial would be trained again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sweeper.files import write_whole
from sweeper.ledger.rows import Claimed, Letter, Means, SettledFit, Settlement
from sweeper.records import Cost, Setting, TrialState, fit_result


@dataclass(frozen=True)
class Left:
    """A result that a worker left behind."""

    worker_id: int
    settlement: Settlement


@dataclass(frozen=True)
class Spool:
    """Where the workers of one machine leave results.

    Attributes:
        folder: for all sweeps; None keeps nothing.
    """

    folder: Path | None = None

    def keep(self, sweep: str, worker_id: int, settlements: Iterable[Settlement]) -> None:
        """Write results; `sweep` is the sweep's unique name."""
        if self.folder is None:
            return
        for one in settlements:
            with suppress(OSError):
                write_whole(self._file(self.folder, sweep, one), _packed(Left(worker_id, one)))

    def forget(self, sweep: str, settlements: Iterable[Settlement]) -> None:
        """Remove results that the store has."""
        if self.folder is None:
            return
        for one in settlements:
            with suppress(OSError):
                self._file(self.folder, sweep, one).unlink(missing_ok=True)

    def left(self, sweep: str) -> Iterator[Left]:
        """What lies there of a sweep; what is no result is left alone."""
        for path in sorted((self.folder / sweep).glob("*.json")) if self.folder is not None else ():
            with suppress(OSError, ValueError, KeyError, TypeError):
                yield _left(json.loads(path.read_text(encoding="utf-8")))

    @staticmethod
    def _file(folder: Path, sweep: str, one: Settlement) -> Path:
        return folder / sweep / f"{one.claimed.attempt_id}.json"


def _packed(left: Left) -> bytes:
    return json.dumps(asdict(left), default=str).encode()


def _left(found: dict[str, Any]) -> Left:
    one = found["settlement"]
    return Left(
        found["worker_id"],
        Settlement(
            claimed=_claimed(one["claimed"]),
            state=TrialState(one["state"]),
            means=one["means"] and Means(**one["means"]),
            error=one["error"],
            ended_at=datetime.fromisoformat(one["ended_at"]),
            cost=Cost(**one["cost"]),
            fits=tuple(SettledFit(fit["fold"], fit["seed"], fit_result(fit["result"])) for fit in one["fits"]),
            letters=tuple(Letter(**letter) for letter in one["letters"]),
        ),
    )


def _claimed(one: dict[str, Any]) -> Claimed:
    setting = {name: tuple(values) for name, values in one["setting"].items()}
    return Claimed(**one | {"setting": Setting(**setting), "started_at": datetime.fromisoformat(one["started_at"])})
