"""A part of a long tick stands for all of it: on a clock that the test turns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from engine.workloads import ADAM, build, fold
from sweeper.engine import Engine
from sweeper.engine.rehearsal import part_of_tick, whole_tick
from sweeper.records import Task

LAY_OUT_S, EVALUATE_S, PARTS = 3.0, 8.0, 4


class Clock:
    """A stopwatch of seconds that are said to have passed."""

    def __init__(self) -> None:
        self.now = self.spent = 0.0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = self.now
        yield
        self.spent += self.now - start

    def take(self, name: str) -> float:
        taken, self.spent = self.spent, 0.0
        return taken


class Lanes:
    """A group whose work takes time on a clock; its first step takes ten times as long."""

    def __init__(self, clock: Clock, steps: int, step_s: float) -> None:
        self.clock, self.steps, self.step_s, self.made = clock, steps, step_s, 0

    def train(self, steps: int | None = None) -> None:
        steps = self.steps if steps is None else steps
        slow = 9 * self.step_s * (self.made == 0 and steps > 0)
        self.clock.now += LAY_OUT_S + steps * self.step_s + slow
        self.made += steps

    def sample_evaluation(self) -> float:
        self.clock.now += EVALUATE_S / PARTS
        return 1 / PARTS


def test_a_few_steps_of_one_group_stand_for_a_long_tick():
    clock = Clock()
    groups = [Lanes(clock, steps=1000, step_s=2.0) for _ in range(3)]
    assert part_of_tick(clock, groups, within_s=20.0) == pytest.approx(3 * (LAY_OUT_S + 1000 * 2.0 + EVALUATE_S))
    assert 0 < groups[0].made < 20
    assert groups[1].made == groups[2].made == 0
    assert clock.now < 100


def test_a_tick_that_fits_in_is_made_as_it_is():
    clock = Clock()
    group = Lanes(clock, steps=5, step_s=0.01)
    assert part_of_tick(clock, [group], within_s=60.0) is None
    took = iter([9.0, 5.0, 4.0, 6.0])

    def tick() -> None:
        clock.now += next(took)

    assert whole_tick(clock, tick) == 4.0  # the first time does not count


def test_an_engines_part_of_a_tick_leaves_no_trace_either():
    rehearsed, fresh = (
        Engine(build(6, (8,), 4), [fold(Task.MULTICLASS, inputs=6)], ADAM, Task.MULTICLASS, slots=4) for _ in range(2)
    )
    assert rehearsed.rehearse(within_s=0.0) > 0
    for name, weight in rehearsed.arena.weights.items():
        assert (weight == fresh.arena.weights[name]).all()
    assert not rehearsed.arena.active.any()
