"""The memory that an engine is predicted to take, beside what it takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from engine.workloads import ADAM, SGD, build, fold
from sweeper.engine import Engine, Footprint, footprint
from sweeper.records import Task, Training


@pytest.mark.parametrize("width", [1, 4, 64])
@pytest.mark.parametrize("lane", [0, 7, 70])
def test_a_footprints_most_slots_are_the_most_that_fit(width: int, lane: int):
    """By trying all of them; lanes that train together need more than those that wait."""
    found = Footprint(fixed=1000, slot=10, lane=lane)
    for free in (0, 900, 1009, 1010, 1080, 1320, 1400, 2000, 9000):
        fitting = [slots for slots in range(1, 1000) if found.total(slots, width) <= free]
        assert found.most_slots(free, width) == max(fitting, default=0), free


def held(value: Any, seen: set[int]) -> Iterator[int]:
    """Bytes of every tensor in an object of the engine's, each memory counted once."""
    for leaf in tree_leaves([list(vars(part).values()) for part in value]):
        if isinstance(leaf, torch.Tensor) and leaf.untyped_storage().data_ptr() not in seen:
            seen.add(leaf.untyped_storage().data_ptr())
            yield leaf.untyped_storage().nbytes()


@pytest.mark.parametrize("training", [ADAM, SGD], ids=["adam", "sgd"])
@pytest.mark.parametrize("hidden", [(32, 16), (256,)])
def test_a_slot_holds_what_was_predicted(training: Training, hidden: tuple[int, ...]):
    one = fold(Task.MULTICLASS, inputs=40)
    make = build(40, hidden, 4)

    def bytes_of(slots: int) -> int:
        engine = Engine(make, [one], training, Task.MULTICLASS, slots=slots)
        engine.rehearse()
        return sum(held((engine.arena, engine._plan), set()))

    slot = (bytes_of(12) - bytes_of(4)) / 8
    assert slot <= footprint(make, [one], training).slot <= 1.25 * slot


def test_what_a_lane_needs_beside_is_at_least_its_gradients_and_activations():
    one = fold(Task.MULTICLASS, inputs=40)
    network = build(40, (32, 16), 4)()
    weights = sum(parameter.nbytes for parameter in network.parameters())
    kept = 4 * ADAM.batch_size * (40 + 32 + 16)  # the inputs of the three layers
    assert footprint(lambda: network, [one], ADAM).lane >= weights + kept


def test_the_rows_of_all_folds_are_counted_once_padded_to_the_longest():
    short, long = fold(Task.BINARY, inputs=5), fold(Task.BINARY, inputs=5, rows=(200, 30, 10))
    make, fixed = build(5, (), 1), []
    for folds in ([short], [long], [short, long]):
        fixed.append(footprint(make, folds, SGD).fixed)
    rows = [4 * 6 * (100 + 60), 4 * 6 * (200 + 30), 2 * 4 * 6 * (200 + 60)]
    beside = [value - counted for value, counted in zip(fixed, rows, strict=True)]
    assert min(beside) > 0
    assert beside[2] >= max(beside[:2])


def test_a_parameter_that_is_saved_for_the_gradient_is_no_activation():
    narrow, wide = nn.Linear(40, 1, bias=False), nn.Linear(40, 1000, bias=False)
    one = fold(Task.REGRESSION, inputs=40)
    lanes = [footprint(lambda layer=layer: layer, [one], SGD).lane for layer in (narrow, wide)]
    outputs, gradients = 999 * ADAM.batch_size * 4, 999 * 40 * 4
    assert lanes[1] - lanes[0] == 2 * outputs + 3 * gradients
