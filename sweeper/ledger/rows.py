"""What goes into the ledger and comes out of it, as frozen values."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sweeper.errors import LedgerError
from sweeper.records import Cost, FitResult, ParameterValue, Setting, TrialState

_UID = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class StudyPlan:
    """A study as it is launched. `turn` orders studies among equals: random, so that spaces interleave."""

    space: str
    replicate: int
    dimensions: int
    sampler: Mapping[str, Any]
    seed: int
    trials: int
    turn: int


@dataclass(frozen=True)
class SweepPlan:
    """A sweep as it is launched.

    Attributes:
        config: the file's content, validated and with its defaults, for comparing.
        numerics: what decides a fit's last bits on this machine (eager or compiled, versions).
    """

    name: str
    mode: str
    file_path: str
    file_text: str
    config: Mapping[str, Any]
    data_sha256: str
    numerics: Mapping[str, Any]
    studies: tuple[StudyPlan, ...]


@dataclass(frozen=True)
class Sweep:
    """A sweep in the ledger."""

    id: int
    name: str
    token: str
    state: str
    mode: str
    file_path: str
    file_text: str
    config: Mapping[str, Any]
    data_sha256: str
    numerics: Mapping[str, Any]
    created_at: datetime
    estimate: Mapping[str, Any] | None = None  # what `run` said beforehand

    def __post_init__(self) -> None:
        """Others may write to a ledger, and folders are called after sweeps.

        Raises:
            LedgerError: the name is none that sweeper gives.
        """
        if not _UID.fullmatch(self.uid):
            raise LedgerError(
                f"the store holds a sweep named {self.uid!r}, and sweeper gives only names of letters, digits, '_' and "
                f"'-'. Something else wrote it: find out what, and delete it."
            )

    @property
    def uid(self) -> str:
        """The sweep's name in MLflow's tags: a name that is used again stays distinct."""
        return f"{self.name}-{self.token}"


@dataclass(frozen=True)
class Study:
    """A study in the ledger."""

    id: int
    space: str
    replicate: int
    dimensions: int
    sampler: Mapping[str, Any]
    seed: int
    trials: int


@dataclass(frozen=True)
class NewTrial:
    """A suggestion to be committed before anyone trains it."""

    study_id: int
    number: int
    origin: str
    params: Mapping[str, ParameterValue]
    setting: Setting
    told: int
    running: tuple[int, ...]
    suggest_s: float


@dataclass(frozen=True)
class Claimed:
    """A trial that a worker has taken; `attempt` is its fencing token.

    Attributes:
        failures: how many attempts before this one an error ended.
        is_suspect: whether it is to be trained alone.
    """

    trial_id: int
    attempt_id: int
    attempt: int
    study_id: int
    number: int
    params: Mapping[str, ParameterValue] = field(hash=False)  # a dict has no hash; the ids tell claims apart
    setting: Setting
    suggest_s: float
    started_at: datetime
    failures: int = 0
    is_suspect: bool = False


@dataclass(frozen=True)
class Means:
    """A trial's losses and metrics: means over its folds, at each fold's best epoch."""

    validation_loss: float
    validation_metric: float
    test_loss: float
    test_metric: float
    train_loss: float
    best_epoch: float


@dataclass(frozen=True)
class SettledFit:
    """One fit of a settled trial."""

    fold: int
    seed: int
    result: FitResult


@dataclass(frozen=True)
class Letter:
    """A run for the outbox: its unique name, its status, and itself as text that is never reformatted."""

    uid: str
    status: str
    payload: str


@dataclass(frozen=True)
class Posted:
    """A row of the outbox. `attempts` counts the delivery that is about to be tried."""

    id: int
    attempts: int
    payload: str


@dataclass(frozen=True)
class Settlement:
    """A claimed trial's end: everything that one transaction keeps together."""

    claimed: Claimed
    state: TrialState
    means: Means | None
    error: str | None
    ended_at: datetime
    cost: Cost
    fits: tuple[SettledFit, ...]
    letters: tuple[Letter, ...]


@dataclass(frozen=True)
class RungScore:
    """What a claimed trial had reached at an epoch at which trials are judged."""

    claimed: Claimed
    epoch: int
    score: float


@dataclass(frozen=True)
class Peer:
    """A trial as those of its study that are judged need to know it.

    Attributes:
        scores: by epoch; of the latest attempt, and of those before it where it has not come so far yet.
    """

    study_id: int
    number: int
    state: TrialState
    scores: Mapping[int, float]


@dataclass(frozen=True)
class Meter:
    """What the slots of an engine did: steps of those with a fit, of all, and the device's energy for all of them."""

    busy_steps: int = 0
    slot_steps: int = 0
    joules: float | None = None

    def __add__(self, other: Meter) -> Meter:
        """Both together; their energy only where it was measured of all that was done."""
        joules = [one.joules for one in (self, other) if one.slot_steps]
        measured = [value for value in joules if value is not None and math.isfinite(value)]
        total = sum(measured) if measured and len(measured) == len(joules) else None
        return Meter(self.busy_steps + other.busy_steps, self.slot_steps + other.slot_steps, total)

    @property
    def occupancy(self) -> float | None:
        """Busy slot-steps over all slot-steps; None where nothing was trained."""
        return self.busy_steps / self.slot_steps if self.slot_steps else None


@dataclass(frozen=True)
class PastTrial:
    """A trial as the sampler needs to know it; `step` is the epoch at which a pruned one was judged last."""

    study_id: int
    number: int
    state: TrialState
    params: Mapping[str, ParameterValue]
    validation_loss: float | None
    running: tuple[int, ...]
    origin: str
    step: int | None = None


@dataclass(frozen=True)
class History:
    """What it takes to propose for some studies.

    Attributes:
        asked: how many trials each has, by study.
        trials: all of theirs, in order; where no suggestion depends on results only those that are not finished.
    """

    asked: Mapping[int, int] = field(default_factory=dict)
    trials: Sequence[PastTrial] = ()


@dataclass(frozen=True)
class Trial:
    """A trial with its study's names and its attempts' cost."""

    space: str
    replicate: int
    number: int
    state: TrialState
    origin: str
    attempts: int
    params: Mapping[str, ParameterValue]
    setting: Setting
    validation_loss: float | None
    validation_metric: float | None
    test_loss: float | None
    test_metric: float | None
    train_loss: float | None
    best_epoch: float | None
    error: str | None
    started_at: datetime | None
    ended_at: datetime | None
    cost: Cost


@dataclass(frozen=True)
class Finished:
    """How the trials of a study or a space ended, and the lowest validation loss of the complete ones."""

    complete: int = 0
    failed: int = 0
    pruned: int = 0
    best_validation_loss: float | None = None

    @property
    def trials(self) -> int:
        """All of them."""
        return self.complete + self.failed + self.pruned


@dataclass(frozen=True)
class SpaceProgress:
    """How far one space has come."""

    space: str
    planned: int
    complete: int
    failed: int
    pruned: int
    running: int
    best_validation_loss: float | None

    @property
    def finished(self) -> int:
        """Trials that need nothing more."""
        return self.complete + self.failed + self.pruned

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.finished >= self.planned
