"""`sweeper.regularize`: the same dropout and penalty in a training loop of one's own."""

from __future__ import annotations

import copy
import doctest
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import sweeper
from engine import plain
from engine.test_modules import FITS, FOLDS, Residual, engine_of
from engine.workloads import SGD
from sweeper.engine import own_loop
from sweeper.engine.own_loop import Regularized
from sweeper.errors import SettingError
from sweeper.networks import mlp
from sweeper.records import Setting

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
SIZES = (6, 40, 40, 3)


def network(**options: object) -> Regularized:
    torch.manual_seed(1)
    made: Regularized = sweeper.regularize(mlp(SIZES[0], SIZES[1:-1], SIZES[-1]), ROWS[:4], **options)
    return made


def seen(module: Regularized) -> list[Tensor]:
    """The inputs of the weight layers in one pass, behind their gates."""
    inputs: list[Tensor] = []
    hooks = [
        module.module.get_submodule(layer.name).register_forward_hook(lambda _, args, __: inputs.append(args[0]))
        for layer in module.survey.layers
    ]
    module(ROWS)
    for hook in hooks:
        hook.remove()
    return inputs


def test_its_example_runs() -> None:
    failed, tried = doctest.testmod(own_loop)
    assert tried > 5
    assert not failed


def test_the_package_is_light_until_it_is_asked_for() -> None:
    code = "import sys, sweeper; print('torch' in sys.modules); sweeper.regularize; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.split() == ["False", "True"], run.stderr
    with pytest.raises(AttributeError, match="module 'sweeper' has no attribute 'regularise'"):
        _ = sweeper.regularise


def test_evaluation_and_keep_prob_1_are_the_plain_module_bit_for_bit() -> None:
    dropped = network(keep_prob=0.5)
    plainly = dropped.module(ROWS) if not dropped.training else copy.deepcopy(dropped.module).eval()(ROWS)
    bare = network()
    assert torch.equal(bare(ROWS), bare.module.eval()(ROWS))
    assert not torch.equal(dropped(ROWS), dropped.eval()(ROWS))
    assert plainly.shape == (50, 3)


@pytest.mark.parametrize("seed", [None, 3])
def test_each_layer_keeps_its_own_share(seed: int | None) -> None:
    one = network(keep_prob=(0.9, 0.5, 0.7), seed=seed)
    for layer in (one.module[0], one.module[2]):  # so that no unit is 0 by itself
        layer.weight.data.zero_()
        layer.bias.data.fill_(9.0)
    for keep, inputs in zip(one.keep_prob, seen(one), strict=True):
        kept = float((inputs != 0).double().mean())
        assert kept == pytest.approx(keep, abs=4 * (keep * (1 - keep) / inputs.numel()) ** 0.5)


def test_what_is_kept_is_scaled() -> None:
    (inputs,) = seen(sweeper.regularize(nn.Linear(6, 2), ROWS, keep_prob=[0.5]))
    kept = inputs != 0
    assert torch.equal(inputs[kept], 2 * ROWS[kept])


def test_with_a_seed_the_masks_are_those_of_the_definition() -> None:
    one = network(keep_prob=(0.9, 0.5, 0.7), seed=11)
    for step in range(3):
        assert one.step == step
        assert torch.allclose(seen(one)[0], ROWS * plain.mask(11, 0, step, ROWS.shape, 0.9))
    one.eval()(ROWS)
    assert one.step == 3  # evaluation is no step
    one.step = 0
    assert torch.allclose(seen(one.train())[0], ROWS * plain.mask(11, 0, 0, ROWS.shape, 0.9))


def test_with_a_generator_the_masks_are_its() -> None:
    outputs = []
    for seed in (5, 5, 6):
        one = network(keep_prob=0.5, generator=torch.Generator().manual_seed(seed))
        state = torch.get_rng_state()
        outputs.append(one(ROWS))
        assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])


def test_a_plain_loop_around_it_gives_the_engines_fit() -> None:
    """Convolutions, batch normalisation and all; only the order of rows comes from elsewhere."""
    one, data = FITS[1], FOLDS[1]
    engine = engine_of(SGD, slots=1)
    engine.admit([one])
    torch.manual_seed(one.seed)
    keep, lambda_ = one.setting.keep_prob, one.setting.lambda_
    x, y = torch.from_numpy(data.x_train), torch.from_numpy(data.y_train)
    with pytest.warns(UserWarning, match=r"the module's own dropouts \(drop\) are replaced by the identity"):
        module = sweeper.regularize(Residual(), x[:4], keep_prob=keep, lambda_=lambda_, seed=one.seed)
    optimizer = torch.optim.SGD(module.parameters(), lr=SGD.learning_rate, momentum=SGD.momentum)
    for epoch in range(2):
        engine.train()
        for rows in torch.from_numpy(plain.order(one.seed, epoch, len(y))).split(SGD.batch_size):
            loss = nn.functional.cross_entropy(module(x[rows]), y[rows]) + module.penalty(rows=len(y))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    for name, value in module.module.state_dict().items():
        assert torch.allclose(engine.arena.weights[name][0].double(), value.double(), atol=1e-4), name


def test_the_penalty_is_that_of_the_lectures() -> None:
    one = network(lambda_=(1.0, 0.0, 30.0))
    weights = [layer.weight.detach() for layer in one.module if isinstance(layer, nn.Linear)]
    expected = (1.0 * float(weights[0].norm()) ** 2 + 30.0 * float(weights[2].norm()) ** 2) / (2 * 77)
    assert float(one.penalty(rows=77).detach()) == pytest.approx(expected, rel=1e-5)
    one.penalty(rows=77).backward()
    assert torch.allclose(one.module[4].weight.grad, 30.0 / 77 * weights[2], rtol=1e-5)
    assert not bool(one.module[2].weight.grad.any())
    assert one.module[0].bias.grad is None


def test_settings_can_be_changed_and_one_number_serves_all_layers_but_the_input() -> None:
    one = network(keep_prob=0.5, lambda_=2)
    assert (one.keep_prob, one.lambda_) == ((1.0, 0.5, 0.5), (2.0, 2.0, 2.0))
    one.keep_prob, one.lambda_ = (1, 1, 0.7), [0, 0, 1]
    assert (one.keep_prob, one.lambda_) == ((1.0, 1.0, 0.7), (0.0, 0.0, 1.0))


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SettingError, match=r"2 keep_prob were given for 3 weight layers \(0, 2, 4\)"):
        network(keep_prob=(1.0, 0.5))
    one = network()
    with pytest.raises(SettingError, match="lies outside"):
        one.keep_prob = (1.0, 0.5, 0.0)
    with pytest.raises(SettingError, match="lambda_"):
        one.lambda_ = -1
    assert one.keep_prob == Setting((1.0,) * 3, (0.0,) * 3).keep_prob


def test_channels_are_dropped_as_a_whole_on_request() -> None:
    for seed in (None, 4):
        made = sweeper.regularize(
            nn.Sequential(nn.Unflatten(1, (3, 2)), nn.Conv1d(3, 3, 1), nn.Flatten(), nn.Linear(6, 2)),
            ROWS[:4],
            keep_prob=(0.5, 0.5),
            per_channel=True,
            seed=seed,
        )
        maps, units = (inputs != 0 for inputs in seen(made))
        assert torch.equal(maps[..., 0], maps[..., 1])
        assert not torch.equal(units[:, ::2], units[:, 1::2])


def test_a_copy_has_gates_of_its_own() -> None:
    one = network(keep_prob=0.5, seed=1)
    other = copy.deepcopy(one)
    other.keep_prob = 1.0
    assert torch.equal(other(ROWS), other.eval()(ROWS))
    assert not torch.equal(one(ROWS), one.eval()(ROWS))


def test_a_module_may_take_several_inputs() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.left, self.right = nn.Linear(6, 2), nn.Linear(3, 2)

        def forward(self, a: Tensor, b: Tensor, sign: int = 1) -> Tensor:
            return self.right(b) + sign * self.left(a)

    made = sweeper.regularize(Pair(), (ROWS, ROWS[:, :3]), keep_prob=(1.0, 0.5))
    assert [layer.name for layer in made.survey.layers] == ["right", "left"]
    assert made(ROWS, ROWS[:, :3], sign=-1).shape == (50, 2)
