"""Prices in words: table cells and one plain sentence per edge, hedged exactly as far as the interval asks."""

from __future__ import annotations

import math

from sweeper.price.intervals import Estimate
from sweeper.price.price import EdgePrice, PriceAt, Reach, Verdict


def ratio_text(ratio: float) -> str:
    """A ratio with two significant digits: 0.076, 0.76, 2.9, 12, 340."""
    if not 0 < ratio < math.inf:
        return f"{ratio:g}"
    digits = max(0, 1 - math.floor(math.log10(ratio)))
    return f"{ratio:.{digits}f}"


def price_text(price: PriceAt) -> str:
    """The price in trials with its interval; what lies beyond the measurable range is cut off there.

    Examples: "2.9 [1.8, 4.6]", "> 4.0 [2.1, > 4.0]", "< 0.25 [< 0.25, 0.80]", "not measurable".
    """
    if price.reach is Reach.NO_TARGET:
        return "not measurable"
    value, lower, upper = (
        _within(ratio, price.measurable_from, price.measurable_to)
        for ratio in (price.trials.value, price.trials.lower, price.trials.upper)
    )
    return f"{value} [{lower}, {upper}]"


def _within(ratio: float, low: float, high: float) -> str:
    if ratio > high:
        return f"> {ratio_text(high)}"
    return f"< {ratio_text(low)}" if ratio < low else ratio_text(ratio)


def difference_text(difference: Estimate) -> str:
    """A difference of losses with its interval, to the digits that the interval supports: "+0.004 [-0.002, +0.010]"."""
    if not math.isfinite(difference.value):
        return "not measurable"
    half = (difference.upper - difference.lower) / 2
    scale = half if 0 < half < math.inf else abs(difference.value)
    digits = max(0, 1 - math.floor(math.log10(scale))) if scale else 3
    if math.isinf(half):
        return f"{difference.value:+.{digits}f} [no interval]"
    value, lower, upper = (f"{x:+.{digits}f}" for x in (difference.value, difference.lower, difference.upper))
    return f"{value} [{lower}, {upper}]"


def sentence(price: EdgePrice) -> str:
    """What an edge's figures say, in one sentence.

    For example "On this workload, a keep_prob per layer (per_layer over shared: 2 more hyperparameters) needs 2.9x
    [1.8, 4.6] the trials for the test loss of 16 trials of shared, and buys +0.004 [-0.002, +0.010] at 64 trials: not
    shown to pay."
    """
    budget = f"{price.budget} {_plural('trial', price.budget)}"
    step = f"{price.step} ({price.edge.larger} over {price.edge.smaller}: {_extra(price.extra)})"
    if price.verdict is Verdict.UNMEASURED:
        gain = f"what it buys at {budget} is {price.verdict}"
    else:
        gain = f"buys {difference_text(price.buys)} at {budget}: {_verdict(price)}"
    return f"On this workload, {step} {_needs(price)}, and {gain}."


def _extra(count: int) -> str:
    return f"{abs(count)} {'fewer' if count < 0 else 'more'} {_plural('hyperparameter', abs(count))}"


def _plural(noun: str, count: int) -> str:
    return noun if count == 1 else f"{noun}s"


def _needs(price: EdgePrice) -> str:
    headline = price.headline
    target = f"{headline.n0} {_plural('trial', headline.n0)} of {price.edge.smaller}"
    if headline.reach is Reach.NO_TARGET:
        return f"has no measurable price against {target} (too many trials failed)"
    ratio, interval = price_text(headline).split(" [")
    factor = ratio.replace("> ", "more than ").replace("< ", "less than ")
    return f"needs {factor}x [{interval} the trials for the test loss of {target}"


def _verdict(price: EdgePrice) -> str:
    found = len(price.replicates)
    return f"{price.verdict} (R = {found})" if not price.supports_claim else str(price.verdict)
