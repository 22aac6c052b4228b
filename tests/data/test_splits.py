"""Divisions of the rows: nothing leaks, classes keep their shares, and chance comes from seed and replicate alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.data import SplitPlan, Table, load, parts_of, split
from sweeper.errors import DataError
from sweeper.records import Task

HOLD_OUT = SplitPlan(train=0.5, validation=0.5)
FOLDS = SplitPlan(test=0.2, folds=4, repeats=2)


def table(classes: tuple[int, ...] = (40, 60), columns: int = 3, task: Task | None = None) -> Table:
    """A table with so many rows of each class, or a regression over as many rows."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(classes)), classes)
    x = random.normal(5.0, 3.0, (len(labels), columns))
    if task is Task.REGRESSION:
        return Table(x, random.normal(100.0, 20.0, len(labels)), tuple("abc"), task, (), "")
    task = Task.BINARY if len(classes) == 2 else Task.MULTICLASS
    return Table(x, labels, tuple("abc"[:columns]), task, tuple(f"class{c}" for c in range(len(classes))), "")


def refusal(*arguments) -> str:
    with pytest.raises(DataError) as caught:
        split(*arguments)
    return str(caught.value)


# Which rows go where

plans = st.one_of(
    st.builds(
        SplitPlan,
        train=st.integers(10, 40) | st.floats(0.2, 0.5),
        validation=st.integers(10, 30) | st.floats(0.2, 0.6),
        repeats=st.integers(1, 3),
        stratify=st.booleans(),
    ),
    st.builds(
        SplitPlan,
        train=st.none() | st.integers(20, 60),
        test=st.integers(10, 30) | st.floats(0.1, 0.3),
        folds=st.integers(2, 5),
        repeats=st.integers(1, 3),
        stratify=st.booleans(),
    ),
)


@given(plan=plans, replicate=st.integers(0, 50), seed=st.integers(0, 2**63))
def test_no_row_stands_in_two_parts_and_test_rows_never_change_sides(plan, replicate, seed):
    folds = list(parts_of(table((40, 60)), plan, replicate, seed))
    assert len(folds) == plan.repeats * (plan.folds or 1)
    for parts in folds:
        together = np.concatenate([parts.train, parts.validation, parts.test])
        assert len(np.unique(together)) == len(together)
        assert together.min() >= 0
        assert together.max() < 100
        np.testing.assert_array_equal(parts.test, folds[0].test)


@given(folds=st.integers(2, 6), repeats=st.integers(1, 3), pool=st.none() | st.integers(20, 70))
def test_folds_cover_the_pool_exactly_once_per_repeat(folds, repeats, pool):
    plan = SplitPlan(train=pool, test=0.2, folds=folds, repeats=repeats)
    made = list(parts_of(table((40, 60)), plan, 0, 0))
    for repeat in range(repeats):
        mine = made[repeat * folds : (repeat + 1) * folds]
        validated = np.concatenate([parts.validation for parts in mine])
        assert len(np.unique(validated)) == len(validated) == (pool or 80)
        sizes = [len(parts.validation) for parts in mine]
        assert max(sizes) - min(sizes) <= 1
        for parts in mine:
            np.testing.assert_array_equal(np.union1d(parts.train, parts.validation), np.sort(validated))


@pytest.mark.parametrize(
    ("plan", "sizes"),
    [
        (SplitPlan(train=30, validation=0.5), (30, 35, 35)),
        (SplitPlan(train=0.6, validation=10), (60, 10, 30)),
        (SplitPlan(test=0.2, folds=4), (60, 20, 20)),
        (SplitPlan(train=40, test=10, folds=4), (30, 10, 10)),
    ],
)
def test_parts_are_as_large_as_asked(plan, sizes):
    parts = next(parts_of(table((40, 60)), plan, 0, 0))
    assert (len(parts.train), len(parts.validation), len(parts.test)) == sizes


@given(classes=st.lists(st.integers(20, 80), min_size=2, max_size=5), replicate=st.integers(0, 9))
def test_stratified_parts_keep_the_shares_of_the_classes(classes, replicate):
    whole = table(tuple(classes))
    for plan in (HOLD_OUT, FOLDS):
        for parts in parts_of(whole, plan, replicate, 0):
            for rows in (parts.train, parts.validation, parts.test):
                expected = len(rows) * np.array(classes) / sum(classes)
                found = np.bincount(whole.y[rows].astype(int), minlength=len(classes))
                assert np.abs(found - expected).max() <= 2


def test_without_stratification_rare_classes_may_be_anywhere():
    rare = table((1, 60))
    assert "class 'class0' has 1 of 61 rows, too few to have one among" in refusal(rare, HOLD_OUT, 0, 0)
    assert split(rare, replace(HOLD_OUT, stratify=False), 0, 0)


def test_a_class_too_rare_for_a_part_is_named():
    assert refusal(table((2, 98)), SplitPlan(train=30, validation=0.5), 0, 0) == (
        "class 'class0' has 2 of 100 rows, too few to have one among 30 training rows. "
        "Make that part larger, merge rare classes, or write stratify: false."
    )


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (
            SplitPlan(train=80, validation=20),
            "100 rows can't give 80 to train on and 20 to validate on and leave any to test on. Ask for fewer.",
        ),
        (
            SplitPlan(train=300, validation=0.5),
            "100 rows can't give 300 to train on and 1 to validate on and leave any to test on. Ask for fewer.",
        ),
        (
            SplitPlan(train=90, test=20, folds=5),
            "100 rows can't be divided into 20 to test on and 90 for 5 folds. Ask for fewer rows or fewer folds.",
        ),
        (
            SplitPlan(train=4, test=20, folds=5),
            "100 rows can't be divided into 20 to test on and 4 for 5 folds. Ask for fewer rows or fewer folds.",
        ),
    ],
)
def test_more_rows_than_there_are_is_refused(plan, message):
    assert refusal(table((40, 60)), plan, 0, 0) == message


@pytest.mark.parametrize(
    "shares",
    [
        {},
        {"train": 0.5},
        {"folds": 3},
        {"folds": 3, "test": 0.2, "validation": 0.5},
        {"train": 1, "validation": 1, "test": 1},
    ],
)
def test_a_plan_divides_in_one_way(shares):
    with pytest.raises(DataError, match="either train and validation"):
        SplitPlan(**shares)


# Where chance comes from


def test_the_same_replicate_of_the_same_seed_is_the_same_split():
    def rows(replicate, seed):
        return np.concatenate([p.train for p in parts_of(table((40, 60)), HOLD_OUT, replicate, seed)])

    np.testing.assert_array_equal(rows(3, 7), rows(3, 7))
    others = [rows(replicate, seed) for replicate in range(3) for seed in range(3)]
    assert len({other.tobytes() for other in others}) == 9


def test_repeats_do_not_depend_on_how_many_there_are():
    one, three = (list(parts_of(table((40, 60)), replace(HOLD_OUT, repeats=n), 0, 0)) for n in (1, 3))
    np.testing.assert_array_equal(one[0].train, three[0].train)
    assert len({parts.train.tobytes() for parts in three}) == 3


def test_splits_are_the_same_in_every_version():
    """Recorded results are only worth something while the split behind them can be made again."""
    parts = next(parts_of(load("sklearn:digits"), SplitPlan(train=300, validation=0.5), replicate=2, seed=0))
    assert parts.train[:8].tolist() == [2, 12, 15, 32, 39, 42, 46, 47]
    assert parts.test[:8].tolist() == [0, 1, 3, 6, 9, 11, 13, 17]


# What becomes of the values


@pytest.mark.parametrize("plan", [HOLD_OUT, FOLDS])
@pytest.mark.parametrize("task", [Task.BINARY, Task.REGRESSION])
def test_no_value_of_a_test_or_validation_row_reaches_training(plan, task):
    whole = table((40, 60), task=task)
    for number, parts in enumerate(parts_of(whole, plan, 0, 0)):
        x, y = whole.x.copy(), whole.y.copy()
        x[np.concatenate([parts.test, parts.validation])] = 1e6
        if task is Task.REGRESSION:
            y[np.concatenate([parts.test, parts.validation])] = -1e6
        before, after = (split(each, plan, 0, 0)[number] for each in (whole, replace(whole, x=x, y=y)))
        assert before.x_train.tobytes() == after.x_train.tobytes()
        assert before.y_train.tobytes() == after.y_train.tobytes()
        assert before.x_test.tobytes() != after.x_test.tobytes(), "the change was there to see"


def test_inputs_are_standardised_by_the_training_rows():
    for fold in split(table(), FOLDS, 0, 0):
        np.testing.assert_allclose(fold.x_train.mean(axis=0), 0.0, atol=1e-6)
        np.testing.assert_allclose(fold.x_train.std(axis=0), 1.0, atol=1e-6)
        assert abs(fold.x_test.mean()) > 1e-3


def test_a_constant_column_is_shifted_and_not_scaled():
    whole = table()
    x = whole.x.copy()
    x[:, 1] = 0.1  # its float64 mean is not quite 0.1, so its deviation is not quite 0
    (fold,) = split(replace(whole, x=x), HOLD_OUT, 0, 0)
    np.testing.assert_allclose(fold.x_train[:, 1], 0.0, atol=1e-15)


def test_a_regression_target_is_standardised_and_its_scale_is_kept():
    whole = table(task=Task.REGRESSION)
    (fold,), parts = split(whole, HOLD_OUT, 0, 0), next(parts_of(whole, HOLD_OUT, 0, 0))
    assert fold.target_scale == pytest.approx(whole.y[parts.train].std())
    restored = fold.y_test * fold.target_scale + whole.y[parts.train].mean()
    np.testing.assert_allclose(restored, whole.y[parts.test], rtol=1e-5)


def test_without_standardising_values_stay_as_they_are():
    whole = table(task=Task.REGRESSION)
    plan = replace(HOLD_OUT, standardise=False)
    (fold,), parts = split(whole, plan, 0, 0), next(parts_of(whole, plan, 0, 0))
    np.testing.assert_array_equal(fold.x_test, whole.x[parts.test].astype(np.float32))
    np.testing.assert_array_equal(fold.y_test, whole.y[parts.test].astype(np.float32))
    assert fold.target_scale == 1.0


def test_values_too_large_for_float32_are_refused():
    whole = table()
    x = whole.x.copy()
    x[:, 2] *= 1e300
    assert refusal(replace(whole, x=x), replace(HOLD_OUT, standardise=False), 0, 0) == (
        "column 'c' holds values too large for float32. Scale it down first."
    )


@pytest.mark.parametrize(
    ("classes", "dtype", "values"), [((40, 60), np.float32, {0, 1}), ((30, 30, 40), np.int64, {0, 1, 2})]
)
def test_targets_have_the_type_that_their_loss_takes(classes, dtype, values):
    (fold,) = split(table(classes), HOLD_OUT, 0, 0)
    for y in (fold.y_train, fold.y_validation, fold.y_test):
        assert y.dtype == dtype
        assert set(y.tolist()) == values
    assert fold.x_train.dtype == np.float32
