"""The larger space from the smaller one's incumbent on: against every choice of trials, and where it is known."""

from itertools import combinations

import numpy as np
import pytest

from sweeper.price import Mode, SpaceShape, edge_cells, price_sweep
from sweeper.price.curves import Block, expected_best
from sweeper.price.warm import warm_loss

from .problems import A_SHAPES, SHAPES, A, B, expected_best_warm, losses, problem, problem_a, studies, study, true_buys

INF = float("inf")
R = 400


def brute_force(smaller, larger, first, rest):
    """Mean test loss of the incumbent over all choices without a number twice; the smaller space's trials run first."""
    found = []
    for cold in combinations(smaller, first):
        left = [trial for trial in larger if trial.number not in {one.number for one in cold}]
        for warm in combinations(left, rest):
            ranked = [
                (t.validation_loss, arm, t.number, t.test_loss) for arm, ts in enumerate((cold, warm)) for t in ts
            ]
            best = min(ranked)
            found.append(best[3] if best[0] < INF else INF)
    return np.mean(found)


def small_pair(rng, ties):
    draw = (lambda: rng.integers(0, 4, 7).astype(float)) if ties else (lambda: rng.random(7))
    return study(rng.random(7), draw()), study(rng.random(7), draw())


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("first", "rest"), [(1, 1), (1, 3), (2, 3), (3, 1), (2, 5), (6, 1)])
def test_it_is_the_mean_over_all_choices_without_a_number_twice(ties, first, rest):
    smaller, larger = small_pair(np.random.default_rng(first + 10 * rest), ties)
    found = warm_loss(Block.of(smaller), Block.of(larger), first, rest)
    assert found == pytest.approx(brute_force(smaller, larger, first, rest), abs=1e-12)


@pytest.mark.parametrize(("gone_small", "gone_large"), [((), (0, 1)), ((3,), (4, 5)), ((0, 1, 2), (6,))])
def test_trials_that_only_one_space_has_count_too(gone_small, gone_large):
    """An enqueued start is no draw: its number is missing."""
    smaller, larger = small_pair(np.random.default_rng(5), ties=False)
    smaller = [trial for trial in smaller if trial.number not in gone_small]
    larger = [trial for trial in larger if trial.number not in gone_large]
    found = warm_loss(Block.of(smaller), Block.of(larger), 1, 3)
    assert found == pytest.approx(brute_force(smaller, larger, 1, 3), abs=1e-12)


@pytest.mark.parametrize(("failed", "infinite"), [(0, False), (1, False), (2, True), (3, True)])
def test_failed_trials_count_and_a_choice_of_nothing_else_is_infinite(failed, infinite):
    rng = np.random.default_rng(failed)
    columns = rng.random((2, 7))
    columns[0, rng.permutation(7)[:failed]] = INF
    columns[1, rng.permutation(7)[: failed + 1]] = INF
    smaller, larger = study(columns[0]), study(columns[1])
    found = warm_loss(Block.of(smaller), Block.of(larger), 1, 3)
    assert found == pytest.approx(brute_force(smaller, larger, 1, 3), abs=1e-12)
    assert np.isinf(found) == infinite


def test_from_a_placebo_it_is_the_space_itself():
    """Trials of one number are the same in both: any B of them, however they are divided."""
    losses_ = np.random.default_rng(0).random((2, 2000))
    block = Block.of(study(*losses_))
    alone = expected_best(block.test, np.array([1000]))[0]
    assert warm_loss(block, block, 250, 750) == pytest.approx(alone, rel=1e-10)


def test_a_placebo_s_warm_search_buys_nothing_at_all():
    validation, test = np.random.default_rng(1).random((2, 10, 64))
    sweep = {space: studies(test, validation) for space in ("shared", "placebo")}
    shapes = {"shared": SHAPES["shared"], "placebo": SpaceShape("shared", "fixed", 4, placebo=3)}
    found = price_sweep(sweep, shapes).prices[0]
    assert (found.warm.buys.value, found.warm.buys.lower, found.warm.buys.upper) == (0, 0, 0)
    assert edge_cells(found)["warm buys at 32 trials"] == "+0.000 [+0.000, +0.000]"


@pytest.mark.parametrize(
    ("centre", "edge"),
    [(A, ("shared", "per_layer")), (A, ("shared", "masked")), (B, ("shared", "masked")), (B, ("shared", "per_layer"))],
)
def test_it_buys_what_the_formula_says(centre, edge):
    """P(best > t) = (1 - P_small(t))^n0 (1 - P_large(t))^n, within 4 standard errors of 400 replicates."""
    sweep = problem(centre, R, 64, np.random.default_rng(12), edge)
    (found,) = (price for price in price_sweep(sweep, SHAPES, [edge]).prices)
    assert (found.warm.first, found.warm.rest) == (8, 24)
    truth = true_buys(32, *edge, centre) + warm_gain(32, 8, edge, centre)
    error = (found.warm.buys.upper - found.warm.buys.lower) / 2 / 1.966  # t of 399 degrees
    assert abs(found.warm.buys.value - truth) < 4 * error


def warm_gain(budget, first, edge, centre):
    """What starting warm adds to what the larger space buys."""
    return expected_best_warm(0, budget, *edge, centre) - expected_best_warm(first, budget - first, *edge, centre)


def test_draws_that_the_spaces_share_by_number_do_not_bias_it():
    """One trial per number: both spaces see the same luck, but a warm search never has one number twice."""
    luck = np.random.default_rng(3).random((R, 32))
    sweep = {"shared": studies(luck), "per_layer": studies(luck - 0.001)}  # each draw a little better
    found = price_sweep(sweep, A_SHAPES).prices[0].warm
    truth = 1 / 17  # the least of 16 draws is that on average, of either space less .001 or nothing
    means = np.mean([warm_loss(Block.of(study(x)), Block.of(study(x - 0.001)), 4, 12) for x in luck])
    assert 0 < truth - means < 0.001 + 4 * luck.min(axis=1).std() / 20
    assert 0 < found.buys.value < 0.001


def test_it_costs_both():
    sweep = {
        "shared": studies(np.random.default_rng(1).random((10, 64)), device_s=2.0),
        "per_layer": studies(np.random.default_rng(2).random((10, 64)), device_s=6.0, joules=5.0),
    }
    found = price_sweep(sweep, A_SHAPES).prices[0].warm
    assert found.costs == pytest.approx({"device_s": (8 * 2 + 24 * 6) / (32 * 2), "flops": 1.0})


def test_traces_have_no_warm_search():
    found = price_sweep(problem_a(10, 16, np.random.default_rng(2)), A_SHAPES, mode=Mode.PRODUCT).prices[0]
    assert found.warm is None
    assert edge_cells(found)["warm buys at 16 trials"] == "-"
    tiny = price_sweep({space: studies(losses(A, (10, 2), np.random.default_rng(2))) for space in A_SHAPES}, A_SHAPES)
    assert tiny.prices[0].warm is None  # B = 1


def test_without_a_finite_choice_it_is_not_measurable():
    test = np.full((10, 32), INF)
    cells = edge_cells(price_sweep({"shared": studies(test), "per_layer": studies(test)}, A_SHAPES).prices[0])
    assert cells["warm buys at 16 trials"] == "not measurable"
