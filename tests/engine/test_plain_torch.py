"""The engine does what a plain torch.nn + torch.optim loop does with the same masks, order and initial weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from engine.plain import PlainFit
from engine.workloads import build, fit, fold, run_alone
from sweeper.engine import Engine
from sweeper.records import Fit, Fold, Score, Setting, Task, Training

pytestmark = pytest.mark.usefixtures("one_thread")

# 97 rows in batches of 32: four steps an epoch, the last of a single row; five epochs are 20 steps
ROWS = (97, 60, 50)
EPOCHS = 5
ADAM = Training(epochs=EPOCHS, batch_size=32, learning_rate=0.01)
SGD = Training(epochs=EPOCHS, batch_size=32, optimizer="sgd", learning_rate=0.05)
MOMENTUM = replace(SGD, momentum=0.9)


@dataclass(frozen=True)
class Workload:
    task: Task
    sizes: tuple[int, ...]

    @property
    def layers(self) -> int:
        return len(self.sizes) - 1

    def folds(self, *rows: tuple[int, int, int]) -> list[Fold]:
        return [fold(self.task, self.sizes[0], one, self.sizes[-1], seed) for seed, one in enumerate(rows)]

    def engine(self, training: Training, folds: list[Fold]) -> Engine:
        return Engine(self.network(), folds, training, self.task, slots=2)

    def network(self) -> Callable[[], nn.Sequential]:
        return build(self.sizes[0], self.sizes[1:-1], self.sizes[-1])

    def plain(self, one: Fit, data: Fold, training: Training, penalty: str = "loss") -> PlainFit:
        return PlainFit(self.network(), one, data, training, self.task, penalty)


WORKLOADS = {
    "multiclass": Workload(Task.MULTICLASS, (20, 32, 32, 4)),
    "binary": Workload(Task.BINARY, (3, 7, 7, 3, 2, 1)),
    "regression": Workload(Task.REGRESSION, (10, 32, 1)),
}
TRAININGS = {"adam": ADAM, "sgd": SGD, "momentum": MOMENTUM}
each_workload = pytest.mark.parametrize("workload", WORKLOADS.values(), ids=WORKLOADS.keys())
each_training = pytest.mark.parametrize("training", TRAININGS.values(), ids=TRAININGS.keys())


def losses_of(score: Score) -> list[float]:
    return [score.train_loss_dropped, score.train_loss, score.validation_loss]


def weights(engine: Engine, slot: int = 0) -> list[torch.Tensor]:
    return [weight[slot].clone() for weight in engine.arena.weights.values()]


def one_epoch(workload: Workload, training: Training, one: Fit, folds: list[Fold]) -> list[torch.Tensor]:
    engine = workload.engine(replace(training, epochs=2), folds)
    engine.admit([one])
    engine.train()
    return weights(engine)


@each_training
@each_workload
def test_losses_agree_with_plain_torch_over_20_steps(workload: Workload, training: Training) -> None:
    (data,) = workload.folds(ROWS)
    one = fit(1, workload.layers)
    result = run_alone(workload.engine(training, [data]), one)
    plain = workload.plain(one, data, training)
    assert result.cost.steps == 20
    for score in result.scores:
        theirs = [plain.train_epoch(), plain.loss("train"), plain.loss("validation")]
        assert losses_of(score) == pytest.approx(theirs, abs=1e-4)
    assert plain.step == 20


def test_other_masks_or_another_order_would_not_agree() -> None:
    workload = WORKLOADS["multiclass"]
    (data,) = workload.folds(ROWS)
    one = fit(1, workload.layers)
    result = run_alone(workload.engine(ADAM, [data]), one)
    undropped = replace(one, setting=replace(one.setting, keep_prob=(1.0,) * workload.layers))
    for other in (undropped, replace(one, seed=one.seed + 1)):
        theirs = workload.plain(other, data, ADAM).train_epochs(EPOCHS).loss("validation")
        assert abs(theirs - result.scores[-1].validation_loss) > 1e-3


@pytest.mark.parametrize("training", [SGD, MOMENTUM, ADAM], ids=["sgd", "momentum", "adam"])
@each_workload
def test_torchs_coupled_weight_decay_is_lambda_over_m_on_the_weights(workload: Workload, training: Training) -> None:
    (data,) = workload.folds(ROWS)
    one = Fit("one", Setting((1.0,) * workload.layers, tuple(3.0 + layer for layer in range(workload.layers))), 5, 0)
    ours = one_epoch(workload, training, one, [data])
    plain = workload.plain(one, data, training, penalty="weight_decay").train_epochs(1)
    for mine, theirs in zip(ours, plain.network.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6 if training.optimizer == "sgd" else 1e-4)


def test_m_is_the_number_of_training_rows_of_the_fits_own_fold() -> None:
    workload = WORKLOADS["multiclass"]
    folds = workload.folds(ROWS, (64, 60, 50))
    one = Fit("one", Setting((1.0,) * workload.layers, (30.0,) * workload.layers), 5, fold=1)
    ours = one_epoch(workload, SGD, one, folds)
    right = workload.plain(one, folds[1], SGD).train_epochs(1)
    other_m = replace(one, setting=Setting(one.setting.keep_prob, (30.0 * 64 / 97,) * workload.layers))
    wrong = workload.plain(other_m, folds[1], SGD).train_epochs(1)
    for name in range(0, 2 * workload.layers, 2):
        assert torch.allclose(ours[name], list(right.network.parameters())[name], atol=1e-6)
        assert not torch.allclose(ours[name], list(wrong.network.parameters())[name], atol=1e-3)


def test_one_step_moves_weights_by_their_own_lambda_and_biases_not_at_all() -> None:
    workload = WORKLOADS["regression"]
    (data,) = workload.folds(ROWS)
    training = replace(SGD, batch_size=97)
    bare = Fit("one", Setting((1.0, 1.0), (0.0, 0.0)), 5, 0)
    start = [weight.detach() for weight in workload.plain(bare, data, training).network.parameters()]
    without = one_epoch(workload, training, bare, [data])
    with_l2 = one_epoch(workload, training, replace(bare, setting=Setting((1.0, 1.0), (10.0, 40.0))), [data])
    for place, lambda_ in ((0, 10.0), (2, 40.0)):
        moved = -training.learning_rate * lambda_ / 97 * start[place]
        assert torch.allclose(with_l2[place] - without[place], moved, atol=1e-7)
        assert torch.equal(with_l2[place + 1], without[place + 1])


def test_losses_are_reported_without_the_penalty() -> None:
    workload = WORKLOADS["regression"]
    (data,) = workload.folds(ROWS)
    still = replace(SGD, learning_rate=0.0)
    engine = workload.engine(still, [data])
    bare = run_alone(engine, Fit("one", Setting((1.0, 1.0), (0.0, 0.0)), 5, 0))
    heavy = run_alone(engine, Fit("one", Setting((1.0, 1.0), (1e6, 1e6)), 5, 0))
    assert losses_of(heavy.scores[0]) == losses_of(bare.scores[0])


@each_workload
def test_initial_weights_are_those_of_the_users_own_module_under_the_fits_seed(workload: Workload) -> None:
    (data,) = workload.folds(ROWS)
    one = fit(2, workload.layers)
    engine = workload.engine(ADAM, [data])
    torch.manual_seed(3)
    before = torch.get_rng_state()
    engine.admit([one])
    assert torch.equal(torch.get_rng_state(), before)  # the caller's generator is left alone
    for mine, theirs in zip(weights(engine), workload.plain(one, data, ADAM).network.parameters(), strict=True):
        assert torch.equal(mine, theirs)


@each_workload
def test_full_batch_descent_without_dropout_lowers_j_at_every_step(workload: Workload) -> None:
    (data,) = workload.folds(ROWS)
    lambda_ = 2.0
    one = Fit("one", Setting((1.0,) * workload.layers, (lambda_,) * workload.layers), 5, 0)
    training = Training(epochs=100, batch_size=97, optimizer="sgd", learning_rate=0.02)
    engine = workload.engine(training, [data])
    engine.admit([one])
    descent = []
    for _ in range(30):
        engine.train()
        seat = engine.seats[0]
        assert seat is not None
        norms = sum(
            float(engine.arena.weights[name][0].double().square().sum()) for name in engine.network.weight_names
        )
        descent.append(seat.scores[-1].train_loss + lambda_ / (2 * 97) * norms)
    assert all(later < earlier for earlier, later in pairwise(descent))
