"""Closing ranks: every fit keeps a lane of its own, and no turn is taken that could be spared."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sweeper.engine.formation import Formation, in_front, in_groups

lanes = st.lists(st.booleans(), min_size=1, max_size=40)


def after(taken: list[bool], formation: Formation) -> list[int]:
    """Where the fits stand after the moves; each move must go from a fit to an empty lane."""
    now = list(taken)
    for source, target in formation.moves:
        assert now[source]
        assert not now[target]
        now[source], now[target] = False, True
    return [lane for lane, is_taken in enumerate(now) if is_taken]


def covered(formation: Formation) -> list[int]:
    return [lane for turn in formation.turns for lane in range(turn.start, turn.stop)]


@given(lanes, st.integers(1, 7))
def test_in_groups_as_few_turns_as_possible_hold_every_fit(taken: list[bool], width: int) -> None:
    taken = taken + [False] * (-len(taken) % width)
    formation = in_groups(taken, width)
    places = after(taken, formation)
    assert len(places) == sum(taken)
    assert set(places) <= set(covered(formation))
    assert len(formation.turns) == -(-sum(taken) // width)
    assert all(turn.start % width == 0 and turn.stop - turn.start == width for turn in formation.turns)


@given(lanes, st.integers(1, 4))
def test_in_front_the_shortest_half_holds_every_fit(taken: list[bool], least: int) -> None:
    formation = in_front(taken, least)
    places = after(taken, formation)
    assert set(places) <= set(covered(formation))
    if any(taken):
        (turn,) = formation.turns
        length = turn.stop
        assert length == len(taken) or length >= least
        assert length // 2 < max(least, sum(taken)) or length == 1


def test_nobody_moves_while_every_turn_is_needed() -> None:
    taken = [True, True, False, True, True, False]
    assert in_groups(taken, 3).moves == ()
    assert in_groups([True, True, False, True, False, False], 3).moves == ((3, 2),)
    assert in_front([True, False, False, False, True, True], 2).moves == ((4, 1), (5, 2))
