"""Intervals against textbook values."""

import math

import numpy as np
import pytest
from scipy import stats

from sweeper.price.intervals import Estimate, jackknife_t, leave_one_out, paired_t, t_quantile

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


def test_ratios_change_unit_and_split_into_factors():
    price = Estimate(8.0, 1.0, math.inf)
    assert price.times(0.5) == Estimate(4.0, 0.5, math.inf)
    assert price.root(3) == Estimate(pytest.approx(2.0), 1.0, math.inf)
