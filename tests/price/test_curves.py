"""Curves against brute force and against what is known in closed form."""

from itertools import combinations

import numpy as np
import pytest
from scipy import integrate, special, stats

from sweeper.price import space_curve, trace
from sweeper.price.curves import Block, block_curves, budget_grid, common_trials, expected_best, incumbent_weights
from sweeper.records import PricedTrial

from .problems import expected_best_c, losses, studies, study

INF = float("inf")


def brute_force(trials, n):
    """Mean test loss of the incumbent over all subsets of n trials; the earlier trial wins a tie."""
    chosen = [min(subset, key=lambda t: (t.validation_loss, t.number)) for subset in combinations(trials, n)]
    return np.mean([trial.test_loss for trial in chosen])


@pytest.mark.parametrize("ties", [False, True])
def test_the_curve_is_the_mean_over_all_subsets(ties):
    rng = np.random.default_rng(5)
    validation = rng.integers(0, 3, 8).astype(float) if ties else rng.random(8)
    trials = study(rng.random(8), validation)
    curve = expected_best(Block.of(trials).test, np.arange(1, 9))
    np.testing.assert_allclose(curve, [brute_force(trials, n) for n in range(1, 9)], rtol=0, atol=1e-12)


def test_on_validation_losses_the_same_weights_give_the_expected_minimum():
    trials = study(np.zeros(8), np.random.default_rng(6).random(8))
    curve = expected_best(Block.of(trials).validation, np.array([3]))
    minima = [min(t.validation_loss for t in subset) for subset in combinations(trials, 3)]
    assert curve[0] == pytest.approx(np.mean(minima), abs=1e-12)


@pytest.mark.parametrize("trials", [1, 2, 7, 64, 1000, 100_000])
def test_weights_sum_to_one(trials):
    for n in sorted({1, max(1, trials // 8), max(1, trials // 2), trials}):
        assert incumbent_weights(trials, n).sum() == pytest.approx(1.0, abs=1e-12)


def test_weights_are_the_hypergeometric_ratio():
    expected = [special.comb(20 - i, 4) / special.comb(20, 5) for i in range(1, 21)]
    np.testing.assert_allclose(incumbent_weights(20, 5), expected, rtol=1e-12, atol=0)


def test_failed_trials_count_but_are_never_the_incumbent():
    trials = study([0.3, INF, 0.1, 0.9], [0.5, INF, 0.4, float("nan")])
    curve = expected_best(Block.of(trials).test, np.arange(1, 5))
    # two of four failed: a subset of one or two may hold no incumbent, one of three can't
    assert list(curve[:2]) == [INF, INF]
    np.testing.assert_allclose(curve[2:], [(0.1 + 0.1 + 0.1 + 0.3) / 4, 0.1])


def test_a_study_of_failures_alone_has_an_infinite_curve():
    curve = expected_best(Block.of(study([INF] * 4)).test, np.arange(1, 5))
    assert np.isposinf(curve).all()


def test_an_enqueued_start_is_no_part_of_the_curve():
    drawn = study([0.4, 0.2, 0.3])
    start = PricedTrial(99, 0.0, 0.0, exchangeable=False, device_s=1.0, flops=1)
    np.testing.assert_array_equal(Block.of([start, *drawn]).test, [0.2, 0.3, 0.4])


def test_blocks_of_different_sizes_keep_their_rows():
    blocks = [Block.of(study(row)) for row in ([4.0, 2.0], [1.0, 3.0, 5.0], [8.0, 6.0])]
    np.testing.assert_allclose(block_curves(blocks, np.array([1, 2])), [[3, 2], [3, 5 / 3], [7, 6]])


@pytest.mark.parametrize("dimensions", [1, 2, 4])
def test_problem_c_follows_its_gamma_function(dimensions):
    rng = np.random.default_rng(dimensions)
    drawn = losses(np.full(dimensions, 0.5), (400, 64), rng)
    blocks = [Block.of(row) for row in studies(drawn).values()]
    budgets = np.array([1, 8, 32])
    curves = block_curves(blocks, budgets)
    error = curves.std(axis=0, ddof=1) / 20
    truth = [expected_best_c(n, dimensions) for n in budgets]
    assert (np.abs(curves.mean(axis=0) - truth) < 4 * error).all()


def test_the_winner_s_curse_of_pure_luck_is_that_of_normal_maxima():
    """V = sigma z and T independent of it: the gap of T over V is sigma E max of n."""
    rng = np.random.default_rng(11)
    validation, test = 0.3 * rng.standard_normal((400, 64)), rng.standard_normal((400, 64))
    blocks = [Block.of(row) for row in studies(test, validation).values()]
    budgets = np.array([8, 16, 32])
    gaps = block_curves(blocks, budgets) - block_curves(blocks, budgets, "validation")
    expected = [0.3 * _normal_maximum(n) for n in budgets]
    assert (np.abs(gaps.mean(axis=0) - expected) < 4 * gaps.std(axis=0, ddof=1) / 20).all()


def _normal_maximum(n):
    return integrate.quad(lambda x: x * n * stats.norm.pdf(x) * stats.norm.cdf(x) ** (n - 1), -8, 10)[0]


def test_the_trace_follows_the_first_best_validation_loss():
    trials = study([5.0, 1.0, 9.0, 7.0, 3.0], [INF, 0.5, 0.2, 0.2, 0.4])
    validation, test = trace(list(reversed(trials)))
    np.testing.assert_array_equal(validation, [INF, 0.5, 0.2, 0.2, 0.2])
    np.testing.assert_array_equal(test, [INF, 1.0, 9.0, 9.0, 9.0])


@pytest.mark.parametrize("limit", [1, 2, 16, 255, 256, 257, 5000])
def test_the_grid_holds_the_budgets_that_are_reported(limit):
    grid = budget_grid(limit)
    assert (np.diff(grid) > 0).all()
    assert (grid[0], grid[-1]) == (1, limit)
    assert {max(1, limit // part) for part in (2, 4, 8, 16)} <= set(grid.tolist())


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([], 0), ([32] * 10, 32), ([32] * 9 + [3], 32), ([17, 16, 18, 16], 16), ([4, 2], 2), ([0, 0], 0)],
)
def test_the_common_budget_uses_most_trials(counts, expected):
    assert common_trials(counts) == expected


def test_a_space_s_curve_has_a_band_over_replicates():
    curve = space_curve("s", studies(np.random.default_rng(1).random((6, 20))))
    assert (curve.replicates, curve.budgets[-1]) == (6, 10)
    assert (curve.lower < curve.mean).all()
    assert (curve.mean < curve.upper).all()
    assert space_curve("s", {0: study([1.0])}) is None


def test_at_predeclared_budgets_intervals_hold_together():
    drawn = np.random.default_rng(1).random((10, 64))
    curve = space_curve("s", studies(drawn))
    assert list(curve.together) == [2, 4, 8, 16, 32]
    for n, found in curve.together.items():
        at = int(np.flatnonzero(curve.budgets == n)[0])
        assert found.value == pytest.approx(curve.mean[at])
        wider = (found.upper - found.lower) / (curve.upper[at] - curve.lower[at])
        assert wider == pytest.approx(stats.t.ppf(1 - 0.025 / 5, 9) / stats.t.ppf(0.975, 9))


def test_a_very_long_study_keeps_its_digits():
    curve = space_curve("s", {0: study(np.random.default_rng(2).permutation(50_000) + 1.0)})
    # the least of n of the numbers 1..N is (N + 1) / (n + 1) on average
    np.testing.assert_allclose(curve.mean, 50_001 / (curve.budgets + 1), rtol=1e-12)
