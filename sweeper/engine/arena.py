"""The slots' memory: static tensors with a leading slot axis, filled and refilled in place.

Letters: K slots, L weight layers. Static means that a compiled step (or a captured graph) stays valid for ever.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sweeper.engine.dropout import thresholds
from sweeper.networks import RegularizedNetwork
from sweeper.records import Fit


class Arena:
    """K slots: weights, moments, best weights, and one number per slot of everything else.

    Attributes:
        weights, best: name -> `K x ...`, now and at the best epoch so far.
        moments: name -> the optimiser's state, each `K x ...`.
        thresholds, lambda_: `K x L` (int32, float64).
        seed, fold, step, epoch: int64 `K`; step and epoch count from 0 for each fit.
        active: bool `K`; a slot that is not active is computed along and never changes.
        best_loss, best_epoch, stale: `K`; stale = epochs since the best one.
        trained_loss: `K`, sum of row losses as trained in the running epoch.
    """

    def __init__(self, network: RegularizedNetwork, slots: int, moments: int, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        shapes = {name: weight.shape for name, weight in network.module.named_parameters()}
        self.weights = {name: zeros(*shape, dtype=torch.float32) for name, shape in shapes.items()}
        self.best = {name: zeros(*shape, dtype=torch.float32) for name, shape in shapes.items()}
        self.moments = {
            name: tuple(zeros(*shape, dtype=torch.float32) for _ in range(moments)) for name, shape in shapes.items()
        }
        self.thresholds = zeros(network.layers, dtype=torch.int32)
        self.lambda_ = zeros(network.layers, dtype=torch.float64)
        self.seed, self.fold, self.step, self.epoch = zeros(), zeros(), zeros(), zeros()
        self.active = zeros(dtype=torch.bool)
        self.best_loss, self.trained_loss = zeros(dtype=torch.float32), zeros(dtype=torch.float32)
        self.best_epoch, self.stale = zeros(), zeros()

    @property
    def lanes(self) -> int:
        """K."""
        return int(self.active.shape[0])

    def fill(self, slot: int, fit: Fit, initial: dict[str, Tensor]) -> None:
        """Put a fit into a slot: its initial weights, and nothing left of whoever was there."""
        for name, weight in initial.items():
            self.weights[name][slot].copy_(weight)
            self.best[name][slot].copy_(weight)
            for moment in self.moments[name]:
                moment[slot].zero_()
        self.thresholds[slot] = thresholds(torch.tensor(fit.setting.keep_prob, dtype=torch.float64))
        self.lambda_[slot] = torch.tensor(fit.setting.lambda_, dtype=torch.float64)
        for counter in (self.step, self.epoch, self.best_epoch, self.stale, self.trained_loss):
            counter[slot] = 0
        self.seed[slot], self.fold[slot] = fit.seed, fit.fold
        self.best_loss[slot] = torch.inf
        self.active[slot] = True

    def keep_best(self, validation_loss: Tensor) -> None:
        """Copy the weights of every active slot whose validation loss (`K`) is its lowest so far."""
        better = self.active & (validation_loss < self.best_loss)
        for name, best in self.best.items():
            best.copy_(torch.where(better.view((-1,) + (1,) * (best.dim() - 1)), self.weights[name], best))
        self.best_loss.copy_(torch.where(better, validation_loss, self.best_loss))
        self.best_epoch.copy_(torch.where(better, self.epoch, self.best_epoch))
        self.stale.copy_(torch.where(better, 0, self.stale + 1))

    def best_of(self, slot: int) -> dict[str, Tensor]:
        """One slot's best weights, by name, as they stand in the module."""
        return {name: best[slot] for name, best in self.best.items()}


def initial_weights(build: Callable[[], nn.Module], seed: int) -> list[Tensor]:
    """The weights that a user's own module starts from under `torch.manual_seed(seed)`, on the CPU."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # as torch.manual_seed, which also looks for GPUs, for a millisecond
    try:
        return [parameter.detach() for parameter in build().parameters()]
    finally:
        torch.set_rng_state(before)
