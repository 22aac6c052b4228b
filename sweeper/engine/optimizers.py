"""Adam and SGD for K slots at once, each slot with its own step counter and learning rate.

PyTorch's own optimisers keep one step for all slots of a tensor, so a fit that enters a used slot would get the wrong
bias correction. The formulas are those of torch.optim; L2 is already part of the gradient (coupled, R5).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sweeper.errors import EngineError
from sweeper.records import Training


class Optimizer(ABC):
    """One update rule. Its state is `moments` tensors, each shaped like the parameter."""

    moments: int

    @abstractmethod
    def step_sizes(self, learning_rate: Tensor, step: Tensor) -> tuple[Tensor, ...]:
        """What depends on the slot and its step alone.

        Args:
            learning_rate: float32 `K`.
            step: int64 `K`, steps done before this one.

        Returns:
            Tensors of shape `K`, handed to `updated`.
        """

    @abstractmethod
    def updated(
        self, parameter: Tensor, gradient: Tensor, moments: tuple[Tensor, ...], sizes: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The parameter and its moments after one step; all `K x ...`, `sizes` broadcastable against them."""


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma & Ba 2015) as torch.optim.Adam computes it, without amsgrad."""

    beta1: float
    beta2: float
    epsilon: float
    moments = 2

    def step_sizes(self, learning_rate: Tensor, step: Tensor) -> tuple[Tensor, ...]:
        """Bias corrections: lr / (1 - beta1^t) and sqrt(1 - beta2^t), computed in float64."""
        t = (step + 1).to(torch.float64)
        scale = learning_rate / (1 - self.beta1**t)
        return scale.to(torch.float32), (1 - self.beta2**t).sqrt().to(torch.float32)

    def updated(
        self, parameter: Tensor, gradient: Tensor, moments: tuple[Tensor, ...], sizes: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Optimizer.updated`."""
        first = torch.lerp(moments[0], gradient, 1 - self.beta1)
        second = self.beta2 * moments[1] + (1 - self.beta2) * gradient * gradient
        scale, correction = sizes
        return parameter - scale * first / (second.sqrt() / correction + self.epsilon), (first, second)


@dataclass(frozen=True)
class Sgd(Optimizer):
    """Gradient descent with momentum as torch.optim.SGD computes it, without dampening or Nesterov."""

    momentum: float
    moments = 1

    def step_sizes(self, learning_rate: Tensor, step: Tensor) -> tuple[Tensor, ...]:
        """The learning rate."""
        del step
        return (learning_rate,)

    def updated(
        self, parameter: Tensor, gradient: Tensor, moments: tuple[Tensor, ...], sizes: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """See `Optimizer.updated`."""
        velocity = self.momentum * moments[0] + gradient  # from zero, so the first step is the gradient itself
        return parameter - sizes[0] * velocity, (velocity,)


def optimizer_of(training: Training) -> Optimizer:
    """The optimiser that a training asks for.

    Raises:
        EngineError: there is no such optimiser.
    """
    if training.optimizer == "adam":
        return Adam(training.beta1, training.beta2, training.epsilon)
    if training.optimizer == "sgd":
        return Sgd(training.momentum)
    raise EngineError(f"optimizer {training.optimizer!r} is not known. Choose adam or sgd.")
