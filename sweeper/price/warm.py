"""WARM: the larger space searched after the smaller one, and both paid for.

A larger space holds the smaller one's best setting, but never finds it by chance: the smaller space is a subset of
measure zero. A warm search of B trials gives it that start: n0 = B/4 random trials in the smaller space, then
n = B - n0 in the larger, and the incumbent is the best of all by validation. WARM BUYS compares its mean test loss
with that of B trials of the smaller space alone.

No training is needed for it. Given the replicate, a trial is a random draw whatever its study tried before, so any n0
trials of the smaller and n of the larger space could have been such a search: the mean over all such choices is an
unbiased estimate (a U-statistic of two samples). One thing must be kept: a trial's draws and training seed depend on
its number, which a search has only once. Trials of one number are alike in both spaces (in a placebo space they are
the same), so that only choices with no number twice count.

Let the trials of both spaces be sorted by validation loss; at equal losses those of the smaller space, which ran
first, come first. Of the numbers whose trials are worse than trial i, and not i's own, let a be those where that is
so in the smaller space alone, b in the larger alone, c in both. With k and m trials to choose of either space

    ways(a, b, c, k, m) = sum_s C(a, k - s) C(c, s) C(b + c - s, m)

counts the choices without a number twice. Trial i is the incumbent of ways(a, b, c, n0 - 1, n) choices if it is the
smaller space's, of ways(a, b, c, n0, n - 1) if it is the larger's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special

from sweeper.price.curves import COSTS, Block, Doubles, Ints, Mode
from sweeper.price.intervals import Estimate, paired_t
from sweeper.price.pairs import Pair

FIRST_PART = 4  # n0 = B/4, the budget of the headline price
_CHUNK = 64  # trials at a time: nearly always the incumbent is among the first
_NEGLIGIBLE = 1e-16  # a share of all choices
_ROUNDING = 1e-9  # of a loss: differences below it come from sums in another order


@dataclass(frozen=True, slots=True)
class Warm:
    """What the larger space buys if it is searched from the smaller space's incumbent on.

    Attributes:
        first: n0, the trials in the smaller space.
        rest: n, the trials in the larger space after them; B together.
        buys: mean test loss of B trials of the smaller space minus that of the warm search; positive is better.
        costs: by the names of `COSTS`, what the warm search costs (all B trials) over what B trials of the smaller
            space do; those that were measured.
    """

    first: int
    rest: int
    buys: Estimate
    costs: Mapping[str, float]


def warm(pair: Pair) -> Warm | None:
    """The warm search of an edge at its largest budget.

    Args:
        pair: the two spaces.

    Returns:
        What it buys, or None in product mode (trials of a sampler that learns are no draws that could come in any
        order) and where B < 2.
    """
    first = max(1, pair.budget // FIRST_PART)
    rest = pair.budget - first
    if pair.mode is Mode.PRODUCT or rest < 1:
        return None
    blocks = zip(pair.smaller.blocks, pair.larger.blocks, strict=True)
    found = np.array([warm_loss(small, large, first, rest) for small, large in blocks])
    alone = pair.smaller.curves[:, -1]
    with np.errstate(invalid="ignore"):  # inf - inf where too many trials failed
        gains = alone - found
    gains = np.where(np.abs(gains) <= _ROUNDING * np.abs(alone), 0.0, gains)
    return Warm(first, rest, paired_t(gains), _costs(pair, first, rest))


def _costs(pair: Pair, first: int, rest: int) -> dict[str, float]:
    means = {name: [float(side.costs[name].mean()) for side in (pair.smaller, pair.larger)] for name in COSTS}
    measured = {name: both for name, both in means.items() if min(both) > 0}  # NaN is not
    return {name: (first + rest * large / small) / (first + rest) for name, (small, large) in measured.items()}


def warm_loss(smaller: Block, larger: Block, first: int, rest: int) -> float:
    """Mean test loss of the incumbent of a warm search, over all choices of trials without a number twice.

    Args:
        smaller: the smaller space's study.
        larger: the larger space's, of the same replicate.
        first: trials to choose of the smaller.
        rest: trials to choose of the larger.

    Returns:
        The loss; +inf where a choice may hold no finite incumbent, as in `expected_best`.
    """
    field = _Field.of(smaller, larger)
    total = float(_log_ways(*field.worse_than(np.array([-1])), first, rest)[0])
    infinite = np.flatnonzero(~np.isfinite(field.test))
    if len(infinite) and np.isfinite(_log_ways(*field.worse_than(infinite[:1] - 1), first, rest)[0]):
        return float("inf")
    loss = 0.0
    for start in range(0, len(field.test) if not len(infinite) else int(infinite[0]), _CHUNK):
        at = np.arange(start, min(start + _CHUNK, len(field.test)))
        shares = field.shares(at, first, rest, total)
        loss += float(shares @ np.where(shares > 0, field.test[at], 0.0))
        if shares.max() < _NEGLIGIBLE:
            break
    return loss


@dataclass(frozen=True, eq=False)
class _Field:
    """The trials of both spaces, M in all, the best validation loss first.

    Attributes:
        test: `M`, test losses.
        is_smaller: `M`, whether a trial is the smaller space's.
        opens: `M`, whether a trial's number comes again, further down in the other space.
        left: `3 x (M + 1)`: numbers with a trial from that place on in the smaller space, in the larger, in both.
    """

    test: Doubles
    is_smaller: Ints
    opens: Ints
    left: Ints

    @classmethod
    def of(cls, smaller: Block, larger: Block) -> _Field:
        validation = np.concatenate([smaller.validation, larger.validation])
        order = np.argsort(validation, kind="stable")  # at equal losses the smaller space's first
        is_smaller = (order < len(smaller)).astype(np.int64)
        numbers = np.concatenate([smaller.number, larger.number])[order]
        _, first_at, count = np.unique(numbers, return_index=True, return_counts=True)
        opens = np.zeros(len(order), dtype=np.int64)
        opens[first_at[count == 2]] = 1
        gone = np.cumsum([is_smaller, 1 - is_smaller, opens], axis=1)
        left = np.concatenate([gone[:, -1:], gone[:, -1:] - gone], axis=1)
        return cls(np.concatenate([smaller.test, larger.test])[order], is_smaller, opens, left)

    def worse_than(self, at: Ints) -> tuple[Ints, Ints, Ints]:
        """The numbers with worse trials than those places: in the smaller space alone, the larger alone, both."""
        smaller, larger, both = self.left[:, at + 1]
        return smaller - both, larger - both, both

    def shares(self, at: Ints, first: int, rest: int, total: float) -> Doubles:
        """The share of all choices whose incumbent stands at each of those places."""
        a, b, c = self.worse_than(at)
        own, other = self.is_smaller[at], self.opens[at]  # its own number is used up in the other space, too
        logs = _log_ways(a - other * (1 - own), b - other * own, c, first - own, rest - (1 - own))
        shares: Doubles = np.exp(logs - total)
        return shares


def _log_ways(a: Ints, b: Ints, c: Ints, k: Ints | int, m: Ints | int) -> Doubles:
    """Log of the number of choices of k and m trials without a number twice; -inf where there is none."""
    a, b, c, k, m = (np.broadcast_to(each, a.shape)[:, None] for each in (a, b, c, k, m))
    both = np.arange(int(k.max()) + 1)  # numbers of c that the smaller space takes
    terms = _log_choose(a, k - both) + _log_choose(c, both) + _log_choose(b + c - both, m)
    logs: Doubles = np.logaddexp.reduce(terms, axis=1)  # scipy's logsumexp takes four times as long for so few
    return logs


def _log_choose(n: Ints, k: Ints) -> Doubles:
    """Log of C(n, k); -inf where n < k or k < 0."""
    possible = (n >= k) & (k >= 0)
    n, k = np.where(possible, n, 0), np.where(possible, k, 0)
    logs = special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1)
    return np.where(possible, logs, -np.inf)
