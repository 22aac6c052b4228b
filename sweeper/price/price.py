"""What a larger space costs and buys against a smaller one: every edge of a sweep, priced.

BUYS is the vertical distance of the two test-loss curves at the same number of trials B, positive where the larger
space is better; PRICE the horizontal one (`distance`), BREAK-EVEN where they cross (`breakeven`), ERT the price by
first hits (`hitting`), WARM what the larger space buys from the smaller one's incumbent on (`warm`). Blocks are paired
by replicate and are the unit of every interval.

What is claimed is claimed of BUYS alone, one comparison per edge, with Holm's correction over the edges of the table
(all of them, also those that could not be priced yet; a placebo's edge is a control and claims nothing). Everything
else describes, with 95 % intervals and, for prices, ones that hold for all edges at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from sweeper.errors import PriceError
from sweeper.price.breakeven import BreakEven, break_even
from sweeper.price.curves import Block, Mode
from sweeper.price.distance import Asked, PriceAt, price_at
from sweeper.price.hitting import ErtPrice, ert_price
from sweeper.price.intervals import CONFIDENCE, Estimate, holm, paired_p, paired_t, simultaneous_confidence
from sweeper.price.lattice import Edge, SpaceShape, default_edges, step_phrase
from sweeper.price.pairs import CLAIM_REPLICATES, Pair, pair_up
from sweeper.price.warm import Warm, warm
from sweeper.records import PricedTrial

Studies = Mapping[int, Sequence[PricedTrial]]  # one space's trials by replicate

SIGNIFICANCE = 1 - CONFIDENCE
_PARTS = (8, 4, 2)  # n0 = B/8, B/4, B/2
_HEADLINE_PART = 4


class Verdict(StrEnum):
    """What the test of BUYS allows to be said; the value ends the edge's sentence."""

    PAYS = "pays at this budget"
    COSTS_MORE = "costs more than it buys"
    NOT_SHOWN = "not shown to pay"
    SMOKE = "too few replicates for any claim"
    UNMEASURED = "not measurable: too many trials failed"


@dataclass(frozen=True, slots=True)
class EdgePrice:
    """What a larger space costs and buys against a smaller one.

    Attributes:
        edge: their names.
        mode: how they were searched.
        step: what the larger space searches in addition, in words.
        extra: how many more hyperparameters it has.
        bits: how many of those are switches.
        placebo: whether all that it has in addition does nothing.
        replicates: the R replicates that both spaces have, ascending.
        trials: N, trials that each of these studies has at least.
        budget: B, the budget at which BUYS is read.
        buys: mean test loss of the smaller minus that of the larger space after B trials; positive is better.
        p_value: of the paired t-test that BUYS is 0, two-sided; NaN where it can't be tested.
        adjusted_p: the same after Holm's correction for `comparisons`; a placebo's is not corrected.
        comparisons: edges of the table that claim something.
        prices: at n0 = B/8, B/4, B/2 (fewer where these coincide), ascending.
        running_times: the price by first hits at the same n0; None where no target could be set.
        break_even: the budget from which on the larger space pays.
        warm: what the larger space buys from the smaller one's incumbent on; None in product mode.
    """

    edge: Edge
    mode: Mode
    step: str
    extra: int
    bits: int
    placebo: bool
    replicates: tuple[int, ...]
    trials: int
    budget: int
    buys: Estimate
    p_value: float
    adjusted_p: float
    comparisons: int
    prices: tuple[PriceAt, ...]
    running_times: tuple[ErtPrice | None, ...]
    break_even: BreakEven
    warm: Warm | None

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
        """What may be said: that it pays (or costs more than it buys) where Holm's p-value is below 5 %."""
        if not math.isfinite(self.buys.value):
            return Verdict.UNMEASURED
        if not self.supports_claim:
            return Verdict.SMOKE
        if not self.adjusted_p < SIGNIFICANCE:
            return Verdict.NOT_SHOWN
        return Verdict.PAYS if self.buys.value > 0 else Verdict.COSTS_MORE


@dataclass(frozen=True, slots=True)
class Unmeasured:
    """An edge without a price, and why."""

    edge: Edge
    reason: str


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Every edge of a sweep: the priced ones, and those that could not be.

    Attributes:
        mode: how the sweep was searched.
        comparisons: edges that claim something: all but the placebos', priced or not.
    """

    prices: tuple[EdgePrice, ...]
    unmeasured: tuple[Unmeasured, ...]
    mode: Mode = Mode.MEASUREMENT
    comparisons: int = 0


def price_sweep(
    studies: Mapping[str, Studies],
    shapes: Mapping[str, SpaceShape],
    edges: Sequence[tuple[str, str]] | None = None,
    *,
    mode: Mode = Mode.MEASUREMENT,
    device_hour: float | None = None,
) -> PriceTable:
    """Price every edge between the spaces of a sweep.

    Args:
        studies: trials by space and replicate; finished ones of any state, in any order.
        shapes: how each space searches.
        edges: (smaller, larger) pairs; None for those of the lattice (`default_edges`). Choose them before looking
            at results: Holm's correction counts these alone.
        mode: MEASUREMENT averages over all orders of a study's random trials, PRODUCT reads its one trace.
        device_hour: money for an hour of the device; with it prices are told in money, too.

    Returns:
        The table, in the order of the edges. An edge with too few trials so far is listed with the reason.

    Raises:
        PriceError: an edge names a space that the sweep doesn't have.
    """
    chosen = default_edges(shapes) if edges is None else tuple(Edge(*edge) for edge in edges)
    _check_names(chosen, shapes)
    comparisons = sum(not _is_placebo(edge, shapes) for edge in chosen)
    blocks = {space: {r: Block.of(trials, mode) for r, trials in studies.get(space, {}).items()} for space in shapes}
    prices, unmeasured = [], []
    for edge in chosen:
        try:
            pair = pair_up(edge, blocks[edge.smaller], blocks[edge.larger], mode)
        except PriceError as error:
            unmeasured.append(Unmeasured(edge, str(error)))
        else:
            prices.append(_price_edge(edge, pair, shapes, mode, comparisons, device_hour))
    return PriceTable(_adjusted(prices, comparisons), tuple(unmeasured), mode, comparisons)


def _check_names(edges: Sequence[Edge], shapes: Mapping[str, SpaceShape]) -> None:
    unknown = sorted({space for edge in edges for space in edge} - shapes.keys())
    if unknown:
        raise PriceError(f"no space {', '.join(map(repr, unknown))} in this sweep; it has {', '.join(shapes)}.")


def _is_placebo(edge: Edge, shapes: Mapping[str, SpaceShape]) -> bool:
    return shapes[edge.larger].is_placebo_of(shapes[edge.smaller])


def _price_edge(
    edge: Edge,
    pair: Pair,
    shapes: Mapping[str, SpaceShape],
    mode: Mode,
    comparisons: int,
    device_hour: float | None,
) -> EdgePrice:
    smaller, larger = shapes[edge.smaller], shapes[edge.larger]
    extra, bits = larger.dimensions - smaller.dimensions, larger.bits - smaller.bits
    asked = Asked(extra, simultaneous_confidence(comparisons), device_hour, bits)
    differences = pair.differences[:, -1]
    p_value = paired_p(differences)
    starts = sorted({max(1, pair.budget // part) for part in _PARTS})
    return EdgePrice(
        edge=edge,
        mode=mode,
        step=step_phrase(smaller, larger) or f"searching {edge.larger}",
        extra=extra,
        bits=bits,
        placebo=_is_placebo(edge, shapes),
        replicates=pair.replicates,
        trials=pair.trials,
        budget=pair.budget,
        buys=paired_t(differences),
        p_value=p_value,
        adjusted_p=p_value,
        comparisons=comparisons,
        prices=tuple(price_at(n0, pair, asked) for n0 in starts),
        running_times=tuple(ert_price(n0, pair) for n0 in starts),
        break_even=break_even(pair),
        warm=warm(pair),
    )


def _adjusted(prices: Sequence[EdgePrice], comparisons: int) -> tuple[EdgePrice, ...]:
    """Holm's p-values put in, over all edges that claim something."""
    claiming = [price.p_value for price in prices if not price.placebo]
    adjusted = iter(holm(claiming, comparisons))
    return tuple(price if price.placebo else replace(price, adjusted_p=next(adjusted)) for price in prices)
