"""What a price table holds, and what it can not say. The truth of its numbers: test_truth.py."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sweeper.errors import PriceError
from sweeper.price import Edge, Reach, SpaceShape, Verdict, price_sweep
from sweeper.price.distance import first_reach
from sweeper.price.intervals import holm, t_quantile

from .problems import A_EDGE, A_SHAPES, problem_a, studies, study

INF = float("inf")


def price_of(smaller, larger, shapes=A_SHAPES):
    return price_sweep({"shared": smaller, "per_layer": larger}, shapes, A_EDGE).prices[0]


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


def three_edges(seed):
    """Three larger spaces that are better by little, by more and not at all."""
    rng = np.random.default_rng(seed)
    test = rng.random((10, 32))
    better = {"masked": 0.02, "grouped": 0.1, "per_layer": 0.0}
    noise = {name: 0.03 * rng.standard_normal((10, 1)) for name in better}
    sweep = {name: studies(test - gain + noise[name]) for name, gain in better.items()}
    shapes = {name: SpaceShape(name, "fixed", 3) for name in ("shared", *better)}
    return {"shared": studies(test), **sweep}, shapes, [("shared", name) for name in better]


def test_p_values_are_adjusted_over_all_edges_of_the_table():
    prices = price_sweep(*three_edges(2)).prices
    adjusted = holm([price.p_value for price in prices])
    assert [price.adjusted_p for price in prices] == adjusted
    assert {price.comparisons for price in prices} == {3}


def test_edges_that_have_no_trials_yet_are_comparisons_all_the_same():
    sweep, shapes, edges = three_edges(2)
    del sweep["masked"], sweep["per_layer"]
    (price,) = price_sweep(sweep, shapes, edges).prices
    assert price.comparisons == 3
    assert price.adjusted_p == pytest.approx(3 * price.p_value)


def test_what_one_comparison_would_show_three_do_not():
    """masked is better by t = 2.5 standard errors: p = .034, and .102 among three."""
    sweep, shapes, edges = three_edges(2)
    test = np.random.default_rng(2).random((10, 32))
    spread = np.tile([[1.0], [-1.0]], (5, 1))  # its standard error is 1/3
    sweep["shared"], sweep["masked"], sweep["grouped"] = (studies(test - x) for x in (0, 2.5 / 3 + spread, spread))
    together = price_sweep(sweep, shapes, edges).prices[0]
    alone = price_sweep(sweep, shapes, edges[:1]).prices[0]
    assert (alone.verdict, together.verdict) == (Verdict.PAYS, Verdict.NOT_SHOWN)
    assert together.buys == alone.buys
    assert together.buys.lower > 0
    assert (together.p_value, together.adjusted_p) == pytest.approx((0.034, 0.102), abs=1e-3)


def test_prices_have_an_interval_for_all_edges_at_once_too():
    at = price_sweep(*three_edges(2)).prices[1].headline
    wide, narrow = (math.log(found.upper / found.value) for found in (at.simultaneous, at.trials))
    assert at.simultaneous.value == at.trials.value
    assert wide / narrow == pytest.approx(t_quantile(10, 1 - 0.05 / 3) / t_quantile(10))


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
    dearer = {r: [replace(t, device_s=3.0) for t in trials] for r, trials in sweep["per_layer"].items()}
    at = price_of(sweep["shared"], dearer).headline
    seconds = at.costs["device_s"]
    assert (seconds.smaller, seconds.larger, seconds.factor) == (1.0, 3.0, 3.0)
    assert seconds.price.value == pytest.approx(3 * at.trials.value)
    assert seconds.price.upper == pytest.approx(3 * at.trials.upper)
    assert seconds.per_hyperparameter.value == pytest.approx(math.sqrt(3 * at.trials.value))


def test_only_what_was_measured_in_every_trial_is_a_currency():
    sweep = problem_a(10, 32, np.random.default_rng(6))
    assert set(price_of(*sweep.values()).headline.costs) == {"device_s", "flops"}
    with_joules = {
        space: {r: [replace(t, joules=5.0) for t in trials] for r, trials in rows.items()}
        for space, rows in sweep.items()
    }
    assert "joules" in price_of(*with_joules.values()).headline.costs
    with_joules["shared"][3][7] = replace(with_joules["shared"][3][7], joules=None)
    assert "joules" not in price_of(*with_joules.values()).headline.costs


def test_money_is_what_an_hour_of_the_device_costs():
    sweep = problem_a(10, 64, np.random.default_rng(6))
    at = price_sweep(sweep, A_SHAPES, device_hour=7.2).prices[0].headline
    money, seconds = at.costs["money"], at.costs["device_s"]
    assert money.smaller == pytest.approx(7.2 / 3600)  # a trial takes a second
    assert money.price.value == pytest.approx(seconds.price.value)


def test_further_trials_are_told_per_hyperparameter():
    at = price_sweep(problem_a(10, 128, np.random.default_rng(0)), A_SHAPES).prices[0].headline
    assert at.trials_per_hyperparameter.value == pytest.approx((at.trials_larger - at.n0) / 2)
    assert at.trials_per_hyperparameter.lower == pytest.approx((at.trials.lower - 1) * at.n0 / 2)


def test_a_censored_price_is_censored_in_every_currency():
    test, rng = np.random.default_rng(1).random((10, 32)), np.random.default_rng(2)
    dear = {
        r: study(row, device_s=seconds)
        for (r, row), seconds in zip(enumerate(test + 2), rng.uniform(2, 3, 10), strict=True)
    }
    seconds = price_of(studies(test), dear).headline.costs["device_s"]
    assert (seconds.price.value, seconds.price.upper) == (INF, INF)
    assert 4.0 * 2 < seconds.price.lower < 4.0 * seconds.factor  # what trials rule out, less the noise of the cost


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


def test_a_hundred_thousand_trials_are_priced_like_few():
    """How long that takes: tests/benchmarks/price.py."""
    found = price_sweep(problem_a(20, 2500, np.random.default_rng(0)), A_SHAPES).prices[0]
    assert (found.budget, [at.n0 for at in found.prices]) == (1250, [156, 312, 625])
    assert found.break_even.trials == pytest.approx(90.15, rel=0.1)


def test_trials_in_any_order_give_the_same_price():
    sweep = problem_a(10, 32, np.random.default_rng(6))
    mixed = {space: {r: trials[::-1] for r, trials in rows.items()} for space, rows in sweep.items()}
    assert price_sweep(mixed, A_SHAPES) == price_sweep(sweep, A_SHAPES)


def test_a_tie_goes_to_the_earlier_trial():
    smaller = {r: study([1.0, 5.0], [0.5, 0.5]) for r in range(10)}
    larger = {r: study([2.0, 2.0], [0.5, 0.5]) for r in range(10)}
    # at n = 1 both trials of the smaller space are equally likely: (1 + 5) / 2 - 2
    assert price_of(smaller, larger).buys.value == 1.0
