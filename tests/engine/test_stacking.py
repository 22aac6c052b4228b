"""Which modules train beside each other, and that the others come out the same one at a time."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from engine.workloads import build
from networks.test_survey import Module
from sweeper.engine.layers import in_slots
from sweeper.engine.optimizers import Adam
from sweeper.engine.stacking import _batch, can_stack, stacking_obstacle
from sweeper.engine.step import Batch, row_scores, train_step
from sweeper.errors import NetworkError
from sweeper.networks import RegularizedNetwork, regularize
from sweeper.records import Task

pytestmark = pytest.mark.usefixtures("one_thread")
ROWS = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


class Squared(torch.autograd.Function):
    """Without a setup_context, as functions of one's own were written before torch.func."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 2 * x * gradient


class NoWayBack(torch.autograd.Function):
    """Runs, but can't be differentiated."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return x * x


def network(module: nn.Module) -> RegularizedNetwork:
    return regularize(module, ROWS, in_slots())


def between(run: Callable[[Tensor], Tensor], **parts: nn.Module) -> nn.Module:
    def through(m: Module, x: Tensor) -> Tensor:
        return m.last(run(m.first(x)))

    return Module(through, first=nn.Linear(6, 9), last=nn.Linear(9, 3), **parts)


def branching(m: Module, x: Tensor) -> Tensor:
    hidden = m.first(x)
    return m.last(torch.relu(hidden) if float(m.first.weight.detach().sum()) > 0 else torch.tanh(hidden))


def einsum(m: Module, x: Tensor) -> Tensor:
    return m.last(x) + torch.einsum("bi,oi->bo", x, m.free)


STACKED = {
    "perceptron": build(6, (9, 9), 3),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 3)),
        nn.Conv1d(2, 4, 3, padding=1),
        nn.BatchNorm1d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, 3),
    ),
    "layer norm": lambda: nn.Sequential(nn.Linear(6, 9), nn.LayerNorm(9), nn.GELU(), nn.Linear(9, 3)),
    "group norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.GroupNorm(2, 8), nn.PReLU(), nn.Linear(8, 3)),
    "no batched form": lambda: Module(
        lambda m, x: m.last(m.both(x, x)), both=nn.Bilinear(6, 6, 4), last=nn.Linear(4, 3)
    ),
}


@pytest.mark.parametrize("make", STACKED.values(), ids=STACKED.keys())
def test_these_train_together(make: Callable[[], nn.Module]) -> None:
    assert can_stack(network(make()), ROWS)


ALONE = {
    "a branch on a weight": (
        lambda: Module(branching, first=nn.Linear(6, 9), last=nn.Linear(9, 3)),
        "vmap can't take it: RuntimeError: vmap: It looks like you're either .1. calling .item..",
    ),
    "a function of one's own": (lambda: between(Squared.apply), "must override the setup_context"),
    "a recurrent layer": (
        lambda: Module(
            lambda m, x: m.last(m.cell(x.view(-1, 3, 2))[0][:, -1]),
            cell=nn.LSTM(2, 4, batch_first=True),
            last=nn.Linear(4, 3),
        ),
        "Batching rule not implemented for aten::lstm",
    ),
    "a convolution that is none of ours": (
        lambda: Module(
            lambda m, x: m.last(m.up(x.view(-1, 6, 1)).flatten(1)), up=nn.ConvTranspose1d(6, 3, 3), last=nn.Linear(9, 3)
        ),
        r"kernel for convolution of 8x12x1 by 12x3x3 is chosen by how many slots there are$",
    ),
    "a small product of its own": (
        lambda: Module(einsum, last=nn.Linear(6, 3), free=nn.Parameter(torch.randn(3, 6))),
        r"kernel for bmm of .* is chosen by how many slots there are \(compiled code brings its own\)",
    ),
}


@pytest.mark.parametrize(("make", "reason"), ALONE.values(), ids=ALONE.keys())
def test_these_train_one_at_a_time_and_it_is_said_why(make: Callable[[], nn.Module], reason: str) -> None:
    obstacle = stacking_obstacle(network(make()), ROWS)
    assert obstacle is not None
    assert re.search(reason, obstacle), obstacle


def test_compiled_code_and_a_gpu_know_fewer_obstacles() -> None:
    own_product = network(ALONE["a small product of its own"][0]())
    assert not can_stack(own_product, ROWS)
    assert can_stack(own_product, ROWS, compiled=True)
    up = network(ALONE["a convolution that is none of ours"][0]())
    assert not can_stack(up, ROWS, compiled=True)
    assert can_stack(up, ROWS, device="cuda")


def test_what_can_not_be_differentiated_is_refused() -> None:
    with pytest.raises(NetworkError, match="the network runs, but can't be trained for a step"):
        stacking_obstacle(network(between(NoWayBack.apply)), ROWS)


def test_looking_changes_nothing() -> None:
    one = network(STACKED["convolution"]())
    before = {name: value.clone() for name, value in one.module.state_dict().items()}
    can_stack(one, ROWS)
    assert all(torch.equal(value, before[name]) for name, value in one.module.state_dict().items())


# PyTorch's fused norms round in another order than their parts, which vmap has to take
TOLERANCES = {name: 1e-6 if "norm" in name else 0.0 for name in STACKED}


def sliced(batch: Batch, slot: int) -> Batch:
    own = slice(slot, slot + 1)
    return Batch(
        **{
            name: tuple(size[own] for size in value) if isinstance(value, tuple) else value[own]
            for name, value in vars(batch).items()
        }
    )


@pytest.mark.parametrize("name", STACKED)
def test_a_step_alone_is_a_step_together(name: str) -> None:
    one, slots, slot = network(STACKED[name]()), 3, 1
    x, y = ROWS[None], torch.arange(8).remainder(3)[None]
    own = dict(one.module.named_parameters()) | dict(one.module.named_buffers())
    state = {key: torch.stack([own[key]] * slots).detach() for key in (*one.trained, *one.kept)}
    moments = {key: (torch.zeros_like(state[key]), torch.zeros_like(state[key])) for key in one.trained}
    sizes = torch.full((slots,), 0.01), torch.ones(slots)
    batch = replace(_batch(one, slots, x), sizes=sizes, rows=torch.tensor([8, 5, 3]))
    my_state = {key: value[[slot]] for key, value in state.items()}
    my_moments = {key: tuple(value[[slot]] for value in values) for key, values in moments.items()}
    step, my_step = (train_step(one, Task.MULTICLASS, Adam(0.9, 0.999, 1e-8), together=each) for each in (True, False))
    scores, my_scores = (row_scores(one, Task.MULTICLASS, together=each) for each in (True, False))
    with torch.no_grad():
        for _ in range(3):
            loss, my_loss = step(state, moments, x, y, batch), my_step(my_state, my_moments, x, y, sliced(batch, slot))
        pairs = [(loss, my_loss), *((state[key], my_state[key]) for key in state)]
        pairs += zip(scores(state, x, y, batch.fold), my_scores(my_state, x, y, batch.fold[:1]), strict=True)
    assert not torch.equal(my_state[one.weight_names[0]][0], own[one.weight_names[0]])  # something was learnt
    for together, alone in pairs:
        assert torch.allclose(together[[slot]], alone, rtol=TOLERANCES[name], atol=TOLERANCES[name])
