"""The slots' memory: static tensors with a leading slot axis, filled and refilled in place.

Letters: K slots, L weight layers. Static means that a compiled step (or a captured graph) stays valid for ever.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from sweeper.engine.dropout import thresholds
from sweeper.networks import RegularizedNetwork
from sweeper.records import Fit

PROGRESS = ("step", "epoch", "best_loss", "best_epoch", "stale", "trained_loss")
"""What an `Arena` counts of a fit as it trains."""


class Arena:
    """K slots: weights, moments, best weights, and one number per slot of everything else.

    Attributes:
        weights, best: name -> `K x ...`, now and at the best epoch so far: all of a fit's parameters and buffers.
        moving: names of those that training changes; of the others, `best` is `weights`.
        moments: name -> the optimiser's state of what trains, each `K x ...`.
        thresholds, lambda_: `K x L` (int32, float64).
        seed, fold, step, epoch: int64 `K`; step and epoch count from 0 for each fit.
        active: bool `K`; a slot that is not active is computed along and never changes.
        best_loss, best_epoch, stale: `K`; stale = epochs since the best one.
        trained_loss: `K`, sum of row losses as trained in the running epoch.
    """

    def __init__(self, network: RegularizedNetwork, slots: int, moments: int, device: torch.device) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(slots, *shape, dtype=dtype, device=device)

        own = dict(network.module.named_parameters()) | dict(network.module.named_buffers())

        def stacked(name: str) -> Tensor:
            return zeros(*own[name].shape, dtype=own[name].dtype)

        self.moving = (*network.trained, *network.survey.moving)
        self.weights = {name: stacked(name) for name in (*network.trained, *network.kept)}
        self.best = {name: stacked(name) if name in self.moving else weight for name, weight in self.weights.items()}
        self.moments = {name: tuple(stacked(name) for _ in range(moments)) for name in network.trained}
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
        """Put a fit into a slot: its initial weights and buffers, and nothing left of whoever was there."""
        for name, weight in self.weights.items():
            weight[slot].copy_(initial[name])
            self.best[name][slot].copy_(initial[name])
            for moment in self.moments.get(name, ()):
                moment[slot].zero_()
        self.thresholds[slot] = thresholds(torch.tensor(fit.setting.keep_prob, dtype=torch.float64))
        self.lambda_[slot] = torch.tensor(fit.setting.lambda_, dtype=torch.float64)
        for counter in (self.step, self.epoch, self.best_epoch, self.stale, self.trained_loss):
            counter[slot] = 0
        self.seed[slot], self.fold[slot] = fit.seed, fit.fold
        self.best_loss[slot] = torch.inf
        self.active[slot] = True

    def state_of(self, slot: int) -> dict[str, Tensor]:
        """All that a fit in a slot has come to, by a name each, on the CPU: with its `Fit`, it goes on from there."""
        return {name: tensor[slot].detach().cpu().clone() for name, tensor in self._state().items()}

    def shapes(self) -> dict[str, tuple[torch.Size, torch.dtype]]:
        """What `state_of` holds, by name."""
        return {name: (tensor.shape[1:], tensor.dtype) for name, tensor in self._state().items()}

    def _state(self) -> dict[str, Tensor]:
        state = {f"weights/{name}": weight for name, weight in self.weights.items()}
        state |= {f"best/{name}": self.best[name] for name in self.moving}
        for name, moments in self.moments.items():
            state |= {f"moments/{number}/{name}": moment for number, moment in enumerate(moments)}
        return state | {f"fit/{name}": getattr(self, name) for name in PROGRESS}

    def resume(self, slot: int, state: Mapping[str, Tensor]) -> None:
        """Bring the fit that was just put into a slot to where another slot's `state_of` says."""
        for name, value in state.items():
            kind, _, rest = name.partition("/")
            if kind == "moments":
                number, _, rest = rest.partition("/")
                self.moments[rest][int(number)][slot].copy_(value)
            elif kind == "fit":
                getattr(self, rest)[slot] = value
            else:
                {"weights": self.weights, "best": self.best}[kind][rest][slot].copy_(value)

    @property
    def per_lane(self) -> dict[str, Tensor]:
        """Everything that is one number (or one row of L) per slot, by attribute."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def part(self, lanes: slice) -> Arena:
        """Some slots of this arena, on the same memory."""
        some = copy.copy(self)
        vars(some).update({name: _mapped(value, lambda tensor: tensor[lanes]) for name, value in vars(self).items()})
        return some

    def move(self, source: int, target: int) -> None:
        """Move a fit to another slot, whose content is overwritten; its own becomes inactive."""
        for value in vars(self).values():
            _mapped(value, lambda tensor: tensor[target].copy_(tensor[source]))
        self.active[source] = False

    def keep_best(self, validation_loss: Tensor) -> None:
        """Copy the weights of every active slot whose validation loss (`K`) is its lowest so far."""
        better = self.active & (validation_loss < self.best_loss)
        for name in self.moving:
            best = self.best[name]
            best.copy_(torch.where(better.view((-1,) + (1,) * (best.dim() - 1)), self.weights[name], best))
        self.best_loss.copy_(torch.where(better, validation_loss, self.best_loss))
        self.best_epoch.copy_(torch.where(better, self.epoch, self.best_epoch))
        self.stale.copy_(torch.where(better, 0, self.stale + 1))

    def best_of(self, slot: int) -> dict[str, Tensor]:
        """One slot's best weights, by name, as they stand in the module."""
        return {name: best[slot] for name, best in self.best.items()}


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nesting of dictionaries and tuples with every tensor changed."""
    return tree_map_only(Tensor, change, value)


def initial_weights(build: Callable[[], nn.Module], seed: int) -> dict[str, Tensor]:
    """The state that a user's own module starts from under `torch.manual_seed(seed)`, on the CPU: name -> value."""
    before = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)  # as torch.manual_seed, which also looks for GPUs, for a millisecond
    try:
        module = build()
    finally:
        torch.set_rng_state(before)
    return {name: tensor.detach() for name, tensor in (*module.named_parameters(), *module.named_buffers())}
