"""Importance on losses whose shares are known, and on what masks switch off."""

import math

import numpy as np
import pytest

from sweeper.records import TrialState
from sweeper.search import PastTrial
from sweeper.search.importance import LEAST_TRIALS, _acts, importances
from sweeper.space import Parameter, Space

X = [Parameter(f"keep_prob_{layer}") for layer in (1, 2, 3)]
WEIGHTS = np.array([2.0, 1.0, 0.0])


def study(trials, rng, level=0.0, state=TrialState.COMPLETE):
    """loss = sum_j a_j (x_j - .5)^2, a = 2, 1, 0; variances of a_j (x - .5)^2 go as a_j^2: .8, .2, 0."""
    points = rng.random((trials, 3))
    values = level + ((points - 0.5) ** 2 @ WEIGHTS)
    return [
        PastTrial(number, {p.name: float(x) for p, x in zip(X, point, strict=True)}, state, float(value))
        for number, (point, value) in enumerate(zip(points, values, strict=True))
    ]


def shares(found, evaluator):
    return np.array([np.mean(getattr(each, evaluator)) for each in found])


def test_fanova_finds_the_shares_of_variance_and_ped_anova_their_order():
    found = importances(X, [study(256, np.random.default_rng(1))])
    assert [(each.parameter, each.layers) for each in found] == [(f"keep_prob_{i}", (i,)) for i in (1, 2, 3)]
    np.testing.assert_allclose(shares(found, "fanova"), [0.8, 0.2, 0.0], atol=0.12)
    ped = shares(found, "ped_anova")
    assert ped[0] > ped[1] > ped[2]
    for evaluator in ("fanova", "ped_anova"):
        assert shares(found, evaluator).sum() == pytest.approx(1)


def test_each_group_of_studies_is_judged_by_itself_and_always_the_same():
    studies = [study(20, np.random.default_rng(seed)) for seed in range(6)]
    found = importances(X, studies)
    assert {len(each.fanova) for each in found} == {5}
    assert importances(X, [each[::-1] for each in studies]) == found
    changed = importances(X, [*studies[:4], study(20, np.random.default_rng(99)), *studies[5:]])
    assert [each.fanova[:4] for each in changed] == [each.fanova[:4] for each in found]
    assert changed[0].fanova[4] != found[0].fanova[4]


def test_a_difference_between_splits_is_no_importance():
    level = importances(X, [study(16, np.random.default_rng(seed)) for seed in range(10)])
    hilly = importances(X, [study(16, np.random.default_rng(seed), level=3.0 * seed) for seed in range(10)])
    np.testing.assert_allclose(shares(hilly, "fanova"), shares(level, "fanova"), atol=0.01)  # last digits part trees
    np.testing.assert_allclose(shares(hilly, "ped_anova"), shares(level, "ped_anova"), atol=1e-9)


def test_only_complete_trials_count():
    rng = np.random.default_rng(2)
    complete = study(30, rng)
    others = [*study(10, rng, state=TrialState.PRUNED), *study(10, rng, state=TrialState.FAIL)]
    endless = PastTrial(77, complete[0].params, TrialState.COMPLETE, math.inf)
    assert importances(X, [[*complete, *others, endless]]) == importances(X, [complete])


@pytest.mark.parametrize("studies", [[], [[]], [study(LEAST_TRIALS - 1, np.random.default_rng(1))]])
def test_too_few_trials_say_nothing(studies):
    assert importances(X, studies) == ()


def test_trials_that_are_all_alike_say_nothing():
    alike = [PastTrial(t.number, t.params, t.state, 0.5) for t in study(30, np.random.default_rng(1))]
    assert importances(X, [alike]) == ()


def test_a_space_without_hyperparameters_has_no_importance():
    none = [PastTrial(n, {}, TrialState.COMPLETE, float(n)) for n in range(30)]
    assert importances([], [none]) == ()


@pytest.mark.parametrize(
    ("name", "params", "acts"),
    [
        ("keep_prob", {"keep_prob": 0.5, "drop_1": False, "drop_2": False}, False),
        ("keep_prob", {"keep_prob": 0.5, "drop_1": False, "drop_2": True}, True),
        ("keep_prob", {"keep_prob": 0.5}, True),
        ("drop_1", {"keep_prob": 0.5, "drop_1": False, "drop_2": False}, True),
        ("lambda", {"lambda": 0.5, "l2_1": False, "drop_1": True}, False),
        ("keep_prob_1", {"keep_prob_1": 0.5, "drop_1": False}, True),
    ],
)
def test_a_masked_value_acts_where_one_of_its_switches_is_on(name, params, acts):
    assert _acts(name, params) is acts


def test_a_masked_value_is_judged_where_it_acts():
    """One switch decides everything, and where it is on the value itself: seen by the conditional evaluator."""
    space, rng = Space("masked", 3, "masked"), np.random.default_rng(3)
    trials = []
    for number in range(200):
        params = {"keep_prob": float(rng.uniform(0.2, 1)), "drop_1": bool(rng.random() < 0.5), "drop_2": False}
        loss = (params["keep_prob"] - 0.8) ** 2 if params["drop_1"] else 0.3
        trials.append(PastTrial(number, params, TrialState.COMPLETE, loss))
    found = {each.parameter: each for each in importances(space.parameters, [trials])}
    assert {name: each.layers for name, each in found.items()} == {"keep_prob": (), "drop_1": (1,), "drop_2": (2,)}
    assert found["keep_prob"].ped_anova[0] > found["drop_1"].ped_anova[0] > 0.02
    assert found["drop_2"].ped_anova[0] == pytest.approx(0, abs=0.02)


def test_a_value_that_never_acted_has_no_share():
    params = {"keep_prob": 0.5, "drop_1": False, "drop_2": False}
    trials = [
        PastTrial(n, params | {"lambda": 1e-3 * (n + 1)}, TrialState.COMPLETE, float(n % 7))
        for n in range(LEAST_TRIALS)
    ]
    found = importances(Space("masked", 3, "masked", "shared").parameters, [trials])
    assert {each.parameter: each.ped_anova[0] for each in found}["keep_prob"] == 0.0


def test_groups_name_their_layers_and_placebos_none():
    space = Space("grouped", 4, ((1, 3), (2,)), "shared", placebo=1)
    rng = np.random.default_rng(4)
    trials = [
        PastTrial(
            n, {p.name: float(rng.uniform(p.low, p.high)) for p in space.parameters}, TrialState.COMPLETE, rng.random()
        )
        for n in range(LEAST_TRIALS)
    ]
    found = {each.parameter: each.layers for each in importances(space.parameters, [trials])}
    assert found == {"keep_prob_1_3": (1, 3), "keep_prob_2": (2,), "lambda": (), "placebo_1": ()}
