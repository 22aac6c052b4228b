"""A recorded trial trained once more, from the ledger alone and alone in a slot, and how far it came out the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from sweeper.calibration import Maker
from sweeper.engine import Engine
from sweeper.errors import LedgerError
from sweeper.ledger.recorded import MEASURES, Recorded, RecordedFit
from sweeper.records import Fit, FitResult
from sweeper.workload import Workload

NO_MEASURES = ("epoch", "at_ms")  # what a curve holds beside what was measured

Pairs = Sequence[tuple[float | None, float | None]]


@dataclass(frozen=True)
class Difference:
    """One measure, compared over all fits and epochs of a trial.

    Attributes:
        values: how many were compared.
        largest: the largest absolute difference; inf where one of the two is not a finite number.
    """

    measure: str
    values: int
    largest: float


@dataclass(frozen=True)
class Replayed:
    """What became of a trial that was trained once more.

    Attributes:
        outcomes: per fit, how it ended then and now.
        differences: per measure.
    """

    outcomes: tuple[tuple[str, str], ...]
    differences: tuple[Difference, ...]

    @property
    def is_same(self) -> bool:
        """Whether every number came out bit for bit."""
        return all(then == now for then, now in self.outcomes) and not any(one.largest for one in self.differences)


def replay(
    workload: Workload,
    trial: Recorded,
    *,
    device: str,
    compiled: bool,
    on_epoch: Callable[[int, int], None] = lambda done, of: None,
) -> Replayed:
    """Train a recorded trial again, fit by fit in one slot.

    Args:
        workload: the sweep made concrete.
        trial: as it was recorded.
        device: "cpu", "cuda", ...
        compiled: whether the step is compiled, as it was then.
        on_epoch: told how many epochs are done, and of how many.

    Raises:
        LedgerError: no fit of the trial was recorded.
    """
    if not trial.fits:
        name = f"{trial.space}/{trial.replicate}/{trial.number}"
        raise LedgerError(f"trial {name} is {trial.state.value}: it has no fit to compare with.")
    engine = Maker(workload, device).engine(1, compiled)
    total, done = sum(fit.epochs for fit in trial.fits), 0
    pairs: list[tuple[RecordedFit, FitResult]] = []
    for then in trial.fits:
        fit = Fit("replay", trial.setting, then.seed, workload.fold_index(trial.replicate, then.fold))
        for epoch, result in enumerate(_trained(engine, fit, then.epochs), 1):
            on_epoch(done + epoch, total)
            if result is not None:
                pairs.append((then, result))
        done += then.epochs
    outcomes = tuple((then.outcome, now.outcome.value) for then, now in pairs)
    return Replayed(outcomes, tuple(_differences(pairs)))


def _trained(engine: Engine, fit: Fit, epochs: int) -> Iterator[FitResult | None]:
    """Epoch by epoch; the last one comes with the result, also where the fit was pruned there."""
    engine.admit([fit])
    for epoch in range(1, epochs + 1):
        ended = list(engine.train().results)
        if not ended and epoch == epochs:
            ended = list(engine.prune([fit.key]))
        yield ended[0] if ended else None
        if ended:
            return


def _differences(pairs: Sequence[tuple[RecordedFit, FitResult]]) -> Iterator[Difference]:
    for name in MEASURES:
        yield _difference(name, [(then.measures[name], getattr(now, name)) for then, now in pairs])
    norms = [pair for then, now in pairs for pair in zip(then.squared_norms, now.squared_norms, strict=True)]
    yield _difference("squared_norms", norms)
    for name in pairs[0][0].curves:
        if name not in NO_MEASURES:
            yield _difference(f"{name} by epoch", [pair for then, now in pairs for pair in _curve(name, then, now)])


def _curve(name: str, then: RecordedFit, now: FitResult) -> Pairs:
    length = max(then.epochs, len(now.scores))
    before = [*then.curves[name], *[None] * (length - then.epochs)]
    after = [*(getattr(score, name) for score in now.scores), *[None] * (length - len(now.scores))]
    return list(zip(before, after, strict=True))


def _difference(measure: str, pairs: Pairs) -> Difference:
    return Difference(measure, len(pairs), max((_distance(then, now) for then, now in pairs), default=0.0))


def _distance(then: float | None, now: float | None) -> float:
    """Absolute; the ledger keeps a number that is not finite as none."""
    known = [value for value in (then, now) if value is not None and math.isfinite(value)]
    return abs(known[0] - known[1]) if len(known) == 2 else math.inf if known else 0.0
