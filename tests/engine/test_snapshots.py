"""Fits that go on in another engine end as if they had never been interrupted, bit for bit (promise 5)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.test_modules import ADAM as CONVOLVED
from engine.test_modules import FITS, engine_of
from engine.test_promise import WORKLOADS, Workload, same, workload
from engine.workloads import run_all, run_alone
from sweeper.engine import Engine, Snapshot, can_compile
from sweeper.errors import EngineError
from sweeper.records import Cost, Fit, FitResult

__all__ = ["workload"]  # a fixture
pytestmark = pytest.mark.usefixtures("one_thread")


def interrupted(first: Engine, second: Engine, fits: list[Fit], ticks: int) -> dict[str, FitResult]:
    """Train in one engine for so many ticks, and in another to the end."""
    found: dict[str, FitResult] = {}
    first.admit(fits)
    for _ in range(ticks):
        found |= {result.key: result for result in first.train().results}
    snapshots = first.snapshots()
    assert snapshots.keys() == {one.key for one in fits} - found.keys()
    first.evict()
    left = [one for one in reversed(fits) if one.key not in found]  # other slots than before
    second.admit([second.prepare(one, snapshots[one.key]) for one in left])
    while second.free < second.slots:
        found |= {result.key: result for result in second.train().results}
    return found


@pytest.mark.parametrize("ticks", [1, 2])
def test_a_fit_that_goes_on_elsewhere_ends_as_if_it_had_stayed(workload: Workload, ticks: int) -> None:
    fits = [workload.fit(number) for number in range(4)]
    found = interrupted(workload.engine(4, compiled=False), workload.engine(5, compiled=False), fits, ticks)
    alone = workload.engine(1, compiled=False)
    for one in fits:
        assert same(found[one.key], run_alone(alone, one)), one.key


@pytest.mark.slow
@pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")
def test_compiled_too() -> None:
    chosen = WORKLOADS["odd sizes"]
    fits = [chosen.fit(number) for number in range(3)]
    engine = chosen.engine(3, compiled=True)
    found = interrupted(engine, engine, fits, 1)
    together = run_all(engine, fits)
    assert all(same(found[one.key], together[one.key]) for one in fits)


def test_batch_normalisation_goes_on_with_its_statistics() -> None:
    training = replace(CONVOLVED, epochs=3)
    fits = list(FITS[:3])
    found = interrupted(engine_of(training, slots=3), engine_of(training, slots=4), fits, 2)
    alone = engine_of(training, slots=1)
    for one in fits:
        assert same(found[one.key], run_alone(alone, one)), one.key


def test_the_cost_of_what_was_done_elsewhere_is_not_counted_again(workload: Workload) -> None:
    fits = [workload.fit(0)]
    [result] = interrupted(workload.engine(2, compiled=False), workload.engine(2, compiled=False), fits, 1).values()
    whole = run_alone(workload.engine(2, compiled=False), fits[0])
    assert (result.cost.epochs, len(result.scores)) == (whole.cost.epochs - 1, len(whole.scores))
    assert 0 < result.cost.steps < whole.cost.steps
    together = result.before + result.cost
    assert (together.steps, together.flops, together.examples) == (
        whole.cost.steps,
        whole.cost.flops,
        whole.cost.examples,
    )
    assert whole.before == Cost()


def test_a_fit_that_has_yet_to_begin_has_no_snapshot(workload: Workload) -> None:
    engine = workload.engine(2, compiled=False)
    engine.admit([workload.fit(0)])
    assert engine.snapshots() == {}


def test_a_snapshot_is_a_copy(workload: Workload) -> None:
    engine = workload.engine(2, compiled=False)
    engine.admit([workload.fit(0)])
    engine.train()
    [taken] = engine.snapshots().values()
    before = {name: value.clone() for name, value in taken.tensors.items()}
    engine.train()
    assert all(torch.equal(value, before[name]) for name, value in taken.tensors.items())


def test_a_snapshot_of_another_network_is_refused() -> None:
    digits, lecture = (WORKLOADS[name].engine(2, compiled=False) for name in ("digits", "lecture"))
    one = WORKLOADS["digits"].fit(0)
    digits.admit([one])
    digits.train()
    [taken] = digits.snapshots().values()
    with pytest.raises(EngineError, match="another network or optimiser"):
        lecture.prepare(WORKLOADS["lecture"].fit(0), taken)
    with pytest.raises(EngineError, match="another network or optimiser"):
        digits.prepare(one, Snapshot(taken.tensors, ()))
