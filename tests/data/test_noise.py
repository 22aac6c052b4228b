"""Labels that are wrong on purpose: about as many as asked, in training alone, the same in every space and version."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from data.test_splits import FOLDS, HOLD_OUT, refusal, table
from sweeper.data import parts_of, split
from sweeper.records import Task

NOISY = replace(HOLD_OUT, label_noise=0.2)
ROWS = (900, 900, 1200)


def wrong(replicate: int = 0, seed: int = 0, share: float = 0.2) -> np.ndarray:
    """Which training rows are mislabelled."""
    [true] = split(table(ROWS), HOLD_OUT, replicate, seed)
    [taught] = split(table(ROWS), replace(HOLD_OUT, label_noise=share), replicate, seed)
    return np.asarray(true.y_train != taught.y_train)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_about_as_many_training_rows_as_asked_are_wrong(share: float):
    found = wrong(share=share)
    assert abs(found.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(found))


def test_every_other_class_is_as_likely():
    [true] = split(table(ROWS), HOLD_OUT, 0, 0)
    [taught] = split(table(ROWS), NOISY, 0, 0)
    moved = (taught.y_train - true.y_train)[taught.y_train != true.y_train] % 3
    assert abs((moved == 1).mean() - 0.5) < 4 * 0.5 / np.sqrt(len(moved))
    assert set(taught.y_train) == {0, 1, 2}


@pytest.mark.parametrize("classes", [(40, 60), (40, 60, 50)])
def test_nothing_else_changes(classes: tuple[int, ...]):
    [true], [taught] = (split(table(classes), plan, 1, 2) for plan in (HOLD_OUT, NOISY))
    assert taught.y_train.dtype == true.y_train.dtype
    assert set(np.unique(taught.y_train)) <= set(range(len(classes)))
    for name in ("x_train", "x_validation", "y_validation", "x_test", "y_test"):
        assert np.array_equal(getattr(true, name), getattr(taught, name))


def test_seed_and_replicate_decide():
    assert np.array_equal(wrong(1, 2), wrong(1, 2))
    assert not np.array_equal(wrong(1, 2), wrong(2, 2))
    assert not np.array_equal(wrong(1, 2), wrong(1, 3))


def test_a_row_is_wrong_in_every_fold_that_trains_on_it():
    rows, plan = table((80, 120)), replace(FOLDS, label_noise=0.3)
    taught: dict[int, float] = {}
    for fold, parts in zip(split(rows, plan, 0, 0), parts_of(rows, plan, 0, 0), strict=True):
        assert np.array_equal(fold.y_validation, rows.y[parts.validation])
        for row, label in zip(parts.train.tolist(), fold.y_train.tolist(), strict=True):
            assert taught.setdefault(row, label) == label
    assert {label == rows.y[row] for row, label in taught.items()} == {True, False}


def test_the_rows_are_the_same_in_every_version():
    assert np.flatnonzero(wrong(3, 7))[:6].tolist() == [5, 19, 25, 35, 43, 44]


def test_a_regression_has_no_classes_to_mistake():
    assert "label_noise gives rows another class" in refusal(table(task=Task.REGRESSION), NOISY, 0, 0)
