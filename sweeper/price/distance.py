"""PRICE: the horizontal distance of two curves. How many times the trials does the larger space need?

PRICE is read off running minima. A mean test curve can rise (validation may choose worse and worse), so the smaller
space is charged for the trials in which it first reached its loss of n0, nearly always n0 itself; that is what
makes the price of a space against itself exactly 1. Between two budgets n' is interpolated in log n.

The larger space may not get there by B ("> B / n0"), or may be there with its first trial ("< 1 / n0"). Where this
happens to the estimate or to a jackknife replicate, there is no jackknife interval. What is known then comes from
inverting the paired t-test: a price x is ruled out where the paired difference between the smaller space after n0
and the larger after x * n0 trials excludes 0. The censored side stays open.

In product mode a study is one trace, and a mean of R traces is a staircase, on which the jackknife fails (simulated
on problem A it covers .86 to .88, at R = 10 and at R = 20). There every interval is that of the inverted t-test.

In another currency a price is the one in trials times what a trial of the larger space costs over one of the smaller:
both factors are shown, for a price may come from either.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sweeper.price.curves import COSTS, Doubles, Ints, Mode
from sweeper.price.intervals import CONFIDENCE, Estimate, ends, jackknife_t, leave_one_out, t_interval
from sweeper.price.pairs import Pair

SECONDS_PER_HOUR = 3600.0
_UNKNOWN = Estimate(math.nan, 0.0, math.inf)


class Reach(StrEnum):
    """How far the data allow a price to be read; the value is what a user reads."""

    MEASURED = "measured"
    BEYOND = "the larger space did not get there within the largest budget"
    BELOW = "the larger space was there with its first trial"
    NO_TARGET = "the smaller space has no finite loss at this budget: too many of its trials failed"


@dataclass(frozen=True, slots=True)
class CostPrice:
    """A price in another currency than trials.

    Attributes:
        smaller, larger: mean cost of one trial of each space, in the currency's unit.
        factor: that of the larger over that of the smaller space.
        price: price in trials times factor. The interval knows the noise of both where the price is measured.
        per_hyperparameter: price ** (1 / extra); None without extra hyperparameters.
    """

    smaller: float
    larger: float
    factor: float
    price: Estimate
    per_hyperparameter: Estimate | None


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
        simultaneous: the same with an interval that holds for all edges of the table at once.
        per_hyperparameter: the price of one more hyperparameter, price ** (1 / extra); None without extra ones.
        per_bit: price ** (1 / bits), the price of one more switch; None without extra ones. It lays the whole price
            on the switches: the same as per_hyperparameter where nothing else is added, and where continuous
            hyperparameters are, the most that a switch can have cost unless those made the search cheaper.
        trials_per_hyperparameter: (n' - n0) / extra, the further trials that each more hyperparameter asks for.
        costs: the price in those currencies of `COSTS` that were measured in every trial, and in "money" where a
            price per device-hour is given.
    """

    n0: int
    trials_smaller: float
    trials_larger: float
    reach: Reach
    measurable_from: float
    measurable_to: float
    trials: Estimate
    simultaneous: Estimate
    per_hyperparameter: Estimate | None
    per_bit: Estimate | None
    trials_per_hyperparameter: Estimate | None
    costs: Mapping[str, CostPrice]


@dataclass(frozen=True, slots=True)
class Asked:
    """What an edge is priced with.

    Attributes:
        extra: how many more hyperparameters the larger space has.
        confidence: of the simultaneous intervals.
        device_hour: money for an hour of the device; None where nobody gave a price.
        bits: how many of the extra hyperparameters are switches.
    """

    extra: int
    confidence: float = CONFIDENCE
    device_hour: float | None = None
    bits: int = 0


def price_at(n0: int, pair: Pair, asked: Asked) -> PriceAt:
    """The price of an edge against n0 trials of its smaller space.

    Args:
        n0: one of the pair's budgets.
        pair: the two spaces.
        asked: what to price it with.
    """
    means = [side.curves.mean(axis=0)[None] for side in (pair.smaller, pair.larger)]
    small, large = (float(trials[0]) for trials in _needed(n0, pair.budgets, *means))
    logs = jackknife_logs(n0, pair)
    price, wide = (_estimate(n0, pair, small, large, logs, level) for level in (CONFIDENCE, asked.confidence))
    return PriceAt(
        n0=n0,
        trials_smaller=small,
        trials_larger=large,
        reach=_reach(small, large),
        measurable_from=1 / small,
        measurable_to=pair.budget / small,
        trials=price,
        simultaneous=wide,
        per_hyperparameter=_per_hyperparameter(price, asked.extra),
        per_bit=_per_hyperparameter(price, asked.bits),
        trials_per_hyperparameter=price.plus(-1).times(small / asked.extra) if asked.extra > 0 else None,
        costs=_cost_prices(price, logs, pair, asked),
    )


def _per_hyperparameter(price: Estimate, extra: int) -> Estimate | None:
    return price.root(extra) if extra > 0 else None


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


def jackknife_logs(n0: int, pair: Pair) -> Doubles:
    """The log price without each of the replicates, `R`: +inf or -inf where that is censored; `0` entries if R < 2."""
    if len(pair.replicates) < 2:
        return np.empty(0)
    without = [leave_one_out(side.curves) for side in (pair.smaller, pair.larger)]
    small, large = _needed(n0, pair.budgets, *without)
    with np.errstate(divide="ignore"):
        return np.log(large / small)


def _estimate(n0: int, pair: Pair, small: float, large: float, logs: Doubles, confidence: float) -> Estimate:
    """The price with its jackknife interval, or with what the inverted t-test rules out."""
    if _reach(small, large) is Reach.NO_TARGET:
        return _UNKNOWN
    if pair.mode is Mode.PRODUCT:
        return _inverted(pair, small, large, confidence)
    if _reach(small, large) is Reach.MEASURED and np.isfinite(logs).all():
        return jackknife_t(math.log(large / small), logs, confidence).exp()
    found = _inverted(pair, small, large, confidence)
    return Estimate(
        found.value,
        0.0 if np.isneginf(logs).any() else found.lower,
        math.inf if np.isposinf(logs).any() else found.upper,
    )


def _inverted(pair: Pair, small: float, large: float, confidence: float) -> Estimate:
    """A price with what the inverted paired t-test does not rule out; a side that is censored stays open."""
    target = pair.smaller.curves[:, pair.budgets == int(small)]
    with np.errstate(invalid="ignore"):
        mean, half = t_interval(target - pair.larger.curves, confidence)
    worst, best = ends(mean, half)  # open where the data say nothing, and so rule out nothing
    lower, upper = (float(first_reach(pair.budgets, side[None], np.zeros(1))[0]) for side in (-best, -worst))
    return Estimate(
        large / small,
        0.0 if large == 0 or lower == 1 else min(lower, float(pair.budget)) / small,
        math.inf if math.isinf(large) else upper / small,
    )


def _currencies(pair: Pair, asked: Asked) -> dict[str, Doubles]:
    """Each measured currency and `R x 2`, the mean cost of a trial in the smaller and in the larger space."""
    costs = {name: np.stack([pair.smaller.costs[name], pair.larger.costs[name]], axis=1) for name in COSTS}
    if asked.device_hour is not None:
        costs["money"] = costs["device_s"] * asked.device_hour / SECONDS_PER_HOUR
    return {name: both for name, both in costs.items() if (both > 0).all()}


def _cost_prices(price: Estimate, logs: Doubles, pair: Pair, asked: Asked) -> dict[str, CostPrice]:
    currencies = _currencies(pair, asked)
    return {name: _cost_price(costs, price, logs, asked.extra, pair.mode) for name, costs in currencies.items()}


def _cost_price(costs: Doubles, price: Estimate, logs: Doubles, extra: int, mode: Mode) -> CostPrice:
    """Turn a price in trials into one in what a trial costs.

    Args:
        costs: `R x 2`, mean cost of a trial in the smaller and in the larger space, all above 0.
        price: in trials.
        logs: `R`, its jackknife replicates on the log scale.
        extra: more hyperparameters.
        mode: without measured jackknife replicates, or on traces, the two intervals are combined.
    """
    smaller, larger = (float(mean) for mean in costs.mean(axis=0))
    factor = larger / smaller
    without = leave_one_out(costs) if len(costs) > 1 else np.empty((0, 2))
    factors = np.log(without[:, 1] / without[:, 0])
    if mode is Mode.MEASUREMENT and np.isfinite(logs).all() and 0 < price.value < math.inf:
        found = jackknife_t(math.log(price.value * factor), logs + factors).exp()
    else:
        found = _times(price, jackknife_t(math.log(factor), factors).exp())
    return CostPrice(smaller, larger, factor, found, _per_hyperparameter(found, extra))


def _times(price: Estimate, factor: Estimate) -> Estimate:
    """The product of two ratios whose intervals come from different places: their log distances add as squares.

    This is MOVER (Zou & Donner 2008). Where the price itself is censored its known end keeps the whole of the other's.
    """
    below = math.log(factor.value / factor.lower) if factor.lower > 0 else math.inf
    above = math.log(factor.upper / factor.value)
    if 0 < price.value < math.inf:
        below = math.hypot(below, _log_ratio(price.value, price.lower))
        above = math.hypot(above, _log_ratio(price.upper, price.value))
        value = price.value * factor.value
        return Estimate(value, value * math.exp(-below), value * math.exp(above) if above < math.inf else math.inf)
    return Estimate(price.value * factor.value, price.lower * factor.lower, price.upper * factor.upper)


def _log_ratio(upper: float, lower: float) -> float:
    return math.log(upper / lower) if lower > 0 and upper < math.inf else math.inf
