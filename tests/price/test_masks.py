"""Hit rates of masks: counted by hand, and on problem B, where layer 1 wants no dropout."""

from itertools import product

import numpy as np
import pytest

from sweeper.errors import PriceError
from sweeper.price import Edge, Leaning, hit_rates, mask_cells, mask_sentence, price_sweep, switch_cells
from sweeper.price.hitting import cross_fitted
from sweeper.price.masks import MaskRate

from .problems import SHAPES, B, expected_best, losses, studies

EDGE = Edge("shared", "masked")
NAMES = ("drop_1", "drop_2", "drop_3")


def masked_b(replicates, trials, rng, centre=B):
    """Problem B in both spaces, with what was switched on."""
    theta = rng.random((replicates, trials, 1))
    on = rng.random((replicates, trials, len(centre))) < 0.5
    masked = 0.1 + np.abs(np.where(on, theta, 1.0) - np.array(centre)).max(axis=-1) ** 2
    draws = {r: {n: tuple(map(bool, mask)) for n, mask in enumerate(masks)} for r, masks in enumerate(on)}
    sweep = {"shared": studies(losses(centre, (replicates, trials), rng, "shared")), "masked": studies(masked)}
    return sweep, draws


def rates(sweep, draws, names=NAMES):
    return hit_rates(EDGE, sweep["shared"], sweep["masked"], names, draws)


@pytest.fixture(scope="module")
def many():
    return rates(*masked_b(400, 64, np.random.default_rng(1)))


def true_chance(mask, t):
    """P(a draw of that mask is within t of (1, .5, .5)): off is 1, and so hits layer 1 for free."""
    if not all(mask[1:]) and t < 0.5:
        return 0.0  # layers 2 and 3 at 1 are .5 away
    low, high = max(1 - t if mask[0] else 0.0, 0.5 - t), min(1.0, 0.5 + t)
    return max(0.0, high - low)


def test_each_mask_hits_as_often_as_its_formula_says(many):
    """t from the exact mean of the smaller space: P = [2t + (2t - .5)+] / 8 in all."""
    t = (expected_best(many.n0, "shared", B) - 0.1) ** 0.5
    assert many.target == pytest.approx(0.1 + t**2, abs=2e-3)
    found = {mask.off: mask for mask in many.masks}
    assert len(found) == 8
    for mask in product([True, False], repeat=3):
        off = tuple(name for name, on in zip(NAMES, mask, strict=True) if not on)
        chance, trials = true_chance(mask, t), found[off].trials
        assert trials == pytest.approx(400 * 64 / 8, rel=0.1)
        # the target itself is estimated, which moves the rate by its slope 2 dt
        assert abs(found[off].rate - chance) <= 4 * (chance * (1 - chance) / trials) ** 0.5 + 0.01
    assert many.chance == pytest.approx((2 * t + max(0.0, 2 * t - 0.5)) / 8, abs=0.01)
    assert many.chance == pytest.approx(np.mean([mask.rate for mask in many.masks]))
    assert many.chance == pytest.approx(many.hits / many.trials, abs=0.01)  # all masks were drawn alike


def test_the_best_mask_leaves_off_what_wants_no_dropout(many):
    assert many.masks[0].off == ("drop_1",)
    assert [one.leaning for one in many.switches] == [Leaning.OFF, Leaning.ON, Leaning.ON]
    said = mask_sentence(many)
    assert "(8 masks, all drawn alike)" in said
    assert said.endswith("dropout is best left off in layer 1 and left on in layers 2 and 3.")
    assert [row["better"] for row in switch_cells(many)] == ["off", "on", "on"]
    assert mask_cells(many)[0]["switched off"] == "drop_1"
    assert {row["switched off"] for row in mask_cells(many)} >= {"nothing", "everything", "drop_2, drop_3"}


def test_the_counts_are_those_of_the_trials_against_other_replicates_targets():
    sweep, draws = masked_b(10, 32, np.random.default_rng(2))
    found = rates(sweep, draws)
    prices = price_sweep(sweep, SHAPES, [EDGE]).prices[0]
    assert (found.n0, prices.headline.n0, prices.bits) == (4, 4, 3)
    targets = {at.n0: at.target for at in prices.running_times}
    assert found.target == pytest.approx(targets[4])
    expected = {}
    for r, target in enumerate(targets_by_hand(sweep["shared"])):
        for trial in sweep["masked"][r]:
            off = tuple(name for name, on in zip(NAMES, draws[r][trial.number], strict=True) if not on)
            trials, hits = expected.get(off, (0, 0))
            expected[off] = trials + 1, hits + (trial.test_loss <= target)
    assert {mask.off: (mask.trials, mask.hits) for mask in found.masks} == expected
    assert found.trials == 320
    assert found.hits == sum(hits for _, hits in expected.values())


def targets_by_hand(smaller):
    """The mean best of 4 of 32 noise-free trials, from every second other replicate."""
    from math import comb

    ranked = [sorted(trial.test_loss for trial in trials) for trials in smaller.values()]
    means = [sum(loss * comb(31 - i, 3) for i, loss in enumerate(row[:29])) / comb(32, 4) for row in ranked]
    return cross_fitted(np.array(means))


def test_without_ten_replicates_no_switch_is_claimed():
    few = rates(*masked_b(9, 64, np.random.default_rng(1)))
    assert {one.leaning for one in few.switches} == {Leaning.OPEN}
    assert mask_sentence(few).endswith("too few replicates to say which layers are best left off (R = 9).")


def test_switches_that_do_nothing_are_seldom_claimed_to():
    """Four idle switches in 200 sweeps: at most 5 % of the sweeps claim any."""
    rng, names, claims = np.random.default_rng(7), ("drop_1", "drop_2", "l2_1", "l2_2"), 0
    for _ in range(200):
        test = rng.random((10, 32))
        draws = {r: {n: tuple(map(bool, rng.random(4) < 0.5)) for n in range(32)} for r in range(10)}
        sweep = {"shared": studies(rng.random((10, 32))), "masked": studies(test)}
        found = rates(sweep, draws, names)
        claims += any(one.leaning is not Leaning.OPEN for one in found.switches)
    assert claims / 200 < 0.05 + 4 * (0.05 * 0.95 / 200) ** 0.5
    told = mask_sentence(found)
    assert "whether dropout is better off or on is not shown for layers 1 and 2" in told
    assert "whether L2 is better off or on is not shown for layers 1 and 2" in told


def test_of_many_masks_the_best_and_the_worst_are_shown():
    rng, names = np.random.default_rng(3), tuple(f"drop_{i}" for i in range(1, 7))
    draws = {r: {n: tuple(map(bool, rng.random(6) < 0.5)) for n in range(64)} for r in range(10)}
    test = np.array([[0.05 if draws[r][n][0] else 0.9 for n in range(64)] for r in range(10)]) + 0.01 * rng.random(
        (10, 64)
    )
    found = rates({"shared": studies(rng.random((10, 64))), "masked": studies(test)}, draws, names)
    rows = mask_cells(found)
    assert len(rows) == 16
    ranks = [mask.rank for mask in found.masks]
    assert ranks == sorted(ranks, reverse=True)
    assert all("drop_1" not in row["switched off"].split(", ") for row in rows[:8])
    assert all("drop_1" in row["switched off"].split(", ") or row["switched off"] == "everything" for row in rows[8:])


def test_one_lucky_trial_does_not_make_a_mask_the_best():
    assert MaskRate((), 1, 1).rank < MaskRate((), 20, 19).rank
    assert MaskRate((), 1, 0).rank > MaskRate((), 20, 1).rank


def test_where_a_mask_was_never_drawn_the_share_of_all_trials_is_told():
    sweep, draws = masked_b(10, 32, np.random.default_rng(2))
    draws = {r: {n: (True, *mask[1:]) for n, mask in masks.items()} for r, masks in draws.items()}
    found = rates(sweep, draws)
    assert np.isnan(found.chance)
    assert f"{found.hits / found.trials:.1%} of the trials" in mask_sentence(found)
    assert np.isnan(found.switches[0].off)
    assert (switch_cells(found)[0]["share with it off"], switch_cells(found)[0]["off minus on"]) == (
        "-",
        "not measurable",
    )
    assert found.switches[0].leaning is Leaning.OPEN


def test_failed_trials_are_drawn_and_never_hit():
    sweep, draws = masked_b(10, 32, np.random.default_rng(2))
    failed = studies(np.full((10, 32), np.inf))
    found = hit_rates(EDGE, sweep["shared"], failed, NAMES, draws)
    assert (found.trials, found.hits, found.chance) == (320, 0, 0.0)


@pytest.mark.parametrize("replicates", [1, 10])
def test_without_a_target_there_are_no_rates(replicates):
    sweep, draws = masked_b(replicates, 32, np.random.default_rng(2))
    smaller = sweep["shared"] if replicates == 1 else studies(np.full((10, 32), np.inf))
    with pytest.raises(PriceError, match="need a target from other replicates"):
        hit_rates(EDGE, smaller, sweep["masked"], NAMES, draws)


def test_the_price_of_a_mask_is_told_per_bit():
    """Three switches and nothing else: the cube root, as per hyperparameter. From no search at all, one more."""
    sweep, _ = masked_b(10, 64, np.random.default_rng(3))
    sweep["fixed"] = studies(np.random.default_rng(4).random((10, 64)))
    shapes = {**SHAPES, "fixed": type(SHAPES["shared"])("fixed", "fixed", 0)}
    shared, fixed = price_sweep(sweep, shapes, [EDGE, ("fixed", "masked")]).prices
    assert (shared.extra, shared.bits, fixed.extra, fixed.bits) == (3, 3, 4, 3)
    for at in shared.prices:
        assert at.per_bit == at.per_hyperparameter
        assert at.per_bit.value == pytest.approx(at.trials.value ** (1 / 3))
    for at in fixed.prices:
        assert at.per_bit.value == pytest.approx(at.trials.value ** (1 / 3))
        assert at.per_hyperparameter.value == pytest.approx(at.trials.value**0.25)
