"""Frozen values that the rooms hand to each other; standard library and numpy only.

Letters: L weight layers, m training rows of one fold, D inputs of one row, C classes.
Units ride in the names: `_s` seconds, `_ms` milliseconds since the epoch (UTC), `flops` operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sweeper.errors import SettingError

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class Task(StrEnum):
    """What the network's output means, and with it the loss of one row (nats, or squared target units).

    MULTICLASS: C logits, softmax cross-entropy. BINARY: one logit, sigmoid cross-entropy.
    REGRESSION: one value, half the squared error (Ng's half, which makes lambda_ that of ridge regression).
    """

    MULTICLASS = "multiclass"
    BINARY = "binary"
    REGRESSION = "regression"


class TrialState(StrEnum):
    """A trial's state, with Optuna's names and meanings."""

    WAITING = "WAITING"
    RUNNING = "RUNNING"
    COMPLETE = "COMPLETE"
    PRUNED = "PRUNED"
    FAIL = "FAIL"

    @property
    def is_finished(self) -> bool:
        """Whether nothing will change about the trial any more."""
        return self not in (TrialState.WAITING, TrialState.RUNNING)


class Outcome(StrEnum):
    """Why a fit ended; the value is what a user reads."""

    FINISHED = "trained all its epochs"
    STOPPED_EARLY = "stopped early: validation loss no longer improved"
    DIVERGED = "diverged: a loss is not a finite number"
    PRUNED = "pruned: others did better after as many epochs"


@dataclass(frozen=True, slots=True)
class Setting:
    """One point of the search: what every space maps to.

    Attributes:
        keep_prob: L chances in (0, 1]; keep_prob[l] acts on the input of weight layer l + 1, so [0] is the input's.
        lambda_: L numbers >= 0 in Ng's convention; lambda_[l] belongs to weight layer l + 1.

    Raises:
        SettingError: a value lies outside its range, or the lengths differ.
    """

    keep_prob: tuple[float, ...]
    lambda_: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.keep_prob) != len(self.lambda_):
            raise SettingError(
                f"a setting needs as many keep_prob as lambda_, but got {len(self.keep_prob)} and "
                f"{len(self.lambda_)}. Give one of each per weight layer."
            )
        for layer, keep in enumerate(self.keep_prob):
            check_keep_prob(keep, f"keep_prob_{layer}")
        for layer, lambda_ in enumerate(self.lambda_, start=1):
            if not (lambda_ >= 0 and math.isfinite(lambda_)):
                raise SettingError(f"lambda_{layer} = {lambda_} must be a finite number >= 0; 0 switches L2 off.")


def check_keep_prob(keep: float, name: str) -> None:
    """Refuse a keep_prob outside (0, 1], with both conventions explained (R2).

    Raises:
        SettingError: `keep` is 0, negative, above 1 or not a number.
    """
    if not 0.0 < keep <= 1.0:
        raise SettingError(
            f"{name} = {keep} lies outside (0, 1]. keep_prob is the chance that a unit is kept; PyTorch and fast.ai "
            f"count p, the chance that it is dropped. From a p, pass 1 - p."
        )


@dataclass(frozen=True)
class WeightLayer:
    """A layer whose input is dropped and whose weight is penalised.

    Attributes:
        name: as `module.get_submodule` takes it; "" for a module that is one layer.
        outputs: how many units, or channels of a convolution.
        kind: which of the two.
        shape: of its weight.
        runs: how often it runs in one pass.
    """

    name: str
    outputs: int
    kind: Literal["units", "channels"]
    shape: tuple[int, ...]
    runs: int = 1


@dataclass(frozen=True, eq=False)
class Fold:
    """One split of the data, ready to train on: inputs standardised with the training rows' statistics alone.

    Attributes:
        x_train, x_validation, x_test: `rows x D` float32.
        y_train, y_validation, y_test: `rows`; int64 classes for MULTICLASS, float32 else (0/1, or standardised target).
        target_scale: target units per unit of y for REGRESSION (RMSE is shown in target units), 1.0 otherwise.
    """

    x_train: Floats
    y_train: Floats | Ints
    x_validation: Floats
    y_validation: Floats | Ints
    x_test: Floats
    y_test: Floats | Ints
    target_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Training:
    """How every fit of a sweep is trained.

    Attributes:
        epochs: passes over the training rows, at most.
        batch_size: rows per step; the last batch of an epoch holds what is left.
        optimizer: "adam" or "sgd".
        learning_rate: step size; momentum: for sgd; beta1, beta2, epsilon: for adam.
        patience: epochs without a better validation loss after which a fit stops; 0 never stops early.
        precision: of matrix products: "float32", "tf32" (GPU) or "bfloat16"; all else is float32 always.
    """

    epochs: int
    batch_size: int
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    patience: int = 0
    precision: str = "float32"


@dataclass(frozen=True, slots=True)
class Fit:
    """One training run to do: a setting on one fold, from one seed.

    Attributes:
        key: the caller's name for it, unique among the fits in the engine at one time.
        setting: keep_prob and lambda_ of each layer.
        seed: 63-bit; masks, data order and initial weights are functions of it alone.
        fold: index into the engine's folds.
    """

    key: str
    setting: Setting
    seed: int
    fold: int


@dataclass(frozen=True, slots=True)
class Score:
    """What one epoch of one fit measured. Losses are means per row without the penalty.

    Attributes:
        epoch: counted from 1.
        train_loss_dropped: as trained, dropout on, averaged over the epoch's steps (R13). Never used for decisions.
        train_loss, validation_loss: as evaluated, dropout off, after the epoch.
        train_metric, validation_metric: accuracy, or RMSE in target units.
        at_ms: when the epoch ended, milliseconds since the epoch (UTC).
    """

    epoch: int
    train_loss_dropped: float
    train_loss: float
    validation_loss: float
    train_metric: float
    validation_metric: float
    at_ms: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What an attempt took. Sums of costs are costs.

    Attributes:
        steps, epochs, examples: optimiser steps, epochs, training rows seen.
        flops: matrix products of training and evaluation, multiply and add counted as two.
        train_s, evaluate_s: the device's time by share of slot-steps; suggest_s, storage_s, checkpoint_s: the host's.
        joules: the device's energy by the same share; None where no counter could be read, never 0 for want of one.
    """

    steps: int = 0
    epochs: int = 0
    examples: int = 0
    flops: int = 0
    train_s: float = 0.0
    evaluate_s: float = 0.0
    suggest_s: float = 0.0
    storage_s: float = 0.0
    checkpoint_s: float = 0.0
    joules: float | None = None

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(_added(getattr(self, name), getattr(other, name)) for name in self.__slots__))

    @property
    def device_s(self) -> float:
        """Seconds of the device that training and evaluation used."""
        return self.train_s + self.evaluate_s


def _added(one: Any, other: Any) -> Any:
    """Both together; what was not measured on one side adds nothing."""
    if one is None or other is None:
        return other if one is None else one
    return one + other


@dataclass(frozen=True, slots=True)
class FitResult:
    """How one fit ended. Losses and metrics are those of `best_epoch`, dropout off; NaN where it diverged.

    A pruned fit has no test scores (NaN): it can't become anybody's choice.

    Attributes:
        squared_norms: ||W_l||_F^2 per weight layer at the best epoch.
        scores: one per epoch, in order.
        cost: of this attempt. before: of those whose work this one went on with.
    """

    key: str
    outcome: Outcome
    best_epoch: int
    train_loss: float
    validation_loss: float
    validation_metric: float
    test_loss: float
    test_metric: float
    squared_norms: tuple[float, ...]
    scores: tuple[Score, ...]
    cost: Cost
    before: Cost = Cost()


def fit_result(values: Mapping[str, Any]) -> FitResult:
    """A result from what `dataclasses.asdict` made of it, by way of JSON too.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    typed = {
        "outcome": Outcome(values["outcome"]),
        "squared_norms": tuple(values["squared_norms"]),
        "scores": tuple(Score(**score) for score in values["scores"]),
        "cost": Cost(**values["cost"]),
        "before": Cost(**values["before"]),
    }
    return FitResult(**{**values, **typed})


ParameterValue = float | bool | int | str


@dataclass(frozen=True)
class RunRecord:
    """One MLflow run as it must come to be, frozen when the ledger settles what it tells of.

    Attributes:
        uid: unique name, the same at every delivery, e.g. "digits/per_layer/r03/t0012".
        experiment: name of the MLflow experiment (one per sweep).
        parent: uid of the parent run, or None.
        status: "RUNNING", "FINISHED" or "FAILED".
        curves: per metric one value per epoch; epoch_ms: when each epoch ended.
        metrics: final values, recorded at end_ms.
    """

    uid: str
    experiment: str
    parent: str | None
    name: str
    status: str
    start_ms: int
    end_ms: int | None
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    curves: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    epoch_ms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PricedTrial:
    """What the price needs to know of one trial.

    Attributes:
        number: order in its study, from 0.
        validation_loss, test_loss: at the best epoch; +inf where the trial failed or was pruned.
        exchangeable: drawn at random, independently of the history (an enqueued start is not).
        device_s, flops: what the trial took, failed attempts included.
        joules: the device's energy; None where no counter could be read.
        suggest_s: the host's time for suggesting it; it grows with the number of hyperparameters.
        solo_s: device seconds that it would have taken alone (calibrated at one slot); None without a calibration.
    """

    number: int
    validation_loss: float
    test_loss: float
    exchangeable: bool
    device_s: float
    flops: int
    joules: float | None = None
    suggest_s: float = 0.0
    solo_s: float | None = None
