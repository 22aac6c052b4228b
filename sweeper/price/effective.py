"""The effective number of hyperparameters: you pay for 6, 2 matter.

Near its best setting a smooth loss is about quadratic, and the lower tail of what random search finds is then

    F(y) = ((y - a) / (b - a)) ** (c / 2),    noise o on top,

with c the number of directions in which the loss bends: the effective number of hyperparameters (Lourie et al. 2024,
arXiv 2311.09480; 2025, 2510.02721). The distribution is that of the package `opda`. Its own fit takes 2 to 16 seconds
a space; so its objective, the likelihood of spacings, is maximised here for each c = 1..10 over tables of opda's
distribution function at a dozen noise levels, in a tenth of a second (test_effective.py compares the two). That also
says which other values of c the data leave open.

The better half of the validation losses is fitted, all replicates together after their medians are brought to one
level: splits differ in difficulty. Simulated on problem C (10 or 20 replicates of 128 trials, noise .01), c is found in
95 to 100 % of the cases in one to three dimensions and in 65 % in five; what is left open holds it in 95 % or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from sweeper.price.curves import Block, Doubles, Ints

MOST = 10  # opda knows no more
_NOISES = (1e-7, 0.003, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7, 1.0)  # o / (b - a)
_TAIL = 0.5  # the share of the trials that is fitted
_LEAST_TRIALS = 64  # below, the tail says nothing about its exponent
_BINS = 96
_LEAST_BINS = 12  # with fewer different losses in the tail there is nothing to fit
_ANCHOR = 0.02  # the quantile that, with the tail's end, starts the search for a and b
_PLAUSIBLE = 3.84  # 95 % quantile of chi squared with one degree of freedom
_STAR = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1], [1, -1], [-1, 1]], dtype=np.float64)
_FIRST_STEP = np.array([0.1, 0.025])  # of the two quantiles, in distances between them
_LEAST_WIDTH = 1e-9
_ROUNDS = 16
_TOLERANCE = 1e-3  # of a log likelihood


@dataclass(frozen=True, slots=True)
class Effective:
    """How many hyperparameters the search felt.

    Attributes:
        value: the most likely effective number, 1..10; 10 may stand for more.
        plausible: the numbers that the likelihood leaves open at 95 %, ascending; `value` is among them. That takes
            replicates for equally shaped, and so is a rough guide.
        best: the validation loss at the best setting, without noise.
        noise: the noise of one validation loss, in its unit.
    """

    value: int
    plausible: tuple[int, ...]
    best: float
    noise: float


@dataclass(frozen=True, slots=True)
class _Fit:
    """The best fit with one c: minus the log likelihood, and where the tail begins, ends and how noisy it is."""

    loss: float
    a: float
    width: float
    noise: float


def effective_dimensions(blocks: Sequence[Block]) -> Effective | None:
    """The effective number of hyperparameters of one space.

    Args:
        blocks: its studies, searched at random.

    Returns:
        The estimate, or None where there are fewer than 64 trials, most of them failed, or too many are alike.
    """
    losses = np.sort(_levelled([block.validation for block in blocks]))
    end = float(losses[int(_TAIL * len(losses)) - 1]) if len(losses) >= _LEAST_TRIALS else np.inf
    if not np.isfinite(end):
        return None
    uppers, counts = _bins(losses, end)
    if len(uppers) < _LEAST_BINS:
        return None
    first, scale = float(uppers[0]), float(uppers[-1] - uppers[0])
    fits = {c: _fit(c, (uppers - first) / scale, counts) for c in range(1, MOST + 1)}
    value = min(fits, key=lambda c: fits[c].loss)
    best = fits[value]
    plausible = tuple(c for c, fit in fits.items() if 2 * (fit.loss - best.loss) <= _PLAUSIBLE)
    return Effective(value, plausible, first + scale * best.a, scale * best.noise * best.width)


def _levelled(losses: Sequence[Doubles]) -> Doubles:
    """All replicates' losses, each shifted so that its median is the mean of the medians; +inf stays."""
    alive = [block for block in losses if np.isfinite(block).any()]
    if not alive:
        return np.empty(0)
    medians = [np.median(block[np.isfinite(block)]) for block in alive]
    level = float(np.mean(medians))
    return np.concatenate([block - median + level for block, median in zip(alive, medians, strict=True)])


def _bins(losses: Doubles, end: float) -> tuple[Doubles, Ints]:
    """Group the fitted tail: single trials at its low end, where the exponent shows, ever more to a bin above.

    Args:
        losses: ascending.
        end: where the tail ends.

    Returns:
        The bins' upper ends, `M`, ascending; and how many losses lie in each, `M + 1`, the last beyond the tail. One
        more than there are is counted there, as spacings do, so that an extreme is not taken for a quantile of 0 or 1.
    """
    fitted = int(np.searchsorted(losses, end, side="right"))
    ranks = np.unique(np.geomspace(1, fitted, _BINS).round().astype(np.int64))
    uppers = np.unique(losses[ranks - 1])
    below = np.searchsorted(losses, uppers, side="right")
    return uppers, np.diff(np.concatenate([[0], below, [len(losses) + 1]]))


def _fit(c: int, uppers: Doubles, counts: Ints) -> _Fit:
    return min((_fit_at(c, noise, uppers, counts) for noise in _NOISES), key=lambda fit: fit.loss)


def _fit_at(c: int, noise: float, uppers: Doubles, counts: Ints) -> _Fit:
    """The best a and b for one c and one noise level, of a tail that is scaled to 0..1.

    What is moved are the values of two quantiles, one low in the tail and its end: unlike a and b they are nearly
    independent, and the data say where to start. A star of nine points follows its best, and shrinks around it.
    """
    standard, chances = _distribution(c, noise)
    shares = np.cumsum(counts)[:-1] / counts.sum()
    anchor = min(int(np.searchsorted(shares, _ANCHOR)), len(shares) - 2)
    low, high = (float(quantile) for quantile in np.interp(shares[[anchor, -1]], chances, standard))
    span = max(high - low, _LEAST_WIDTH)
    centre, step = uppers[[anchor, -1]], (uppers[-1] - uppers[anchor]) * _FIRST_STEP
    loss = np.inf
    for _ in range(_ROUNDS):
        points = centre + _STAR * step
        widths = np.maximum(points[:, 1] - points[:, 0], _LEAST_WIDTH) / span
        starts = points[:, 0] - low * widths
        spacings = np.zeros((len(points), len(counts) + 1))
        spacings[:, 1:-1] = np.interp((uppers - starts[:, None]) / widths[:, None], standard, chances)
        spacings[:, -1] = 1.0
        likelihoods = np.log(np.maximum(np.diff(spacings), 1e-12)) @ counts
        best = int(likelihoods.argmax())
        if -likelihoods[best] < loss - _TOLERANCE and best:
            centre, loss = points[best], -float(likelihoods[best])
        else:
            step, loss = step / 2, min(loss, -float(likelihoods[0]))
    width = max(float(centre[1] - centre[0]), _LEAST_WIDTH) / span
    return _Fit(loss, float(centre[0]) - low * width, width, noise)


@cache
def _distribution(c: int, noise: float) -> tuple[Doubles, Doubles]:
    """Opda's distribution function with a = 0 and b = 1, as points to interpolate: closest together at the low end."""
    from opda.parametric import NoisyQuadraticDistribution  # takes half a second, which only this needs

    points = np.concatenate([np.linspace(-6 * noise, 1 + 6 * noise, 600), np.linspace(0, 1, 600) ** 2])
    standard = np.unique(points)
    chances = NoisyQuadraticDistribution(0.0, 1.0, c, noise, convex=True).cdf(standard)
    return standard, np.maximum.accumulate(chances)  # opda's approximation can fall by a last digit
