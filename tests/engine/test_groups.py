"""Groups of lanes, closing ranks, pruning and giving up: none of it touches a fit's bits."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from engine.test_promise import WORKLOADS, same
from engine.workloads import ADAM, SGD, build, fit, fold, run_all, run_alone
from sweeper.engine import Engine, can_compile
from sweeper.engine.device import memory_errors
from sweeper.errors import EngineError, OutOfMemoryError
from sweeper.records import Fit, FitResult, Outcome, Setting, Task, Training

FITS = [fit(number, 3) for number in range(7)]


def engine_of(slots: int, *, training: Training = ADAM, compiled: bool = False, width: int | None = None) -> Engine:
    network, folds = build(20, (33, 16), 4), [fold(Task.MULTICLASS, 20)]
    return Engine(network, folds, training, Task.MULTICLASS, slots=slots, compiled=compiled, width=width)


def through_everything(engine: Engine, fits: list[Fit]) -> dict[str, FitResult]:
    """Refill, a neighbour that is pruned, one that is given up, and ranks that close while others train on."""
    waiting, results = list(fits), {}
    strangers = [fit(100 + number, len(fits[0].setting.keep_prob)) for number in range(2)]
    engine.admit([*strangers, *waiting[: engine.free - 2]])
    waiting = waiting[engine.slots - 2 :]
    for tick in range(100):
        results |= {result.key: result for result in engine.train().results}
        if tick == 1:
            engine.prune([strangers[0].key])
            engine.evict([strangers[1].key])
        now, waiting = waiting[: engine.free], waiting[engine.free :]
        engine.admit(now)
        if engine.free == engine.slots:
            break
    return results


@pytest.mark.parametrize("training", [ADAM, SGD], ids=["adam", "sgd"])
@pytest.mark.parametrize("width", [2, 3])
def test_a_fit_is_its_own_through_refill_pruning_and_closing_ranks(training: Training, width: int) -> None:
    together = through_everything(engine_of(6, training=training, width=width), FITS)
    alone = engine_of(1, training=training)
    for one in FITS:
        assert same(together[one.key], run_alone(alone, one)), one.key


@pytest.mark.slow
@pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")
def test_compiled_too() -> None:
    together = through_everything(engine_of(6, compiled=True, width=2), FITS)
    alone = engine_of(1, compiled=True)
    for one in FITS:
        assert same(together[one.key], run_alone(alone, one)), one.key


def test_ranks_close_over_lanes_beyond_the_slots_too() -> None:
    """7 slots in groups of 2 are 8 lanes; at some tick a fit moves into the eighth."""
    for kept in range(7):
        engine = engine_of(7, width=2)
        engine.admit([fit(number, 3) for number in range(7)])
        engine.evict([f"fit {number}" for number in range(7) if number not in (kept, 6)])
        results: dict[str, FitResult] = {}
        while engine.free < 7:
            results |= {result.key: result for result in engine.train().results}
        assert set(results) == {f"fit {kept}", "fit 6"}


def test_ranks_close_when_nothing_waits() -> None:
    engine = engine_of(8, training=replace(ADAM, patience=0), width=8)
    engine.admit([fit(number, 3) for number in range(8)])
    assert engine.train().slots == 8
    engine.evict([f"fit {number}" for number in range(6)])
    assert engine.train().slots == 2


def test_a_pruned_fit_has_its_curve_its_best_epoch_and_no_test_score() -> None:
    engine = engine_of(2)
    engine.admit(FITS[:2])
    scores = [engine.train().scores[FITS[0].key] for _ in range(3)]
    (pruned,) = engine.prune([FITS[0].key])
    assert pruned.outcome is Outcome.PRUNED
    assert pruned.scores == tuple(scores)
    best = min(scores, key=lambda score: score.validation_loss)
    assert (pruned.best_epoch, pruned.validation_loss) == (best.epoch, best.validation_loss)
    assert pruned.test_loss != pruned.test_loss  # NaN
    assert pruned.cost.epochs == 3
    assert engine.free == 1


def test_a_fit_without_an_epoch_is_not_pruned() -> None:
    engine = engine_of(2)
    engine.admit(FITS[:1])
    assert engine.prune([FITS[0].key]) == ()
    assert engine.free == 1


def test_a_tick_under_way_is_left_alone() -> None:
    engine = engine_of(2)
    prepared = engine.prepare(FITS[0])
    engine.launch()
    for meddle in (lambda: engine.admit([prepared]), engine.evict, lambda: engine.prune([]), engine.launch):
        with pytest.raises(EngineError, match="Call collect first"):
            meddle()
    engine.collect()
    with pytest.raises(EngineError, match="Call launch first"):
        engine.collect()
    engine.admit([prepared])
    assert engine.free == 1


def test_a_prepared_fit_trains_as_the_fit_itself() -> None:
    engine = engine_of(2)
    engine.admit([engine.prepare(FITS[0])])
    results: dict[str, FitResult] = {}
    while not results:
        results |= {result.key: result for result in engine.train().results}
    assert same(results[FITS[0].key], run_alone(engine_of(2), FITS[0]))


def test_masks_that_keep_everything_need_not_be_drawn() -> None:
    whole = [replace(one, setting=Setting((1.0, *one.setting.keep_prob[1:]), one.setting.lambda_)) for one in FITS[:3]]
    network, folds = build(20, (33, 16), 4), [fold(Task.MULTICLASS, 20)]
    spared = Engine(network, folds, ADAM, Task.MULTICLASS, slots=3, undropped=[0])
    drawn, without = run_all(engine_of(3), whole), run_all(spared, whole)
    assert all(same(drawn[one.key], without[one.key]) for one in whole)
    with pytest.raises(EngineError, match="keep_prob_0 is not 1"):
        spared.admit(FITS[:1])


def test_of_large_training_sets_a_sample_is_scored_after_each_epoch_and_all_rows_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    everything = run_alone(engine_of(1), FITS[0])
    monkeypatch.setattr("sweeper.engine.folds.SAMPLE_ROWS", 10)  # validation has 60 rows, training 100
    sampled = run_alone(engine_of(1), FITS[0])
    assert [s.validation_loss for s in sampled.scores] == [s.validation_loss for s in everything.scores]
    assert [s.train_loss for s in sampled.scores] != [s.train_loss for s in everything.scores]
    assert sampled.train_loss == pytest.approx(everything.train_loss, rel=1e-6)
    assert sampled.test_loss == everything.test_loss


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_bfloat16_products_are_near_and_a_fits_own(compiled: bool) -> None:
    if compiled and not can_compile("cpu"):
        pytest.skip("no C++ compiler")
    narrow = replace(ADAM, precision="bfloat16")
    together = run_all(engine_of(3, training=narrow, compiled=compiled), FITS[:4])
    alone, exact = engine_of(1, training=narrow, compiled=compiled), engine_of(1)
    for one in FITS[:4]:
        assert same(together[one.key], run_alone(alone, one))
        there = run_alone(exact, one)
        assert together[one.key].scores[0].train_loss == pytest.approx(there.scores[0].train_loss, rel=2e-2)
        assert together[one.key].scores[0].train_loss != there.scores[0].train_loss


def test_memory_that_is_not_there_is_an_error_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engine_of(2)
    engine.admit(FITS[:1])

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("sweeper.engine.group.Group.train", exhausted)
    with pytest.raises(OutOfMemoryError, match=r"2 fits at once don't fit .* Pass a smaller --slots"):
        engine.launch()


def test_the_cpus_allocator_is_understood_too() -> None:
    with pytest.raises(OutOfMemoryError), memory_errors(2):
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="mistake"), memory_errors(2):
        raise RuntimeError("another mistake")


def test_workloads_of_the_promise_hold_in_narrow_groups() -> None:
    workload = WORKLOADS["digits"]
    fits = [workload.fit(number) for number in range(4)]
    folds = [fold(workload.task, 64, (100, 60, 50), 10, 0), fold(workload.task, 64, (97, 63, 50), 10, 1)]
    network = build(64, workload.sizes[1:-1], 10)
    narrow = Engine(network, folds, workload.training, workload.task, slots=4, width=2)
    wide = run_all(workload.engine(4, compiled=False), fits)
    assert all(same(result, wide[key]) for key, result in run_all(narrow, fits).items())
