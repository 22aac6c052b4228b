"""Promise 1: a fit's result is its own, bit for bit on a CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from engine.workloads import ADAM, SGD, build, fit, fold, run_all, run_alone
from sweeper.engine import Engine, can_compile
from sweeper.records import Cost, Fit, FitResult, Outcome, Setting, Task, Training


@dataclass(frozen=True)
class Workload:
    task: Task
    sizes: tuple[int, ...]
    training: Training

    def engine(self, slots: int, compiled: bool) -> Engine:
        classes = self.sizes[-1]
        folds = [fold(self.task, self.sizes[0], rows, classes, seed) for seed, rows in enumerate(ROWS)]
        network = build(self.sizes[0], self.sizes[1:-1], classes)
        return Engine(network, folds, self.training, self.task, slots=slots, compiled=compiled)

    def fit(self, number: int) -> Any:
        return fit(number, len(self.sizes) - 1, fold=number % len(ROWS))


ROWS = ((100, 60, 50), (97, 63, 50))  # folds of unequal size, neither a multiple of the batch
WORKLOADS = {
    "digits": Workload(Task.MULTICLASS, (64, 64, 64, 64, 10), ADAM),
    "lecture": Workload(Task.BINARY, (3, 7, 7, 3, 2, 1), ADAM),
    "regression": Workload(Task.REGRESSION, (10, 32, 32, 1), SGD),
    "odd sizes": Workload(Task.MULTICLASS, (5, 33, 3), replace(ADAM, batch_size=7, epochs=3)),
}


@pytest.fixture(params=WORKLOADS.values(), ids=WORKLOADS.keys())
def workload(request: pytest.FixtureRequest) -> Workload:
    result: Workload = request.param
    return result


def same(left: FitResult, right: FitResult) -> bool:
    """Equal in every number that training decides (clocks and costs aside), NaN being equal to NaN."""

    def essence(result: FitResult) -> str:
        timeless = replace(result, cost=Cost(), before=Cost())
        return repr(replace(timeless, scores=tuple(replace(score, at_ms=0) for score in timeless.scores)))

    return essence(left) == essence(right)


def test_a_fit_scores_the_same_alone_in_company_and_after_a_refill(workload: Workload) -> None:
    fits = [workload.fit(number) for number in range(7)]
    together = run_all(workload.engine(3, compiled=False), fits)  # 7 fits in 3 slots: most enter in mid-run
    alone = workload.engine(1, compiled=False)
    for one in fits:
        assert same(together[one.key], run_alone(alone, one)), one.key


def test_a_neighbour_full_of_nan_changes_nothing(workload: Workload) -> None:
    healthy = workload.fit(0)
    results = run_beside_a_sick_fit(workload.engine(2, compiled=False), [healthy])
    assert same(results[healthy.key], run_alone(workload.engine(1, compiled=False), healthy))


def test_the_number_of_threads_changes_nothing(workload: Workload) -> None:
    fits = [workload.fit(number) for number in range(4)]
    with threads(2):
        many = run_all(workload.engine(4, compiled=False), fits)
    with threads(1):
        one = run_all(workload.engine(4, compiled=False), fits)
    assert all(same(many[key], one[key]) for key in many)


@pytest.mark.slow
@pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")
@pytest.mark.parametrize("name", ["digits", "odd sizes"])
def test_compiled_fits_are_their_own_too(name: str) -> None:
    """Company, refills, a sick neighbour and the number of threads at once: each compilation takes seconds."""
    workload = WORKLOADS[name]
    fits = [workload.fit(number) for number in range(5)]
    with threads(2):
        together = run_beside_a_sick_fit(workload.engine(3, compiled=True), fits)
    with threads(1):
        alone = workload.engine(1, compiled=True)
        for one in fits:
            assert same(together[one.key], run_alone(alone, one)), one.key


def run_beside_a_sick_fit(engine: Engine, fits: Sequence[Fit]) -> dict[str, FitResult]:
    engine.admit([replace(fits[0], key="sick")])
    engine.arena.weights[engine.network.weight_names[0]][0].fill_(float("nan"))
    results = run_all(engine, fits)
    assert results["sick"].outcome is Outcome.DIVERGED
    return results


@contextmanager
def threads(number: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_another_seed_and_another_setting_give_another_result(workload: Workload) -> None:
    engine, one = workload.engine(1, compiled=False), workload.fit(0)
    layers = len(one.setting.keep_prob)
    first = run_alone(engine, one)
    assert not same(first, run_alone(engine, replace(one, seed=one.seed + 1)))
    assert not same(first, run_alone(engine, replace(one, setting=Setting((1.0,) * layers, (0.0,) * layers))))
