"""BREAK-EVEN: the budget from which on the larger space is the better choice, and stays it.

b* is the last upward zero-crossing of the paired difference of two curves, with the larger space ahead from there to
B. Curves may cross more than once (on problem B a masked space is ahead first, falls behind, and overtakes at 10.27
trials), which is why it is the last one that counts.

Its confidence set inverts the paired t-test: all budgets whose interval of BUYS contains 0 and from which on the
larger space is nowhere shown to be behind. That may be several spans, and may reach beyond B.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sweeper.price.curves import Doubles, Ints
from sweeper.price.intervals import ends, t_interval
from sweeper.price.pairs import Pair

Span = tuple[float, float]


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From which budget on a larger space pays, and what the data can't rule out.

    Attributes:
        trials: b*; inf where the larger space is not ahead at B ("> B"), 0 where it is ahead from the first trial on.
        spans: budgets within 1..B that a 95 % confidence set holds, ascending; none where it holds only "> B", or
            only "from the first trial on".
        beyond: whether the set holds "> B".
        budget: B.
    """

    trials: float
    spans: tuple[Span, ...]
    beyond: bool
    budget: int


def break_even(pair: Pair) -> BreakEven:
    """The break-even budget of an edge.

    Args:
        pair: the two spaces.
    """
    mean, half = t_interval(pair.differences)
    lower, upper = ends(mean, half)
    state = np.where(lower > 0, 1, np.where(upper < 0, -1, 0))  # 1: shown to be ahead, -1: shown to be behind
    behind = np.flatnonzero(state == -1)
    start = int(behind[-1]) if len(behind) else 0
    return BreakEven(
        trials=_last_crossing(pair.budgets, mean),
        spans=_spans(pair.budgets, lower, upper, state, start),
        beyond=bool(state[-1] != 1),
        budget=pair.budget,
    )


def _last_crossing(budgets: Ints, mean: Doubles) -> float:
    """Where the mean difference comes up through 0 for the last time; NaN (no finite loss) counts as behind."""
    behind = np.flatnonzero(~(mean > 0))
    if not len(behind):
        return 0.0
    last = int(behind[-1])
    return math.inf if last + 1 == len(mean) else _cross(budgets, mean, last)


def _spans(budgets: Ints, lower: Doubles, upper: Doubles, state: Ints, start: int) -> tuple[Span, ...]:
    """The runs of budgets, from `start` on, whose interval contains 0; their ends interpolated in log n."""
    spans = []
    for i in range(start, len(budgets)):
        opens = state[i] == 0 and (i == start or state[i - 1] != 0)
        if opens:
            low = float(budgets[i]) if i == start else _cross(budgets, _excluding(lower, upper, state, i - 1), i - 1)
        closes = state[i] == 0 and (i + 1 == len(budgets) or state[i + 1] != 0)
        if closes:
            last = i + 1 == len(budgets)
            high = float(budgets[i]) if last else _cross(budgets, _excluding(lower, upper, state, i + 1), i)
            spans.append((low, high))
        elif i + 1 < len(budgets) and state[i] * state[i + 1] == -1:  # from shown behind to shown ahead at one step
            spans.append((_cross(budgets, upper, i), _cross(budgets, lower, i)))
    return tuple(spans)


def _excluding(lower: Doubles, upper: Doubles, state: Ints, at: int) -> Doubles:
    """The end of the intervals that keeps 0 out at one budget."""
    return lower if state[at] == 1 else upper


def _cross(budgets: Ints, values: Doubles, before: int) -> float:
    """Where a function passes 0 between two neighbouring budgets, linear in log n; the later one where it can't say."""
    low, high = float(values[before]), float(values[before + 1])
    first, second = float(budgets[before]), float(budgets[before + 1])
    if not (math.isfinite(low) and math.isfinite(high)) or low == high:
        return second
    return float(first * (second / first) ** min(1.0, max(0.0, low / (low - high))))
