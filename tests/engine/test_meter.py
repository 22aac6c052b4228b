"""Costs: operations are exact, and every second of a tick is somebody's."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine.workloads import ADAM, build, fit, fold, run_alone
from sweeper.engine import Engine, Tick
from sweeper.engine.meter import Stopwatch
from sweeper.records import Cost, Outcome, Task, Training

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = [(64, 64, 64, 64, 10), (3, 7, 7, 3, 2, 1), (20, 64, 32, 10), (5, 1)]
ROWS = ((100, 60, 50), (65, 40, 30))
each_size = pytest.mark.parametrize("sizes", SIZES, ids=str)


def engine_of(sizes: tuple[int, ...], slots: int = 1, training: Training = ADAM) -> Engine:
    folds = [fold(Task.MULTICLASS, sizes[0], rows, sizes[-1], seed) for seed, rows in enumerate(ROWS)]
    return Engine(build(sizes[0], sizes[1:-1], sizes[-1]), folds, training, Task.MULTICLASS, slots=slots)


def formula(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Operations for one row, with the gradient and without."""
    products = sum(a * b for a, b in pairwise(sizes))
    return 2 * (3 * products - sizes[0] * sizes[1]), 2 * products


@each_size
def test_operations_of_a_row_are_those_of_the_formula(sizes: tuple[int, ...]) -> None:
    flops = engine_of(sizes).flops
    assert (flops.train, flops.evaluate) == formula(sizes)


@each_size
def test_torchs_counter_finds_the_same_in_a_plain_network_with_dropout(sizes: tuple[int, ...]) -> None:
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        layers += [nn.Dropout(0.5), nn.Linear(wide, narrow), nn.ReLU()]
    network, rows = nn.Sequential(*layers[:-1]), 32
    with FlopCounterMode(display=False) as training:
        network(torch.randn(rows, sizes[0])).sum().backward()
    with FlopCounterMode(display=False) as evaluation, torch.no_grad():
        network.eval()(torch.randn(rows, sizes[0]))
    flops = engine_of(sizes).flops
    assert training.get_total_flops() == rows * flops.train
    assert evaluation.get_total_flops() == rows * flops.evaluate


@pytest.mark.parametrize("where", [0, 1])
def test_a_fit_costs_what_its_own_fold_takes(where: int) -> None:
    sizes = (20, 16, 4)
    train_flops, evaluate_flops = formula(sizes)
    result = run_alone(engine_of(sizes, slots=3), fit(0, 2, fold=where))
    epochs = len(result.scores)
    rows, validation, test = ROWS[where]
    assert result.cost.epochs == epochs
    assert result.cost.steps == epochs * -(-rows // ADAM.batch_size)
    assert result.cost.examples == epochs * rows
    evaluated = epochs * (rows + validation) + test
    assert result.cost.flops == epochs * rows * train_flops + evaluated * evaluate_flops


def test_a_diverged_fit_pays_for_its_epochs_and_not_for_test_rows_it_never_saw() -> None:
    sizes = (20, 16, 4)
    train_flops, evaluate_flops = formula(sizes)
    wild = Training(epochs=50, batch_size=32, optimizer="sgd", learning_rate=1e30)
    result = run_alone(engine_of(sizes, training=wild), fit(0, 2))
    assert result.outcome is Outcome.DIVERGED
    epochs = len(result.scores)
    assert result.cost.flops == epochs * (100 * train_flops + 160 * evaluate_flops)


def test_every_second_of_every_tick_is_a_fits_or_idle() -> None:
    engine = engine_of((20, 16, 4), slots=4)
    waiting = [fit(number, 2, fold=number % 2) for number in range(7)]
    ticks: list[Tick] = []
    given_up: dict[str, Cost] = {}
    while waiting or engine.free < engine.slots:
        now, waiting = waiting[: engine.free], waiting[engine.free :]
        engine.admit(now)
        ticks.append(engine.train())
        if len(ticks) == 2:
            given_up = engine.evict(["fit 1"])
    costs = [result.cost for tick in ticks for result in tick.results] + list(given_up.values())
    assert len(costs) == 7
    paid = sum(cost.device_s for cost in costs)
    idle = sum(tick.idle_s for tick in ticks)
    held = sum(tick.train_s + tick.evaluate_s for tick in ticks)
    assert idle > 0
    assert paid + idle == pytest.approx(held, abs=1e-9)


def test_a_tick_counts_its_steps_and_its_busy_slots() -> None:
    engine = engine_of((20, 16, 4), slots=4)
    assert engine.train().busy == 0
    engine.admit([fit(number, 2) for number in range(3)])
    tick = engine.train()
    assert (tick.steps, tick.busy, tick.slots) == (4, 3 * 4, 4)
    assert tick.idle_s == pytest.approx((tick.train_s + tick.evaluate_s) / 4, rel=1e-2)


def test_lanes_that_no_fit_needs_are_not_computed() -> None:
    engine = engine_of((20, 16, 4), slots=8)
    engine.admit([fit(number, 2) for number in range(2)])
    tick = engine.train()
    assert (tick.busy, tick.slots, tick.idle_s) == (2 * 4, 2, 0.0)


def test_costs_add_up() -> None:
    engine = engine_of((20, 16, 4), slots=2)
    one, two = (run_alone(engine, fit(number, 2)).cost for number in range(2))
    both = one + two
    assert both.steps == one.steps + two.steps
    assert both.device_s == pytest.approx(one.device_s + two.device_s)
    assert both + Cost() == both


def test_a_stopwatch_adds_up_a_phase_until_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr("sweeper.engine.meter.time.perf_counter", lambda: next(clock))
    watch = Stopwatch(torch.device("cpu"))
    for _ in range(2):
        with watch.phase("train"):
            pass
    assert watch.take("train") == 2.5
    assert watch.take("train") == 0.0


def test_processes_that_share_a_device_share_what_its_meter_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    meter = SimpleNamespace(read=partial(next, iter([100.0, 700.0])))
    monkeypatch.setattr("sweeper.engine.meter.find_meter", lambda device: meter)
    watch = Stopwatch(torch.device("cpu"), sharers=3)
    watch.take_joules()
    assert watch.take_joules() == 200.0
