"""What a tick takes, measured without a fit: the same arithmetic, to no effect.

A tick of much data may take minutes. Then a few of its steps stand for all of them, one group for all groups, and the
evaluation of a few lanes for that of all: each is the same work again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeper.engine.group import Group
from sweeper.engine.meter import Stopwatch

REHEARSALS = 3


def whole_tick(watch: Stopwatch, tick: Callable[[], object]) -> float:
    """Seconds of a tick, the quickest of a few: a neighbour's passing load is not the machine's speed."""
    tick()  # what happens for the first time takes longer
    return min(_taken(watch, tick) for _ in range(REHEARSALS))


def part_of_tick(watch: Stopwatch, groups: Sequence[Group], within_s: float) -> float | None:
    """Seconds of a tick, from as much of it as fits into `within_s`; None where all of it does, a few times over.

    Args:
        watch: the device's.
        groups: all that take a turn; without fits.
        within_s: about how long this may take.
    """
    group = groups[0]
    group.train(1)  # the first step is slower than those that follow
    laid_out_s = _taken(watch, lambda: group.train(0))
    step_s = max(_taken(watch, lambda: group.train(1)) - laid_out_s, 1e-9)
    group.sample_evaluation()
    shares: list[float] = []
    evaluated_s = _taken(watch, lambda: shares.append(group.sample_evaluation())) / shares[0]
    whole_s = len(groups) * (laid_out_s + group.steps * step_s + evaluated_s)
    if whole_s * (1 + REHEARSALS) <= within_s:
        return None
    steps = max(1, min(group.steps, int(within_s / step_s)))
    step_s = max(_taken(watch, lambda: group.train(steps)) - laid_out_s, 0.0) / steps
    return len(groups) * (laid_out_s + group.steps * step_s + evaluated_s)


def _taken(watch: Stopwatch, work: Callable[[], object]) -> float:
    with watch.phase("rehearse"):
        work()
    return watch.take("rehearse")
