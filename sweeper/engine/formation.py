"""Which lanes take a turn, and who has to move for it: fits close ranks, so that no group is computed for nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Formation:
    """What one tick computes.

    Attributes:
        moves: from which lane to which, to be made first and in order.
        turns: the lanes that train together, one range after the other; every fit stands in one of them.
    """

    moves: tuple[tuple[int, int], ...]
    turns: tuple[slice, ...]


def in_groups(taken: Sequence[bool], width: int) -> Formation:
    """As few groups of a fixed width as hold the fits; the groups with the fewest are given up.

    Args:
        taken: per lane whether a fit stands there; whole groups.
        width: G.
    """
    groups = [slice(start, start + width) for start in range(0, len(taken), width)]
    fits = [sum(taken[lane] for lane in range(group.start, group.stop)) for group in groups]
    busy = [group for count, _, group in sorted(zip(fits, range(len(groups)), groups, strict=True)) if count]
    spare = len(busy) - -(-sum(taken) // width)
    kept = sorted(busy[spare:], key=lambda group: group.start)
    return Formation(_moves(taken, kept), tuple(kept))


def in_front(taken: Sequence[bool], least: int) -> Formation:
    """The front half of the lanes, or of that half, and so on: the shortest that holds the fits.

    Args:
        taken: per lane whether a fit stands there.
        least: the fewest lanes that may train.
    """
    length = len(taken)
    while length // 2 >= max(least, sum(taken)):
        length //= 2
    front = [slice(0, length)] if any(taken) else []
    return Formation(_moves(taken, front), tuple(front))


def _moves(taken: Sequence[bool], kept: Sequence[slice]) -> tuple[tuple[int, int], ...]:
    inside = [lane for part in kept for lane in range(part.start, part.stop)]
    room = [lane for lane in inside if not taken[lane]]
    outside = [lane for lane, is_taken in enumerate(taken) if is_taken and lane not in set(inside)]
    return tuple(zip(outside, room, strict=False))
