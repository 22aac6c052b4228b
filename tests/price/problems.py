"""Search problems whose curves, prices and break-evens are known exactly: the truth for the statistic itself.

loss y = .1 + t^2, t = max_j |theta_j - c_j|, theta uniform on [0, 1]^d. A shared space draws one theta for all j, a
masked one switches it off per j besides (off is theta_j = 1), a per_layer one draws each.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from scipy import optimize

from sweeper.price import SpaceShape
from sweeper.records import PricedTrial

A = (0.4, 0.5, 0.6)
B = (1.0, 0.5, 0.5)  # layer 1 wants no dropout
SHAPES = {
    "shared": SpaceShape("shared", "fixed", 1),
    "masked": SpaceShape("masked", "fixed", 4, bits=3),
    "per_layer": SpaceShape("per_layer", "fixed", 3),
}
A_SHAPES = {name: SHAPES[name] for name in ("shared", "per_layer")}
A_EDGE = [("shared", "per_layer")]
# Exact: the price at n0 is n'/n0 with E best of n' draws (per_layer) = E best of n0 draws (shared).
A_PRICES = {8: 2.973, 16: 2.838, 32: 2.116, 64: 1.318}
A_BREAK_EVEN = 90.15

_GRID = np.linspace(0.0, 1.0, 100_001)


def losses(centre, shape, rng, space="per_layer"):
    """Losses of random draws; `shape` of them."""
    theta = rng.random((*shape, len(centre) if space == "per_layer" else 1))
    if space == "masked":
        theta = np.where(rng.random((*shape, len(centre))) < 0.5, theta, 1.0)
    return 0.1 + np.abs(theta - np.array(centre)).max(axis=-1) ** 2


def study(test, validation=None, *, device_s=1.0, flops=100, **costs):
    """A study of trials in the order of their losses."""
    validation = test if validation is None else validation
    return [
        PricedTrial(number, float(v), float(t), True, device_s, flops, **costs)
        for number, (v, t) in enumerate(zip(validation, test, strict=True))
    ]


def studies(test, validation=None, **costs):
    """One study per row."""
    validation = test if validation is None else validation
    return {r: study(t, v, **costs) for r, (t, v) in enumerate(zip(test, validation, strict=True))}


def problem(centre, replicates, trials, rng, spaces=("shared", "per_layer"), *, noise=(0.0, 0.0)):
    """A problem in several spaces; noise of validation and of test losses."""
    found = {}
    for space in spaces:
        truth = losses(centre, (replicates, trials), rng, space)
        validation, test = (truth + sigma * rng.standard_normal(truth.shape) for sigma in noise)
        found[space] = studies(test, validation)
    return found


def problem_a(replicates, trials, rng):
    """Problem A, shared and per_layer, without noise."""
    return problem(A, replicates, trials, rng)


def hit_chance(t, space, centre=A):
    """P(a draw has all |theta_j - c_j| <= t)."""
    if space == "per_layer":
        low, high = (np.clip(np.array(centre)[:, None] + side * t, 0.0, 1.0) for side in (-1, 1))
        return (high - low).prod(axis=0)
    if space == "shared":
        return _shared_chance(t, centre)
    chances = []
    for mask in range(2 ** len(centre)):
        on = tuple(c for j, c in enumerate(centre) if mask >> j & 1)
        off = [c for j, c in enumerate(centre) if not mask >> j & 1]
        chances.append(_shared_chance(t, on) * np.prod([1 - c <= t + 1e-12 for c in off], axis=0))
    return np.mean(chances, axis=0)


def _shared_chance(t, centre):
    if not centre:
        return np.ones_like(t)
    return np.clip(np.minimum(min(centre) + t, 1.0) - np.maximum(max(centre) - t, 0.0), 0.0, None)


@cache
def _chances(space, centre):
    return hit_chance(_GRID, space, centre)


def expected_best(n, space, centre=A):
    """Exact mean of the best loss of n draws."""
    return 0.1 + np.trapezoid(2 * _GRID * np.clip(1.0 - _chances(space, centre), 0.0, 1.0) ** n, _GRID)


def expected_best_warm(first, rest, smaller="shared", larger="per_layer", centre=A):
    """Exact mean of the best loss of n0 draws of the smaller and n of the larger space."""
    worse = [np.clip(1.0 - _chances(space, centre), 0.0, 1.0) for space in (smaller, larger)]
    return 0.1 + np.trapezoid(2 * _GRID * worse[0] ** first * worse[1] ** rest, _GRID)


def true_buys(n, smaller="shared", larger="per_layer", centre=A):
    """How much lower the expected loss of the larger space is."""
    return expected_best(n, smaller, centre) - expected_best(n, larger, centre)


def true_price(n0, smaller="shared", larger="per_layer", centre=A):
    """How many times the trials the larger space needs."""
    target = expected_best(n0, smaller, centre)
    return optimize.brentq(lambda n: expected_best(n, larger, centre) - target, 1, 10_000) / n0


def true_ert_ratio(n0, smaller="shared", larger="per_layer", centre=A):
    """How many times longer the larger space runs until it is at what the smaller one reaches in n0 trials."""
    t = np.array([math.sqrt(expected_best(n0, smaller, centre) - 0.1)])
    return float((hit_chance(t, smaller, centre) / hit_chance(t, larger, centre))[0])


def expected_best_c(n, dimensions):
    """Exact mean of the best loss of n draws of problem C: all c = .5 in d dimensions."""
    power = 2 / dimensions
    return 0.1 + 0.25 * math.exp(math.lgamma(n + 1) + math.lgamma(1 + power) - math.lgamma(n + 1 + power))
