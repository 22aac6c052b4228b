"""What a larger space costs and buys against a smaller one, from random-search trials (measurement mode).

BUYS is the vertical distance of the two test-loss curves at the same number of trials B, positive where the larger
space is better. PRICE is the horizontal one: how many times the trials the larger space needs for the test loss
that the smaller reaches in n0. Blocks are paired by replicate and are the unit of every interval.

PRICE is read off running minima. A mean test curve can rise (validation may choose worse and worse), so the smaller
space is charged for the trials in which it first reached its loss of n0, nearly always n0 itself; that is what
makes the price of a space against itself exactly 1. Between two budgets n' is interpolated in log n.

The larger space may not get there by B ("> B / n0"), or may be there with its first trial ("< 1 / n0"). Where this
happens to the estimate or to a jackknife replicate, there is no jackknife interval. What is known then comes from
inverting the paired t-test: a price x is ruled out where the paired difference between the smaller space after n0
and the larger after x * n0 trials excludes 0. The censored side stays open.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sweeper.errors import PriceError
from sweeper.price.curves import COSTS, Block, Doubles, Ints, block_curves, budget_grid, common_trials
from sweeper.price.intervals import Estimate, ends, jackknife_t, leave_one_out, paired_t, t_interval
from sweeper.price.lattice import Edge, SpaceShape, default_edges, step_phrase
from sweeper.records import PricedTrial

Studies = Mapping[int, Sequence[PricedTrial]]  # one space's trials by replicate

CLAIM_REPLICATES = 10  # below, a run is smoke-sized: its intervals are too rough to claim anything
_PARTS = (8, 4, 2)  # n0 = B/8, B/4, B/2
_HEADLINE_PART = 4


class Reach(StrEnum):
    """How far the data allow a price to be read; the value is what a user reads."""

    MEASURED = "measured"
    BEYOND = "the larger space did not get there within the largest budget"
    BELOW = "the larger space was there with its first trial"
    NO_TARGET = "the smaller space has no finite loss at this budget: too many of its trials failed"


class Verdict(StrEnum):
    """What the interval of BUYS allows to be said; the value ends the edge's sentence."""

    PAYS = "pays at this budget"
    COSTS_MORE = "costs more than it buys"
    NOT_SHOWN = "not shown to pay"
    SMOKE = "too few replicates for any claim"
    UNMEASURED = "not measurable: too many trials failed"


@dataclass(frozen=True, slots=True)
class CostPrice:
    """A price in another currency than trials.

    Attributes:
        factor: mean cost of a trial of the larger space over that of the smaller; NaN where nothing was measured.
        price: price in trials times factor. The interval knows the noise of both where the price is measured.
    """

    factor: float
    price: Estimate


@dataclass(frozen=True, slots=True)
class PriceAt:
    """The price at one budget of the smaller space.

    Attributes:
        n0: trials of the smaller space.
        trials_smaller: trials in which it first reached its loss of n0; at most n0.
        trials_larger: trials in which the larger space reaches that loss; inf BEYOND, 0 BELOW.
        reach: whether the price could be read.
        measurable_from, measurable_to: the least and greatest price that could have been read.
        trials: the price, a ratio of trials; inf BEYOND, 0 BELOW, NaN with NO_TARGET. Ends of the interval outside
            the measurable range are extrapolated.
        per_hyperparameter: the price of one more hyperparameter, price ** (1 / extra); None without extra ones.
        costs: the price in device seconds ("device_s") and operations ("flops").
    """

    n0: int
    trials_smaller: float
    trials_larger: float
    reach: Reach
    measurable_from: float
    measurable_to: float
    trials: Estimate
    per_hyperparameter: Estimate | None
    costs: Mapping[str, CostPrice]


@dataclass(frozen=True, slots=True)
class EdgePrice:
    """What a larger space costs and buys against a smaller one.

    Attributes:
        edge: their names.
        step: what the larger space searches in addition, in words.
        extra: how many more hyperparameters it has.
        replicates: the R replicates that both spaces have, ascending.
        trials: N, exchangeable trials that each of these studies has at least.
        budget: B = N // 2, the budget at which BUYS is read.
        buys: mean test loss of the smaller minus that of the larger space after B trials; positive is better.
        prices: at n0 = B/8, B/4, B/2 (fewer where these coincide), ascending.
    """

    edge: Edge
    step: str
    extra: int
    replicates: tuple[int, ...]
    trials: int
    budget: int
    buys: Estimate
    prices: tuple[PriceAt, ...]

    @property
    def headline(self) -> PriceAt:
        """The price at n0 = B/4: far enough to be stable, and measurable up to four times the budget."""
        n0 = max(1, self.budget // _HEADLINE_PART)
        return next(price for price in self.prices if price.n0 == n0)

    @property
    def supports_claim(self) -> bool:
        """Whether the run is more than smoke-sized: at least 10 replicates."""
        return len(self.replicates) >= CLAIM_REPLICATES

    @property
    def verdict(self) -> Verdict:
        """What may be said, no more than the interval of BUYS shows."""
        if not math.isfinite(self.buys.value):
            return Verdict.UNMEASURED
        if not self.supports_claim:
            return Verdict.SMOKE
        if self.buys.lower > 0:
            return Verdict.PAYS
        return Verdict.COSTS_MORE if self.buys.upper < 0 else Verdict.NOT_SHOWN


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """An edge without a price, and why."""

    edge: Edge
    reason: str


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Every edge of a sweep: the priced ones, and those that could not be."""

    prices: tuple[EdgePrice, ...]
    unmeasured: tuple[Unmeasured, ...]


@dataclass(frozen=True, eq=False)
class _Pair:
    """Two spaces over the same replicates: row r of everything belongs to replicates[r].

    Attributes:
        budgets: `G`, from 1 to B.
        smaller, larger: `R x G`, test-loss curves.
        costs: per currency `R x 2`, mean cost of a trial in the smaller and in the larger space.
    """

    replicates: tuple[int, ...]
    trials: int
    budgets: Ints
    smaller: Doubles
    larger: Doubles
    costs: Mapping[str, Doubles]


def price_sweep(
    studies: Mapping[str, Studies],
    shapes: Mapping[str, SpaceShape],
    edges: Sequence[tuple[str, str]] | None = None,
) -> PriceTable:
    """Price every edge between the spaces of a sweep.

    Args:
        studies: trials by space and replicate; finished ones of any state, in any order.
        shapes: how each space searches.
        edges: (smaller, larger) pairs; None for those of the lattice (`default_edges`).

    Returns:
        The table, in the order of the edges. An edge with too few trials so far is listed with the reason.

    Raises:
        PriceError: an edge names a space that the sweep doesn't have.
    """
    chosen = default_edges(shapes) if edges is None else tuple(Edge(*edge) for edge in edges)
    _check_names(chosen, shapes)
    blocks = {space: {r: Block.of(trials) for r, trials in studies.get(space, {}).items()} for space in shapes}
    prices, unmeasured = [], []
    for edge in chosen:
        try:
            pair = _pair(edge, blocks[edge.smaller], blocks[edge.larger])
        except PriceError as error:
            unmeasured.append(Unmeasured(edge, str(error)))
        else:
            prices.append(_price_edge(edge, pair, shapes[edge.smaller], shapes[edge.larger]))
    return PriceTable(tuple(prices), tuple(unmeasured))


def _check_names(edges: Sequence[Edge], shapes: Mapping[str, SpaceShape]) -> None:
    unknown = sorted({space for edge in edges for space in edge} - shapes.keys())
    if unknown:
        raise PriceError(f"no space {', '.join(map(repr, unknown))} in this sweep; it has {', '.join(shapes)}.")


def _pair(edge: Edge, smaller: Mapping[int, Block], larger: Mapping[int, Block]) -> _Pair:
    """Bring two spaces onto the replicates and budgets that both have."""
    counts = {r: min(len(smaller[r]), len(larger[r])) for r in sorted(smaller.keys() & larger.keys())}
    trials = common_trials(list(counts.values()))
    if trials < 2:
        raise PriceError(
            f"{edge.smaller} and {edge.larger} share no replicate with two randomly drawn trials in each (random "
            f"trials in the shared replicates: {list(counts.values())}). A price needs sampler: random, and at least "
            f"{CLAIM_REPLICATES} replicates for a claim; let the sweep run on, or search again with random sampling."
        )
    used = tuple(r for r, count in counts.items() if count >= trials)
    sides = [[side[r] for r in used] for side in (smaller, larger)]
    budgets = budget_grid(trials // 2)
    curves = [block_curves(side, budgets) for side in sides]
    costs = {name: np.array([[block.cost[name] for block in side] for side in sides]).T for name in COSTS}  # R x 2
    return _Pair(used, trials, budgets, curves[0], curves[1], costs)


def _price_edge(edge: Edge, pair: _Pair, smaller: SpaceShape, larger: SpaceShape) -> EdgePrice:
    budget = int(pair.budgets[-1])
    extra = larger.dimensions - smaller.dimensions
    with np.errstate(invalid="ignore"):  # inf - inf where both spaces only failed
        buys = paired_t(pair.smaller[:, -1] - pair.larger[:, -1])
    starts = sorted({max(1, budget // part) for part in _PARTS})
    prices = tuple(_price_at(n0, pair, extra) for n0 in starts)
    step = step_phrase(smaller, larger) or edge.larger
    return EdgePrice(edge, step, extra, pair.replicates, pair.trials, budget, buys, prices)


def _price_at(n0: int, pair: _Pair, extra: int) -> PriceAt:
    needed = _needed(n0, pair.budgets, pair.smaller.mean(axis=0)[None], pair.larger.mean(axis=0)[None])
    small, large = (float(trials[0]) for trials in needed)
    logs = _jackknife_logs(n0, pair)
    if _reach(small, large) is Reach.MEASURED and np.isfinite(logs).all():
        price = jackknife_t(math.log(large / small), logs).exp()
    else:
        price = _bounds(n0, pair, small, large, logs)
    return PriceAt(
        n0=n0,
        trials_smaller=small,
        trials_larger=large,
        reach=_reach(small, large),
        measurable_from=1 / small,
        measurable_to=int(pair.budgets[-1]) / small,
        trials=price,
        per_hyperparameter=price.root(extra) if extra > 0 else None,
        costs={name: _cost_price(costs, price, logs) for name, costs in pair.costs.items()},
    )


def _needed(n0: int, budgets: Ints, smaller: Doubles, larger: Doubles) -> tuple[Doubles, Doubles]:
    """Trials that each space needs for the loss that the smaller has reached by n0.

    Args:
        n0: one of the budgets.
        budgets: `G`.
        smaller: `J x G`, mean curves of the smaller space.
        larger: `J x G`, of the larger.

    Returns:
        `J` each. NaN where the smaller's loss is infinite; for the larger inf if it does not get there by B, 0 if
        its first trial is better already.
    """
    losses = smaller[:, budgets <= n0].min(axis=1)
    no_target = np.isinf(losses)
    targets = np.where(no_target, 0.0, losses)
    small, large = (first_reach(budgets, curves, targets) for curves in (smaller, larger))
    large = np.where(larger[:, 0] < targets, 0.0, large)
    return np.where(no_target, np.nan, small), np.where(no_target, np.nan, large)


def first_reach(budgets: Ints, curves: Doubles, targets: Doubles) -> Doubles:
    """Where the running minimum of a curve first comes down to a target, interpolated in log n.

    Args:
        budgets: `G`, increasing.
        curves: `J x G`; +inf allowed.
        targets: `J`, finite.

    Returns:
        `J`, between the first and the last budget; inf where the curve never gets there. From an infinite loss
        there is nothing to interpolate: the first finite budget counts.
    """
    minima = np.minimum.accumulate(curves, axis=1)
    reached = minima <= targets[:, None]
    after = reached.argmax(axis=1)
    before = np.maximum(after - 1, 0)
    rows = np.arange(len(curves))
    high, low = minima[rows, before], minima[rows, after]
    steep = np.isfinite(high) & (high > low)
    drop = np.subtract(high, low, out=np.ones_like(high), where=steep)
    share = np.divide(high - targets, drop, out=np.ones_like(high), where=steep)
    exact = budgets[before] * (budgets[after] / budgets[before]) ** np.clip(share, 0.0, 1.0)
    found = np.where(share == 1.0, budgets[after], exact)  # an integer budget stays one to the last bit
    return np.where(reached.any(axis=1), found, np.inf)


def _reach(small: float, large: float) -> Reach:
    if math.isnan(small):
        return Reach.NO_TARGET
    if large == 0:
        return Reach.BELOW
    return Reach.BEYOND if math.isinf(large) else Reach.MEASURED


def _jackknife_logs(n0: int, pair: _Pair) -> Doubles:
    """The log price without each of the replicates, `R`: +inf or -inf where that is censored; `0` entries if R < 2."""
    if len(pair.replicates) < 2:
        return np.empty(0)
    small, large = _needed(n0, pair.budgets, leave_one_out(pair.smaller), leave_one_out(pair.larger))
    with np.errstate(divide="ignore"):
        return np.log(large / small)


def _bounds(n0: int, pair: _Pair, small: float, large: float, logs: Doubles) -> Estimate:
    """A price whose jackknife is censored: what the inverted paired t-test rules out, censored sides left open."""
    if math.isnan(small):
        return Estimate(math.nan, 0.0, math.inf)
    target = pair.smaller[:, pair.budgets == int(small)]
    with np.errstate(invalid="ignore"):
        mean, half = t_interval(target - pair.larger)
    worst, best = ends(mean, half)  # open where the data say nothing, and so rule out nothing
    lower, upper = (float(first_reach(pair.budgets, side[None], np.zeros(1))[0]) for side in (-best, -worst))
    is_below = large == 0 or bool(np.isneginf(logs).any())
    is_beyond = math.isinf(large) or bool(np.isposinf(logs).any())
    return Estimate(
        large / small,
        0.0 if is_below or lower == 1 else min(lower, float(pair.budgets[-1])) / small,
        math.inf if is_beyond else upper / small,
    )


def _cost_price(costs: Doubles, price: Estimate, logs: Doubles) -> CostPrice:
    """Turn a price in trials into one in what a trial costs.

    Args:
        costs: `R x 2`, mean cost of a trial in the smaller and in the larger space.
        price: in trials.
        logs: `R`, its jackknife replicates on the log scale.
    """
    if not (costs > 0).all():
        return CostPrice(math.nan, Estimate(math.nan, 0.0, math.inf))
    smaller, larger = costs.mean(axis=0)
    factor = float(larger / smaller)
    if not (len(logs) and np.isfinite(logs).all() and 0 < price.value < math.inf):
        return CostPrice(factor, price.times(factor))
    without = leave_one_out(costs)
    return CostPrice(
        factor, jackknife_t(math.log(price.value * factor), logs + np.log(without[:, 1] / without[:, 0])).exp()
    )
