"""What is proposed: plain parameters, in range, distributed as each sampler promises."""

from __future__ import annotations

import itertools
import logging
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import pytest
from scipy import stats

from sweeper.errors import SearchError
from sweeper.records import TrialState
from sweeper.search import KINDS, PastTrial, Proposer, SamplerSpec
from sweeper.space import Parameter, Ranges, Space

MIXED = Space("mixed", 4, "masked", "shared")


def proposer(space: Space, kind: str = "random", seed: int = 3, **arguments: Any) -> Proposer:
    return Proposer(space.parameters, SamplerSpec(kind, arguments), seed)


def drawn(space: Space, trials: int, kind: str = "random", seed: int = 3) -> list[dict[str, Any]]:
    source = proposer(space, kind, seed)
    return [source.ask().params for _ in range(trials)]


def column(params: list[dict[str, Any]], name: str) -> npt.NDArray[np.float64]:
    return np.array([float(each[name]) for each in params])


def unit(params: list[dict[str, Any]], space: Space) -> npt.NDArray[np.float64]:
    """`trials x parameters`, each parameter in [0, 1) on the scale that it is searched on."""
    columns = []
    for p in space.parameters:
        scale = np.log if p.log else np.asarray
        values, low, high = (scale(x) for x in (column(params, p.name), p.low, p.high))
        columns.append((values - low) / (high - low))
    return np.stack(columns, axis=1)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_plain_complete_and_in_range(kind: str) -> None:
    source = proposer(MIXED, kind, **({"n_startup_trials": 4} if kind in ("tpe", "gp") else {}))
    for number in range(8):
        proposal = source.ask()
        assert list(proposal.params) == [p.name for p in MIXED.parameters]
        for p in MIXED.parameters:
            value = proposal.params[p.name]
            assert type(value) is (bool if p.kind == "bool" else float)
            p.check(value)
        source.tell(number, TrialState.COMPLETE, float(number))


def test_a_proposal_says_what_it_had_seen() -> None:
    source = proposer(MIXED)
    for _ in range(4):
        source.ask()
    source.tell(2, TrialState.COMPLETE, 1.0)
    source.tell(0, TrialState.FAIL)
    proposal = source.ask()
    assert (proposal.number, proposal.told, proposal.running) == (4, 2, (1, 3))
    assert 0 < proposal.seconds < 1


def test_random_keep_probs_are_uniform_and_lambdas_log_uniform() -> None:
    space = Space("both", 3, "per_layer", "per_layer")
    points = unit(drawn(space, 2000), space)
    assert all(stats.kstest(points[:, i], "uniform").pvalue > 1e-3 for i in range(space.dimensions))


def test_random_draws_do_not_depend_on_each_other() -> None:
    """Neither across parameters of a trial nor from one trial to the next: seeds by hashing could hide either."""
    space = Space("both", 3, "per_layer", "per_layer")
    points = unit(drawn(space, 4000), space)
    both = np.corrcoef(np.concatenate([points[1:], points[:-1]], axis=1).T)
    np.fill_diagonal(both, 0)
    assert np.abs(both).max() < 4.5 / math.sqrt(4000)


def test_random_masks_are_uniform_over_all_of_them() -> None:
    masks = [tuple(params[f"drop_{i}"] for i in (1, 2, 3)) for params in drawn(MIXED, 1600)]
    counts = [masks.count(mask) for mask in itertools.product([False, True], repeat=3)]
    assert sum(counts) == 1600
    assert stats.chisquare(counts).pvalue > 1e-3


def test_spaces_share_the_random_draws_of_the_parameters_they_share() -> None:
    shared, masked = Space("s", 4, "shared"), MIXED
    both, l2 = Space("b", 4, "per_layer", "per_layer"), Space("l", 4, lambda_="per_layer")
    for one, other in [(shared, masked), (l2, both)]:
        common = {p.name for p in one.parameters} & {p.name for p in other.parameters}
        assert common
        for first, second in zip(drawn(one, 20), drawn(other, 20), strict=True):
            assert all(first[name] == second[name] for name in common)


def test_a_placebo_space_searches_as_the_space_without() -> None:
    plain, placebo = Space("a", 4, "shared"), Space("b", 4, "shared", placebo=2)
    settings = [placebo.setting(params) for params in drawn(placebo, 30)]
    assert settings == [plain.setting(params) for params in drawn(plain, 30)]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "grid"])
def test_another_seed_is_another_study(kind: str) -> None:
    assert drawn(MIXED, 3, kind, seed=3) != drawn(MIXED, 3, kind, seed=4)


@pytest.mark.parametrize("seed", [-1, 0, 2**63])
def test_any_seed_will_do(seed: int) -> None:
    assert len(drawn(MIXED, 2, seed=seed)) == 2


def test_a_grid_takes_every_point_once_and_then_says_so() -> None:
    source = proposer(MIXED, "grid", points=3)
    assert source.size == 3 * 2**3 * 3
    seen = set()
    for number in range(source.size):
        assert not source.is_exhausted
        seen.add(tuple(source.ask().params.values()))
        source.tell(number, TrialState.FAIL if number % 4 else TrialState.COMPLETE, 1.0)
    assert len(seen) == source.size
    assert source.is_exhausted
    with pytest.raises(SearchError, match="all 72 points of the grid"):
        source.ask()


def test_enqueued_trials_cost_a_grid_no_point() -> None:
    space = Space("s", 3, "per_layer")
    source = proposer(space, "grid", points=2)
    seen = {tuple(source.ask().params.values())}
    source.ask({"keep_prob_1": 0.5, "keep_prob_2": 0.5})
    seen |= {tuple(source.ask().params.values()) for _ in range(3)}
    assert seen == set(itertools.product([0.2, 1.0], repeat=2))


def test_a_grid_over_nothing_has_one_point() -> None:
    assert proposer(Space("none", 3), "grid").size == 1
    assert proposer(Space("none", 3), "random").size is None


@pytest.mark.parametrize("seed", range(4))
def test_qmc_covers_a_space_more_evenly_than_random_search(seed: int) -> None:
    space = Space("both", 3, "per_layer", "shared")
    qmc, random = (stats.qmc.discrepancy(unit(drawn(space, 64, kind, seed), space)) for kind in ("qmc", "random"))
    assert qmc < random / 3


def test_qmc_is_optunas_sequence_from_the_first_point_on() -> None:
    """Eight Sobol' points are balanced: each eighth of every parameter's range holds one."""
    space = Space("both", 3, "per_layer", "shared")
    points = unit(drawn(space, 8, "qmc"), space)
    assert all(sorted(np.floor(points[:, i] * 8)) == list(range(8)) for i in range(3))


def test_qmc_takes_switches_in_balance() -> None:
    masks = drawn(MIXED, 32, "qmc")
    assert [sum(bool(params[f"drop_{i}"]) for params in masks) for i in (1, 2, 3)] == [16, 16, 16]


@pytest.mark.parametrize("kind", ["tpe", "gp", "cmaes"])
def test_samplers_that_learn_get_better_than_they_start(kind: str) -> None:
    """keep_prob_1 is to be 0.9 and lambda 0.01; losses fall, and the last trials cluster there."""
    space = Space("s", 2, "per_layer", "shared")
    source = proposer(space, kind, seed=5)
    losses = []
    for number in range(20 if kind == "gp" else 60):
        params = source.ask().params
        off = float(params["keep_prob_1"]) - 0.9, math.log10(float(params["lambda"])) + 2
        losses.append(off[0] ** 2 + off[1] ** 2)
        source.tell(number, TrialState.COMPLETE, losses[-1])
    assert np.median(losses[-5:]) < np.median(losses[:10]) / 10


@pytest.mark.parametrize("kind", KINDS)
def test_an_enqueued_setting_is_proposed_as_it_is(kind: str) -> None:
    source = proposer(MIXED, kind)
    fixed = {"keep_prob": 0.5, "drop_1": True, "drop_2": False, "drop_3": True, "lambda": 30}
    proposal = source.ask(fixed)
    assert proposal.params == fixed
    assert (proposal.number, proposal.enqueued) == (0, True)
    assert type(proposal.params["lambda"]) is float
    source.tell(0, TrialState.COMPLETE, 1.0)
    assert (source.ask().number, source.ask().enqueued) == (1, False)


@pytest.mark.parametrize(
    ("fixed", "message"),
    [
        ({"keep_prob": 0.5}, "trial 0 has the parameters .'keep_prob'., but this study searches"),
        ({"keep_prob": 0.5, "drop_1": 0}, "trial 0: drop_1 = 0 is a switch"),
        ({"keep_prob": 1.5, "drop_1": True}, "trial 0: keep_prob = 1.5 lies outside its range"),
    ],
)
def test_an_enqueued_setting_that_cannot_be_is_refused_and_leaves_no_trace(fixed: Any, message: str) -> None:
    source = proposer(Space("m", 2, "masked"))
    with pytest.raises(SearchError, match=message):
        source.ask(fixed)
    assert source.ask().number == 0


def test_the_first_word_on_a_trial_stands() -> None:
    """A worker that lost its lease may report after another did."""
    twice, once = proposer(MIXED, "cmaes"), proposer(MIXED, "cmaes")
    for source in (twice, once):
        for number in range(12):
            source.ask()
            source.tell(number, TrialState.COMPLETE, float(number))
    twice.tell(3, TrialState.COMPLETE, -100.0)
    twice.tell(4, TrialState.FAIL)
    assert twice.ask().params == once.ask().params


@pytest.mark.parametrize(
    ("number", "state", "value", "message"),
    [
        (1, TrialState.COMPLETE, 1.0, "trial 1 was never asked for"),
        (-1, TrialState.COMPLETE, 1.0, "trial -1 was never asked for"),
        (0, TrialState.RUNNING, None, "can't be told as RUNNING"),
        (0, TrialState.WAITING, None, "can't be told as WAITING"),
        (0, TrialState.COMPLETE, None, "value None, which must be a finite number"),
        (0, TrialState.COMPLETE, math.nan, "value nan.*diverged as FAIL"),
        (0, TrialState.PRUNED, math.inf, "value inf"),
    ],
)
def test_an_end_that_cannot_be_is_refused(number: int, state: TrialState, value: Any, message: str) -> None:
    source = proposer(MIXED)
    source.ask()
    with pytest.raises(SearchError, match=message):
        source.tell(number, state, value)
    source.tell(0, TrialState.PRUNED)


@pytest.mark.parametrize("numbers", [(1,), (0, 2), (0, 0)])
def test_a_history_with_gaps_is_refused(numbers: tuple[int, ...]) -> None:
    past = [PastTrial(number, {}, TrialState.COMPLETE, 1.0) for number in numbers]
    with pytest.raises(SearchError, match="numbers are consecutive from 0"):
        proposer(Space("none", 3)).rehydrate(past)


def test_a_history_of_another_space_is_refused() -> None:
    past = [PastTrial(0, {"keep_prob": 0.1}, TrialState.COMPLETE, 1.0)]
    with pytest.raises(SearchError, match=r"trial 0: keep_prob = 0\.1 lies outside"):
        proposer(Space("s", 3, "shared")).rehydrate(past)
    with pytest.raises(SearchError, match="trial 0 has the parameters"):
        proposer(Space("n", 3)).rehydrate(past)


def test_optuna_keeps_quiet_and_its_verbosity_stays_the_users() -> None:
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign, assignment]
    logging.getLogger("optuna").addHandler(handler)
    before = optuna.logging.get_verbosity()
    try:
        optuna.logging.set_verbosity(optuna.logging.INFO)
        for kind in ("random", "tpe", "cmaes", "qmc", "grid"):
            source = proposer(MIXED, kind)
            for number in range(12):
                source.ask()
                source.tell(number, TrialState.COMPLETE, 1.0)
                source.tell(number, TrialState.COMPLETE, 1.0)
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.set_verbosity(before)
        logging.getLogger("optuna").removeHandler(handler)
    assert records == []


def test_ranges_are_respected_at_their_ends() -> None:
    """exp(log(high)) may exceed high; nobody is to see that."""
    narrow = Ranges(keep_prob=(0.3, 0.3 + 1e-15), lambda_=(0.1, 0.1 + 1e-15))
    space = Space("narrow", 3, "per_layer", "per_layer", ranges=narrow)
    for kind in ("random", "tpe", "qmc", "cmaes", "grid"):
        source = proposer(space, kind)
        for number in range(15):
            space.setting(source.ask().params)
            source.tell(number, TrialState.COMPLETE, 1.0 + number)


def test_parameters_with_no_space_behind_them_work_too() -> None:
    source = Proposer([Parameter("a"), Parameter("b", "bool")], SamplerSpec("tpe"), seed=1)
    assert set(source.ask().params) == {"a", "b"}
