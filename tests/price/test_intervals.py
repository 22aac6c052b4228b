"""Intervals against textbook values."""

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from sweeper.price.intervals import (
    Estimate,
    holm,
    jackknife_t,
    leave_one_out,
    paired_p,
    paired_t,
    simultaneous_confidence,
    t_quantile,
)

# Student (1908): additional hours of sleep under two drugs, the same ten patients. R's t.test gives [-2.46, -0.70].
SLEEP_1 = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
SLEEP_2 = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])


def test_paired_t_on_student_s_sleep_data():
    found = paired_t(SLEEP_1 - SLEEP_2)
    assert found.value == pytest.approx(-1.58)
    assert (found.lower, found.upper) == pytest.approx((-2.4598858, -0.7001142), abs=1e-7)


def test_the_jackknife_of_a_mean_is_the_t_interval():
    replicates = leave_one_out(SLEEP_1[:, None])[:, 0]
    jackknife, student = jackknife_t(SLEEP_1.mean(), replicates), paired_t(SLEEP_1)
    assert (jackknife.lower, jackknife.upper) == pytest.approx((student.lower, student.upper), rel=1e-12)


def test_the_quantile_is_student_s():
    assert t_quantile(10) == pytest.approx(stats.t.ppf(0.975, 9), rel=1e-12)
    assert t_quantile(1) == math.inf


@pytest.mark.parametrize("differences", [[0.5], [0.5, math.inf, 0.1], [0.5, math.nan]])
def test_without_two_finite_replicates_there_is_no_interval(differences):
    found = paired_t(np.array(differences))
    assert (found.lower, found.upper) == (-math.inf, math.inf)


def test_leaving_one_out_keeps_the_infinities_of_the_others():
    blocks = np.array([[1.0, np.inf], [2.0, 4.0], [6.0, 8.0]])
    np.testing.assert_array_equal(leave_one_out(blocks), [[4.0, 6.0], [3.5, np.inf], [1.5, np.inf]])


def test_the_p_value_is_that_of_the_paired_t_test():
    assert paired_p(SLEEP_1 - SLEEP_2) == pytest.approx(stats.ttest_rel(SLEEP_1, SLEEP_2).pvalue, rel=1e-9)
    assert paired_p(SLEEP_1 - SLEEP_2) == pytest.approx(0.00283, abs=1e-5)  # R's t.test


def test_a_p_value_agrees_with_the_interval():
    rng = np.random.default_rng(3)
    for _ in range(200):
        differences = rng.standard_normal(5) + 0.8
        found = paired_t(differences)
        assert (paired_p(differences) < 0.05) == (found.lower > 0 or found.upper < 0)


def test_what_can_not_be_told_apart_has_p_one_and_what_can_not_be_tested_none():
    assert paired_p(np.zeros(10)) == 1.0
    assert paired_p(np.full(10, 0.5)) == 0.0
    for untestable in ([0.5], [0.5, math.inf], [0.5, math.nan]):
        assert math.isnan(paired_p(np.array(untestable)))


def closed_testing(p_values):
    """Holm by its definition: the closure of Bonferroni's test over all sets that hold the hypothesis."""
    everyone = range(len(p_values))
    sets = [chosen for size in everyone for chosen in combinations(everyone, size + 1)]
    bonferroni = {chosen: min(1.0, len(chosen) * min(p_values[i] for i in chosen)) for chosen in sets}
    return [max(p for chosen, p in bonferroni.items() if i in chosen) for i in everyone]


def test_holm_on_a_worked_example():
    assert holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])  # R's p.adjust


def test_holm_is_the_closure_of_bonferroni():
    rng = np.random.default_rng(4)
    for size in range(1, 7):
        p_values = (rng.random(size) ** 3).round(2).tolist()  # with ties
        assert holm(p_values) == pytest.approx(closed_testing(p_values))


def test_a_comparison_without_a_p_value_counts_all_the_same():
    assert holm([0.01, math.nan]) == [0.02, pytest.approx(math.nan, nan_ok=True)]
    assert holm([0.01], comparisons=7) == [pytest.approx(0.07)]
    assert holm([]) == []


def test_simultaneous_intervals_are_bonferroni_s():
    assert simultaneous_confidence(7) == pytest.approx(0.993, abs=2e-4)
    assert simultaneous_confidence(1) == simultaneous_confidence(0) == pytest.approx(0.95)
    assert t_quantile(10, 0.99) == pytest.approx(stats.t.ppf(0.995, 9))


def test_ratios_change_unit_and_split_into_factors():
    price = Estimate(8.0, 1.0, math.inf)
    assert price.times(0.5) == Estimate(4.0, 0.5, math.inf)
    assert price.root(3) == Estimate(pytest.approx(2.0), 1.0, math.inf)
