"""The engine takes any module: it does what a plain loop does, and a fit's result stays its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from engine import plain
from engine.test_promise import same
from engine.workloads import ADAM, SGD, build, fit, fold, run_all, run_alone
from sweeper.engine import Engine, can_compile
from sweeper.engine.meter import row_flops
from sweeper.errors import NetworkError
from sweeper.records import Fit, Fold, Outcome, Setting, Task, Training

pytestmark = pytest.mark.usefixtures("one_thread")

SIDE, CLASSES, LAYERS = 6, 4, 4
ROWS = ((97, 60, 50), (66, 40, 30))  # in batches of 32 the last holds one row, or two
each_optimizer = pytest.mark.parametrize("training", [ADAM, SGD], ids=["adam", "sgd"])


class Residual(nn.Module):
    """Convolutions (one per channel), batch and group normalisation, a residual; declared in another order than run.

    No biases before batch normalisation: their gradient is rounding alone, which Adam makes steps of.
    """

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, CLASSES)
        self.norms = nn.ModuleList([nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=None), nn.GroupNorm(2, 4)])
        self.apart = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.block = nn.Conv2d(4, 4, 3, padding="same", padding_mode="replicate", bias=False)
        self.drop = nn.Dropout2d(0.4)
        self.stem = nn.Conv2d(1, 4, 3, padding=1, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        maps = torch.relu(self.norms[0](self.stem(rows.view(-1, 1, SIDE, SIDE))))
        maps = nn.functional.max_pool2d(maps, 2)
        maps = maps + torch.relu(self.norms[1](self.block(self.drop(maps))))
        return self.out(self.norms[2](self.apart(maps)).mean((2, 3)))


PLACES = ("stem", "block", "apart", "out")  # as they run
FOLDS = [fold(Task.MULTICLASS, SIDE**2, rows, CLASSES, seed) for seed, rows in enumerate(ROWS)]
engine_of = partial(Engine, Residual, FOLDS, task=Task.MULTICLASS)
FITS = [fit(number, LAYERS, fold=number % 2) for number in range(5)]


class PlainFit:
    """A fit of any module as people write it: torch.optim, batches as short as they come, masks by their definition."""

    def __init__(self, make: Callable[[], nn.Module], fit: Fit, fold: Fold, training: Training, channels: bool) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fit.seed)
            self.module = make()
        self.fit, self.fold, self.training, self.channels = fit, fold, training, channels
        self.weights = [self.module.get_submodule(place) for place in PLACES]
        for layer, module in enumerate(self.weights):
            module.register_forward_pre_hook(partial(self._drop, layer))
        for module in self.module.modules():
            if isinstance(module, nn.Dropout2d):
                module.p = 0.0
        parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimizer: torch.optim.Optimizer = torch.optim.Adam(parameters, lr=training.learning_rate)
        if training.optimizer == "sgd":
            self.optimizer = torch.optim.SGD(parameters, lr=training.learning_rate, momentum=training.momentum)
        self.step = 0

    def _drop(self, layer: int, module: nn.Module, inputs: tuple[Tensor]) -> Tensor | None:
        if not module.training:
            return None
        (x,) = inputs
        keep, seed = self.fit.setting.keep_prob[layer], self.fit.seed
        if self.channels and isinstance(module, nn.Conv2d):
            return x * plain.mask(seed, layer, self.step, x.shape[:2], keep)[:, :, None, None]
        return x * plain.mask(seed, layer, self.step, x.shape, keep)

    def train_epoch(self, epoch: int) -> float:
        rows, total = len(self.fold.y_train), 0.0
        x, y = torch.from_numpy(self.fold.x_train), torch.from_numpy(self.fold.y_train)
        self.module.train()
        for batch in torch.from_numpy(plain.order(self.fit.seed, epoch, rows)).split(self.training.batch_size):
            loss = nn.functional.cross_entropy(self.module(x[batch]), y[batch])
            norms = [
                lambda_ * layer.weight.square().sum()
                for layer, lambda_ in zip(self.weights, self.fit.setting.lambda_, strict=True)
            ]
            self.optimizer.zero_grad()
            (loss + torch.stack(norms).sum() / (2 * rows)).backward()
            self.optimizer.step()
            self.step += 1
            total += float(loss.detach()) * len(batch)
        return total / rows

    def loss(self, part: str) -> float:
        x, y = (torch.from_numpy(getattr(self.fold, f"{name}_{part}")) for name in ("x", "y"))
        with torch.no_grad():
            return float(nn.functional.cross_entropy(self.module.eval()(x), y))


@each_optimizer
@pytest.mark.parametrize("per_channel", [False, True], ids=["per unit", "per channel"])
def test_it_does_what_a_plain_loop_does(training: Training, per_channel: bool) -> None:
    one, epochs = FITS[1], 3
    engine = engine_of(replace(training, epochs=epochs + 1, patience=0), slots=2, per_channel=per_channel)
    assert engine.network.places == PLACES
    theirs = PlainFit(Residual, one, FOLDS[1], training, per_channel)
    engine.admit([replace(FITS[0], key="company"), one])
    for epoch in range(epochs):
        score = engine.train().scores[one.key]
        expected = [theirs.train_epoch(epoch), theirs.loss("train"), theirs.loss("validation")]
        assert [score.train_loss_dropped, score.train_loss, score.validation_loss] == pytest.approx(expected, abs=1e-3)
    state = theirs.module.state_dict()
    for name, stacked in engine.arena.weights.items():
        assert torch.allclose(stacked[1].double(), state[name].double(), atol=2e-3), name
    assert int(engine.arena.weights["norms.0.num_batches_tracked"][1]) == 3 * epochs


@each_optimizer
def test_a_fits_result_is_its_own(training: Training) -> None:
    training = replace(training, epochs=3)
    together = run_all(engine_of(training, slots=3), FITS)  # five fits in three slots: some enter in mid-run
    alone = engine_of(training, slots=1)
    for one in FITS:
        assert same(together[one.key], run_alone(alone, one)), one.key


def test_a_neighbour_full_of_nan_changes_nothing() -> None:
    engine = engine_of(ADAM, slots=2)
    engine.admit([replace(FITS[0], key="sick")])
    engine.arena.weights["norms.0.running_var"][0].fill_(float("nan"))
    results = run_all(engine, FITS[1:2])
    assert results["sick"].outcome is Outcome.DIVERGED
    assert same(results[FITS[1].key], run_alone(engine_of(ADAM, slots=1), FITS[1]))


@pytest.mark.slow
@pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler")
def test_a_compiled_fits_result_is_its_own_too() -> None:
    training = replace(ADAM, epochs=2)
    together = run_all(engine_of(training, slots=3, compiled=True), FITS[:4])
    alone, eager = engine_of(training, slots=1, compiled=True), engine_of(training, slots=1)
    for one in FITS[:4]:
        assert same(together[one.key], run_alone(alone, one)), one.key
        assert together[one.key].test_loss == pytest.approx(run_alone(eager, one).test_loss, abs=1e-3)


def test_statistics_start_anew_with_a_fit_and_stand_still_without_one() -> None:
    engine = engine_of(replace(ADAM, patience=0), slots=3)
    engine.admit(FITS[:2])
    engine.train()
    names = [name for name in engine.arena.weights if "running" in name or "tracked" in name]
    empty = [engine.arena.weights[name][2] for name in names]
    assert all(not bool(value.any()) for value in empty)  # no fit was ever there
    engine.evict()
    engine.admit(FITS[2:3])
    assert torch.equal(engine.arena.weights["norms.0.running_var"][0], torch.ones(4))
    assert not bool(engine.arena.weights["norms.1.num_batches_tracked"][0])


def test_a_shorter_folds_statistics_wait_while_a_longer_one_trains_on() -> None:
    engine = engine_of(replace(ADAM, epochs=9, patience=0), slots=2)
    engine.admit(FITS[:2])
    engine.train()
    counted = engine.arena.weights["norms.0.num_batches_tracked"].tolist()
    assert counted == [4, 3]  # 97 and 66 rows


def test_statistics_of_the_best_epoch_are_kept_with_its_weights() -> None:
    overfits = replace(ADAM, epochs=12, learning_rate=0.05, patience=0)
    one = replace(FITS[0], setting=Setting((1.0,) * LAYERS, (0.0,) * LAYERS))
    engine = engine_of(overfits, slots=1)
    result = run_alone(engine, one)
    assert result.best_epoch < 12
    theirs = PlainFit(Residual, one, FOLDS[0], overfits, channels=False)
    for epoch in range(result.best_epoch):
        theirs.train_epoch(epoch)
    assert result.validation_loss == pytest.approx(theirs.loss("validation"), abs=2e-2)
    assert result.test_loss == pytest.approx(theirs.loss("test"), abs=2e-2)


# other modules --------------------------------------------------------------------------------------------------------


class Branching(nn.Module):
    """Asks its weights which way to go: vmap can't take it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(8, 9), nn.BatchNorm1d(9), nn.Linear(9, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        hidden = self.norm(self.first(rows))
        return self.last(torch.relu(hidden) if float(self.first.weight.detach().sum()) > 0 else torch.tanh(hidden))


class Straight(Branching):
    """What it computes where its weights say relu."""

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(rows))))


SMALL = [fold(Task.MULTICLASS, 8, rows, CLASSES, seed) for seed, rows in enumerate(((98, 60, 50), (66, 40, 30)))]
engine_on_small = partial(Engine, folds=SMALL, task=Task.MULTICLASS)


def test_a_module_that_vmap_can_not_take_trains_one_slot_at_a_time_and_says_so() -> None:
    fits = [fit(number, 2, fold=number % 2) for number in range(6)]
    one_by_one = engine_on_small(Branching, training=ADAM, slots=3)
    assert "calling .item()" in (one_by_one.obstacle or "")
    results = run_all(one_by_one, fits)
    alone = engine_on_small(Branching, training=ADAM, slots=1)
    assert all(same(results[one.key], run_alone(alone, one)) for one in fits)


def test_its_results_are_those_of_the_stacked_network() -> None:
    training, steered = replace(ADAM, epochs=3), 0
    stacked, branching = (engine_on_small(kind, training=training, slots=2) for kind in (Straight, Branching))
    for number in range(6):
        one = fit(number, 2, fold=number % 2)
        if all(float(w) > 0 for w in first_weight_sums(one, training)):
            steered += 1
            assert same(run_alone(stacked, one), run_alone(branching, one))
    assert steered


def first_weight_sums(one: Fit, training: Training) -> list[Tensor]:
    engine = engine_on_small(Straight, training=replace(training, epochs=9), slots=1)
    engine.admit([one])
    sums = [engine.arena.weights["first.weight"][0].sum()]
    for _ in range(training.epochs):
        engine.train()
        sums.append(engine.arena.weights["first.weight"][0].sum())
    return sums


@dataclass(frozen=True)
class Kind:
    make: Callable[[], nn.Module]
    layers: int


class Counting(nn.Module):
    """Keeps buffers of its own: one written to, one replaced, one that never changes."""

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, CLASSES)
        for name in ("steps", "replaced"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("features", torch.randn(8))

    def forward(self, rows: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
            self.replaced = self.replaced + 2
        return self.layer(rows * self.features)


KINDS = {
    "frozen": Kind(lambda: nn.Sequential(nn.Linear(8, 9).requires_grad_(False), nn.ReLU(), nn.Linear(9, CLASSES)), 1),
    "layer norm": Kind(lambda: nn.Sequential(nn.Linear(8, 9), nn.LayerNorm(9), nn.Linear(9, CLASSES)), 2),
    "attention": Kind(lambda: nn.Sequential(Attending(), nn.Linear(8, CLASSES)), 1),
    "recurrent": Kind(lambda: nn.Sequential(Recurrent(), nn.Linear(5, CLASSES)), 1),
    "shared": Kind(lambda: Shared(), 2),
    "counting": Kind(Counting, 1),
}


class Attending(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(2, 1, batch_first=True)

    def forward(self, rows: Tensor) -> Tensor:
        tokens = rows.view(-1, 4, 2)
        return self.attend(tokens, tokens, tokens, need_weights=False)[0].flatten(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(2, 5, batch_first=True)

    def forward(self, rows: Tensor) -> Tensor:
        return self.cell(rows.view(-1, 4, 2))[0][:, -1]


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.again, self.last = nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, rows: Tensor) -> Tensor:
        return self.last(torch.relu(self.again(torch.relu(self.again(rows)))))


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_all_kinds_of_modules_train_and_keep_their_results(kind: Kind) -> None:
    training = replace(ADAM, epochs=3)
    fits = [fit(number, kind.layers, fold=number % 2) for number in range(4)]
    together = run_all(engine_on_small(kind.make, training=training, slots=3), fits)
    alone = engine_on_small(kind.make, training=training, slots=1)
    for one in fits:
        assert same(together[one.key], run_alone(alone, one)), one.key
        losses = [score.train_loss for score in together[one.key].scores]
        assert losses[-1] < losses[0]


def small_engine(kind: Kind, slots: int = 2) -> Any:
    engine = engine_on_small(kind.make, training=replace(ADAM, epochs=9, patience=0), slots=slots)
    engine.admit([fit(number, kind.layers, fold=number % 2) for number in range(slots)])
    return engine


def test_frozen_parameters_stay_as_they_were_drawn() -> None:
    engine = small_engine(KINDS["frozen"])
    before = {name: value.clone() for name, value in engine.arena.weights.items()}
    engine.train()
    moved = {name for name, value in engine.arena.weights.items() if not torch.equal(value, before[name])}
    assert moved == {"2.weight", "2.bias"}
    assert not torch.equal(before["0.weight"][0], before["0.weight"][1])  # each fit drew its own


def test_buffers_of_ones_own_belong_to_a_fit() -> None:
    engine = small_engine(KINDS["counting"])
    engine.train()
    engine.train()
    assert engine.arena.weights["steps"].tolist() == [8, 6]  # two epochs of 98 and 66 rows
    assert engine.arena.weights["replaced"].tolist() == [16, 12]
    one = fit(0, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(one.seed)
        drawn = Counting()
    assert torch.equal(engine.arena.weights["features"][0], drawn.features)


def test_a_shared_layers_penalty_counts_once() -> None:
    """With a rate of 1 and one step of SGD without data's gradient, W becomes (1 - lambda / m) W."""
    flat = replace(SMALL[0], x_train=np.zeros_like(SMALL[0].x_train))

    class Silent(Shared):
        def forward(self, rows: Tensor) -> Tensor:
            return super().forward(rows) * 0

    still = Training(epochs=9, batch_size=98, optimizer="sgd", learning_rate=1.0)
    engine = Engine(Silent, [flat], still, Task.MULTICLASS, slots=1)
    engine.admit([Fit("one", Setting((1.0, 1.0), (49.0, 9.8)), 5, 0)])
    before = {name: value.clone() for name, value in engine.arena.weights.items()}
    engine.train()
    for name, factor in (("again.weight", 0.5), ("last.weight", 0.9), ("again.bias", 1.0)):
        assert torch.allclose(engine.arena.weights[name], factor * before[name], atol=1e-6)


REFUSED = [
    (build(8, (9,), 3), ADAM, "makes B x 3 of B rows, but multiclass needs B x C with C = at least 4"),
    (
        lambda: nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)),
        replace(ADAM, batch_size=97),
        "98 training",
    ),
    (build(7, (9,), 4), ADAM, r"fails on a batch of 8 x 8"),
]


@pytest.mark.parametrize(("make", "training", "message"), REFUSED)
def test_what_does_not_fit_is_refused_before_training(
    make: Callable[[], nn.Module], training: Training, message: str
) -> None:
    with pytest.raises(NetworkError, match=message):
        engine_on_small(make, training=training, slots=1)


def test_operations_of_a_row_are_those_of_the_plain_module() -> None:
    places, taps, channels = SIDE**2, 9, 4
    stem, rest = places * taps * channels, places // 4 * taps
    forward = stem + rest * channels**2 + rest * channels + channels * CLASSES
    flops = row_flops(Residual(), (SIDE**2,))
    assert flops.evaluate == 2 * forward
    assert flops.train == 2 * (3 * forward - stem)  # nothing needs the gradient of the input
