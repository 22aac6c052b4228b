"""A fit in a slot, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from sweeper.records import Cost, Fit, FitResult, Outcome, Score

NAN = float("nan")


@dataclass
class Seat:
    """What a fit has cost and scored so far.

    Attributes:
        best_epoch: counted from 1; 0 before the first.
        before: what it had cost when it was put here.
    """

    fit: Fit
    scores: list[Score] = field(default_factory=list)
    cost: Cost = field(default_factory=Cost)
    best_epoch: int = 0
    before: Cost = field(default_factory=Cost)

    @property
    def best(self) -> Score:
        """The score of the best epoch."""
        return self.scores[self.best_epoch - 1]


@dataclass(frozen=True)
class Final:
    """What is measured of the best weights once a fit has ended.

    Attributes:
        train_loss: over all training rows.
        test_loss, test_metric: on the sealed test rows, for the first and only time.
        squared_norms: ||W_l||_F^2.
        cost: of measuring it.
    """

    train_loss: float
    test_loss: float
    test_metric: float
    squared_norms: tuple[float, ...]
    cost: Cost


def ended_result(seat: Seat, outcome: Outcome, final: Final) -> FitResult:
    """A fit that ended well or was pruned, at its best epoch."""
    score = seat.best
    return FitResult(
        key=seat.fit.key,
        outcome=outcome,
        best_epoch=score.epoch,
        train_loss=final.train_loss,
        validation_loss=score.validation_loss,
        validation_metric=score.validation_metric,
        test_loss=final.test_loss,
        test_metric=final.test_metric,
        squared_norms=final.squared_norms,
        scores=tuple(seat.scores),
        cost=seat.cost + final.cost,
        before=seat.before,
    )


def diverged_result(seat: Seat, layers: int) -> FitResult:
    """A fit whose loss is no number any more; `best_epoch` is the epoch in which that came to light."""
    return FitResult(
        key=seat.fit.key,
        outcome=Outcome.DIVERGED,
        best_epoch=seat.scores[-1].epoch,
        train_loss=NAN,
        validation_loss=NAN,
        validation_metric=NAN,
        test_loss=NAN,
        test_metric=NAN,
        squared_norms=(NAN,) * layers,
        scores=tuple(seat.scores),
        cost=seat.cost,
        before=seat.before,
    )
