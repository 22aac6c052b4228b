"""The samplers that can search a space, each with every argument that matters.

Defaults are Optuna 5.0's, written out so that they are recorded with the sweep and can't change under it.
Arguments that Optuna has deprecated are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from sweeper.config.base import FORM, Count, CountOrZero, Flag, Section


class Random(Section):
    """Independent uniform draws: the only sampler whose results are prices and not just traces."""

    kind: Literal["random"] = Field(description="independent uniform draws")


class Tpe(Section):
    """Tree-structured Parzen estimator: draws where good trials are dense and bad ones are not."""

    kind: Literal["tpe"] = Field(description="tree-structured Parzen estimator")
    n_startup_trials: CountOrZero = Field(10, description="trials drawn at random before the model takes over")
    n_ei_candidates: Count = Field(24, description="candidates from which each suggestion is chosen")
    multivariate: Flag = Field(True, description="model all parameters jointly instead of one by one")
    constant_liar: Flag = Field(True, description="count running trials as bad ones, so that workers spread out")


class Gp(Section):
    """Gaussian process with expected improvement: few trials, much thought for each."""

    kind: Literal["gp"] = Field(description="Gaussian process")
    n_startup_trials: CountOrZero = Field(10, description="trials drawn at random before the model takes over")


class CmaEs(Section):
    """Covariance matrix adaptation: a population that moves and stretches; a switch is a number, rounded."""

    kind: Literal["cmaes"] = Field(description="covariance matrix adaptation evolution strategy")
    n_startup_trials: CountOrZero = Field(1, description="trials drawn at random before the population starts")
    popsize: Annotated[int, Field(strict=True, ge=4)] | None = Field(
        None, description="population size; null is 4 + floor(3 ln d) for d parameters"
    )
    lr_adapt: Flag = Field(False, description="adapt the learning rate, for noisy or many-peaked losses")


class Qmc(Section):
    """Quasi-Monte Carlo: points that fill the space more evenly than chance."""

    kind: Literal["qmc"] = Field(description="quasi-Monte Carlo sequence")
    qmc_type: Literal["sobol", "halton"] = Field("sobol", description="the sequence")
    scramble: Flag = Field(
        True,
        description="randomise the sequence by the study's seed; else all replicates try the same points",
    )


class Grid(Section):
    """Every combination of evenly spaced values, in random order."""

    kind: Literal["grid"] = Field(description="every combination of evenly spaced values")
    points: Annotated[int, Field(strict=True, ge=2)] = Field(
        5, description="values per numeric parameter, ends included; a switch has two"
    )


def by_name(value: Any) -> Any:
    """A mapping with its `kind`, where the file may give the name alone."""
    if not isinstance(value, str | Mapping | Section):
        raise PydanticCustomError(FORM, "should be a name, or {kind: NAME, ...}")
    return {"kind": value} if isinstance(value, str) else value


AnySampler = Annotated[Random | Tpe | Gp | CmaEs | Qmc | Grid, Field(discriminator="kind")]
SamplerName = Literal["random", "tpe", "gp", "cmaes", "qmc", "grid"]
Sampler = Annotated[AnySampler, BeforeValidator(by_name, json_schema_input_type=SamplerName | AnySampler)]
"""A sampler's name, or a mapping with its name as `kind` and its arguments."""
