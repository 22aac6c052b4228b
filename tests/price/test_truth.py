"""Problems whose truth is known (problems.py), through the code that users run, within 4 Monte-Carlo standard errors.

Every figure comes from `price_sweep` or `summarise_spaces`; its standard error from its own interval.
"""

import math
from collections import Counter

import numpy as np
import pytest
from scipy import integrate, optimize, stats

from sweeper.price import Edge, Hits, Mode, Reach, SpaceShape, price_sweep, summarise_spaces
from sweeper.price.hitting import hitting_times

from .problems import (
    A_BREAK_EVEN,
    A_PRICES,
    A_SHAPES,
    SHAPES,
    A,
    B,
    expected_best,
    expected_best_c,
    expected_best_warm,
    losses,
    problem,
    problem_a,
    studies,
    true_buys,
    true_ert_ratio,
    true_price,
)

R = 400


def standard_error(low, high, replicates=R):
    return (high - low) / 2 / stats.t.ppf(0.975, replicates - 1)


def is_near(estimate, truth):
    return abs(estimate.value - truth) < 4 * standard_error(estimate.lower, estimate.upper)


def is_near_on_log_scale(estimate, truth):
    error = standard_error(math.log(estimate.lower), math.log(estimate.upper))
    assert error < 0.15
    return abs(math.log(estimate.value / truth)) < 4 * error


def break_even_error(found):
    ((low, high),) = found.spans
    return standard_error(low, high)


@pytest.fixture(scope="module")
def a_256():
    """Problem A, B = 128, priced."""
    return price_sweep(problem_a(R, 256, np.random.default_rng(256)), A_SHAPES).prices[0]


@pytest.fixture(scope="module")
def noisy_a():
    """Problem A, B = 64, with noise .01 in validation and .005 in test losses."""
    return problem(A, R, 128, np.random.default_rng(3), noise=(0.01, 0.005))


def test_the_formulas_give_the_documented_prices():
    assert [true_price(n0) for n0 in A_PRICES] == pytest.approx(list(A_PRICES.values()), abs=6e-4)
    assert optimize.brentq(true_buys, 20, 400) == pytest.approx(A_BREAK_EVEN, abs=5e-3)
    assert true_buys(10**5) == pytest.approx(0.01, abs=2e-4)  # at best .11 and .1
    crossings = [optimize.brentq(lambda n: true_buys(n, "shared", "masked", B), *near) for near in ((1, 5), (5, 50))]
    assert crossings == pytest.approx([2.115, 10.27], abs=5e-3)
    assert expected_best_c(16, 3) == pytest.approx(expected_best(16, "per_layer", (0.5, 0.5, 0.5)), abs=1e-8)


def test_problem_a_has_its_exact_prices(a_256):
    assert [at.n0 for at in a_256.prices] == [16, 32, 64]
    assert all(is_near_on_log_scale(at.trials, A_PRICES[at.n0]) for at in a_256.prices)


@pytest.mark.parametrize("trials", [32, 128])
def test_problem_a_buys_what_it_should(trials):
    found = price_sweep(problem_a(R, trials, np.random.default_rng(trials)), A_SHAPES).prices[0]
    assert is_near(found.buys, true_buys(trials // 2))
    assert is_near_on_log_scale(found.prices[0].trials, true_price(trials // 16))


def test_problem_a_breaks_even_at_90_trials(a_256):
    found = a_256.break_even
    assert abs(found.trials - A_BREAK_EVEN) < 4 * break_even_error(found)
    assert found.beyond is False
    assert is_near(a_256.buys, true_buys(128))


def test_problem_a_s_running_times_have_their_exact_ratio(a_256):
    """Hits have the ratio of P(t): no formula of the U-statistic is in them."""
    for found in a_256.running_times:
        assert is_near_on_log_scale(found.ratio, true_ert_ratio(found.n0))
        assert found.target == pytest.approx(expected_best(found.n0, "shared"), rel=0.01)


@pytest.mark.parametrize(("space", "ert"), [("shared", 10.0), ("per_layer", 37.04)])
def test_problem_a_comes_within_15_hundredths_after_a_known_time(space, ert):
    """y = .1 + .15^2: P = 2 * .15 - .2 shared and (2 * .15)^3 per_layer."""
    drawn = losses(A, (3000, 256), np.random.default_rng(15), space)
    times = hitting_times(np.minimum.accumulate(drawn, axis=1), np.full(3000, 0.1225))
    found = Hits(tuple(times.tolist()), 256)
    assert abs(math.log(found.expected / ert)) < 4 / math.sqrt(found.hits)


def test_a_mask_costs_eight_times_the_shared_space_and_never_breaks_even():
    found = price_sweep(problem(A, R, 128, np.random.default_rng(8), ("shared", "masked")), SHAPES).prices[0]
    assert found.edge == ("shared", "masked")
    assert all(is_near_on_log_scale(at.ratio, 8.0) for at in found.running_times)
    assert all(true_price(at.n0, "shared", "masked") > at.measurable_to for at in found.prices)
    assert {at.reach for at in found.prices} == {Reach.BEYOND}
    assert found.headline.trials.lower == found.headline.measurable_to
    assert (found.break_even.trials, found.break_even.spans, found.break_even.beyond) == (math.inf, (), True)


def test_problem_b_s_curves_cross_twice_and_the_last_crossing_counts():
    """mask/shared at 2.11 and 10.27; per_layer/mask first at about 2.2, last at 17.01."""
    sweep = problem(B, R, 64, np.random.default_rng(6), ("shared", "masked", "per_layer"))
    edges = [Edge("shared", "masked"), Edge("per_layer", "masked")]
    for found, truth in zip(price_sweep(sweep, SHAPES, edges).prices, (10.27, 17.01), strict=True):
        assert true_buys(truth, *found.edge, B) == pytest.approx(0, abs=1e-4)
        assert abs(found.break_even.trials - truth) < 4 * break_even_error(found.break_even)
        assert is_near(found.buys, true_buys(32, *found.edge, B))


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_problem_c_runs_longer_by_a_known_factor_per_hyperparameter(dimensions):
    """F = (4 (y - .1))^(d/2): at a target y one more hyperparameter multiplies ERT by (4 (y - .1))^-.5, 5 at .11."""
    rng = np.random.default_rng(dimensions)
    sweep = {
        space: studies(losses((0.5,) * d, (R, 128), rng))
        for space, d in (("shared", dimensions), ("per_layer", dimensions + 1))
    }
    for found in price_sweep(sweep, A_SHAPES).prices[0].running_times:
        target = expected_best_c(found.n0, dimensions)
        assert is_near_on_log_scale(found.ratio, (4 * (target - 0.1)) ** -0.5)


def test_noise_of_validation_makes_a_choice_worse_and_the_price_hardly(noisy_a):
    """By 3 million draws: test loss at 16 .1201 and .1359 (here at 64), price 2.88."""
    found = price_sweep(noisy_a, A_SHAPES).prices[0]
    assert found.headline.n0 == 16
    assert is_near_on_log_scale(found.headline.trials, 2.88)


def test_noise_of_validation_shows_in_the_test_loss_of_16_trials():
    """By 3 million draws .1201 (shared) and .1359 (per_layer)."""
    sweep = problem(A, R, 32, np.random.default_rng(13), noise=(0.01, 0.0))
    shared, per_layer = summarise_spaces(sweep, A_SHAPES)
    assert (shared.budget, per_layer.budget) == (16, 16)
    assert is_near(shared.test_loss, 0.1201)
    assert is_near(per_layer.test_loss, 0.1359)


def test_noise_of_validation_brings_the_break_even_forward():
    found = price_sweep(problem(A, R, 256, np.random.default_rng(14), noise=(0.01, 0.0)), A_SHAPES).prices[0].break_even
    assert abs(found.trials - 86.7) < 4 * break_even_error(found)


def test_the_larger_space_has_the_smaller_selection_gap(noisy_a):
    """At 64 trials .0133 (shared) and .0069 (per_layer): near-ties make the winner's curse, not hyperparameters."""
    shared, per_layer = summarise_spaces(noisy_a, A_SHAPES)
    assert (shared.budget, per_layer.budget) == (64, 64)
    assert is_near(shared.gap, 0.0133)
    assert is_near(per_layer.gap, 0.0069)


@pytest.mark.parametrize(("budget", "maximum"), [(8, 1.4236), (16, 1.7660), (32, 2.0697), (64, 2.3437), (128, 2.5946)])
def test_the_gap_of_a_seed_lottery_is_that_of_normal_maxima(budget, maximum):
    """One setting, n seeds: V = sigma z and T independent of it; the gap is sigma E max of n."""
    rng = np.random.default_rng(budget)
    validation, test = (0.3 * rng.standard_normal((R, 2 * budget)), 1 + 0.1 * rng.standard_normal((R, 2 * budget)))
    (none,) = summarise_spaces({"none": studies(test, validation)}, {"none": SpaceShape("fixed", "fixed", 0)})
    assert maximum == pytest.approx(_normal_maximum(budget), abs=6e-5)
    assert is_near(none.gap, 0.3 * maximum)
    assert none.effective is None


def _normal_maximum(n):
    return integrate.quad(lambda x: x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1), -8, 10)[0]


def coverage(simulations, replicates, trials, mode, seed):
    """The share of simulations of problem A whose interval holds the truth, by what was estimated."""
    rng, budget = np.random.default_rng(seed), trials // 2 if mode is Mode.MEASUREMENT else trials
    prices = {n0: true_price(n0) for n0 in (budget // 8, budget // 4, budget // 2)}
    running_times = {n0: true_ert_ratio(n0) for n0 in prices}
    buys, held = true_buys(budget), Counter()
    warm = expected_best(budget, "shared") - expected_best_warm(budget // 4, budget - budget // 4)
    for _ in range(simulations):
        found = price_sweep(problem_a(replicates, trials, rng), A_SHAPES, mode=mode).prices[0]
        held["buys"] += found.buys.lower <= buys <= found.buys.upper
        held["break-even"] += any(low <= A_BREAK_EVEN <= high for low, high in found.break_even.spans)
        if found.warm is not None:  # in measurement mode
            held["warm buys"] += found.warm.buys.lower <= warm <= found.warm.buys.upper
        for at, hits in zip(found.prices, found.running_times, strict=True):
            held["price", at.n0] += at.trials.lower <= prices[at.n0] <= at.trials.upper
            held["running time", at.n0] += bool(hits.ratio.lower <= running_times[at.n0] <= hits.ratio.upper)
    return {what: count / simulations for what, count in held.items()}


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "trials"), [(Mode.MEASUREMENT, 192), (Mode.PRODUCT, 96)])
def test_intervals_cover_what_they_promise(mode, trials):
    """R = 10, 400 simulations, each with an error of .011; running times are conservative by design (hitting.py)."""
    for what, share in coverage(400, 10, trials, mode, seed=17).items():
        assert 0.92 <= share <= (1.0 if what[0] == "running time" else 0.98), (what, share)


@pytest.mark.slow
def test_seven_edges_without_a_difference_seldom_claim_one():
    """The chance that any of seven equal spaces is claimed to differ is at most 5 %; unadjusted it is about 20 %."""
    rng, names = np.random.default_rng(5), [f"larger_{i}" for i in range(7)]
    shapes = {"shared": SHAPES["shared"], **dict.fromkeys(names, SHAPES["per_layer"])}
    claims, unadjusted = 0, 0
    for _ in range(200):
        sweep = {space: studies(losses((0.5,), (10, 8), rng)) for space in shapes}
        prices = price_sweep(sweep, shapes, [("shared", name) for name in names]).prices
        claims += any(price.adjusted_p < 0.05 for price in prices)
        unadjusted += any(price.p_value < 0.05 for price in prices)
    assert claims / 200 < 0.05 + 4 * math.sqrt(0.05 * 0.95 / 200)
    assert unadjusted / 200 > 0.12
