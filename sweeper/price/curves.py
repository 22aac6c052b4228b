"""Test loss against the number of trials: what a search of n trials can be expected to find.

Letters used throughout this room: N trials of one study, n trials of a budget, B the largest budget that is read,
R replicates (the statistical blocks), G budgets of a grid, n0 the smaller space's budget in a price.

Two curves. For random search (measurement mode) any n of the N trials could have come first, so the curve averages
over all subsets of size n: a U-statistic, unbiased, selection noise included (Tang et al. 2020, arXiv 2004.13705).
It is read up to B = N // 2: beyond, subsets overlap so much that it is hardly more than one trace.
A sampler that learns has only the order in which it ran (product mode): its curve is the trace of the incumbent, up
to B = N. At N = 64 and n = 16 one study's U-statistic knows as much as 6.3 traces.

Failed and pruned trials have loss +inf and are never the incumbent, but they do count as trials. A subset that
holds nothing else has no incumbent and its loss is +inf: with F such trials a study's curve is +inf for n <= F and
finite beyond. That is meant: no finite number is the mean loss of a search that may come back empty-handed.

Bands are t-intervals over replicates. With a single study there is no such interval, but its trials are i.i.d. given
the split: there the exact LD bands of Lourie et al. hold (`bands`). They bound what n trials find of one loss that is
both searched and read, so they belong to the validation loss; the test loss of the trial that validation chose is
another quantity, which they don't bound. Trials of several replicates are not i.i.d., and are not pooled for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from sweeper.price.bands import LdBand, ld_band
from sweeper.price.intervals import Estimate, ends, paired_t, simultaneous_confidence, t_interval
from sweeper.records import PricedTrial

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COSTS = ("device_s", "solo_s", "suggest_s", "joules", "flops")  # what a trial is charged for: fields of PricedTrial

_COLUMNS = attrgetter("number", "validation_loss", "test_loss", *COSTS)
_PREDECLARED = (16, 8, 4, 2, 1)  # parts of B at which intervals hold together
_DENSE_BUDGETS = 256  # every n up to here, then steps of 2 %: the curves are smooth in log n
_STEP = 1.02


class Mode(StrEnum):
    """How a sweep was searched, and so what its trials can tell.

    MEASUREMENT: independent random draws, nothing pruned: any subset of the trials is a search of that size.
    PRODUCT: a sampler that learns, or a pruner: each study is one trace, with its enqueued starts.
    """

    MEASUREMENT = "measurement"
    PRODUCT = "product"


@dataclass(frozen=True, eq=False)
class Block:
    """One study as the price sees it: its trials, the best validation loss first.

    Attributes:
        validation: `N`, ascending; +inf for failed and pruned trials.
        test: `N`, the test losses of the same trials in the same order.
        order: `N`, when each of them ran: 0 for the first trial of the block.
        number: `N`, their numbers in the study.
        cost: mean cost of one trial by the names in `COSTS`, NaN where one was not measured; failed trials were paid
            for too.
    """

    validation: Doubles
    test: Doubles
    order: Ints
    number: Ints
    cost: Mapping[str, float]

    @classmethod
    def of(cls, trials: Sequence[PricedTrial], mode: Mode = Mode.MEASUREMENT) -> Block:
        """Rank a study's trials by validation loss; ties go to the earlier trial.

        Args:
            trials: all finished ones, in any order.
            mode: MEASUREMENT takes the exchangeable ones alone, PRODUCT takes all.
        """
        taken = [_COLUMNS(t) for t in trials if t.exchangeable or mode is Mode.PRODUCT]
        columns = np.array(taken, dtype=np.float64).reshape(-1, 3 + len(COSTS)).T  # a cost of None becomes NaN
        number, validation, test, *costs = columns[:, np.argsort(columns[0], kind="stable")]
        validation, test = _losses(validation, test)
        order = np.argsort(validation, kind="stable")
        cost = {name: float(cost.mean()) if len(number) else math.nan for name, cost in zip(COSTS, costs, strict=True)}
        numbers = number[order].astype(np.int64)
        return cls(validation[order], test[order], order, numbers, MappingProxyType(cost))

    def __len__(self) -> int:
        return len(self.test)

    def trace(self) -> tuple[Doubles, Doubles]:
        """The incumbent's losses after each trial, in the order in which the study ran.

        The incumbent is the first trial with the least validation loss so far.

        Returns:
            Validation and test loss of the incumbent, `N` each; +inf until a trial has succeeded.
        """
        validation, test = np.empty(len(self)), np.empty(len(self))
        validation[self.order], test[self.order] = self.validation, self.test
        best = np.minimum.accumulate(validation)
        previous = np.concatenate([[np.inf], best[:-1]])
        found_at = np.where(validation < previous, np.arange(len(self)), 0)
        return best, test[np.maximum.accumulate(found_at)]


def _losses(validation: Doubles, test: Doubles) -> tuple[Doubles, Doubles]:
    """The losses with +inf for all that is not a number, and for the test loss of a failed trial."""
    validation = np.where(np.isnan(validation), np.inf, validation)
    test = np.where(np.isnan(test) | np.isinf(validation), np.inf, test)
    return validation, test


def budget_grid(limit: int) -> Ints:
    """Budgets to read a curve at: every integer to 256, then steps of 2 %; limit and its parts down to 1/16 are in.

    Args:
        limit: B, the largest budget, at least 1.

    Returns:
        `G` increasing integers from 1 to `limit`.
    """
    dense = np.arange(1, min(limit, _DENSE_BUDGETS) + 1)
    steps = int(np.ceil(np.log(max(limit / _DENSE_BUDGETS, 1.0)) / np.log(_STEP)))
    sparse = np.geomspace(_DENSE_BUDGETS, limit, steps + 1).round() if steps else dense
    anchors = [max(1, limit // part) for part in _PREDECLARED]
    return np.unique(np.concatenate([dense, sparse, anchors]).astype(np.int64))


def incumbent_weights(trials: int, budget: int) -> Doubles:
    """How probable it is that the i-th best of N trials is the best of n drawn from them without replacement.

    weight[i] = C(N - i, n - 1) / C(N, n), i = 1..N; the weights sum to 1. They are built from
    weight[1] = n / N and weight[i + 1] / weight[i] = 1 - (n - 1) / (N - i): the difference of two log-gammas of
    size N log N, the usual way, would lose the digits that this keeps for large N.

    Args:
        trials: N.
        budget: n, 1 <= n <= N.

    Returns:
        `N`, best trial first; 0 from i = N - n + 2 on.
    """
    worse = np.arange(trials - 1, 0, -1)  # N - i
    ratios = np.maximum(worse - (budget - 1), 0) / worse
    return np.cumprod(np.concatenate([[budget / trials], ratios]))


def expected_best(ranked: Doubles, budgets: Ints) -> Doubles:
    """The loss of the incumbent after n trials of random search, averaged over all subsets of n of the N trials.

    tau(n) = sum_i ranked[i] C(N - i, n - 1) / C(N, n). With the test losses in validation order this is the test
    loss of the trial that validation would have chosen; with the validation losses it is the minimum.

    Args:
        ranked: `... x N`, losses by ascending validation loss; +inf allowed.
        budgets: `G`, each from 1 to N.

    Returns:
        `... x G`; +inf where a subset of that size may hold no finite incumbent.
    """
    trials = ranked.shape[-1]
    finite = np.isfinite(ranked)
    known = np.where(finite, ranked, 0.0)  # 0 * inf would be NaN
    curve = np.stack([known @ incumbent_weights(trials, int(n)) for n in budgets], axis=-1)
    best_infinite = np.where(finite.all(axis=-1), trials, finite.argmin(axis=-1))  # its position from 0
    return np.where(budgets <= trials - best_infinite[..., None], np.inf, curve)


def block_curves(
    blocks: Sequence[Block], budgets: Ints, losses: str = "test", mode: Mode = Mode.MEASUREMENT
) -> Doubles:
    """Every block's curve: `expected_best` (blocks of one size share the arithmetic), or its trace in product mode.

    Args:
        blocks: R blocks of at least max(budgets) trials, not necessarily equally many.
        budgets: `G`.
        losses: "test" or "validation".
        mode: how they were searched.

    Returns:
        `R x G`.
    """
    if mode is Mode.PRODUCT:
        column = ("validation", "test").index(losses)
        return np.stack([block.trace()[column][budgets - 1] for block in blocks])
    curves = np.empty((len(blocks), len(budgets)))
    sizes = np.array([len(block) for block in blocks])
    for size in np.unique(sizes):
        rows = np.flatnonzero(sizes == size)
        curves[rows] = expected_best(np.stack([getattr(blocks[r], losses) for r in rows.tolist()]), budgets)
    return curves


def common_trials(counts: Sequence[int]) -> int:
    """The N that a comparison reads when some blocks are shorter: the one that uses most, max N * #(count >= N).

    A complete sweep keeps its N; one block that has just started is left out; blocks that differ by a trial or two
    all stay. Among equals more blocks are worth more than more trials.

    Args:
        counts: exchangeable trials of each block.

    Returns:
        N, or 0 without any.
    """
    return max(sorted(set(counts)), key=lambda n: n * sum(count >= n for count in counts), default=0)


def largest_budget(trials: int, mode: Mode) -> int:
    """B, up to which a curve of N trials is read."""
    return trials // 2 if mode is Mode.MEASUREMENT else trials


def trace(trials: Sequence[PricedTrial]) -> tuple[Doubles, Doubles]:
    """The incumbent's validation and test loss after each trial of a study; every trial counts (see `Block.trace`)."""
    return Block.of(trials, Mode.PRODUCT).trace()


@dataclass(frozen=True, eq=False)
class SpaceCurve:
    """One space's test loss against the number of trials, averaged over its replicates.

    Attributes:
        space: its name.
        budgets: `G`, trials, from 1 to B.
        mean, lower, upper: `G`; the band is a 95 % t-interval over replicates at each budget on its own. All of it at
            once holds the true curve in 80 to 86 % of the cases only (simulated on problem A, R = 10 to 30).
        together: the mean at B/16, B/8, B/4, B/2 and B with intervals that do hold at once (Bonferroni; simulated
            .94 to .97, where a max-t band over all budgets has .92 to .94).
        validation: `G`, the mean validation loss of the same incumbents.
        replicates: R.
        mode: how it was searched.
        validation_band: of a single study's random search, which has no replicates to take an interval from: the LD
            band of its validation loss. The test loss has none.
    """

    space: str
    budgets: Ints
    mean: Doubles
    lower: Doubles
    upper: Doubles
    together: Mapping[int, Estimate]
    validation: Doubles
    replicates: int
    mode: Mode
    validation_band: LdBand | None = None


def space_curve(
    space: str, studies: Mapping[int, Sequence[PricedTrial]], mode: Mode = Mode.MEASUREMENT
) -> SpaceCurve | None:
    """A space's mean curve for n = 1..B.

    Args:
        space: the space's name.
        studies: trials by replicate.
        mode: how they were searched.

    Returns:
        The curve, or None where no study has two trials that count (so far).
    """
    blocks = [Block.of(trials, mode) for trials in studies.values()]
    trials = common_trials([len(block) for block in blocks])
    if trials < 2:
        return None
    used = [block for block in blocks if len(block) >= trials]
    budgets = budget_grid(largest_budget(trials, mode))
    curves = block_curves(used, budgets, mode=mode)
    mean, half = t_interval(curves)
    validation, _ = t_interval(block_curves(used, budgets, "validation", mode))
    together = _together(curves, budgets)
    band = _band_of_one(used, budgets) if mode is Mode.MEASUREMENT else None
    return SpaceCurve(space, budgets, mean, *ends(mean, half), together, validation, len(used), mode, band)


def _band_of_one(blocks: Sequence[Block], budgets: Ints) -> LdBand | None:
    """The LD band of a single study; None with several, whose trials are not alike: splits differ in difficulty."""
    return ld_band(in_order(blocks[0]), budgets) if len(blocks) == 1 else None


def in_order(block: Block) -> Doubles:
    """A study's validation losses in the order in which its trials ran, `N`."""
    losses = np.empty(len(block))
    losses[block.order] = block.validation
    return losses


def _together(curves: Doubles, budgets: Ints) -> dict[int, Estimate]:
    """The mean at the predeclared budgets, with intervals that hold for all of them at once."""
    chosen = sorted({max(1, int(budgets[-1]) // part) for part in _PREDECLARED})
    confidence = simultaneous_confidence(len(chosen))
    return {n: paired_t(curves[:, budgets == n][:, 0], confidence) for n in chosen}
