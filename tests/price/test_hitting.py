"""Expected running times, by hand and against a second implementation. Truth by simulation: test_truth.py."""

import math

import numpy as np
import pytest
from scipy import special, stats

from sweeper.price import Mode, ert_text, price_sweep
from sweeper.price.hitting import Hits, _ratio, cross_fitted, hitting_times

from .problems import A_SHAPES, expected_best_c, losses, problem_a, studies

INF = math.inf


def first_for_good(trace, target):
    """The first trial from which on all are at the target, by looking at each."""
    return next((n + 1.0 for n in range(len(trace)) if all(loss <= target for loss in trace[n:])), INF)


def test_a_hit_is_the_first_trial_from_which_on_the_target_is_kept():
    traces = np.array([[5.0, 3, 1, 1, 1], [5, 1, 3, 1, 1], [1, 1, 1, 1, 3], [1, 1, 1, 1, 1], [INF, INF, 2, 2, 2]])
    found = hitting_times(traces, np.array([2.0] * 5))
    np.testing.assert_array_equal(found, [3, 4, INF, 1, 3])
    rng = np.random.default_rng(1)
    traces, targets = rng.random((50, 9)), rng.random(50)
    assert hitting_times(traces, targets).tolist() == list(map(first_for_good, traces, targets))


def test_no_study_sets_its_own_target():
    np.testing.assert_array_equal(cross_fitted(np.array([1.0, 10.0, 3.0, 20.0, 5.0])), [15, 3, 15, 3, 15])
    losses_ = np.random.default_rng(0).random(7)
    changed = losses_.copy()
    changed[4] += 100
    assert cross_fitted(changed)[4] == cross_fitted(losses_)[4]


def test_studies_that_never_hit_are_paid_for():
    found = Hits((3.0, INF, 7.0, INF), horizon=10)
    assert (found.hits, found.exposure, found.expected) == (2, 30.0, 15.0)
    assert found.restricted_mean == 7.5
    assert found.at_least == 0.0


def test_without_a_hit_only_a_bound_is_known():
    found = Hits((INF,) * 6, horizon=10)
    assert (found.expected, found.restricted_mean) == (INF, 10)
    assert found.at_least == pytest.approx(60 / 3.0, rel=2e-3)


@pytest.mark.parametrize(("dimensions", "ert"), [(1, 5.0), (2, 25.0), (3, 125.0)])
def test_on_problem_c_five_times_longer_per_hyperparameter(dimensions, ert):
    """F(.11) = (4 * .01)^(d/2) = 5^-d."""
    rng = np.random.default_rng(dimensions)
    traces = np.minimum.accumulate(losses((0.5,) * dimensions, (3000, 128), rng), axis=1)
    found = Hits(tuple(hitting_times(traces, np.full(3000, 0.11))), 128)
    assert abs(math.log(found.expected / ert)) < 4 / math.sqrt(found.hits)


def test_the_ratio_is_the_censored_geometric_one_with_its_f_interval():
    """Twelve alike studies each: the jackknife is narrower, so the interval is F's."""
    smaller, larger = Hits((4.0, 5.0, 6.0) * 4, 40), Hits((9.0, 10.0, 11.0) * 4, 40)
    found = _ratio(smaller, larger)
    assert found.value == 2.0
    assert found.lower == pytest.approx(2 / stats.f.ppf(0.975, 24, 24))
    assert found.upper == pytest.approx(2 / stats.f.ppf(0.025, 24, 24))


def test_studies_that_differ_much_widen_the_interval():
    times = (1.0, 1.0, 1.0, 1.0, 1.0, INF, INF, INF, INF, INF)
    found = _ratio(Hits((20.0,) * 10, 40), Hits(times, 400))
    assert found.value == pytest.approx(401 / 20)
    assert found.upper > found.value / stats.f.ppf(0.025, 10, 20)


def test_a_bound_of_the_ratio_is_the_binomial_one():
    """None of k hits fell to the larger space: at the bound that has a chance of 5 %."""
    smaller, larger = Hits((4.0, 5.0, 6.0), 40), Hits((INF, INF, INF), 40)
    found = _ratio(smaller, larger)
    assert (found.value, found.upper) == (INF, INF)
    share = smaller.exposure / (smaller.exposure + larger.exposure / found.lower)  # of hits that fall to the smaller
    assert special.bdtr(0, 3, 1 - share) == pytest.approx(0.05)
    mirrored = _ratio(larger, smaller)
    assert (mirrored.value, mirrored.upper) == (0, pytest.approx(1 / found.lower))
    assert math.isnan(_ratio(larger, larger).value)


def test_hits_of_one_study_alone_have_an_interval():
    found = _ratio(Hits((4.0, INF, INF), 40), Hits((5.0, 6.0, 7.0), 40))
    assert 0 < found.lower < found.value < found.upper < INF


def test_every_price_has_its_running_time():
    found = price_sweep(problem_a(10, 64, np.random.default_rng(2)), A_SHAPES).prices[0]
    assert [times.n0 for times in found.running_times] == [at.n0 for at in found.prices] == [4, 8, 16]
    assert {(times.smaller.horizon, len(times.larger.times)) for times in found.running_times} == {(64, 10)}


def test_without_a_target_there_is_no_running_time():
    test = np.random.default_rng(9).random((10, 32))
    test[0, [3, 20]] = INF  # of two trials none may have succeeded
    found = price_sweep({"shared": studies(test), "per_layer": studies(test)}, A_SHAPES).prices[0]
    assert found.running_times[0] is None
    assert found.running_times[1] is not None
    lonely = price_sweep({"shared": studies(test[:1]), "per_layer": studies(test[:1])}, A_SHAPES).prices[0]
    assert set(lonely.running_times) == {None}
    assert ert_text(None) == "not measurable"


def test_traces_of_product_mode_have_running_times_too():
    rng = np.random.default_rng(4)
    sweep = {space: studies(losses((0.5,) * d, (200, 64), rng)) for space, d in (("shared", 1), ("per_layer", 2))}
    found = price_sweep(sweep, A_SHAPES, mode=Mode.PRODUCT).prices[0].running_times[0]
    truth = (4 * (expected_best_c(found.n0, 1) - 0.1)) ** -0.5
    assert found.ratio.lower < truth < found.ratio.upper


@pytest.mark.parametrize(
    ("smaller", "larger", "text"),
    [
        ((4.0, 5.0, 6.0), (INF, INF, INF), "> 4.7"),
        ((INF, INF, INF), (4.0, 5.0, 6.0), "< 0.21"),
        ((INF, INF, INF), (INF, INF, INF), "not measurable"),
    ],
)
def test_a_running_time_that_was_not_seen_is_told_as_a_bound(smaller, larger, text):
    from sweeper.price import ErtPrice

    one, two = Hits(smaller, 40), Hits(larger, 40)
    assert ert_text(ErtPrice(4, 0.3, one, two, _ratio(one, two))) == text
