"""From which budget on a larger space pays: by hand where curves are simple. Truth by simulation: test_truth.py."""

import math

import numpy as np
import pytest
from scipy import stats

from sweeper.price import Edge, Mode, break_even_text
from sweeper.price.breakeven import break_even
from sweeper.price.pairs import Pair, Side

INF = math.inf


def pair_of(differences):
    """A pair whose paired differences are given, `R x G`, at budgets 1, 2, 4, 8, ..."""
    smaller = np.asarray(differences, dtype=float)
    budgets = 2 ** np.arange(smaller.shape[1])
    sides = [Side(curves, curves, {}) for curves in (smaller, np.zeros_like(smaller))]
    return Pair(Mode.MEASUREMENT, tuple(range(len(smaller))), 2 * int(budgets[-1]), budgets, *sides)


def around(means, half_widths, replicates=10):
    """Differences with these means and these half widths of their 95 % intervals."""
    spread = np.tile([1.0, -1.0], replicates // 2)
    deviation = np.asarray(half_widths) * math.sqrt(replicates) / stats.t.ppf(0.975, replicates - 1)
    return pair_of(np.asarray(means) + np.outer(spread, deviation) / spread.std(ddof=1))


def test_the_crossing_is_interpolated_in_log_n():
    found = break_even(around([-1.0, -1.0, 1.0, 1.0], [0.5] * 4))
    assert found.trials == pytest.approx(2 * math.sqrt(2))
    # the interval's upper end passes 0 a quarter of the way from 2 to 4, its lower end at three quarters
    assert found.spans == (pytest.approx((2 * 2**0.25, 2 * 2**0.75)),)
    assert (found.beyond, found.budget) == (False, 8)
    assert break_even_text(found) == "2.8 [2.4, 3.4]"


def test_the_last_of_several_crossings_counts_and_earlier_ones_are_ruled_out():
    found = break_even(around([1.0, -1.0, -1.0, 1.0], [0.5] * 4))
    assert found.trials == pytest.approx(4 * math.sqrt(2))
    assert len(found.spans) == 1
    assert found.spans[0][0] > 4


def test_spans_without_proof_in_between_stay_apart():
    """Ahead at 1 and 4 for sure, undecided at 2: the space may have broken even before 1, or around 2."""
    found = break_even(around([1.0, 0.1, 1.0, 1.0], [0.5] * 4))
    assert found.trials == 0
    assert len(found.spans) == 1
    low, high = found.spans[0]
    assert 1 < low < 2 < high < 4
    undecided = break_even(around([-0.1, 1.0, 0.1, 1.0], [0.5] * 4))
    assert len(undecided.spans) == 2
    assert break_even_text(undecided) == "1.1 [1, 1.5] or [2.9, 5.4]"


def test_a_space_that_is_not_ahead_at_the_largest_budget_has_not_broken_even():
    found = break_even(around([1.0, 1.0, -1.0, -1.0], [0.5] * 4))
    assert (found.trials, found.spans, found.beyond) == (INF, (), True)
    assert break_even_text(found) == "> 8"
    doubtful = break_even(around([-1.0, -1.0, -0.1, -0.1], [0.5] * 4))
    assert (doubtful.trials, doubtful.beyond) == (INF, True)
    assert break_even_text(doubtful) == "> 8 [2.9, > 8]"


def test_a_space_that_is_always_ahead_pays_from_the_first_trial_on():
    found = break_even(around([1.0, 1.0], [0.5, 0.5]))
    assert (found.trials, found.spans, found.beyond) == (0, (), False)
    assert break_even_text(found) == "from the first trial on"
    likely = break_even(around([0.1, 1.0], [0.5, 0.5]))
    assert break_even_text(likely) == "from the first trial on [1, 1.4]"


def test_a_space_against_itself_never_breaks_even():
    found = break_even(pair_of(np.zeros((10, 4))))
    assert (found.trials, found.spans, found.beyond) == (INF, ((1.0, 8.0),), True)


def test_where_trials_failed_nothing_is_ruled_out():
    found = break_even(pair_of([[-INF, -INF, 1.0, 1.0], [-INF, -1.0, 1.0, 1.5]] * 5))
    assert found.trials == 4.0  # out of infinity there is nothing to interpolate
    assert found.spans == ((1.0, 4.0),)
    assert not found.beyond


def test_one_replicate_leaves_everything_open():
    found = break_even(pair_of([[-1.0, 1.0]]))
    assert found.trials == pytest.approx(math.sqrt(2))
    assert (found.spans, found.beyond) == (((1.0, 2.0),), True)


def test_from_shown_behind_to_shown_ahead_in_one_step_leaves_a_span_within_it():
    found = break_even(around([-1.0, 1.0], [0.1, 0.1]))
    ((low, high),) = found.spans
    assert 1 < low < found.trials < high < 2


def test_edges_have_names():
    assert Edge("shared", "per_layer").larger == "per_layer"
