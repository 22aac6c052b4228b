"""Two spaces brought onto the replicates and the budgets that both have: what every estimate of an edge starts from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweeper.errors import PriceError
from sweeper.price.curves import (
    COSTS,
    Block,
    Doubles,
    Ints,
    Mode,
    block_curves,
    budget_grid,
    common_trials,
    largest_budget,
)
from sweeper.price.lattice import Edge

CLAIM_REPLICATES = 10  # below, a run is smoke-sized: its intervals are too rough to claim anything


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two spaces; row r of everything belongs to the same replicate.

    Attributes:
        curves: `R x G`, mean test loss of a search of that many trials.
        traces: `R x N`, the incumbent's test loss after each trial, in the order in which they ran.
        costs: per currency `R`, mean cost of a trial; NaN where it was not measured.
        blocks: the R studies themselves.
    """

    curves: Doubles
    traces: Doubles
    costs: Mapping[str, Doubles]
    blocks: tuple[Block, ...] = ()


@dataclass(frozen=True, eq=False)
class Pair:
    """Two spaces over the same replicates.

    Attributes:
        mode: how they were searched.
        replicates: the R replicates, ascending.
        trials: N, the trials that each of these studies has at least.
        budgets: `G`, from 1 to B.
    """

    mode: Mode
    replicates: tuple[int, ...]
    trials: int
    budgets: Ints
    smaller: Side
    larger: Side

    @property
    def budget(self) -> int:
        """B, the largest budget."""
        return int(self.budgets[-1])

    @property
    def differences(self) -> Doubles:
        """`R x G`, test loss of the smaller minus that of the larger space; NaN where both have none."""
        with np.errstate(invalid="ignore"):  # inf - inf where both spaces only failed
            return self.smaller.curves - self.larger.curves


def pair_up(edge: Edge, smaller: Mapping[int, Block], larger: Mapping[int, Block], mode: Mode) -> Pair:
    """Bring two spaces together.

    Args:
        edge: their names.
        smaller: the studies of the smaller space, by replicate.
        larger: those of the larger.
        mode: how they were searched.

    Raises:
        PriceError: they share no replicate with two trials in each.
    """
    counts = {r: min(len(smaller[r]), len(larger[r])) for r in sorted(smaller.keys() & larger.keys())}
    trials = common_trials(list(counts.values()))
    if trials < 2:
        raise PriceError(_too_few(edge, list(counts.values()), mode))
    used = tuple(r for r, count in counts.items() if count >= trials)
    budgets = budget_grid(largest_budget(trials, mode))
    sides = [_side([side[r] for r in used], trials, budgets, mode) for side in (smaller, larger)]
    return Pair(mode, used, trials, budgets, *sides)


def _side(blocks: Sequence[Block], trials: int, budgets: Ints, mode: Mode) -> Side:
    return Side(
        curves=block_curves(blocks, budgets, mode=mode),
        traces=np.stack([block.trace()[1][:trials] for block in blocks]),
        costs={name: np.array([block.cost[name] for block in blocks]) for name in COSTS},
        blocks=tuple(blocks),
    )


def _too_few(edge: Edge, counts: list[int], mode: Mode) -> str:
    if mode is Mode.PRODUCT:
        return (
            f"{edge.smaller} and {edge.larger} share no replicate with two finished trials in each (trials in the "
            f"shared replicates: {counts}). Let the sweep run on."
        )
    return (
        f"{edge.smaller} and {edge.larger} share no replicate with two randomly drawn trials in each (random "
        f"trials in the shared replicates: {counts}). A price needs sampler: random, and at least "
        f"{CLAIM_REPLICATES} replicates for a claim; let the sweep run on, or search again with random sampling."
    )
