"""What goes into a tick and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sweeper.engine.judge import Verdicts
from sweeper.records import Cost, Fit, FitResult, Score


@dataclass(frozen=True)
class Snapshot:
    """How far a fit has come: enough to go on elsewhere as if nothing had happened.

    Attributes:
        tensors: by name, see `Arena.state_of`.
        scores: one per epoch so far.
        cost: of all of them.
    """

    tensors: Mapping[str, Tensor]
    scores: tuple[Score, ...]
    cost: Cost = field(default_factory=Cost)


@dataclass(frozen=True)
class Prepared:
    """A fit with the weights that it starts from, ready to be put into a slot.

    Attributes:
        past: how far it had come elsewhere; None for one that begins.
    """

    fit: Fit
    initial: Mapping[str, Tensor]
    past: Snapshot | None = None


@dataclass(frozen=True)
class Tick:
    """What one tick did.

    Attributes:
        results: the fits that ended, their slots free again.
        scores: the latest score of every fit that goes on, by its key.
        steps: T; busy: slot-steps of fits; slots: lanes that were computed, empty ones included.
        train_s, evaluate_s: the device's seconds for the whole tick, empty lanes included.
        idle_s: the empty lanes' share of them.
        joules: the device's energy for the whole tick, empty lanes included; None where nothing measures it.
    """

    results: tuple[FitResult, ...]
    scores: Mapping[str, Score]
    steps: int
    busy: int
    slots: int
    train_s: float
    evaluate_s: float
    idle_s: float
    joules: float | None = None


@dataclass(frozen=True)
class Launched:
    """A tick under way."""

    verdicts: Verdicts
    lanes: int
