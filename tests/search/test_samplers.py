"""Every argument of every sampler is explicit and recorded, and what a user sets is checked."""

from __future__ import annotations

import inspect
import json
from typing import Any

import optuna
import pytest

from sweeper.errors import SearchError
from sweeper.search import KINDS, SamplerSpec, explicit_arguments, is_history_free
from sweeper.search.samplers import MAX_GRID, Samplers, seed_of
from sweeper.space import Parameter, Space

MIXED = Space("mixed", 3, "masked", "shared").parameters
CLASSES = {
    "random": optuna.samplers.RandomSampler,
    "tpe": optuna.samplers.TPESampler,
    "gp": optuna.samplers.GPSampler,
    "cmaes": optuna.samplers.CmaEsSampler,
    "qmc": optuna.samplers.QMCSampler,
    "grid": optuna.samplers.GridSampler,
}


def recorded(kind: str, **arguments: Any) -> dict[str, Any]:
    arguments_: dict[str, Any] = explicit_arguments(SamplerSpec(kind, arguments), MIXED)["arguments"]
    return arguments_


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_of_optunas_constructor_is_recorded(kind: str) -> None:
    """Fails when a release of Optuna adds or drops an argument."""
    record = explicit_arguments(SamplerSpec(kind), MIXED)
    assert record["sampler"] == CLASSES[kind].__name__
    assert set(record["arguments"]) == set(inspect.signature(CLASSES[kind]).parameters)


@pytest.mark.parametrize("kind", KINDS)
def test_the_record_is_json(kind: str) -> None:
    record = explicit_arguments(SamplerSpec(kind), MIXED)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["optuna"] == optuna.__version__


@pytest.mark.parametrize(
    ("kind", "arguments", "attributes"),
    [
        (
            "tpe",
            {"n_startup_trials": 3, "n_ei_candidates": 7, "multivariate": False, "constant_liar": False},
            ["n_startup_trials", "n_ei_candidates", "multivariate", "constant_liar", "group", "constraints_func"],
        ),
        ("gp", {"n_startup_trials": 3}, ["n_startup_trials", "constraints_func", "warn_independent_sampling"]),
        (
            "cmaes",
            {"n_startup_trials": 3, "popsize": 9, "lr_adapt": True, "consider_pruned_trials": True},
            ["n_startup_trials", "popsize", "lr_adapt", "consider_pruned_trials", "with_margin", "x0", "sigma0"],
        ),
        ("cmaes", {}, ["popsize", "with_margin", "use_separable_cma", "source_trials"]),
        ("qmc", {"qmc_type": "halton", "scramble": False}, ["qmc_type", "scramble"]),
        ("grid", {"points": 3}, ["search_space"]),
    ],
)
def test_samplers_hold_what_is_recorded(kind: str, arguments: dict[str, Any], attributes: list[str]) -> None:
    sampler = Samplers(SamplerSpec(kind, arguments), MIXED, seed=1).at(number=0, position=0)
    assert isinstance(sampler, CLASSES[kind])
    record = recorded(kind, **arguments)
    assert {name: getattr(sampler, f"_{name}") for name in attributes} == {name: record[name] for name in attributes}


def test_cmaes_takes_its_population_and_its_margin_from_the_space() -> None:
    floats = Space("f", 8, "per_layer").parameters
    on_floats = explicit_arguments(SamplerSpec("cmaes"), floats)["arguments"]
    assert (on_floats["popsize"], on_floats["with_margin"]) == (4 + 5, False)  # 3 ln 7 = 5.8
    assert recorded("cmaes")["with_margin"] is True
    assert recorded("cmaes", lr_adapt=True)["with_margin"] is False
    assert recorded("cmaes", popsize=20)["popsize"] == 20


def test_a_grid_spreads_its_points_on_the_parameters_scale() -> None:
    grid = recorded("grid", points=3)["search_space"]
    assert grid["keep_prob"] == pytest.approx([0.2, 0.6, 1.0], rel=1e-12)
    assert grid["lambda"] == pytest.approx([1e-3, (1e-3 * 30) ** 0.5, 30.0], rel=1e-12)
    assert grid["drop_1"] == [False, True]


def test_a_grid_beyond_all_patience_is_refused() -> None:
    many = [Parameter(f"p{i}") for i in range(8)]
    with pytest.raises(SearchError, match=f"390,625 points; at most {MAX_GRID:,}"):
        explicit_arguments(SamplerSpec("grid"), many)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("tpee", {}, "'tpee' is no sampler. Did you mean tpe"),
        ("annealing", {}, "Known: random, tpe, gp, cmaes, qmc, grid"),
        ("tpe", {"n_startup_trial": 5}, "no argument of the tpe sampler. Did you mean n_startup_trials"),
        ("random", {"seed": 5}, r"Known: \(none\)"),
        ("tpe", {"n_startup_trials": "ten"}, "n_startup_trials = 'ten' must be a whole number"),
        ("tpe", {"n_startup_trials": True}, "must be a whole number"),
        ("tpe", {"n_startup_trials": 0}, "at least 1"),
        ("tpe", {"constant_liar": 1}, "must be true or false"),
        ("cmaes", {"popsize": 3}, "at least 4"),
        ("grid", {"points": 1}, "at least 2"),
        ("qmc", {"qmc_type": "lattice"}, "one of sobol, halton"),
        ("qmc", {"qmc_type": 2}, "must be a word"),
    ],
)
def test_what_a_sampler_does_not_know_is_refused(kind: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        SamplerSpec(kind, arguments)


def test_only_samplers_that_never_look_at_results_are_history_free() -> None:
    assert [kind for kind in KINDS if is_history_free(SamplerSpec(kind))] == ["random", "qmc", "grid"]


def test_seeds_are_fixed_for_good() -> None:
    """A change here would change every recorded study on resume."""
    assert (seed_of(7), seed_of(7, 12), seed_of(7, 12, "keep_prob")) == (270666298, 211717840, 3149836399)


def test_seeds_of_neighbours_differ() -> None:
    seeds = {seed_of(study, number, name) for study in range(10) for number in range(10) for name in "abc"}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**32 for seed in seeds)
