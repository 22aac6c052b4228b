"""Which masks are any good: hit rates of a masked space, switch by switch.

A masked space has one value for all layers, and a switch per layer. Random search draws all 2^L masks alike, so the
chance p that one trial reaches a target is the mean of the masks' own: p = 2^-L sum_m p_m. Masks that leave dropout on
where it harms have p_m near 0, and that is what a masked space costs: its trials are spread over all masks.

Target: the smaller space's mean test loss after n0 = B/4 trials, from other replicates (`hitting.cross_fitted`), as
for ERT. A trial hits where its own test loss is at or below it. One trial is looked at, not an incumbent that stays, so
a lucky test loss counts: rates of different masks are comparable, but 1 / p is not the ERT.

Rates of single masks describe, with the number of trials that they come from. What is claimed is claimed of single
switches: the rate with a switch off minus that with it on, all other switches as they were drawn, per replicate. Its
t-interval over replicates holds for all switches of the space at once (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from sweeper.errors import PriceError
from sweeper.price.curves import Block, Doubles, Mode
from sweeper.price.hitting import cross_fitted
from sweeper.price.intervals import Estimate, paired_t, simultaneous_confidence
from sweeper.price.lattice import Edge
from sweeper.price.pairs import CLAIM_REPLICATES, Pair, pair_up
from sweeper.price.price import Studies

MaskDraws = Mapping[int, Mapping[int, tuple[bool, ...]]]
"""Replicate to trial number to the L switches of that trial, True for on."""

_FIRST_PART = 4  # n0 = B/4, as in the headline price


class Leaning(StrEnum):
    """What the data show of one switch; the value is the cell of a table."""

    OFF = "off"
    ON = "on"
    OPEN = "not shown"


@dataclass(frozen=True, slots=True)
class MaskRate:
    """One mask, and how often it hit.

    Attributes:
        off: the names of the switches that are off.
        trials: how many drew it.
        hits: how many of them reached the target.
    """

    off: tuple[str, ...]
    trials: int
    hits: int

    @property
    def rate(self) -> float:
        """The share of its trials that hit."""
        return self.hits / self.trials

    @property
    def rank(self) -> float:
        """(hits + 1) / (trials + 2), by which masks are sorted: one lucky trial doesn't make a mask the best."""
        return (self.hits + 1) / (self.trials + 2)


@dataclass(frozen=True, slots=True)
class SwitchRate:
    """One switch of a masked space.

    Attributes:
        switch: its name, e.g. "drop_1".
        off, on: mean over replicates of the hit rate of the trials that have it off, and on.
        gain: off minus on, with an interval that holds for all switches of the space at once.
        leaning: which is better; OPEN where the interval contains 0, or with fewer than 10 replicates.
    """

    switch: str
    off: float
    on: float
    gain: Estimate
    leaning: Leaning


@dataclass(frozen=True, slots=True)
class HitRates:
    """How often the masks of a masked space reach what a smaller space reaches.

    Attributes:
        edge: the smaller space and the masked one.
        n0: trials of the smaller space whose mean test loss is the target.
        target: the mean of the cross-fitted targets.
        replicates: R.
        trials, hits: of the masked space's random trials, over all masks.
        chance: p = 2^-L sum_m p_m; NaN where some mask was never drawn.
        switches: the L switches, in the space's order.
        masks: those that were drawn, the best first.
    """

    edge: Edge
    n0: int
    target: float
    replicates: int
    trials: int
    hits: int
    chance: float
    switches: tuple[SwitchRate, ...]
    masks: tuple[MaskRate, ...]


def hit_rates(edge: Edge, smaller: Studies, masked: Studies, names: Sequence[str], draws: MaskDraws) -> HitRates:
    """The hit rates of a masked space, mask by mask and switch by switch; of its random trials alone.

    Args:
        edge: the names of the two spaces.
        smaller: trials of the smaller space by replicate, searched at random.
        masked: of the masked one.
        names: its L switches, in order.
        draws: which of them each of its trials had on.

    Raises:
        PriceError: they share no replicate with two trials in each, only one, or too many trials of the smaller
            space failed for a target.
    """
    blocks = [{r: Block.of(trials) for r, trials in studies.items()} for studies in (smaller, masked)]
    pair = pair_up(edge, blocks[0], blocks[1], Mode.MEASUREMENT)
    n0 = max(1, pair.budget // _FIRST_PART)
    targets = _targets(edge, n0, pair)
    each = [
        (np.array([draws[r][int(number)] for number in block.number]), block.test <= target)
        for r, block, target in zip(pair.replicates, pair.larger.blocks, targets.tolist(), strict=True)
    ]
    on, hit = (np.concatenate(parts) for parts in zip(*each, strict=True))
    masks = _mask_rates(on, hit, names)
    complete = len(masks) == 2 ** len(names)
    return HitRates(
        edge=edge,
        n0=n0,
        target=float(targets.mean()),
        replicates=len(pair.replicates),
        trials=len(hit),
        hits=int(hit.sum()),
        chance=float(np.mean([mask.rate for mask in masks])) if complete else float("nan"),
        switches=tuple(_switch_rate(name, i, len(names), each) for i, name in enumerate(names)),
        masks=masks,
    )


def _targets(edge: Edge, n0: int, pair: Pair) -> Doubles:
    losses = pair.smaller.curves[:, pair.budgets == n0][:, 0]
    if len(losses) < 2 or not np.isfinite(losses).all():
        raise PriceError(
            f"{edge.smaller} -> {edge.larger}: the hit rates of masks need a target from other replicates, a finite "
            f"loss of {edge.smaller} in at least two; it has {int(np.isfinite(losses).sum())} of {len(losses)}. "
            f"Let the sweep run on, or search more replicates."
        )
    return cross_fitted(losses)


Bools = npt.NDArray[np.bool_]


def _mask_rates(on: Bools, hit: Bools, names: Sequence[str]) -> tuple[MaskRate, ...]:
    """Every mask that was drawn: `trials x L` switches and `trials` hits."""
    drawn, which = np.unique(on, axis=0, return_inverse=True)
    trials, hits = np.bincount(which), np.bincount(which, weights=hit)
    found = [
        MaskRate(tuple(name for name, is_on in zip(names, mask, strict=True) if not is_on), int(count), int(good))
        for mask, count, good in zip(drawn, trials, hits, strict=True)
    ]
    return tuple(sorted(found, key=lambda mask: (-mask.rank, len(mask.off), mask.off)))


def _switch_rate(name: str, place: int, switches: int, each: Sequence[tuple[Bools, Bools]]) -> SwitchRate:
    rates = np.array([[_share(hit[~on[:, place]]), _share(hit[on[:, place]])] for on, hit in each])
    gain = paired_t(rates[:, 0] - rates[:, 1], simultaneous_confidence(switches))
    off, at_on = (float(rate) for rate in rates.mean(axis=0))
    return SwitchRate(name, off, at_on, gain, _leaning(gain, len(each)))


def _share(hit: Bools) -> float:
    """The share of hits; NaN, and so no interval, where a replicate has none such trials."""
    return float(hit.mean()) if len(hit) else float("nan")


def _leaning(gain: Estimate, replicates: int) -> Leaning:
    if replicates < CLAIM_REPLICATES:
        return Leaning.OPEN
    if gain.lower > 0:
        return Leaning.OFF
    return Leaning.ON if gain.upper < 0 else Leaning.OPEN
