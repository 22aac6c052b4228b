"""One space: its gap, its overtuning, what it cost. The truth of the gap: test_truth.py."""

import math

import numpy as np
import pytest

from sweeper.price import Mode, SpaceShape, summarise_spaces
from sweeper.price.spaces import overtuning

from .problems import A_SHAPES, problem_a, studies

INF = math.inf
ONE = {"shared": A_SHAPES["shared"]}


def summary_of(test, validation=None, mode=Mode.MEASUREMENT, **costs):
    return summarise_spaces({"shared": studies(np.array(test), validation, **costs)}, ONE, mode=mode)[0]


def test_overtuning_is_what_searching_on_made_worse():
    traces = np.array([[0.5, 0.3, 0.3, 0.4], [0.5, 0.4, 0.4, 0.2], [INF, 0.4, 0.3, 0.35], [INF, INF, INF, INF]])
    np.testing.assert_allclose(overtuning(traces), [0.1, 0, 0.05, math.nan])


def test_a_study_may_end_worse_than_it_began():
    falling = np.array([[4.0, 3.0, 2.0, 1.0]] * 4)
    found = summary_of([[0.5, 0.6, 0.7, 0.8], [0.5, 0.4, 0.3, 0.2], [0.5, 0.4, 0.3, 0.6], [0.5] * 4], falling)
    assert found.ends_worse == 0.5
    assert found.overtuning.value == pytest.approx((0.3 + 0 + 0.3 + 0) / 4)


def test_without_noise_there_is_no_gap_and_no_overtuning():
    for found in summarise_spaces(problem_a(10, 32, np.random.default_rng(1)), A_SHAPES):
        assert found.gap.value == pytest.approx(0, abs=1e-12)
        assert (found.overtuning.value, found.ends_worse, found.failed) == (0, 0, 0)
        assert (found.replicates, found.trials, found.budget) == (10, 32, 16)


def test_a_test_set_that_is_harder_is_no_gap():
    rng = np.random.default_rng(2)
    test = rng.random((10, 32))
    assert summary_of(test + 5, test).gap.value == pytest.approx(0, abs=1e-12)


def test_failed_trials_count_as_failed_and_nowhere_else():
    rng = np.random.default_rng(3)
    test = rng.random((10, 32))
    test[:, ::4] = INF
    found = summary_of(test)
    assert found.failed == 0.25
    assert math.isfinite(found.gap.value)
    nothing = summary_of(np.full((10, 4), INF))
    assert (nothing.failed, nothing.effective) == (1.0, None)
    assert math.isnan(nothing.gap.value)


def test_product_mode_reads_the_trace_to_its_end():
    validation = np.array([[3.0, 1.0, 2.0, 0.5]] * 2)
    found = summary_of([[0.9, 0.2, 0.1, 0.4]] * 2, validation, Mode.PRODUCT)
    assert (found.mode, found.budget, found.test_loss.value) == (Mode.PRODUCT, 4, 0.4)
    assert found.gap.value == pytest.approx((0.4 - 0.5) - np.mean([-2.1, -0.8, -1.9, -0.1]))
    assert found.effective is None


def test_costs_are_means_per_trial_and_unmeasured_ones_are_no_number():
    test = np.random.default_rng(4).random((4, 8))
    (found,) = summarise_spaces({"shared": studies(test, device_s=2.0, joules=50.0)}, ONE, device_hour=3.6)
    assert found.costs["device_s"] == 2.0
    assert found.costs["joules"] == 50.0
    assert found.costs["money"] == pytest.approx(0.002)
    assert math.isnan(found.costs["solo_s"])


def test_spaces_come_in_the_order_of_the_sweep_and_without_trials_not_at_all():
    sweep = problem_a(3, 8, np.random.default_rng(5))
    shapes = {"both": SpaceShape("per_layer", "per_layer", 7), "per_layer": A_SHAPES["per_layer"], **ONE}
    assert [found.space for found in summarise_spaces(sweep, shapes)] == ["per_layer", "shared"]
