"""Prices against problems whose truth is known, through the code that users run."""

import math
from dataclasses import replace
from time import perf_counter

import numpy as np
import pytest
from scipy import stats

from sweeper.errors import PriceError
from sweeper.price import Edge, Reach, SpaceShape, Verdict, price_sweep
from sweeper.price.price import first_reach

from .problems import A_EDGE, A_PRICES, A_SHAPES, A, expected_best_a, losses, problem_a, studies, study

INF = float("inf")


def price_of(smaller, larger, shapes=A_SHAPES):
    return price_sweep({"shared": smaller, "per_layer": larger}, shapes, A_EDGE).prices[0]


def standard_error(low, high, replicates):
    return (high - low) / 2 / stats.t.ppf(0.975, replicates - 1)


def buys_truth(budget):
    return expected_best_a(budget, shared=True) - expected_best_a(budget, shared=False)


@pytest.mark.parametrize(("trials", "starts"), [(128, (8, 16)), (256, (16, 32, 64))])
def test_problem_a_has_its_exact_prices(trials, starts):
    found = price_sweep(problem_a(400, trials, np.random.default_rng(trials)), A_SHAPES).prices[0]
    prices = {at.n0: at.trials for at in found.prices}
    for n0 in starts:
        error = standard_error(math.log(prices[n0].lower), math.log(prices[n0].upper), 400)
        assert error < 0.05
        assert abs(math.log(prices[n0].value / A_PRICES[n0])) < 4 * error


@pytest.mark.parametrize("trials", [32, 128, 256])
def test_problem_a_buys_what_it_should(trials):
    found = price_sweep(problem_a(400, trials, np.random.default_rng(trials)), A_SHAPES).prices[0]
    error = standard_error(found.buys.lower, found.buys.upper, 400)
    assert abs(found.buys.value - buys_truth(trials // 2)) < 4 * error


def test_problem_a_with_noisy_validation_is_priced_on_the_test_loss():
    """Validation noise .01: the true test losses after 16 trials are .1201 and .1359, the price is 2.88."""
    rng = np.random.default_rng(3)
    sides = []
    for shared in (True, False):
        truth = losses(A, (400, 128), rng, shared=shared)
        noisy = [truth + sigma * rng.standard_normal(truth.shape) for sigma in (0.005, 0.01)]
        sides.append(studies(*noisy))
    price = price_of(*sides).headline.trials
    error = standard_error(math.log(price.lower), math.log(price.upper), 400)
    assert abs(math.log(price.value / 2.88)) < 4 * error


@pytest.mark.slow
def test_intervals_cover_what_they_promise():
    """R = 10, N = 128; 2,000 simulations, so that the check's own error (.005) is small beside .92 .. .98."""
    rng = np.random.default_rng(17)
    truth, simulations = buys_truth(64), 2000
    hits = dict.fromkeys(("buys", 8, 16, 32), 0)
    for _ in range(simulations):
        found = price_sweep(problem_a(10, 128, rng), A_SHAPES).prices[0]
        hits["buys"] += found.buys.lower <= truth <= found.buys.upper
        for at in found.prices:
            hits[at.n0] += at.trials.lower <= A_PRICES[at.n0] <= at.trials.upper
    for what, count in hits.items():
        assert 0.92 <= count / simulations <= 0.98, (what, count / simulations)


@pytest.mark.parametrize("trials", [2, 3, 17, 32, 128])
def test_a_space_against_itself_costs_exactly_one_and_buys_exactly_nothing(trials):
    rng = np.random.default_rng(trials)
    test = rng.random((10, trials))
    same = studies(test, test + 0.5 * rng.standard_normal(test.shape))  # curves that also rise
    found = price_of(same, same)
    assert (found.buys.value, found.buys.lower, found.buys.upper) == (0, 0, 0)
    for at in found.prices:
        assert (at.trials.value, at.trials.lower, at.trials.upper) == (1, 1, 1)
        assert at.costs["device_s"].price.value == 1
    assert found.verdict is Verdict.NOT_SHOWN


def test_budgets_are_an_eighth_a_quarter_and_half_of_b():
    found = price_sweep(problem_a(10, 128, np.random.default_rng(0)), A_SHAPES).prices[0]
    assert (found.trials, found.budget, found.extra) == (128, 64, 2)
    assert [at.n0 for at in found.prices] == [8, 16, 32]
    assert found.headline.n0 == 16
    assert found.headline.per_hyperparameter.value == pytest.approx(math.sqrt(found.headline.trials.value))


def test_too_small_a_budget_has_fewer_prices():
    found = price_sweep(problem_a(10, 6, np.random.default_rng(0)), A_SHAPES).prices[0]
    assert [at.n0 for at in found.prices] == [1]
    assert found.headline.n0 == 1


def test_a_space_that_never_gets_there_is_dearer_than_could_be_measured():
    test = np.random.default_rng(1).random((10, 32))
    at = price_of(studies(test), studies(test + 2)).headline
    assert at.reach is Reach.BEYOND
    assert (at.trials.value, at.trials.upper, at.trials_larger) == (INF, INF, INF)
    assert at.trials.lower == at.measurable_to == 4.0  # the paired t-test rules out all that was measured
    assert at.per_hyperparameter.lower == 2.0


def test_a_space_whose_first_trial_is_better_is_cheaper_than_could_be_measured():
    test = np.random.default_rng(1).random((10, 32))
    at = price_of(studies(test), studies(test - 2)).headline
    assert at.reach is Reach.BELOW
    assert (at.trials.value, at.trials.lower, at.trials_larger) == (0, 0, 0)
    assert at.trials.upper == at.measurable_from == 0.25


def test_one_infinite_jackknife_replicate_opens_the_interval():
    """All ten together say 1; without the first, which alone is better, the larger space never gets there."""
    smaller = np.random.default_rng(4).random((10, 32))
    larger = smaller + 0.2
    larger[0] -= 2.0
    at = price_of(studies(smaller), studies(larger)).headline
    assert at.reach is Reach.MEASURED
    assert at.trials.value == pytest.approx(1.0)
    assert (at.trials.lower, at.trials.upper) == (0.0, INF)  # nor does the paired t-test rule anything out


def test_only_replicates_of_both_spaces_are_compared():
    sweep = problem_a(12, 32, np.random.default_rng(2))
    del sweep["shared"][3]
    sweep["per_layer"][7] = sweep["per_layer"][7][:4]
    found = price_sweep(sweep, A_SHAPES).prices[0]
    assert found.replicates == (0, 1, 2, 4, 5, 6, 8, 9, 10, 11)
    both = {space: {r: rows[r] for r in found.replicates} for space, rows in sweep.items()}
    assert price_sweep(both, A_SHAPES).prices[0] == found


def test_pairing_takes_the_noise_of_the_split_out():
    test = np.random.default_rng(8).random((10, 32))
    split = 100 * np.arange(10)[:, None]
    alone, together = (price_of(studies(test + s), studies(test + s - 0.1)) for s in (0, split))
    assert together.buys.value == pytest.approx(0.1)
    assert together.buys.upper - together.buys.lower < 1e-9
    assert alone.buys.value == pytest.approx(0.1)


@pytest.mark.parametrize(("replicates", "supports"), [(9, False), (10, True)])
def test_a_claim_needs_ten_replicates(replicates, supports):
    test = np.random.default_rng(1).random((replicates, 32))
    found = price_of(studies(test), studies(test - 0.1))
    assert found.supports_claim is supports
    assert found.verdict is (Verdict.PAYS if supports else Verdict.SMOKE)


def test_one_replicate_gives_estimates_without_intervals():
    test = np.random.default_rng(1).random((1, 32))
    found = price_of(studies(test), studies(test))
    assert (found.buys.value, found.buys.lower, found.buys.upper) == (0, -INF, INF)
    assert (found.headline.trials.value, found.headline.trials.lower, found.headline.trials.upper) == (1, 0, INF)


def test_a_worse_space_costs_more_than_it_buys():
    test = np.random.default_rng(1).random((10, 32))
    assert price_of(studies(test), studies(test + 0.1)).verdict is Verdict.COSTS_MORE


def test_a_few_failed_trials_leave_a_price():
    """Two failures of 32 make the curve infinite up to n = 2 and no further: n0 = 4 stands."""
    test = np.random.default_rng(9).random((10, 32))
    test[0, [3, 20]] = INF
    found = price_of(studies(test), studies(test))
    assert found.buys.value == 0
    assert [at.reach for at in found.prices] == [Reach.NO_TARGET, Reach.MEASURED, Reach.MEASURED]
    assert math.isnan(found.prices[0].trials.value)
    assert found.headline.trials.value == 1


def test_failures_in_the_larger_space_make_it_dearer():
    test = np.random.default_rng(9).random((10, 32))
    failing = test.copy()
    failing[:, ::4] = INF
    at = price_of(studies(test), studies(failing)).headline
    assert at.trials_larger == 9  # eight of 32 failed: nine trials are the fewest that can't all fail


def test_where_failures_hide_the_start_nothing_is_ruled_out():
    test = np.random.default_rng(9).random((10, 32))
    failing = test + 2
    failing[:, ::4] = INF
    at = price_of(studies(test), studies(failing)).headline
    assert at.reach is Reach.BEYOND
    assert (at.trials.lower, at.trials.upper) == (0.0, INF)


def test_where_most_trials_failed_nothing_is_claimed():
    test = np.random.default_rng(9).random((10, 32))
    test[:, :30] = INF
    found = price_of(studies(test), studies(test))
    assert found.verdict is Verdict.UNMEASURED
    assert {at.reach for at in found.prices} == {Reach.NO_TARGET}


def test_device_seconds_are_trials_times_what_a_trial_costs():
    sweep = problem_a(10, 64, np.random.default_rng(6))
    dearer = {r: [replace(t, device_s=3.0, flops=0) for t in trials] for r, trials in sweep["per_layer"].items()}
    at = price_of(sweep["shared"], dearer).headline
    seconds = at.costs["device_s"]
    assert seconds.factor == 3.0
    assert seconds.price.value == pytest.approx(3 * at.trials.value)
    assert seconds.price.upper == pytest.approx(3 * at.trials.upper)
    assert math.isnan(at.costs["flops"].factor)


def test_the_noise_of_the_cost_widens_the_interval_in_seconds():
    sweep, rng = problem_a(10, 64, np.random.default_rng(6)), np.random.default_rng(7)
    dearer = {
        r: [replace(t, device_s=seconds) for t in trials]
        for (r, trials), seconds in zip(sweep["per_layer"].items(), rng.uniform(1, 5, 10), strict=True)
    }
    at = price_of(sweep["shared"], dearer).headline
    seconds = at.costs["device_s"].price
    assert seconds.upper / seconds.lower > at.trials.upper / at.trials.lower


def test_an_edge_without_random_trials_says_so_and_spares_the_others():
    sweep = problem_a(10, 32, np.random.default_rng(6))
    learnt = {r: [replace(t, exchangeable=False) for t in trials] for r, trials in sweep["shared"].items()}
    shapes = {**A_SHAPES, "masked": SpaceShape("masked", "fixed", 4)}
    table = price_sweep({**sweep, "masked": learnt}, shapes)
    assert [price.edge for price in table.prices] == [("shared", "per_layer")]
    assert table.unmeasured[0].edge == Edge("shared", "masked")
    assert "needs sampler: random" in table.unmeasured[0].reason


def test_a_space_that_has_not_started_is_unmeasured():
    sweep = problem_a(10, 32, np.random.default_rng(6))
    table = price_sweep({"shared": sweep["shared"]}, A_SHAPES)
    assert (table.prices, len(table.unmeasured)) == ((), 1)


def test_an_unknown_space_is_refused():
    with pytest.raises(PriceError, match="no space 'per-layer' in this sweep; it has shared, per_layer"):
        price_sweep({}, A_SHAPES, [("shared", "per-layer")])


def test_extra_layers_without_extra_hyperparameters_have_no_price_each():
    sweep = problem_a(10, 32, np.random.default_rng(6))
    shapes = {**A_SHAPES, "per_layer": SpaceShape("per_layer", "fixed", 1)}
    assert price_of(*sweep.values(), shapes).headline.per_hyperparameter is None


def test_between_two_budgets_reach_is_interpolated_in_log_n():
    budgets = np.array([1, 2, 4, 8])
    curves = np.array([[4.0, 2.0, 2.5, 1.0], [INF, INF, 3.0, 2.0], [4.0, 3.0, 2.0, 1.0]])
    found = first_reach(budgets, curves, np.array([1.5, 3.5, 0.5]))
    # from the minimum 2 at n = 4, not from the 2.5 there; out of infinity at the first finite budget; never
    np.testing.assert_allclose(found, [4 * math.sqrt(2), 4.0, INF])


def test_a_hundred_thousand_trials_are_priced_in_seconds():
    sweep = problem_a(20, 2500, np.random.default_rng(0))
    start = perf_counter()
    found = price_sweep(sweep, A_SHAPES).prices[0]
    assert perf_counter() - start < 5
    assert found.budget == 1250


def test_trials_in_any_order_give_the_same_price():
    sweep = problem_a(10, 32, np.random.default_rng(6))
    mixed = {space: {r: trials[::-1] for r, trials in rows.items()} for space, rows in sweep.items()}
    assert price_sweep(mixed, A_SHAPES) == price_sweep(sweep, A_SHAPES)


def test_a_tie_goes_to_the_earlier_trial():
    smaller = {r: study([1.0, 5.0], [0.5, 0.5]) for r in range(10)}
    larger = {r: study([2.0, 2.0], [0.5, 0.5]) for r in range(10)}
    # at n = 1 both trials of the smaller space are equally likely: (1 + 5) / 2 - 2
    assert price_of(smaller, larger).buys.value == 1.0
