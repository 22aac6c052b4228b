"""A table -> folds: which rows train, validate and test, and what the training rows' statistics make of them.

Letters: N rows, k folds. Test rows are set apart first and stay the same in every fold and repeat of a replicate, so
that they are never trained on. Chance comes from (seed, replicate) alone:

    SeedSequence(seed, spawn_key=(replicate, 0))       chooses the test rows
    SeedSequence(seed, spawn_key=(replicate, 1 + r))   divides the others in repeat r
    SeedSequence(seed, spawn_key=(replicate, 0, 0))    chooses the rows that are mislabelled where they train

each as PCG64's raw output, sorted. NumPy promises that stream for good, which it doesn't for `Generator`'s methods.
So a split is the same in every space, on every machine, and with any version of NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sweeper.data.noise import mislabelled
from sweeper.data.tables import Table
from sweeper.errors import DataError
from sweeper.records import Floats, Fold, Ints, Task

Share = int | float
"""Part of the rows: a count (int), or a fraction (float in (0, 1))."""

Strata = list[Ints]
"""Row numbers of each class in random order; a single stratum where classes don't matter."""


@dataclass(frozen=True, slots=True)
class SplitPlan:
    """How the rows of a table are divided.

    Attributes:
        train: of all rows; with folds, the pool that they divide (None: every row that is not for testing).
        validation: of the rows not trained on; None with folds, where each fold validates in turn. The rest tests.
        test: of all rows; None without folds.
        folds: k, or None for a single division.
        repeats: times that training and validation rows are divided anew.
        standardise: shift and scale inputs, and the target of a regression, by the training rows' statistics.
        stratify: keep the classes' shares in every part; regression has no classes.
        label_noise: share of the training rows that are given another class; validation and test rows stay true.

    Raises:
        DataError: validation and folds are both given, or neither is; test rows are given without folds, or not with.
    """

    train: Share | None = None
    validation: Share | None = None
    test: Share | None = None
    folds: int | None = None
    repeats: int = 1
    standardise: bool = True
    stratify: bool = True
    label_noise: float = 0.0

    def __post_init__(self) -> None:
        single = self.train is not None and self.validation is not None and self.test is None
        k_fold = self.validation is None and self.test is not None
        if not (single if self.folds is None else k_fold):
            raise DataError(
                "a split has either train and validation (the rest tests), or folds and test. "
                f"Got train={self.train}, validation={self.validation}, test={self.test}, folds={self.folds}."
            )


@dataclass(frozen=True, eq=False)
class Parts:
    """Row numbers of one fold, ascending and without a row in common."""

    train: Ints
    validation: Ints
    test: Ints


def split(table: Table, plan: SplitPlan, replicate: int, seed: int) -> tuple[Fold, ...]:
    """Divide a table and standardise each fold by its own training rows.

    Columns that are constant over the training rows are shifted but not scaled. A standardised regression target has
    mean 0 and deviation 1 over the training rows; `Fold.target_scale` is that deviation in the target's units.

    Args:
        table: the rows.
        plan: how to divide them.
        replicate: from 0; another replicate is another division.
        seed: of the sweep, >= 0.

    Returns:
        One fold per repeat and per k of k-fold, repeat by repeat.

    Raises:
        DataError: there are too few rows, a class has too few to stand in every part, or there are no classes to
            mislabel.
    """
    taught = mislabelled(table.y, table.classes, plan.label_noise, _stream(seed, replicate, 0, 0))
    return tuple(fold_of(table, taught, parts, plan.standardise) for parts in parts_of(table, plan, replicate, seed))


def parts_of(table: Table, plan: SplitPlan, replicate: int, seed: int) -> Iterator[Parts]:
    """The row numbers behind `split`; arguments and errors are the same."""
    rows = len(table.y)
    classes = table.classes if plan.stratify else ()
    labels = table.y if classes else np.zeros(rows, np.int64)
    testing, pool = _counts(plan, rows)
    test, rest = _take(_strata(labels, np.arange(rows), _stream(seed, replicate, 0)), testing)
    for repeat in range(plan.repeats):
        strata = _strata(labels, np.concatenate(rest), _stream(seed, replicate, 1 + repeat))
        for train, validation in _divisions(strata, pool, plan.folds):
            parts = Parts(np.sort(train), np.sort(validation), np.sort(np.concatenate(test)))
            _check_classes(labels, parts, classes)
            yield parts


def _divisions(strata: Strata, pool: int, folds: int | None) -> Iterator[tuple[Ints, Ints]]:
    train, rest = _take(strata, pool)
    if folds is None:
        yield np.concatenate(train), np.concatenate(rest)
        return
    dealt = np.concatenate(train)  # class by class, so that dealing it out gives each fold its share of every class
    for fold in range(folds):
        yield np.delete(dealt, np.s_[fold::folds]), dealt[fold::folds]


def _counts(plan: SplitPlan, rows: int) -> tuple[int, int]:
    """How many rows test, and how many train (with folds: are divided by them)."""
    if plan.folds is None:
        return _single_counts(plan, rows)
    testing = _count(plan.test, rows)
    pool = rows - testing if plan.train is None else _count(plan.train, rows)
    if pool < plan.folds or testing + pool > rows:
        raise DataError(
            f"{rows} rows can't be divided into {testing} to test on and {pool} for {plan.folds} folds. "
            "Ask for fewer rows or fewer folds."
        )
    return testing, pool


def _single_counts(plan: SplitPlan, rows: int) -> tuple[int, int]:
    training = _count(plan.train, rows)
    validating = _count(plan.validation, rows - training)
    testing = rows - training - validating
    if testing < 1:
        raise DataError(
            f"{rows} rows can't give {training} to train on and {validating} to validate on and leave any to test "
            "on. Ask for fewer."
        )
    return testing, training


def _count(share: Share | None, rows: int) -> int:
    return share if isinstance(share, int) else max(1, round((share or 0.0) * rows))


def _stream(seed: int, *key: int) -> np.random.PCG64:
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key))


def _strata(labels: npt.NDArray[np.generic], rows: Ints, stream: np.random.PCG64) -> Strata:
    shuffled = rows[np.argsort(stream.random_raw(len(rows)), kind="stable")]
    return [shuffled[labels[shuffled] == label] for label in np.unique(labels[rows])]


def _take(strata: Strata, count: int) -> tuple[Strata, Strata]:
    """Take `count` rows, from each class its share by largest remainders; also what is left."""
    sizes = np.array([len(rows) for rows in strata])
    taken, remainders = np.divmod(count * sizes, sizes.sum())
    taken[np.argsort(-remainders, kind="stable")[: count - taken.sum()]] += 1
    pairs = list(zip(strata, taken, strict=True))
    return [rows[:n] for rows, n in pairs], [rows[n:] for rows, n in pairs]


def _check_classes(labels: npt.NDArray[np.generic], parts: Parts, classes: Sequence[str]) -> None:
    for name, rows in (("training", parts.train), ("validation", parts.validation), ("test", parts.test)):
        present = set(labels[rows].tolist())
        for label, class_ in enumerate(classes):
            if label not in present:
                has = int(np.count_nonzero(labels == label))
                raise DataError(
                    f"class {class_!r} has {has} of {len(labels)} rows, too few to have one among {len(rows)} "
                    f"{name} rows. Make that part larger, merge rare classes, or write stratify: false."
                )


def fold_of(table: Table, taught: npt.NDArray[np.generic], parts: Parts, standardise: bool) -> Fold:
    """The rows of a table as a fold: float32, standardised by the training rows' statistics if asked.

    Args:
        table: the rows.
        taught: `N`, the targets that training sees.
        parts: which of them train, validate and test.
        standardise: see `SplitPlan`.

    Raises:
        DataError: a value is too large for float32.
    """
    x, y, target_scale = table.x, table.y, 1.0
    if standardise:
        mean, scale = _mean_and_scale(x[parts.train])
        x = (x - mean) / scale
    if standardise and table.task is Task.REGRESSION:
        mean, scale = _mean_and_scale(y[parts.train].astype(np.float64))
        y, target_scale = (y - mean) / scale, float(scale)
        taught = y  # a regression mislabels nothing
    inputs = _float32(x, table.feature_names)
    return Fold(
        x_train=inputs[parts.train],
        y_train=_targets(taught[parts.train], table.task),
        x_validation=inputs[parts.validation],
        y_validation=_targets(y[parts.validation], table.task),
        x_test=inputs[parts.test],
        y_test=_targets(y[parts.test], table.task),
        target_scale=target_scale,
    )


def _targets(y: npt.NDArray[np.generic], task: Task) -> Floats | Ints:
    return y.astype(np.int64) if task is Task.MULTICLASS else _float32(y[:, None], ("target",))[:, 0]


def _mean_and_scale(values: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and standard deviation of each column; 1 for one that is constant.

    Constancy is read off the values: rounding gives the deviation of a constant column some last bits.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = values.mean(axis=0), values.std(axis=0)
    constant = (values.max(axis=0) == values.min(axis=0)) | (deviation == 0)
    return mean, np.where(constant, 1.0, deviation)


def _float32(values: npt.NDArray[np.generic], names: Sequence[str]) -> Floats:
    with np.errstate(over="ignore"):
        small = values.astype(np.float32)
    if not np.all(np.isfinite(small)):
        worst = names[int(np.argmin(np.isfinite(small).all(axis=0)))]
        raise DataError(f"column {worst!r} holds values too large for float32. Scale it down first.")
    return small
