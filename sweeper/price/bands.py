"""Exact bands for the search of one study: what n random trials find, on the split that it had.

The trials of one random search are independent and alike. The LD bands (Learned-Miller & DeStefano 2008) then hold
the distribution function of their loss at all points at once, whatever its shape, and with it the quantile of what n
trials find for all n at once: F is turned into 1 - (1 - F)^n, which keeps the order (Lourie et al. 2024, arXiv
2311.09480, who also show that bootstrap bands don't hold). The bands are those of the package `opda`.

What is shown is the *median* of the best validation loss of n trials, not its mean: a mean has no upper end without a
greatest loss, and cross-entropy has none. A lower end exists only as far as the sample can vouch for (n up to about
N / 10); beyond, nothing rules out that one rare setting is much better, and the end is -inf. The band says nothing
about another split, nor about the test loss.

"Exact" is the band of the distribution function. The medians of n = 1, 2, .. are some points of its lower half, which
it holds together more often than 95 % of the time (simulated on problem A, N = 64: .99).

Bands keep the order too: they depend on the data through ranks alone. So opda is asked once for each N, about the
numbers 1..N, and the ranks that it answers are looked up in the sorted losses.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from sweeper.price.intervals import CONFIDENCE, Doubles

Ints = npt.NDArray[np.int64]

MOST_TRIALS = 128  # opda simulates 100,000 samples of N: 3 seconds and 0.2 GB at 128, and it grows with N
_METHOD = "ld_equal_tailed"  # highest-density intervals are a rank tighter at best, and four times as slow
_SEED = 0  # the same band each time


@dataclass(frozen=True, eq=False)
class LdBand:
    """The median best validation loss of n random trials of one study, with its simultaneous band of at least 95 %.

    Attributes:
        median, lower, upper: `G`, at the budgets of the curve; -inf or inf where the sample sets no bound.
        trials: how many were used: all, or the first 128, which are a sample like any other.
    """

    median: Doubles
    lower: Doubles
    upper: Doubles
    trials: int


def ld_band(losses: Doubles, budgets: Ints) -> LdBand:
    """The band of one study. Equal losses make it wider than 95 %, never narrower.

    Args:
        losses: `N`, N >= 1, independent draws in the order in which they ran; +inf for failed ones.
        budgets: `G`, trials to read it at.
    """
    used = losses[:MOST_TRIALS]
    ladder = np.concatenate([[-np.inf], np.sort(used), [np.inf]])
    median, lower, upper = (ladder[ranks] for ranks in _ranks(len(used), tuple(budgets.tolist())))
    return LdBand(median, lower, upper, len(used))


@cache
def _ranks(trials: int, budgets: tuple[int, ...]) -> tuple[Ints, Ints, Ints]:
    """Ranks among N sorted losses of the median best of n, and of its lower and upper end; 0 and N + 1: no bound."""
    at = np.array(budgets, dtype=np.float64)
    below, itself, above = (each.quantile_tuning_curve(at, minimize=True) for each in _distributions(trials))
    return itself.astype(np.int64), below.astype(np.int64), above.astype(np.int64)


@cache
def _distributions(trials: int) -> tuple[Any, Any, Any]:
    """Opda's distributions of the numbers 1..N: the least losses that are possible, the sample, the greatest."""
    from opda.nonparametric import EmpiricalDistribution  # takes half a second, which only this needs

    low, itself, high = EmpiricalDistribution.confidence_bands(
        np.arange(1.0, trials + 1),
        CONFIDENCE,
        a=0.0,
        b=trials + 1.0,
        generator=np.random.default_rng(_SEED),
        method=_METHOD,
        n_jobs=1,  # its pool of processes would start the caller's program anew
    )
    return high, itself, low  # more chance of small losses: lower ones
