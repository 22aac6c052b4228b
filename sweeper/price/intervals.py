"""Intervals whose unit is the replicate: never a trial, never an epoch.

Replicates (a split and a seed stream, the same for every space) are independent; trials within one are not, once
a curve is built from them. Means get Student's t on paired differences. Ratios read off mean curves get the
delete-one-block jackknife on the log scale with t quantiles: simulated on problem A at R = 10 it covers .96 where
the percentile bootstrap covers .915.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import special  # scipy.stats would do, but takes half a second to import

Doubles = npt.NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its two-sided 95 % interval; -inf, 0 or inf as an end says that the data set no bound there."""

    value: float
    lower: float
    upper: float

    def times(self, factor: float) -> Estimate:
        """The estimate in another unit; factor > 0."""
        return Estimate(self.value * factor, self.lower * factor, self.upper * factor)

    def root(self, degree: int) -> Estimate:
        """The degree-th root of a ratio: what one of `degree` equal factors would be."""
        return Estimate(self.value ** (1 / degree), self.lower ** (1 / degree), self.upper ** (1 / degree))

    def exp(self) -> Estimate:
        """Back from the log scale; what overflows is unbounded."""
        with np.errstate(over="ignore"):
            value, lower, upper = np.exp([self.value, self.lower, self.upper])
        return Estimate(float(value), float(lower), float(upper))


def t_quantile(replicates: int) -> float:
    """Student's t for a two-sided 95 % interval from R replicates; inf where R < 2."""
    if replicates < 2:
        return math.inf
    return float(special.stdtrit(replicates - 1, (1 + CONFIDENCE) / 2))


def t_interval(blocks: Doubles) -> tuple[Doubles, Doubles]:
    """Mean over replicates and the half width of its 95 % t-interval.

    Args:
        blocks: `R x ...`, one row per replicate.

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
    half = t_quantile(replicates) * deviation / math.sqrt(replicates)
    return mean, np.where(finite, half, np.inf)


def ends(mean: Doubles, half: Doubles) -> tuple[Doubles, Doubles]:
    """Lower and upper end of each interval; -inf and inf where the half width is not finite, whatever the mean."""
    width = np.where(np.isfinite(half), half, 0.0)
    open_ = np.where(np.isfinite(half), 0.0, np.inf)
    finite = np.where(np.isfinite(mean), mean, 0.0)
    return finite - width - open_, finite + width + open_


def paired_t(differences: Doubles) -> Estimate:
    """The mean of R paired differences with Student's t-interval.

    Args:
        differences: `R`, one per replicate.

    Returns:
        The estimate; without bounds where R < 2 or a difference is not finite.
    """
    mean, half = t_interval(differences)
    lower, upper = ends(mean, half)
    return Estimate(float(mean), float(lower), float(upper))


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


def jackknife_t(value: float, replicates: Doubles) -> Estimate:
    """The delete-one-block jackknife interval with Student's t quantile.

    se^2 = (R - 1) / R * sum_r (x_r - mean x)^2 (Efron & Tibshirani 1993, ch. 11).

    Args:
        value: the estimate from all R replicates, on a scale where it is about normal (the log of a ratio).
        replicates: `R`, the estimate without each of them; finite.

    Returns:
        The estimate on the same scale; without bounds where R < 2.
    """
    count = len(replicates)
    if count < 2:
        return Estimate(value, -math.inf, math.inf)
    half = t_quantile(count) * math.sqrt((count - 1) * float(np.var(replicates)))
    return Estimate(value, value - half, value + half)
