"""Test loss against the number of trials: what a search of n trials can be expected to find.

Letters used throughout this room: N trials of one study, n trials of a budget, B = N // 2 the largest budget that
is read, R replicates (the statistical blocks), G budgets of a grid, n0 the smaller space's budget in a price.

Two curves. For random search (measurement mode) any n of the N trials could have come first, so the curve averages
over all subsets of size n: a U-statistic, unbiased, selection noise included (Tang et al. 2020, arXiv 2004.13705).
A sampler that learns has only the order in which it ran (product mode): its curve is the trace of the incumbent.

Failed and pruned trials have loss +inf and are never the incumbent, but they do count as trials. A subset that
holds nothing else has no incumbent and its loss is +inf: with F such trials a study's curve is +inf for n <= F and
finite beyond. That is meant: no finite number is the mean loss of a search that may come back empty-handed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from sweeper.price.intervals import ends, t_interval
from sweeper.records import PricedTrial

Doubles = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

COSTS = ("device_s", "flops")  # what a trial is charged for: fields of PricedTrial

_DENSE_BUDGETS = 256  # every n up to here, then steps of 2 %: the curves are smooth in log n
_STEP = 1.02


@dataclass(frozen=True, eq=False)
class Block:
    """One study as the price sees it: its exchangeable trials, the best validation loss first.

    Attributes:
        validation: `N`, ascending; +inf for failed and pruned trials.
        test: `N`, the test losses of the same trials in the same order.
        cost: mean cost of one trial by the names in `COSTS`; failed trials were paid for too.
    """

    validation: Doubles
    test: Doubles
    cost: Mapping[str, float]

    @classmethod
    def of(cls, trials: Sequence[PricedTrial]) -> Block:
        """Rank a study's exchangeable trials by validation loss; ties go to the earlier trial."""
        drawn = sorted((t for t in trials if t.exchangeable), key=lambda t: t.number)
        validation, test = _losses(drawn)
        order = np.argsort(validation, kind="stable")
        cost = {name: float(np.mean([getattr(t, name) for t in drawn])) if drawn else 0.0 for name in COSTS}
        return cls(validation[order], test[order], MappingProxyType(cost))

    def __len__(self) -> int:
        return len(self.test)


def _losses(trials: Sequence[PricedTrial]) -> tuple[Doubles, Doubles]:
    """Validation and test losses with +inf for all that is not a number, and for the test loss of a failed trial."""
    validation = np.array([t.validation_loss for t in trials], dtype=np.float64)
    test = np.array([t.test_loss for t in trials], dtype=np.float64)
    validation = np.where(np.isnan(validation), np.inf, validation)
    test = np.where(np.isnan(test) | np.isinf(validation), np.inf, test)
    return validation, test


def budget_grid(limit: int) -> Ints:
    """Budgets to read a curve at: every integer to 256, then steps of 2 %; limit and its 1/2, 1/4, 1/8 are among them.

    Args:
        limit: B, the largest budget, at least 1.

    Returns:
        `G` increasing integers from 1 to `limit`.
    """
    dense = np.arange(1, min(limit, _DENSE_BUDGETS) + 1)
    steps = int(np.ceil(np.log(max(limit / _DENSE_BUDGETS, 1.0)) / np.log(_STEP)))
    sparse = np.geomspace(_DENSE_BUDGETS, limit, steps + 1).round() if steps else dense
    anchors = [max(1, limit // part) for part in (1, 2, 4, 8)]
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


def block_curves(blocks: Sequence[Block], budgets: Ints, losses: str = "test") -> Doubles:
    """`expected_best` of every block; blocks of one size share the arithmetic.

    Args:
        blocks: R blocks of at least max(budgets) trials, not necessarily equally many.
        budgets: `G`.
        losses: "test" or "validation".

    Returns:
        `R x G`.
    """
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


def trace(trials: Sequence[PricedTrial]) -> tuple[Doubles, Doubles]:
    """The incumbent's losses after each trial, in the order in which the study ran; every trial counts.

    The incumbent is the first trial with the least validation loss so far.

    Args:
        trials: all N trials of one study, in any order.

    Returns:
        Validation and test loss of the incumbent, `N` each; +inf until a trial has succeeded.
    """
    validation, test = _losses(sorted(trials, key=lambda t: t.number))
    best = np.minimum.accumulate(validation)
    previous = np.concatenate([[np.inf], best[:-1]])
    found_at = np.where(validation < previous, np.arange(len(validation)), 0)
    return best, test[np.maximum.accumulate(found_at)]


@dataclass(frozen=True, eq=False)
class SpaceCurve:
    """One space's test loss against the number of trials, averaged over its replicates.

    Attributes:
        space: its name.
        budgets: `G`, trials, from 1 to B.
        mean, lower, upper: `G`; the band is a 95 % t-interval over replicates at each budget on its own.
        validation: `G`, the mean validation loss of the same incumbents.
        replicates: R.
    """

    space: str
    budgets: Ints
    mean: Doubles
    lower: Doubles
    upper: Doubles
    validation: Doubles
    replicates: int


def space_curve(space: str, studies: Mapping[int, Sequence[PricedTrial]]) -> SpaceCurve | None:
    """A space's mean curve for n = 1..N // 2.

    Args:
        space: the space's name.
        studies: trials by replicate.

    Returns:
        The curve, or None where no study has two exchangeable trials (so far, or by the nature of its sampler).
    """
    blocks = [Block.of(trials) for trials in studies.values()]
    trials = common_trials([len(block) for block in blocks])
    if trials < 2:
        return None
    used = [block for block in blocks if len(block) >= trials]
    budgets = budget_grid(trials // 2)
    mean, half = t_interval(block_curves(used, budgets))
    validation, _ = t_interval(block_curves(used, budgets, "validation"))
    return SpaceCurve(space, budgets, mean, *ends(mean, half), validation, len(used))
