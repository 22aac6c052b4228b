"""Intervals whose unit is the replicate: never a trial, never an epoch.

Replicates (a split and a seed stream, the same for every space) are independent; trials within one are not, once
a curve is built from them. Means get Student's t on paired differences. Ratios read off mean curves get the
delete-one-block jackknife on the log scale with t quantiles: simulated on problem A at R = 10 it covers .96 where
the percentile bootstrap covers .915.

Several edges are several chances to be lucky. Whether an edge pays is therefore judged by Holm's step-down p-values
over all edges of the table; intervals at `simultaneous_confidence` hold for all of them at once (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special  # scipy.stats would do, but takes half a second to import

Doubles = npt.NDArray[np.float64]

CONFIDENCE = 0.95


def simultaneous_confidence(comparisons: int) -> float:
    """The confidence of each of so many intervals that are to hold together: 99.3 % for 7."""
    return 1 - (1 - CONFIDENCE) / max(1, comparisons)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its two-sided interval, at 95 % unless said otherwise.

    -inf, 0 or inf as an end says that the data set no bound there.
    """

    value: float
    lower: float
    upper: float

    def times(self, factor: float) -> Estimate:
        """The estimate in another unit; factor > 0."""
        return Estimate(self.value * factor, self.lower * factor, self.upper * factor)

    def plus(self, offset: float) -> Estimate:
        """The estimate from another zero."""
        return Estimate(self.value + offset, self.lower + offset, self.upper + offset)

    def root(self, degree: int) -> Estimate:
        """The degree-th root of a ratio: what one of `degree` equal factors would be."""
        return Estimate(self.value ** (1 / degree), self.lower ** (1 / degree), self.upper ** (1 / degree))

    def exp(self) -> Estimate:
        """Back from the log scale; what overflows is unbounded."""
        with np.errstate(over="ignore"):
            value, lower, upper = np.exp([self.value, self.lower, self.upper])
        return Estimate(float(value), float(lower), float(upper))


def t_quantile(replicates: int, confidence: float = CONFIDENCE) -> float:
    """Student's t for a two-sided interval from R replicates; inf where R < 2."""
    if replicates < 2:
        return math.inf
    return float(special.stdtrit(replicates - 1, (1 + confidence) / 2))


def t_interval(blocks: Doubles, confidence: float = CONFIDENCE) -> tuple[Doubles, Doubles]:
    """Mean over replicates and the half width of its t-interval.

    Args:
        blocks: `R x ...`, one row per replicate.
        confidence: of the interval.

    Returns:
        Mean and half width, `...` each. The half width is inf where R < 2 or a value is not finite.
    """
    replicates = len(blocks)
    finite = np.isfinite(blocks).all(axis=0)
    with np.errstate(invalid="ignore"):  # inf - inf: the mean is then NaN, and says so
        mean = blocks.mean(axis=0)
    if replicates < 2:
        return mean, np.full(mean.shape, np.inf)
    deviation = np.where(finite, blocks, 0.0).std(axis=0, ddof=1)
    half = t_quantile(replicates, confidence) * deviation / math.sqrt(replicates)
    return mean, np.where(finite, half, np.inf)


def ends(mean: Doubles, half: Doubles) -> tuple[Doubles, Doubles]:
    """Lower and upper end of each interval; -inf and inf where the half width is not finite, whatever the mean."""
    width = np.where(np.isfinite(half), half, 0.0)
    open_ = np.where(np.isfinite(half), 0.0, np.inf)
    finite = np.where(np.isfinite(mean), mean, 0.0)
    return finite - width - open_, finite + width + open_


def paired_t(differences: Doubles, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of R paired differences with Student's t-interval.

    Args:
        differences: `R`, one per replicate.
        confidence: of the interval.

    Returns:
        The estimate; without bounds where R < 2 or a difference is not finite.
    """
    mean, half = t_interval(differences, confidence)
    lower, upper = ends(mean, half)
    return Estimate(float(mean), float(lower), float(upper))


def paired_p(differences: Doubles) -> float:
    """The two-sided p-value of the paired t-test that the mean of R paired differences is 0.

    Args:
        differences: `R`, one per replicate.

    Returns:
        1 where all differences are 0 (spaces that can't be told apart), NaN where R < 2 or one is not finite.
    """
    replicates = len(differences)
    if replicates < 2 or not np.isfinite(differences).all():
        return math.nan
    error = float(differences.std(ddof=1)) / math.sqrt(replicates)
    mean = abs(float(differences.mean()))
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return 2 * float(special.stdtr(replicates - 1, -mean / error))


def holm(p_values: Sequence[float], comparisons: int | None = None) -> list[float]:
    """Holm's step-down adjustment: reject where it is below alpha, and the chance of any false rejection is <= alpha.

    The i-th smallest of m p-values is multiplied by m - i + 1, and no adjusted value is below one before it
    (Holm 1979).

    Args:
        p_values: one per comparison; NaN for one that could not be tested, which counts among the m all the same.
        comparisons: m where it is more than these: comparisons that were planned and have no p-value yet.

    Returns:
        Adjusted p-values in the same order; NaN stays.
    """
    m = max(comparisons or 0, len(p_values))
    adjusted, floor = [math.nan] * len(p_values), 0.0
    tested = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    for rank, (p, i) in enumerate(tested):
        adjusted[i] = floor = max(floor, min(1.0, (m - rank) * p))
    return adjusted


def leave_one_out(blocks: Doubles) -> Doubles:
    """Mean over all replicates but one, for each of them.

    Args:
        blocks: `R x G`, R >= 2; +inf allowed.

    Returns:
        `R x G`; +inf where one of the others is.
    """
    finite = np.isfinite(blocks)
    known = np.where(finite, blocks, 0.0)
    means = (known.sum(axis=0) - known) / (len(blocks) - 1)
    others_infinite = (~finite).sum(axis=0) - ~finite > 0
    return np.where(others_infinite, np.inf, means)


def jackknife_t(value: float, replicates: Doubles, confidence: float = CONFIDENCE) -> Estimate:
    """The delete-one-block jackknife interval with Student's t quantile.

    se^2 = (R - 1) / R * sum_r (x_r - mean x)^2 (Efron & Tibshirani 1993, ch. 11).

    Args:
        value: the estimate from all R replicates, on a scale where it is about normal (the log of a ratio).
        replicates: `R`, the estimate without each of them; finite.
        confidence: of the interval.

    Returns:
        The estimate on the same scale; without bounds where R < 2.
    """
    count = len(replicates)
    if count < 2:
        return Estimate(value, -math.inf, math.inf)
    half = t_quantile(count, confidence) * math.sqrt((count - 1) * float(np.var(replicates)))
    return Estimate(value, value - half, value + half)
