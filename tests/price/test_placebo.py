"""A placebo, the shared space with hyperparameters that do nothing, drawn as a sweep draws it: its price is 1."""

import numpy as np
import pytest

from sweeper.price import Mode, SpaceShape, Verdict, price_sweep, sentence, summarise_spaces
from sweeper.records import PricedTrial, TrialState
from sweeper.search import Proposer, SamplerSpec
from sweeper.space import Ranges, Space

from .problems import A

RANGES = Ranges(keep_prob=(1e-9, 1.0))  # nearly [0, 1], as problem A has it
SPACES = {
    "shared": Space("shared", 4, "shared", ranges=RANGES),
    "placebo": Space("placebo", 4, "shared", ranges=RANGES, placebo=3),
    "per_layer": Space("per_layer", 4, "per_layer", ranges=RANGES),
}
SHAPES = {name: SpaceShape(*space.kinds, space.dimensions, space.placebo) for name, space in SPACES.items()}


def loss(setting):
    """Problem A of the hidden layers' keep_prob."""
    return 0.1 + max(abs(keep - c) for keep, c in zip(setting.keep_prob[1:], A, strict=True)) ** 2


def searched(space, seed, trials, sampler):
    """One study: ask, score, tell. Noise of a trial comes from its replicate and number, as training seeds do."""
    proposer, found = Proposer(space.parameters, SamplerSpec(sampler), seed), []
    for number in range(trials):
        truth = loss(space.setting(proposer.ask().params))
        noise = np.random.default_rng([seed, number]).normal(0, 0.01, 2)
        proposer.tell(number, TrialState.COMPLETE, truth + noise[0])
        found.append(PricedTrial(number, truth + noise[0], truth + noise[1], sampler == "random", 1.0, 1))
    return found


def sweep(sampler, replicates, trials):
    return {name: {r: searched(space, r, trials, sampler) for r in range(replicates)} for name, space in SPACES.items()}


@pytest.fixture(scope="module")
def table():
    return price_sweep(sweep("random", 10, 32), SHAPES)


def test_random_search_pays_nothing_for_what_does_nothing(table):
    placebo, per_layer = sorted(table.prices, key=lambda price: price.edge.larger, reverse=True)
    assert (placebo.edge, placebo.extra, placebo.placebo) == (("shared", "placebo"), 3, True)
    assert (placebo.buys.value, placebo.buys.lower, placebo.buys.upper) == (0, 0, 0)
    for at in placebo.prices:
        assert (at.trials.value, at.trials.lower, at.trials.upper) == (1, 1, 1)
        assert at.per_hyperparameter.value == 1
        assert at.trials_per_hyperparameter.value == 0
    assert (placebo.p_value, placebo.verdict) == (1.0, Verdict.NOT_SHOWN)
    assert sentence(placebo).endswith("and buys +0.000 [+0.000, +0.000] at 16 trials: as a placebo should.")
    assert per_layer.headline.trials.lower > 1


def test_a_placebo_is_a_control_and_no_comparison(table):
    assert table.comparisons == 1
    assert {price.edge.larger: price.comparisons for price in table.prices} == {"placebo": 1, "per_layer": 1}
    for price in table.prices:
        assert price.adjusted_p == price.p_value


def test_its_effective_number_of_hyperparameters_is_that_of_the_space_without():
    found = {each.space: each for each in summarise_spaces(sweep("random", 6, 24), SHAPES)}
    assert (found["shared"].dimensions, found["placebo"].dimensions) == (1, 4)
    assert found["placebo"].effective == found["shared"].effective is not None


def test_a_sampler_that_learns_may_pay_for_it():
    """TPE searches the dummies, too, so its trials differ: the placebo's price is then a finding, not a control."""
    found = price_sweep(sweep("tpe", 3, 14), SHAPES, [("shared", "placebo")], mode=Mode.PRODUCT).prices[0]
    assert (found.buys.lower, found.buys.upper) != (0, 0)
    assert sentence(found).startswith("On this workload, in single traces (product mode), adding 3 that do nothing")
    assert "placebo should" not in sentence(found)
