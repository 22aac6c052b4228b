"""Adam and SGD of each slot are torch.optim's, whatever its neighbours' step counts and learning rates."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sweeper.engine.optimizers import Adam, Optimizer, Sgd

STEPS = 30
ENTERS = (0, 4, 17)  # the step at which each slot's fit comes in
RATES = (0.1, 0.01, 0.003)
SHAPE = (5, 7)
Theirs = Callable[[Tensor, float], torch.optim.Optimizer]

CASES: dict[str, tuple[Optimizer, Theirs]] = {
    "adam": (Adam(0.9, 0.999, 1e-8), lambda p, lr: torch.optim.Adam([p], lr)),
    "adam with other betas": (
        Adam(0.5, 0.9, 1e-3),
        lambda p, lr: torch.optim.Adam([p], lr, betas=(0.5, 0.9), eps=1e-3),
    ),
    "sgd": (Sgd(0.0), lambda p, lr: torch.optim.SGD([p], lr)),
    "sgd with momentum": (Sgd(0.9), lambda p, lr: torch.optim.SGD([p], lr, momentum=0.9)),
}


def gradients() -> Tensor:
    """`STEPS x slots x ...`, of very unequal sizes."""
    generator = torch.Generator().manual_seed(0)
    size = torch.logspace(-3, 1, STEPS)[torch.randperm(STEPS, generator=generator)]
    return torch.randn(STEPS, len(ENTERS), *SHAPE, generator=generator) * size.view(-1, 1, 1, 1)


def start() -> Tensor:
    return torch.randn(len(ENTERS), *SHAPE, generator=torch.Generator().manual_seed(1))


def ours(optimizer: Optimizer) -> Tensor:
    """All slots at once; a slot starts anew, moments and counter, at its entering step."""
    parameter, rate = start(), torch.tensor(RATES)
    moments = tuple(torch.zeros_like(parameter) for _ in range(optimizer.moments))
    step = torch.zeros(len(ENTERS), dtype=torch.int64)
    for t, gradient in enumerate(gradients()):
        for slot, enters in enumerate(ENTERS):
            if t == enters:
                parameter[slot], step[slot] = start()[slot], 0
                for moment in moments:
                    moment[slot] = 0
        sizes = tuple(size.view(-1, 1, 1) for size in optimizer.step_sizes(rate, step))
        parameter, moments = optimizer.updated(parameter, gradient, moments, sizes)
        step += 1
    return parameter


def theirs(make: Theirs, slot: int) -> Tensor:
    parameter = start()[slot].clone().requires_grad_()
    optimizer = make(parameter, RATES[slot])
    for gradient in gradients()[ENTERS[slot] :, slot]:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach()


@pytest.mark.parametrize(("optimizer", "make"), CASES.values(), ids=CASES.keys())
def test_each_slot_takes_the_steps_of_torch_optim(optimizer: Optimizer, make: Theirs) -> None:
    mine = ours(optimizer)
    for slot in range(len(ENTERS)):
        assert torch.allclose(mine[slot], theirs(make, slot), atol=2e-6)
        assert not torch.allclose(mine[slot], start()[slot], atol=1e-2)
