"""What one space cost and how far its choice can be trusted: selection gap, overtuning, effective hyperparameters.

SELECTION GAP: how much worse the chosen setting tests than it validated, beyond what trials differ anyway. The
winner's curse: it grows with the number of trials and the noise of validation, not with that of hyperparameters.

OVERTUNING: how much worse the last incumbent tests than the best incumbent on the way (arXiv 2506.19540): what
searching on made worse. It is read off the trace, whatever the sampler.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sweeper.price.curves import COSTS, Block, Doubles, Ints, Mode, block_curves, common_trials, largest_budget
from sweeper.price.distance import SECONDS_PER_HOUR
from sweeper.price.effective import Effective, effective_dimensions
from sweeper.price.intervals import Estimate, paired_t
from sweeper.price.lattice import SpaceShape
from sweeper.records import PricedTrial


@dataclass(frozen=True, slots=True)
class SpaceSummary:
    """One space of a sweep.

    Attributes:
        space: its name.
        mode: how it was searched.
        dimensions: its hyperparameters, placebos included.
        replicates: R, the studies that are read.
        trials: N, the trials of each of them that are.
        budget: B, the budget at which losses are read.
        test_loss: mean test loss of the incumbent after B trials.
        gap: the selection gap at B.
        overtuning: mean of the last incumbent's test loss minus the least of any incumbent before; never negative.
        ends_worse: share of the studies whose last incumbent tests worse than their first.
        failed: share of the trials that failed or were pruned.
        effective: the effective number of hyperparameters; None where there are none, where the sampler learns, or
            where there are too few trials.
        costs: mean cost of one trial by the names of `COSTS`, and "money" where a price per device-hour is given; NaN
            where it was not measured.
    """

    space: str
    mode: Mode
    dimensions: int
    replicates: int
    trials: int
    budget: int
    test_loss: Estimate
    gap: Estimate
    overtuning: Estimate
    ends_worse: float
    failed: float
    effective: Effective | None
    costs: Mapping[str, float]


def summarise_spaces(
    studies: Mapping[str, Mapping[int, Sequence[PricedTrial]]],
    shapes: Mapping[str, SpaceShape],
    *,
    mode: Mode = Mode.MEASUREMENT,
    device_hour: float | None = None,
) -> tuple[SpaceSummary, ...]:
    """Every space of a sweep that has two trials in some study.

    Args:
        studies: trials by space and replicate; finished ones of any state, in any order.
        shapes: how each space searches.
        mode: how the sweep was searched.
        device_hour: money for an hour of the device.

    Returns:
        In the order of the shapes.
    """
    found = []
    for space, shape in shapes.items():
        blocks = [Block.of(trials, mode) for trials in studies.get(space, {}).values()]
        trials = common_trials([len(block) for block in blocks])
        if trials >= 2:
            used = [block for block in blocks if len(block) >= trials]
            found.append(_summary(space, shape, used, trials, mode, device_hour))
    return tuple(found)


def _summary(
    space: str, shape: SpaceShape, blocks: Sequence[Block], trials: int, mode: Mode, device_hour: float | None
) -> SpaceSummary:
    budget = largest_budget(trials, mode)
    at = np.array([budget])
    traces = np.stack([block.trace()[1][:trials] for block in blocks])
    searched = shape.dimensions > 0 and mode is Mode.MEASUREMENT
    return SpaceSummary(
        space=space,
        mode=mode,
        dimensions=shape.dimensions,
        replicates=len(blocks),
        trials=trials,
        budget=budget,
        test_loss=paired_t(block_curves(blocks, at, mode=mode)[:, 0]),
        gap=paired_t(selection_gap(blocks, at, mode)[:, 0]),
        overtuning=paired_t(overtuning(traces)),
        ends_worse=float(np.mean(traces[:, -1] > _first_finite(traces))),
        failed=float(np.mean([np.isinf(block.validation).mean() for block in blocks])),
        effective=effective_dimensions(blocks) if searched else None,
        costs=_costs(blocks, device_hour),
    )


def selection_gap(blocks: Sequence[Block], budgets: Ints, mode: Mode = Mode.MEASUREMENT) -> Doubles:
    """The gap between test and validation loss of the incumbent, less that of all trials: `R x G`.

    Args:
        blocks: R studies.
        budgets: `G`.
        mode: how they were searched.
    """
    curves = [block_curves(blocks, budgets, losses, mode) for losses in ("test", "validation")]
    offsets = np.array([_offset(block) for block in blocks])
    with np.errstate(invalid="ignore"):  # inf - inf where too many trials failed
        gaps: Doubles = curves[0] - curves[1] - offsets[:, None]
    return gaps


def _offset(block: Block) -> float:
    """Mean of test minus validation loss over the trials that have both; NaN without any."""
    known = np.isfinite(block.validation) & np.isfinite(block.test)
    return float(np.mean(block.test[known] - block.validation[known])) if known.any() else float("nan")


def overtuning(traces: Doubles) -> Doubles:
    """How much worse the last incumbent tests than the best incumbent so far.

    Args:
        traces: `R x N`, the incumbent's test loss after each trial.

    Returns:
        `R`, each >= 0; NaN where no trial succeeded.
    """
    with np.errstate(invalid="ignore"):  # inf - inf where no trial succeeded
        lost: Doubles = traces[:, -1] - traces.min(axis=1)
    return lost


def _first_finite(traces: Doubles) -> Doubles:
    """The test loss of each study's first incumbent, `R`; inf without one."""
    first: Doubles = traces[np.arange(len(traces)), np.isfinite(traces).argmax(axis=1)]
    return first


def _costs(blocks: Sequence[Block], device_hour: float | None) -> Mapping[str, float]:
    costs = {name: float(np.mean([block.cost[name] for block in blocks])) for name in COSTS}
    if device_hour is not None:
        costs["money"] = costs["device_s"] * device_hour / SECONDS_PER_HOUR
    return costs
