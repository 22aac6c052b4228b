"""Which trials are hopeless: rules that compare a trial's rung score with its peers'. Nothing here keeps or writes.

    asha       successive halving, asynchronous: at epochs r, r eta, r eta^2, ... a trial goes on only where it is among
               the best 1/eta of those that came so far (Li et al., MLSys 2020)
    median     a trial goes on only where it is no worse than the median of the complete trials at the same epoch
               (Golovin et al., KDD 2017)
    hyperband  brackets of asha, each with a later first rung than the one before (Li et al., JMLR 2018)

A rung is an epoch at which trials are judged, counted from 1. The rung score of a trial is the mean over its folds of
the lowest validation loss so far; a fold that stopped early counts with its lowest. The objective is the loss at the
best epoch, so that a rung compares the same thing as the end.

The rules are those of Optuna 5's SuccessiveHalvingPruner, MedianPruner and HyperbandPruner. Fed with rung scores as
intermediate values, step = epoch, in the same order, they decide the same (tests/search/test_rungs.py). What differs:

- Optuna compares whatever was reported, here it is always the lowest loss so far.
- The last epoch is no rung: there is nothing left to save.
- `min_resource` is a number, never "auto", which would depend on the first trial to be complete. So is Hyperband's
  largest resource: the epochs of a fit.
- Hyperband counts its brackets in whole numbers; Optuna's logarithm loses one at some powers, such as 243 = 3^5. A
  trial's bracket is drawn from the study's seed and its number, where Optuna takes the study's name and its number.
- Trials that reach a rung together are all among its scores before the first of them is judged; in Optuna whoever asks
  first is judged without the others. (That is the caller's part, see `sweeper.scheduler`.)
- Optuna's successive halving writes to the study while it answers.

As in Optuna, and unlike in the papers, nothing is paused: who is not among the best when it comes is pruned for good.
A trial that ended before a rung is no peer there, however good it is; one that ends at a rung is a peer and not judged.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from binascii import crc32
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from sweeper.errors import SearchError


class Action(StrEnum):
    """What becomes of a trial at a rung."""

    CONTINUE = "continue"
    PRUNE = "prune"


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a trial at a rung, and why, in words that follow on "pruned at epoch 9: "."""

    action: Action
    reason: str = ""


GO_ON = Decision(Action.CONTINUE)


@dataclass(frozen=True, slots=True)
class Field:
    """Whom a trial is compared with at a rung.

    Attributes:
        scores: of the peers that reached it, lowest first, finite, without the trial's own.
        complete: complete trials of the study, whether they reached it or not.
    """

    scores: Sequence[float]
    complete: int = 0


class Rule(ABC):
    """How trials of one bracket are judged.

    Attributes:
        needs_complete: whether only complete trials are peers; otherwise every trial that reached the rung is one.
    """

    needs_complete: ClassVar[bool]

    @abstractmethod
    def is_rung(self, epoch: int) -> bool:
        """Whether trials are judged at an epoch, counted from 1."""

    @abstractmethod
    def decide(self, score: float, field: Field) -> Decision:
        """Judge a trial by its rung score; one that is not a number is hopeless."""


@dataclass(frozen=True, slots=True)
class Asha(Rule):
    """Asynchronous successive halving: rungs at r eta^s, r eta^(s+1), ...; the best 1/eta of each go on.

    While fewer than eta have come, the best of them goes on.

    Attributes:
        min_resource: r, epochs.
        reduction_factor: eta.
        min_early_stopping_rate: s.
        bootstrap_count: how many must have come before anyone goes on; those are all pruned, as in Optuna.
    """

    needs_complete: ClassVar[bool] = False

    min_resource: int = 1
    reduction_factor: int = 4
    min_early_stopping_rate: int = 0
    bootstrap_count: int = 0

    def __post_init__(self) -> None:
        _check_least("asha", min_resource=(self.min_resource, 1), reduction_factor=(self.reduction_factor, 2))
        _check_least(
            "asha",
            min_early_stopping_rate=(self.min_early_stopping_rate, 0),
            bootstrap_count=(self.bootstrap_count, 0),
        )

    def is_rung(self, epoch: int) -> bool:
        """Whether the epoch is r eta^(s + k) for a whole k >= 0."""
        rung = self.min_resource * self.reduction_factor**self.min_early_stopping_rate
        while rung < epoch:
            rung *= self.reduction_factor
        return bool(rung == epoch)

    def decide(self, score: float, field: Field) -> Decision:
        """Go on among the best 1/eta of all that came so far, this one included."""
        if math.isnan(score):
            return _prune("its loss is not a number")
        came = len(field.scores) + 1
        if came <= self.bootstrap_count:
            return _prune(f"it is among the first {self.bootstrap_count} trials to come there, which only set the mark")
        go_on = max(1, came // self.reduction_factor)
        if bisect_left(field.scores, score) < go_on:
            return GO_ON
        best = f"among the best 1/{self.reduction_factor}" if came >= self.reduction_factor else "the best"
        return _prune(f"{score:.4g} is not {best} of {came} trials")


@dataclass(frozen=True, slots=True)
class Median(Rule):
    """The median stopping rule, among complete trials.

    Attributes:
        n_startup_trials: trials that must be complete before any is pruned.
        n_warmup_steps: epochs before which none is pruned.
        interval_steps: epochs from one rung to the next, counted from n_warmup_steps (from epoch 1 where that is 0).
        n_min_trials: complete trials that must have reached a rung before any is pruned there.
    """

    needs_complete: ClassVar[bool] = True

    n_startup_trials: int = 5
    n_warmup_steps: int = 0
    interval_steps: int = 1
    n_min_trials: int = 1

    def __post_init__(self) -> None:
        _check_least("median", n_startup_trials=(self.n_startup_trials, 0), n_warmup_steps=(self.n_warmup_steps, 0))
        _check_least("median", interval_steps=(self.interval_steps, 1), n_min_trials=(self.n_min_trials, 1))

    def is_rung(self, epoch: int) -> bool:
        """Whether the epoch is a whole number of intervals after the warm-up."""
        # A check at 0 epochs has to wait for the first, as Optuna's waits for the first report.
        since = epoch - self.n_warmup_steps
        return since >= 0 and (since % self.interval_steps == 0 or epoch == 1)

    def decide(self, score: float, field: Field) -> Decision:
        """Go on at the median or below."""
        if field.complete < max(1, self.n_startup_trials):
            return GO_ON
        if math.isnan(score):
            return _prune("its loss is not a number")
        reached = len(field.scores)
        if reached < self.n_min_trials:
            return GO_ON
        middle = _median(field.scores)
        if not score > middle:
            return GO_ON
        return _prune(f"{score:.4g} is worse than the median {middle:.4g} of {reached} complete trials")


@dataclass(frozen=True, slots=True)
class Pruner:
    """Judges the trials of one study, each within its bracket.

    Attributes:
        rules: one per bracket.
        shares: how often a trial falls to each bracket, in proportion.
        epochs: of a fit that nothing ends.
        seed: the study's.
    """

    rules: tuple[Rule, ...]
    shares: tuple[int, ...]
    epochs: int
    seed: int

    @property
    def needs_complete(self) -> bool:
        """Whether only complete trials are peers."""
        return self.rules[0].needs_complete

    def bracket(self, number: int) -> int:
        """The bracket of a trial; its peers are the trials of the same one."""
        left = crc32(f"{self.seed}_{number}".encode()) % sum(self.shares)
        for bracket, share in enumerate(self.shares):
            left -= share
            if left < 0:
                return bracket
        raise AssertionError("a remainder is less than what it was divided by")

    def is_rung(self, number: int, epoch: int) -> bool:
        """Whether a trial is judged after an epoch, counted from 1."""
        return epoch < self.epochs and self.rules[self.bracket(number)].is_rung(epoch)

    def decide(self, number: int, score: float, field: Field) -> Decision:
        """Judge a trial at a rung.

        Args:
            number: the trial's, in its study.
            score: the mean over its folds of the lowest validation loss so far.
            field: its peers in its bracket.
        """
        return self.rules[self.bracket(number)].decide(score, field)


def pruner(kind: str, arguments: Mapping[str, int], *, epochs: int, seed: int) -> Pruner:
    """The pruner of one study.

    Args:
        kind: asha, median or hyperband.
        arguments: the attributes of `Asha` or `Median`; for hyperband min_resource, reduction_factor, bootstrap_count.
        epochs: of a fit that nothing ends.
        seed: the study's.

    Raises:
        SearchError: the kind is unknown, or an argument is too small.
    """
    match kind:
        case "asha":
            return Pruner((Asha(**arguments),), (1,), epochs, seed)
        case "median":
            return Pruner((Median(**arguments),), (1,), epochs, seed)
        case "hyperband":
            rules = _brackets(Asha(**{"reduction_factor": 3, **arguments}), epochs)
            return Pruner(rules, _shares(len(rules), rules[0].reduction_factor), epochs, seed)
    raise SearchError(f"{kind!r} is no pruner. Known: asha, median, hyperband.")


def _brackets(first: Asha, epochs: int) -> tuple[Asha, ...]:
    """One bracket per rung that the first bracket can have: floor(log_eta(R / r)) + 1, and one even where r > R."""
    count = 1
    while first.min_resource * first.reduction_factor**count <= epochs:
        count += 1
    return tuple(Asha(first.min_resource, first.reduction_factor, rate, first.bootstrap_count) for rate in range(count))


def _shares(brackets: int, reduction_factor: int) -> tuple[int, ...]:
    """Trials of each bracket, so that all brackets get about the same epochs (Li et al. 2018, algorithm 1: n)."""
    ends = range(brackets - 1, -1, -1)  # s in the paper: how often a bracket divides by eta
    return tuple(-(-brackets * reduction_factor**s // (s + 1)) for s in ends)


def _median(ascending: Sequence[float]) -> float:
    """As numpy interpolates it, to the last bit."""
    low, high = ascending[(len(ascending) - 1) // 2], ascending[len(ascending) // 2]
    return high if low == high else high - (high - low) * 0.5


def _prune(reason: str) -> Decision:
    return Decision(Action.PRUNE, reason)


def _check_least(kind: str, **arguments: tuple[int, int]) -> None:
    for name, (value, least) in arguments.items():
        if value < least:
            raise SearchError(f"{name} = {value} of the {kind} pruner must be at least {least}.")
