"""Prices in words: table cells and one plain sentence per edge, hedged exactly as far as the interval asks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sweeper.price.breakeven import BreakEven
from sweeper.price.curves import Mode
from sweeper.price.distance import PriceAt, Reach
from sweeper.price.effective import MOST, Effective
from sweeper.price.hitting import ErtPrice
from sweeper.price.intervals import Estimate
from sweeper.price.masks import HitRates, Leaning
from sweeper.price.pairs import CLAIM_REPLICATES
from sweeper.price.price import SIGNIFICANCE, EdgePrice, Verdict
from sweeper.price.warm import Warm

CURRENCIES: Mapping[str, str] = {
    "trials": "trials",
    "device_s": "device-seconds as run",
    "solo_s": "device-seconds alone in the device",
    "suggest_s": "seconds of suggestion",
    "joules": "joules",
    "flops": "FLOPs",
    "money": "money",
}
"""What the currencies of a price are called, in the order of a table."""

UNMEASURED = "not measurable"
_SWITCHED = {"drop": "dropout", "l2": "L2"}  # what switches are called by their names' first part
_WHERE = {Mode.MEASUREMENT: "On this workload", Mode.PRODUCT: "On this workload, in single traces (product mode)"}


def ratio_text(ratio: float) -> str:
    """A ratio with two significant digits: 0.076, 0.76, 2.9, 12, 340."""
    if not 0 < ratio < math.inf:
        return f"{ratio:g}"
    digits = max(0, 1 - math.floor(math.log10(ratio)))
    return f"{ratio:.{digits}f}"


def price_text(price: PriceAt, *, simultaneous: bool = False) -> str:
    """The price in trials with its interval; what lies beyond the measurable range is cut off there.

    Examples: "2.9 [1.8, 4.6]", "> 4.0 [2.1, > 4.0]", "< 0.25 [< 0.25, 0.80]", "not measurable".

    Args:
        price: at one n0.
        simultaneous: whether the interval is to hold for all edges of the table at once.
    """
    if price.reach is Reach.NO_TARGET:
        return UNMEASURED
    found = price.simultaneous if simultaneous else price.trials
    return _ratio_with_interval(found, price.measurable_from, price.measurable_to)


def per_hyperparameter_text(price: PriceAt, extra: int) -> str:
    """The price of one more hyperparameter, the extra-th root of the price; "-" without extra ones."""
    return _root_text(price, price.per_hyperparameter, extra)


def per_bit_text(price: PriceAt, bits: int) -> str:
    """The price of one more switch, the bits-th root of the price; "-" without extra switches."""
    return _root_text(price, price.per_bit, bits)


def _root_text(price: PriceAt, found: Estimate | None, degree: int) -> str:
    if found is None:
        return "-"
    if price.reach is Reach.NO_TARGET:
        return UNMEASURED
    limits = price.measurable_from ** (1 / degree), price.measurable_to ** (1 / degree)
    return _ratio_with_interval(found, *limits)


def warm_text(found: Warm | None) -> str:
    """What a warm search buys, with its interval; "-" in product mode."""
    return "-" if found is None else difference_text(found.buys)


def cost_text(price: PriceAt, currency: str) -> str:
    """The price in another currency, cut off where trials could not be measured; "not measured" without its cost."""
    cost = price.costs.get(currency)
    if cost is None:
        return "not measured"
    if price.reach is Reach.NO_TARGET:
        return UNMEASURED
    return _ratio_with_interval(cost.price, price.measurable_from * cost.factor, price.measurable_to * cost.factor)


def _ratio_with_interval(ratio: Estimate, low: float, high: float) -> str:
    value, lower, upper = (_within(part, low, high) for part in (ratio.value, ratio.lower, ratio.upper))
    return f"{value} [{lower}, {upper}]"


def _within(ratio: float, low: float, high: float) -> str:
    if ratio > high:
        return f"> {ratio_text(high)}"
    return f"< {ratio_text(low)}" if ratio < low else ratio_text(ratio)


def difference_text(difference: Estimate) -> str:
    """A difference of losses with its interval, to the digits that the interval supports: "+0.004 [-0.002, +0.010]"."""
    if not math.isfinite(difference.value):
        return UNMEASURED
    half = (difference.upper - difference.lower) / 2
    scale = half if 0 < half < math.inf else abs(difference.value)
    digits = max(0, 1 - math.floor(math.log10(scale))) if scale else 3
    if math.isinf(half):
        return f"{difference.value:+.{digits}f} [no interval]"
    value, lower, upper = (f"{x:+.{digits}f}" for x in (difference.value, difference.lower, difference.upper))
    return f"{value} [{lower}, {upper}]"


def p_text(p_value: float) -> str:
    """A p-value: "0.012", "< 0.001", "-" where there is none."""
    if math.isnan(p_value):
        return "-"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.2g}" if p_value < 0.1 else f"{p_value:.2f}"


def break_even_text(found: BreakEven) -> str:
    """The break-even budget in trials with its confidence set.

    Examples: "35 [21, 58]", "41 [30, > 64]", "> 64 [50, > 64]", "> 64" where nothing else is left, "from the first
    trial on [1, 5]", "17 [2, 4] or [9, 30]".
    """
    spans = [[trials_text(low), trials_text(high)] for low, high in found.spans]
    if found.beyond and spans:
        spans[-1][1] = f"> {found.budget}"
    intervals = " or ".join(f"[{low}, {high}]" for low, high in spans)
    return f"{_break_even_value(found)} {intervals}".rstrip()


def _break_even_value(found: BreakEven) -> str:
    if found.trials == 0:
        return "from the first trial on"
    return f"> {found.budget}" if math.isinf(found.trials) else trials_text(found.trials)


def trials_text(trials: float) -> str:
    """A number of trials, in between two whole ones where it is small: 2.1, 10, 90."""
    return f"{trials:.1f}".removesuffix(".0") if trials < 10 else f"{trials:.0f}"


def ert_text(found: ErtPrice | None) -> str:
    """The ratio of expected running times: "3.4 [1.3, 9.0]", "> 2.1" or "< 0.40" where one space never hit."""
    if found is None or math.isnan(found.ratio.value):
        return UNMEASURED
    if math.isinf(found.ratio.value):
        return f"> {ratio_text(found.ratio.lower)}"
    if found.ratio.value == 0:
        return f"< {ratio_text(found.ratio.upper)}"
    return _ratio_with_interval(found.ratio, 0.0, math.inf)


def effective_text(found: Effective | None) -> str:
    """The effective number of hyperparameters with those that are left open: "2 (1 to 3)", "10 or more (8 to 10)"."""
    if found is None:
        return "-"
    value = f"{found.value} or more" if found.value == MOST else f"{found.value}"
    low, high = found.plausible[0], found.plausible[-1]
    return value if low == high else f"{value} ({low} to {high})"


def sentence(price: EdgePrice) -> str:
    """What an edge's figures say, in one sentence.

    For example "On this workload, giving each layer its own keep_prob (shared -> per_layer: 2 more hyperparameters)
    needs 2.9x [1.8, 4.6] the trials for the same test loss (that of 16 trials of shared) and buys +0.004 [-0.002,
    +0.010] at 64 trials: not shown to pay."
    """
    step = f"{price.step} ({price.edge.smaller} -> {price.edge.larger}: {_extra(price.extra)})"
    return f"{_WHERE[price.mode]}, {step} {_needs(price)} and {_buys(price)}."


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
    return f"needs {factor}x [{interval} the trials{_hedge(price)} for the same test loss (that of {target})"


def _hedge(price: EdgePrice) -> str:
    """Said where the interval leaves open whether the price lies above 1 or below."""
    found = price.headline.trials
    is_open = found.lower <= 1 <= found.upper and found.lower < found.upper
    return ", not shown to be more or fewer," if is_open and price.supports_claim else ""


def _buys(price: EdgePrice) -> str:
    budget = f"{price.budget} {_plural('trial', price.budget)}"
    if price.verdict is Verdict.UNMEASURED:
        return f"what it buys at {budget} is {price.verdict}"
    return f"buys {difference_text(price.buys)} at {budget}: {_verdict(price)}"


def _verdict(price: EdgePrice) -> str:
    if price.verdict is Verdict.SMOKE:
        return f"{price.verdict} (R = {len(price.replicates)})"
    if price.placebo and price.mode is Mode.MEASUREMENT:
        return _control(price)
    if price.verdict is Verdict.PAYS:
        return f"{price.verdict}{_from(price.break_even)}"
    if price.verdict is Verdict.NOT_SHOWN and price.p_value < SIGNIFICANCE:
        p_values = f"p = {p_text(price.p_value)}, but {p_text(price.adjusted_p)} among {price.comparisons} comparisons"
        return f"{price.verdict} ({p_values})"
    return str(price.verdict)


def _control(price: EdgePrice) -> str:
    """A placebo's own verdict: random search must pay nothing for what does nothing."""
    found = price.headline.trials
    if found.lower <= 1 <= found.upper and price.buys.lower <= 0 <= price.buys.upper:
        return "as a placebo should"
    return "a placebo should cost 1x and buy nothing, so something other than the spaces differs in this sweep"


def _from(found: BreakEven) -> str:
    if found.trials == 0:
        return ", and from the first trial on"
    return f", and from {break_even_text(found)} trials on"


def switched_off(off: Sequence[str], switches: int) -> str:
    """The switches of a mask that are off: "drop_1, drop_3", "nothing", "everything"."""
    if not off:
        return "nothing"
    return "everything" if len(off) == switches else ", ".join(off)


def mask_sentence(found: HitRates) -> str:
    """What the hit rates of masks say, in one sentence.

    For example "On this workload, 12.3% of the trials of masked reach the test loss that 16 trials of shared reach (8
    masks, all drawn alike); dropout is best left off in layer 1 and left on in layer 3, and for layer 2 neither is
    shown."
    """
    share = found.hits / found.trials if math.isnan(found.chance) else found.chance
    target = f"the test loss that {found.n0} {_plural('trial', found.n0)} of {found.edge.smaller} reach"
    masks = 2 ** len(found.switches)
    opening = f"{_WHERE[Mode.MEASUREMENT]}, {share:.1%} of the trials of {found.edge.larger} reach {target}"
    return f"{opening} ({masks} masks, all drawn alike); {_leanings(found)}."


def _leanings(found: HitRates) -> str:
    """What is shown of each layer, one clause per kind of switch."""
    if found.replicates < CLAIM_REPLICATES:
        return f"too few replicates to say which layers are best left off (R = {found.replicates})"
    kinds = dict.fromkeys(one.switch.rpartition("_")[0] for one in found.switches)
    return "; ".join(_kind_leanings(found, kind) for kind in kinds)


def _kind_leanings(found: HitRates, kind: str) -> str:
    layers: dict[Leaning, list[str]] = {leaning: [] for leaning in Leaning}
    for one in found.switches:
        name, _, layer = one.switch.rpartition("_")
        if name == kind:
            layers[one.leaning].append(layer)
    shown = [f"left {side} in {_layers(layers[side])}" for side in (Leaning.OFF, Leaning.ON) if layers[side]]
    word = _SWITCHED.get(kind, kind)
    if not shown:
        return f"whether {word} is better off or on is not shown for {_layers(layers[Leaning.OPEN])}"
    said = f"{word} is best {' and '.join(shown)}"
    return said + (f", and for {_layers(layers[Leaning.OPEN])} neither is shown" if layers[Leaning.OPEN] else "")


def _layers(layers: Sequence[str]) -> str:
    """Layers by their numbers: "layer 1", "layers 1 and 3", "layers 1, 2 and 4"."""
    *others, last = layers
    return f"layers {', '.join(others)} and {last}" if others else f"layer {last}"
