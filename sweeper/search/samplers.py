"""Optuna's samplers, with every constructor argument explicit and a seed that is a function of the trial.

    random   each parameter drawn by itself, from (study seed, trial number, parameter name)
    tpe      tree-structured Parzen estimator
    gp       Gaussian process, log expected improvement
    cmaes    CMA-ES; a switch is a number 0..1, rounded
    qmc      scrambled Sobol' or Halton points
    grid     every combination once, shuffled

Optuna 5 changed TPE's defaults; such a change would pass for one in what hyperparameters cost. Therefore
`explicit_arguments` names every argument, and the ledger keeps what it returns.

Seeds are `seed_of(...)`, a BLAKE2b digest of four bytes: of (study seed, trial number) for tpe, gp and cmaes;
of the parameter's name too for random, so that spaces that share a parameter share its draws; and of the
study seed alone for qmc and grid, where the position in the study picks one of a sequence of points.
"""

from __future__ import annotations

import difflib
import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    GridSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState, create_trial

from sweeper.errors import SearchError
from sweeper.space import Parameter

Argument = bool | int | str

MAX_GRID = 100_000
"""Grid points beyond which a grid is refused: Optuna holds them all, and no sweep would finish them."""

_CLASSES: Mapping[str, type[BaseSampler]] = {
    "random": RandomSampler,
    "tpe": TPESampler,
    "gp": GPSampler,
    "cmaes": CmaEsSampler,
    "qmc": QMCSampler,
    "grid": GridSampler,
}
KINDS = tuple(_CLASSES)

# What a user may set, with our values. They are Optuna 5.0's, except that qmc is scrambled, so that
# replicates differ and no search opens in the corner of its ranges, and that popsize (None) is worked out:
# see `_cmaes`.
_SETTABLE: Mapping[str, Mapping[str, Argument | None]] = {
    "random": {},
    "tpe": {"n_startup_trials": 10, "n_ei_candidates": 24, "multivariate": True, "constant_liar": True},
    "gp": {"n_startup_trials": 10},
    "cmaes": {"n_startup_trials": 1, "popsize": None, "lr_adapt": False, "consider_pruned_trials": False},
    "qmc": {"qmc_type": "sobol", "scramble": True},
    "grid": {"points": 5},
}
_LEAST: Mapping[str, int] = {"popsize": 4, "points": 2}
_CHOICES: Mapping[str, tuple[str, ...]] = {"qmc_type": ("sobol", "halton")}

# The rest of each constructor. None is the only value that Optuna does not announce the removal of; it stands
# for what the recorded version of Optuna fixes. `group` serves conditional spaces, and ours have none.
_HELD: Mapping[str, Mapping[str, Argument | None]] = {
    "random": {},
    "tpe": {
        "consider_prior": None,
        "prior_weight": None,
        "consider_magic_clip": None,
        "consider_endpoints": None,
        "gamma": None,
        "weights": None,
        "group": False,
        "warn_independent_sampling": None,
        "constraints_func": None,
    },
    "gp": {"deterministic_objective": False, "constraints_func": None, "warn_independent_sampling": False},
    "cmaes": {
        "x0": None,
        "sigma0": None,
        "warn_independent_sampling": False,
        "restart_strategy": None,
        "inc_popsize": -1,
        "use_separable_cma": False,
        "source_trials": None,
    },
    "qmc": {"warn_asynchronous_seeding": False, "warn_independent_sampling": False},
    "grid": {},
}

_SEEDS: Mapping[str, str] = {
    "random": "seed_of(study seed, trial number, parameter name)",
    "tpe": "seed_of(study seed, trial number)",
    "gp": "seed_of(study seed, trial number)",
    "cmaes": "seed_of(study seed, trial number)",
    "qmc": "seed_of(study seed)",
    "grid": "seed_of(study seed)",
}
_INDEPENDENT = ("gp", "cmaes", "qmc")  # constructors with an independent_sampler; ours is always "random" above


@dataclass(frozen=True)
class SamplerSpec:
    """Which sampler searches, and what the user set of its arguments.

    Attributes:
        kind: one of `KINDS`.
        arguments: tpe: n_startup_trials, n_ei_candidates, multivariate, constant_liar; gp: n_startup_trials;
            cmaes: n_startup_trials, popsize, lr_adapt, consider_pruned_trials; qmc: qmc_type, scramble;
            grid: points (values per float parameter, both ends included).

    Raises:
        SearchError: the kind or an argument is unknown, or the argument has the wrong type or size.
    """

    kind: str = "random"
    arguments: Mapping[str, Argument] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_known("sampler", self.kind, KINDS)
        settable = _SETTABLE[self.kind]
        for name, value in self.arguments.items():
            _check_known(f"argument of the {self.kind} sampler", name, tuple(settable))
            _check_argument(name, value, settable[name])


def is_history_free(spec: SamplerSpec) -> bool:
    """Whether suggestions don't depend on results, so that any concurrency gives the same study."""
    return spec.kind in ("random", "qmc", "grid")


def explicit_arguments(spec: SamplerSpec, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """What the ledger records of a sampler: Optuna's class and version, and every argument of the constructor.

    Args:
        spec: the sampler.
        parameters: what it searches; popsize and the grid depend on it.

    Returns:
        JSON-safe. `arguments` holds all of the constructor's; `seed` and `independent_sampler` are in words.

    Raises:
        SearchError: the grid is too large.
    """
    arguments = _arguments(spec, parameters) | {"seed": _SEEDS[spec.kind]}
    if spec.kind in _INDEPENDENT:
        arguments["independent_sampler"] = f"RandomSampler, {_SEEDS['random']}"
    return {"sampler": _CLASSES[spec.kind].__name__, "optuna": optuna.__version__, "arguments": arguments}


def seed_of(*parts: int | str) -> int:
    """A 32-bit seed that is a function of its parts alone (see the module's head)."""
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")


def distributions(spec: SamplerSpec, parameters: Sequence[Parameter]) -> dict[str, BaseDistribution]:
    """Optuna's distribution of each parameter. CMA-ES knows no categories: its switches are 0..1."""
    switch = IntDistribution(0, 1) if spec.kind == "cmaes" else CategoricalDistribution((False, True))
    return {p.name: switch if p.kind == "bool" else FloatDistribution(p.low, p.high, log=p.log) for p in parameters}


class Samplers:
    """The samplers of one study, one for each trial.

    Args:
        spec: which sampler.
        parameters: what it searches.
        seed: the study's.

    Raises:
        SearchError: the sampler can't search these parameters.
    """

    def __init__(self, spec: SamplerSpec, parameters: Sequence[Parameter], seed: int) -> None:
        self._kind, self._seed = spec.kind, seed
        self._distributions = distributions(spec, parameters)
        self._arguments = _arguments(spec, parameters)
        self.random = _NamedRandom(seed)
        if spec.kind == "grid":
            self._grid = _PlacedGrid(**self._arguments, seed=seed_of(seed))

    @property
    def size(self) -> int | None:
        """How many different points there are to suggest; None where there is no end."""
        return grid_size(self._arguments["search_space"]) if self._kind == "grid" else None

    def at(self, number: int, position: int) -> BaseSampler:
        """The sampler that draws one trial.

        Args:
            number: the trial's.
            position: how many trials of the study were drawn, not enqueued, before it; qmc's and grid's point.
        """
        self.random.number = number
        match self._kind:
            case "random":
                return self.random
            case "grid":
                self._grid.position = position
                return self._grid
            case "qmc":
                return self._qmc(position)
            case _:
                return self._fresh(number)

    def _fresh(self, number: int) -> BaseSampler:
        arguments = self._arguments | {"seed": seed_of(self._seed, number)}
        if self._kind in _INDEPENDENT:
            arguments["independent_sampler"] = self.random
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # some of CMA-ES's arguments
            return _CLASSES[self._kind](**arguments)

    def _qmc(self, position: int) -> BaseSampler:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # the class itself
            sampler = _PlacedQmc(**self._arguments, seed=seed_of(self._seed), independent_sampler=self.random)
        sampler.position, sampler.space = position, self._distributions
        return sampler


class _NamedRandom(RandomSampler):
    """RandomSampler, reseeded for each trial and parameter.

    Reseeding the live generator takes 1 us; a fresh RandomSampler takes 85. The trial's number is given: Optuna counts
    from where a study in memory began.
    """

    number: int

    def __init__(self, study_seed: int) -> None:
        super().__init__(seed=0)  # never drawn from: each draw reseeds
        self._study_seed = study_seed

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        self._rng.rng.seed(seed_of(self._study_seed, self.number, param_name))
        return super().sample_independent(study, trial, param_name, param_distribution)


class _PlacedQmc(QMCSampler):
    """QMCSampler whose point is given: Optuna's counts in the study, which a rebuilt study has forgotten.

    It also knows its space from the first trial on, where Optuna's draws that one at random.
    """

    position: int
    space: dict[str, BaseDistribution]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.space

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self.position


class _PlacedGrid(GridSampler):
    """GridSampler whose point is given, and that leaves it to its caller to stop at the end."""

    position: int

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Nothing: Optuna would choose the point from the trial's number, enqueued trials counted."""

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        """Nothing: Optuna would call Study.stop, which raises outside of Study.optimize."""

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        placed = create_trial(state=TrialState.RUNNING, system_attrs={"grid_id": self.position})
        return super().sample_independent(study, placed, param_name, param_distribution)


def grid_size(search_space: Mapping[str, Sequence[object]]) -> int:
    """How many points a grid has; 1 where there is nothing to search."""
    return math.prod(len(values) for values in search_space.values())


def _arguments(spec: SamplerSpec, parameters: Sequence[Parameter]) -> dict[str, Any]:
    """All of the constructor's arguments but seed and independent_sampler."""
    arguments: dict[str, Any] = {**_HELD[spec.kind], **_SETTABLE[spec.kind], **spec.arguments}
    if spec.kind == "cmaes":
        return arguments | _cmaes(arguments, parameters)
    if spec.kind == "grid":
        return {"search_space": _grid(parameters, arguments["points"])}
    return arguments


def _cmaes(arguments: Mapping[str, Any], parameters: Sequence[Parameter]) -> dict[str, Any]:
    """What CMA-ES takes from the space: its population (Hansen 2016, eq. 48), and a margin for switches.

    The margin keeps a switch from sticking at one value (Hamano et al. 2022); Optuna has none with lr_adapt.
    """
    popsize = 4 + math.floor(3 * math.log(max(1, len(parameters))))
    switches = any(parameter.kind == "bool" for parameter in parameters)
    return {"popsize": arguments["popsize"] or popsize, "with_margin": switches and not arguments["lr_adapt"]}


def _grid(parameters: Sequence[Parameter], points: int) -> dict[str, list[float] | list[bool]]:
    grid = {p.name: [False, True] if p.kind == "bool" else _spread(p, points) for p in parameters}
    if (size := grid_size(grid)) > MAX_GRID:
        raise SearchError(
            f"a grid over {len(parameters)} parameters with {points} points each has {size:,} points; at "
            f"most {MAX_GRID:,} are allowed. Set fewer `points`, or use qmc, which covers a space with any "
            f"number of trials."
        )
    return grid


def _spread(parameter: Parameter, points: int) -> list[float]:
    spread = np.geomspace if parameter.log else np.linspace
    values = spread(parameter.low, parameter.high, points)
    return [float(value) for value in np.clip(values, parameter.low, parameter.high)]


def _check_known(what: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known) or '(none)'}."
        raise SearchError(f"{name!r} is no {what}. {hint}")


def _check_argument(name: str, value: Argument, default: Argument | None) -> None:
    wanted = int if default is None else type(default)
    least = _LEAST.get(name, 1)
    if type(value) is not wanted:
        raise SearchError(f"{name} = {value!r} must be {_WORDS[wanted]}.")
    if wanted is int and int(value) < least:
        raise SearchError(f"{name} = {value} must be at least {least}.")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise SearchError(f"{name} = {value!r} must be one of {', '.join(_CHOICES[name])}.")


_WORDS: Mapping[type, str] = {int: "a whole number", bool: "true or false", str: "a word"}
