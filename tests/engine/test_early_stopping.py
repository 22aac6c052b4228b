"""When a fit ends, what it reports then, and what must never have a say in it (R13, R15, R17)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from engine.plain import PlainFit
from engine.workloads import build, fit, fold, run_all, run_alone
from sweeper.engine import Engine
from sweeper.records import Fit, FitResult, Fold, Outcome, Score, Setting, Task, Training

pytestmark = pytest.mark.usefixtures("one_thread")

# few and noisy rows, a wide network, a high rate: it overfits within some epochs
SIZES = (10, 32, 32, 3)
LAYERS = len(SIZES) - 1
NETWORK = build(SIZES[0], SIZES[1:-1], SIZES[-1])
DATA = fold(Task.MULTICLASS, SIZES[0], (48, 60, 50), SIZES[-1])
TRAINING = Training(epochs=25, batch_size=16, learning_rate=0.01, patience=4)
PLAIN = Setting((1.0,) * LAYERS, (0.0,) * LAYERS)
DROPPED = Setting((1.0, 0.5, 0.5), (0.0,) * LAYERS)
FITS = [
    Fit("plain", PLAIN, 1, 0),
    Fit("dropout", DROPPED, 2, 0),
    Fit("l2", Setting((1.0,) * LAYERS, (1.0, 3.0, 10.0)), 3, 0),
    Fit("both", Setting((0.9, 0.6, 0.3), (0.3, 0.3, 0.3)), 4, 0),
    *(fit(number, LAYERS) for number in range(8)),
]


def engine_of(training: Training = TRAINING, data: Fold = DATA, slots: int = 4) -> Engine:
    return Engine(NETWORK, [data], training, Task.MULTICLASS, slots=slots)


def losses(result: FitResult) -> list[float]:
    return [score.validation_loss for score in result.scores]


def ends_after(validation: list[float], patience: int) -> int:
    """Epochs trained by the textbook rule, given a full curve."""
    best, stale = math.inf, 0
    for epoch, loss in enumerate(validation, start=1):
        best, stale = (loss, 0) if loss < best else (best, stale + 1)
        if patience and stale == patience:
            return epoch
    return len(validation)


def timeless(score: Score) -> Score:
    return replace(score, at_ms=0)


@pytest.fixture(scope="module")
def full() -> dict[str, FitResult]:
    return run_all(engine_of(replace(TRAINING, patience=0)), FITS)


@pytest.fixture(scope="module")
def stopped() -> dict[str, FitResult]:
    return run_all(engine_of(), FITS)


def test_without_patience_a_fit_trains_all_its_epochs(full: dict[str, FitResult]) -> None:
    for result in full.values():
        assert result.outcome is Outcome.FINISHED
        assert [score.epoch for score in result.scores] == list(range(1, TRAINING.epochs + 1))


@pytest.mark.parametrize("patience", [1, 2, 4, 7])
def test_a_fit_stops_exactly_when_the_rule_says_so(full: dict[str, FitResult], patience: int) -> None:
    outcomes = set()
    for key, result in run_all(engine_of(replace(TRAINING, patience=patience)), FITS).items():
        whole = full[key]
        epochs = ends_after(losses(whole), patience)
        assert list(map(timeless, result.scores)) == list(map(timeless, whole.scores[:epochs]))
        stopped_early = epochs < TRAINING.epochs or epochs - result.best_epoch == patience > 0
        ended_at_last_epoch = epochs == TRAINING.epochs
        outcomes.add(result.outcome)
        assert result.outcome is (Outcome.FINISHED if ended_at_last_epoch else Outcome.STOPPED_EARLY)
        assert stopped_early or ended_at_last_epoch
        assert result.cost.epochs == epochs
    assert Outcome.STOPPED_EARLY in outcomes


def test_both_ways_to_end_were_met(stopped: dict[str, FitResult]) -> None:
    assert {result.outcome for result in stopped.values()} == {Outcome.FINISHED, Outcome.STOPPED_EARLY}


def test_the_best_epoch_has_the_lowest_validation_loss(stopped: dict[str, FitResult]) -> None:
    for result in stopped.values():
        assert result.best_epoch == 1 + int(np.argmin(losses(result)))
        best = result.scores[result.best_epoch - 1]
        assert result.validation_loss == best.validation_loss == min(losses(result))
        assert (result.train_loss, result.validation_metric) == (best.train_loss, best.validation_metric)
        assert result.best_epoch < len(result.scores) or result.outcome is Outcome.FINISHED


def test_what_is_reported_is_what_the_best_weights_score(stopped: dict[str, FitResult]) -> None:
    for one in FITS[:4]:
        result = stopped[one.key]
        plain = PlainFit(NETWORK, one, DATA, TRAINING, Task.MULTICLASS).train_epochs(result.best_epoch)
        ours = (result.train_loss, result.validation_loss, result.test_loss, *result.squared_norms)
        theirs = (*map(plain.loss, ("train", "validation", "test")), *plain.squared_norms)
        assert ours == pytest.approx(theirs, rel=1e-3)
        if result.best_epoch < len(result.scores):
            later = plain.train_epochs(len(result.scores) - result.best_epoch)
            assert result.test_loss != pytest.approx(later.loss("test"), rel=1e-3)  # not the last weights


@pytest.mark.parametrize("task", Task)
def test_metrics_are_accuracy_or_the_error_in_target_units(task: Task) -> None:
    outputs = 3 if task is Task.MULTICLASS else 1
    data = fold(task, 10, (48, 60, 50), outputs)
    network, one = build(10, (16,), outputs), Fit("one", Setting((1.0, 0.8), (0.0, 1.0)), 5, 0)
    result = run_alone(Engine(network, [data], TRAINING, task, slots=1), one)
    plain = PlainFit(network, one, data, TRAINING, task).train_epochs(result.best_epoch)
    with torch.no_grad():
        parts = ((data.x_validation, data.y_validation), (data.x_test, data.y_test))
        outs = [(plain.network(torch.from_numpy(x)).numpy(), y) for x, y in parts]
    expected = {
        Task.MULTICLASS: lambda out, y: (out.argmax(1) == y).mean(),
        Task.BINARY: lambda out, y: ((out[:, 0] > 0) == (y == 1)).mean(),
        Task.REGRESSION: lambda out, y: 2.0 * ((out[:, 0] - y) ** 2).mean() ** 0.5,  # a target_scale of 2
    }[task]
    ours = (result.validation_metric, result.test_metric)
    assert ours == pytest.approx([expected(out, y) for out, y in outs], rel=1e-3)


# R13. As trained: over an epoch, each row's loss under the step's mask and the weights before that step. As evaluated:
# after the epoch, without masks. With a rate of 0 and with one batch per epoch the two can be compared exactly.


def test_at_standing_weights_only_dropout_tells_the_two_training_losses_apart() -> None:
    engine = engine_of(replace(TRAINING, epochs=3, learning_rate=0.0))
    for score in run_alone(engine, Fit("plain", PLAIN, 1, 0)).scores:
        assert score.train_loss_dropped == pytest.approx(score.train_loss, rel=1e-6)
    dropped = run_alone(engine, Fit("dropped", DROPPED, 1, 0)).scores
    for score in dropped:
        assert score.train_loss_dropped != pytest.approx(score.train_loss, rel=1e-3)
    assert len({score.train_loss_dropped for score in dropped}) == 3  # another mask every step (R16)


def test_without_dropout_one_batch_is_scored_as_the_epoch_before_left_it() -> None:
    scores = run_alone(engine_of(replace(TRAINING, batch_size=48)), Fit("plain", PLAIN, 1, 0)).scores
    for earlier, later in pairwise(scores):
        assert later.train_loss_dropped == pytest.approx(earlier.train_loss, rel=1e-5)


def test_the_loss_as_trained_decides_nothing() -> None:
    """Its best epoch is another one than the reported one for some fit, or the test would show nothing."""
    results = run_all(engine_of(), FITS)
    by_trained = [1 + int(np.argmin([s.train_loss_dropped for s in r.scores])) for r in results.values()]
    assert by_trained != [result.best_epoch for result in results.values()]


# promise 6


def scrambled(part: str, fill: Callable[[np.ndarray], np.ndarray]) -> Fold:
    x, y = f"x_{part}", f"y_{part}"
    changes = {x: fill(getattr(DATA, x)).astype(np.float32), y: getattr(DATA, y)[::-1].copy()}
    return replace(DATA, **changes)


OTHER_ROWS = {"reversed": lambda x: -3 * x[::-1], "nan": lambda x: x * np.nan, "fewer": lambda x: x[:7]}


@pytest.mark.parametrize("fill", [OTHER_ROWS["reversed"], OTHER_ROWS["nan"]], ids=["other", "nan"])
def test_test_rows_touch_nothing_but_test_figures(
    stopped: dict[str, FitResult], fill: Callable[[np.ndarray], np.ndarray]
) -> None:
    for key, result in run_all(engine_of(data=scrambled("test", fill)), FITS).items():
        before = stopped[key]
        assert result.test_loss != before.test_loss
        assert list(map(timeless, result.scores)) == list(map(timeless, before.scores))
        assert essence(result) == essence(before)


def essence(result: FitResult) -> tuple[object, ...]:
    return (
        result.outcome,
        result.best_epoch,
        result.train_loss,
        result.validation_loss,
        result.validation_metric,
        result.squared_norms,
        result.cost.flops,
    )


def test_validation_rows_choose_an_epoch_and_touch_no_weight(full: dict[str, FitResult]) -> None:
    other = scrambled("validation", OTHER_ROWS["reversed"])
    engine, twin = (engine_of(replace(TRAINING, patience=0), data) for data in (DATA, other))
    for one in (engine, twin):
        one.admit(FITS[:4])
    for _ in range(TRAINING.epochs - 1):
        engine.train()
        twin.train()
        for name, weight in engine.arena.weights.items():
            assert torch.equal(weight, twin.arena.weights[name])
    results = {result.key: result for result in twin.train().results}
    for key, result in results.items():
        assert losses(result) != losses(full[key])
        assert [s.train_loss for s in result.scores] == [s.train_loss for s in full[key].scores]


# divergence


def wild(learning_rate: float) -> FitResult:
    data = fold(Task.REGRESSION, 10, (48, 60, 50), 1)
    training = Training(epochs=25, batch_size=48, optimizer="sgd", learning_rate=learning_rate)
    engine = Engine(build(10, (), 1), [data], training, Task.REGRESSION, slots=1)
    return run_alone(engine, Fit("wild", Setting((1.0,), (0.0,)), 1, 0))


@pytest.mark.parametrize("learning_rate", [1e30, 1e3, 60.0])
def test_a_diverged_fit_ends_at_once_and_says_when(learning_rate: float) -> None:
    result = wild(learning_rate)
    assert result.outcome is Outcome.DIVERGED
    last = result.scores[-1]
    assert result.best_epoch == last.epoch == len(result.scores) < 25
    assert not all(map(math.isfinite, losses_of(last)))
    for score in result.scores[:-1]:
        assert all(map(math.isfinite, losses_of(score)))
    figures = (result.train_loss, result.validation_loss, result.test_loss, result.test_metric)
    assert all(map(math.isnan, (*figures, *result.squared_norms)))


def losses_of(score: Score) -> tuple[float, float, float]:
    return score.train_loss_dropped, score.train_loss, score.validation_loss


def test_a_fit_that_diverges_later_is_met_too() -> None:
    assert len(wild(60.0).scores) > 2


def test_after_a_diverged_fit_the_slot_is_as_good_as_new() -> None:
    engine = engine_of(slots=1)
    fresh = run_alone(engine, FITS[1])
    engine.admit([replace(FITS[1], key="sick")])
    for tensor in (*engine.arena.weights.values(), *engine.arena.best.values()):
        tensor[0].fill_(float("nan"))
    (sick,) = engine.train().results
    assert sick.outcome is Outcome.DIVERGED
    again = run_alone(engine, FITS[1])
    assert list(map(timeless, again.scores)) == list(map(timeless, fresh.scores))
    assert essence(again) == essence(fresh)
