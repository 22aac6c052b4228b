"""Accounts: what trials and workers took must add up to the time for which the workers held their devices.

Trials are charged by attempt, however each ended: training and evaluation by their share of slot-steps, suggestion and
storage as they were timed. What the workers did for no trial in particular is theirs: empty slots, starting, drawing
initial weights, waiting, and of suggesting and storing what goes beyond the trials' own (telling samplers, rebuilding
them, claiming). On a GPU the host works beside the device; what is hidden so takes nobody's time, so that this
remainder may be negative. The held time is measured by itself, on the monotonic clock from a worker's start to its end.

Beside the device's time as run, shared with other fits, stands what the same fits would have taken alone in it, as
calibrated when their worker began: so fusing hides nothing of what tuning costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from operator import add
from typing import Any

from sweeper.ledger import costs, reads, sweeps
from sweeper.ledger.costs import Charged
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Connection, Ledger
from sweeper.quantities import duration, energy
from sweeper.records import Cost
from sweeper.report import Sheet

BALANCED = 0.01
SECONDS_PER_HOUR = 3600.0
_OF_TRIALS = ("training", "evaluation", "suggestion", "storage", "checkpoint")
_OF_WORKERS = {"idle": "empty slots", "start": "starting", "prepare": "initial weights", "wait": "waiting"}
_OTHER = "the rest of the loop"
_ALONE = "device-s alone"


def seconds_of(cost: Cost) -> dict[str, float]:
    """A cost's seconds by the words of the account."""
    values = cost.train_s, cost.evaluate_s, cost.suggest_s, cost.storage_s, cost.checkpoint_s
    return dict(zip(_OF_TRIALS, values, strict=True))


@dataclass(frozen=True)
class Accounts:
    """Where a sweep's time went.

    Attributes:
        charged: what attempts are charged, by space and by how they ended.
        worker_s: what the workers report, by kind.
        workers: how many they were.
        device_hour: money for an hour of the device.
    """

    sweep: Sweep
    charged: tuple[Charged, ...]
    worker_s: Mapping[str, float]
    workers: int
    device_hour: float | None = None

    @classmethod
    def of(cls, ledger: Ledger, name: str, device_hour: float | None = None) -> Accounts:
        """Those of the sweep of that name."""
        with ledger.read() as connection:
            return cls.read(connection, sweeps.find(connection, name), device_hour)

    @classmethod
    def read(cls, connection: Connection, sweep: Sweep, device_hour: float | None = None) -> Accounts:
        """Read them from the ledger."""
        charged = tuple(costs.charged(connection, sweep.id))
        times, workers = reads.worker_times(connection, sweep.id), costs.workers(connection, sweep.id)
        return cls(sweep, charged, times, workers, device_hour)

    @property
    def held_s(self) -> float:
        """For how long the workers held their devices."""
        return sum(self.worker_s.values())

    @property
    def unassigned(self) -> dict[str, float]:
        """Seconds of suggestion and storage beyond the trials' own; negative where the device hid them."""
        trials = seconds_of(_sum(self.charged))
        suggest, storage = self.worker_s.get("suggest", 0.0), self.worker_s.get("storage", 0.0)
        return {
            "suggestion": suggest - trials["suggestion"],
            "storage": storage - trials["storage"] - trials["checkpoint"],
        }

    @property
    def kinds(self) -> dict[str, float]:
        """Seconds by kind: the trials' own, and what the workers did for none."""
        own, none = seconds_of(_sum(self.charged)), self.unassigned
        kinds = {kind: seconds + none.get(kind, 0.0) for kind, seconds in own.items()}
        kinds |= {words: self.worker_s.get(kind, 0.0) for kind, words in _OF_WORKERS.items()}
        return kinds | {_OTHER: self.worker_s.get("other", 0.0)}

    @property
    def accounted_s(self) -> float:
        """All kinds together."""
        return sum(self.kinds.values())

    @property
    def is_balanced(self) -> bool:
        """Whether what is accounted for and the held time differ by at most 1 %."""
        return abs(self.accounted_s - self.held_s) <= BALANCED * self.held_s

    def by(self, key: str) -> dict[str, list[Charged]]:
        """The charges by "space" or "state"."""
        found: dict[str, list[Charged]] = {}
        for one in self.charged:
            found.setdefault(getattr(one, key), []).append(one)
        return found

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "sweep": self.sweep.name,
            "mode": self.sweep.mode,
            "spaces": {name: self._totals(rows) for name, rows in self.by("space").items()},
            "attempts": {name: self._totals(rows) for name, rows in self.by("state").items()},
            "charged": [asdict(one) for one in self.charged],
            "unassigned_s": self.unassigned,
            "worker_s": dict(self.worker_s),
            "kinds_s": self.kinds,
            "balance": {
                "accounted_s": self.accounted_s,
                "held_s": self.held_s,
                "share": self.accounted_s / self.held_s if self.held_s else None,
                "unnamed_s": self.kinds[_OTHER],
                "balanced": self.is_balanced,
            },
            "money": None if self.device_hour is None else self.held_s / SECONDS_PER_HOUR * self.device_hour,
        }

    def sheets(self) -> list[Sheet]:
        """For people: by space, by how attempts ended, and by kind."""
        spaces = [self._cells("space", name, rows) for name, rows in self.by("space").items()]
        ended = [self._cells("attempts that ended as", name, rows) for name, rows in self.by("state").items()]
        held = self.held_s or 1.0
        kinds = [
            {"kind": kind, "seconds": f"{seconds:.2f}", "share": f"{seconds / held:.1%}"}
            for kind, seconds in self.kinds.items()
        ]
        found = {"by space": [*spaces, self._no_trial()], "by how attempts ended": ended, "by kind": kinds}
        return [Sheet(caption, rows) for caption, rows in found.items() if rows]

    @property
    def balance(self) -> str:
        """The last line: whether it adds up."""
        share = self.accounted_s / self.held_s if self.held_s else 1.0
        verdict = "balanced" if self.is_balanced else "NOT balanced"
        who = "1 worker held its device" if self.workers == 1 else f"{self.workers} workers held their devices"
        money = self.device_hour
        paid = "" if money is None else f"; {self.held_s / SECONDS_PER_HOUR * money:.4g} of money"
        return (
            f"{verdict}: {self.accounted_s:.2f} s are accounted for, and {who} for {self.held_s:.2f} s "
            f"({duration(self.held_s)}): {share:.2%}{paid}"
        )

    def _totals(self, rows: Sequence[Charged]) -> dict[str, Any]:
        cost = _sum(rows)
        counted = {"attempts": sum(one.attempts for one in rows), **seconds_of(cost), "solo_s": _solo_s(rows)}
        return {**counted, "cost": asdict(cost)}

    def _cells(self, key: str, name: str, rows: Sequence[Charged]) -> dict[str, str]:
        cost = _sum(rows)
        seconds = {kind: f"{value:.2f}" for kind, value in seconds_of(cost).items()}
        joules = "not measured" if cost.joules is None else energy(cost.joules)
        attempts, solo_s = str(sum(one.attempts for one in rows)), _solo_s(rows)
        alone = "not measured" if solo_s is None else f"{solo_s:.2f}"
        told = {_ALONE: alone, "energy": joules, "FLOPs": f"{cost.flops:.3g}"}
        return {key: name, "attempts": attempts, **seconds, **told}

    def _no_trial(self) -> dict[str, str]:
        row = dict.fromkeys(self._cells("space", "", ()), "-") | {"space": "(no trial's own)", "energy": "not measured"}
        return row | {kind: f"{seconds:.2f}" for kind, seconds in self.unassigned.items()}


def _sum(rows: Sequence[Charged]) -> Cost:
    """All charges together; their energy only where all that used a device measured it."""
    total = reduce(add, (one.cost for one in rows), Cost())
    unmeasured = any(one.cost.joules is None and one.cost.device_s > 0 for one in rows)
    return total if not unmeasured else Cost(**{**asdict(total), "joules": None})


def _solo_s(rows: Sequence[Charged]) -> float | None:
    """Device seconds of all charges, had each fit trained alone; None where a worker did not calibrate that."""
    seconds = [one.solo_s for one in rows]
    known = [value for value in seconds if value is not None]
    return sum(known) if len(known) == len(seconds) else None
