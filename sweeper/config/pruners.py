"""The pruners that stop hopeless trials early, each with every argument that matters.

Names and defaults are Optuna 5.0's, written out so that they are recorded with the sweep; a resource is an epoch.
`sweeper.search.rungs` says what each does, and where Optuna does otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_serializer

from sweeper.config.base import Count, CountOrZero, Section
from sweeper.config.samplers import by_name

Factor = Annotated[int, Field(strict=True, ge=2)]


class NoPruner(Section):
    """Every trial is trained to its end: the only way to measure prices."""

    kind: Literal["none"] = Field(description="every trial is trained to its end")

    @model_serializer
    def _by_its_name(self) -> str:
        """As sweeps were recorded before there was a choice."""
        return self.kind

    def first_rung(self, epochs: int) -> int | None:
        """The first epoch, before the last, after which a trial may be pruned; None where there is none."""
        return None


class MedianRule(Section):
    """Prunes a trial that is worse than the median of the complete trials after as many epochs."""

    kind: Literal["median"] = Field(description="worse than the median of the complete trials")
    n_startup_trials: CountOrZero = Field(5, description="trials that must be complete before any is pruned")
    n_warmup_steps: CountOrZero = Field(0, description="epochs before which no trial is pruned")
    interval_steps: Count = Field(1, description="epochs from one judgement to the next")
    n_min_trials: Count = Field(
        1, description="complete trials that must have trained as many epochs before any is pruned there"
    )

    def first_rung(self, epochs: int) -> int | None:
        """The first epoch, before the last, after which a trial may be pruned; None where there is none."""
        first = max(1, self.n_warmup_steps)
        return first if first < epochs else None


class Asha(Section):
    """Asynchronous successive halving: after r, r eta, r eta^2, ... epochs, the best 1/eta of the trials go on."""

    kind: Literal["asha"] = Field(description="asynchronous successive halving")
    min_resource: Count = Field(1, description="r: epochs before the first judgement")
    reduction_factor: Factor = Field(4, description="eta: one trial in so many goes on, for so many times the epochs")
    min_early_stopping_rate: CountOrZero = Field(0, description="judgements to leave out at the start")
    bootstrap_count: CountOrZero = Field(0, description="trials that are pruned at each judgement before any goes on")

    def first_rung(self, epochs: int) -> int | None:
        """The first epoch, before the last, after which a trial may be pruned; None where there is none."""
        first = self.min_resource * self.reduction_factor**self.min_early_stopping_rate
        return first if first < epochs else None


class Hyperband(Section):
    """Brackets of successive halving, each judging later than the one before; a trial is in one of them by chance."""

    kind: Literal["hyperband"] = Field(description="brackets of asynchronous successive halving")
    min_resource: Count = Field(1, description="r: epochs before the first judgement of the first bracket")
    reduction_factor: Factor = Field(3, description="eta: one trial in so many goes on, for so many times the epochs")
    bootstrap_count: CountOrZero = Field(0, description="trials that are pruned at each judgement before any goes on")

    def first_rung(self, epochs: int) -> int | None:
        """The first epoch, before the last, after which a trial may be pruned; None where there is none."""
        return self.min_resource if self.min_resource < epochs else None


AnyPruner = Annotated[NoPruner | MedianRule | Asha | Hyperband, Field(discriminator="kind")]
PrunerName = Literal["none", "median", "asha", "hyperband"]
Pruner = Annotated[AnyPruner, BeforeValidator(by_name, json_schema_input_type=PrunerName | AnyPruner)]
"""A pruner's name, or a mapping with its name as `kind` and its arguments."""
