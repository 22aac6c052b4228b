"""Search problems whose curves, prices and break-evens are known exactly: the truth for the statistic itself.

loss y = .1 + t^2, t = max_j |theta_j - c_j|, theta uniform on [0, 1]^d. A shared space draws one theta for all j.
"""

from __future__ import annotations

import math

import numpy as np
from scipy import integrate

from sweeper.price import SpaceShape
from sweeper.records import PricedTrial

A = np.array([0.4, 0.5, 0.6])
A_SHAPES = {"shared": SpaceShape("shared", "fixed", 1), "per_layer": SpaceShape("per_layer", "fixed", 3)}
A_EDGE = [("shared", "per_layer")]
# Exact: the price at n0 is n'/n0 with E best of n' draws (per-layer) = E best of n0 draws (shared).
A_PRICES = {8: 2.973, 16: 2.838, 32: 2.116, 64: 1.318}


def losses(centre, shape, rng, *, shared):
    """Losses of random draws; `shape` of them."""
    dimensions = 1 if shared else len(centre)
    theta = rng.random((*shape, dimensions))
    return 0.1 + np.abs(theta - centre).max(axis=-1) ** 2


def study(test, validation=None, *, device_s=1.0, flops=100):
    """A study of trials in the order of their losses."""
    validation = test if validation is None else validation
    return [
        PricedTrial(number, float(v), float(t), True, device_s, flops)
        for number, (v, t) in enumerate(zip(validation, test, strict=True))
    ]


def studies(test, validation=None, **costs):
    """One study per row."""
    validation = test if validation is None else validation
    return {r: study(t, v, **costs) for r, (t, v) in enumerate(zip(test, validation, strict=True))}


def problem_a(replicates, trials, rng):
    """Problem A, both spaces."""
    return {
        name: studies(losses(A, (replicates, trials), rng, shared=name == "shared")) for name in ("shared", "per_layer")
    }


def hit_chance(t, *, shared):
    """P(a draw of problem A has all |theta_j - c_j| <= t)."""
    low, high = np.maximum(A - t, 0.0), np.minimum(A + t, 1.0)
    if shared:
        return max(0.0, high.min() - low.max())
    return float(np.prod(high - low))


def expected_best_a(n, *, shared):
    """Exact mean of the best loss of n draws of problem A."""
    value, _ = integrate.quad(
        lambda t: 2 * t * (1 - hit_chance(t, shared=shared)) ** n, 0, 0.6, points=[0.1, 0.4, 0.5], limit=400
    )
    return 0.1 + value


def expected_best_c(n, dimensions):
    """Exact mean of the best loss of n draws of problem C: all c = .5 in d dimensions."""
    power = 2 / dimensions
    return 0.1 + 0.25 * math.exp(math.lgamma(n + 1) + math.lgamma(1 + power) - math.lgamma(n + 1 + power))
