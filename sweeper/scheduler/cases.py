"""A trial between its claim and its settlement: its fits, how far they have come, and how it ended."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sweeper.ledger.rows import Claimed, Means, RungScore, SettledFit
from sweeper.records import Cost, Fit, FitResult, Outcome, Score, TrialState


@dataclass(eq=False)
class Case:
    """A claimed trial on its way through the engine.

    Attributes:
        claimed: which trial, under which attempt.
        fits: one per fold; they start together and train side by side.
        results: of the fits that ended, by key.
        lowest: each fit's lowest validation loss so far, by key.
        epoch: how many epochs its fits have trained.
        reached: its rung scores that the ledger does not have yet.
        given_up: what its fits cost that were given up without a result.
        hopeless: why it was pruned; None for one that was not.
        broken: what ended it, where that was an error once too often.
    """

    claimed: Claimed
    fits: tuple[Fit, ...]
    results: dict[str, FitResult] = field(default_factory=dict)
    lowest: dict[str, float] = field(default_factory=dict)
    epoch: int = 0
    reached: list[RungScore] = field(default_factory=list)
    given_up: Cost = field(default_factory=Cost)
    hopeless: str | None = None
    broken: str | None = None

    @property
    def training(self) -> list[str]:
        """The fits without a result, by key."""
        return [fit.key for fit in self.fits if fit.key not in self.results]

    @property
    def has_failed(self) -> bool:
        """Whether a fit diverged, which decides for all, or an error ended it for good."""
        return self._diverged is not None or self.broken is not None

    @property
    def is_over(self) -> bool:
        """Whether every fit ended, or one failed."""
        return not self.training or self.has_failed

    @property
    def rung_score(self) -> float:
        """Mean over folds of the lowest validation loss so far; a fold that stopped early counts with its own."""
        return _mean([self.lowest[fit.key] for fit in self.fits])

    @property
    def state(self) -> TrialState:
        """How a trial that is over ended."""
        if self.has_failed:
            return TrialState.FAIL
        return TrialState.COMPLETE if self.hopeless is None else TrialState.PRUNED

    @property
    def error(self) -> str | None:
        """What a user reads of a trial that is not complete: which fold failed, or why it was pruned."""
        if self.broken is not None:
            return self.broken
        if self._diverged is None:
            return self.hopeless
        number, result = self._diverged
        return f"fold {number} {result.outcome.value} (epoch {result.best_epoch})"

    @property
    def means(self) -> Means | None:
        """Losses and metrics over the folds; None where one diverged. A pruned trial has no test scores."""
        if self.has_failed:
            return None
        results = self.outcomes
        return Means(*(_mean([getattr(each, name) for each in results]) for name in Means.__dataclass_fields__))

    @property
    def outcomes(self) -> list[FitResult]:
        """The results that there are, in the order of the folds; a pruned trial's without any test score."""
        results = [self.results[fit.key] for fit in self.fits if fit.key in self.results]
        return [_sealed(result) for result in results] if self.state is TrialState.PRUNED else results

    @property
    def settled_fits(self) -> tuple[SettledFit, ...]:
        """The same with fold and seed, for the ledger."""
        ended = ((number, fit.seed) for number, fit in enumerate(self.fits) if fit.key in self.results)
        return tuple(SettledFit(*fit, result) for fit, result in zip(ended, self.outcomes, strict=True))

    @property
    def cost(self) -> Cost:
        """What its fits have cost that are out of the engine."""
        return sum((result.cost for result in self.results.values()), self.given_up)

    def note(self, key: str, score: Score) -> None:
        """Take in what an epoch of one of its fits measured."""
        self.epoch = score.epoch
        self.lowest[key] = min(self.lowest.get(key, score.validation_loss), score.validation_loss)

    def end(self, result: FitResult) -> None:
        """Take in how one of its fits ended."""
        self.results[result.key] = result
        self.epoch = max(self.epoch, len(result.scores))
        self.lowest[result.key] = result.validation_loss

    @property
    def _diverged(self) -> tuple[int, FitResult] | None:
        """The first fold that diverged, with its number."""
        for number, fit in enumerate(self.fits):
            result = self.results.get(fit.key)
            if result is not None and result.outcome is Outcome.DIVERGED:
                return number, result
        return None


def _sealed(result: FitResult) -> FitResult:
    """Where some folds of a pruned trial had stopped early, those were tested: nobody is to see it."""
    return replace(result, test_loss=math.nan, test_metric=math.nan)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
