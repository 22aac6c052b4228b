"""The two functions that do the work: one training step, one evaluation, each for all slots at once.

Letters: K slots, L weight layers, S folds, M training rows of the longest fold, B rows of a batch, R rows evaluated.
A slot's loss is its own mean and slots are summed, so no gradient crosses over; a slot that is not active is computed
along and left as it was. Everything that a new fit changes is a tensor: a refill recompiles nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from sweeper.engine.losses import row_losses, row_metrics
from sweeper.engine.optimizers import Optimizer
from sweeper.networks import RegularizedNetwork
from sweeper.records import Task

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """What one step needs beside the weights.

    Attributes:
        keys: int32 `K x L x 2`, the masks' keys.
        thresholds: int32 `K x L`, see `dropout.thresholds`.
        decay: float32 `K x L`, lambda_l / m.
        sizes: the optimiser's step sizes, each `K`.
        fold: int64 `K`. index: int64 `K x B`, rows of the fold. rows: int64 `K`, how many of the B are real.
        active: bool `K`.
    """

    keys: Tensor
    thresholds: Tensor
    decay: Tensor
    sizes: tuple[Tensor, ...]
    fold: Tensor
    index: Tensor
    rows: Tensor
    active: Tensor


TrainStep = Callable[[Tensors, dict[str, tuple[Tensor, ...]], Tensor, Tensor, Batch], Tensor]
RowScores = Callable[[Tensors, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def train_step(network: RegularizedNetwork, task: Task, optimizer: Optimizer) -> TrainStep:
    """Build the step `(weights, moments, x, y, batch) -> summed row losses, K`, which updates its first two in place.

    Args:
        network: its module is put into training mode.
        task: which loss.
        optimizer: which update.
    """
    module = network.module.train()
    penalised = {name: layer for layer, name in enumerate(network.weight_names)}

    def slot_loss(weights: Tensors, dropouts: Tensors, x: Tensor, y: Tensor, rows: Tensor) -> Tensor:
        output = functional_call(module, {**weights, **dropouts}, (x,))
        real = torch.arange(y.shape[0], device=y.device) < rows
        return torch.where(real, row_losses(task, output, y), 0.0).sum() / rows.clamp(min=1)

    slot_gradients = vmap(grad_and_value(slot_loss))

    def step(weights: Tensors, moments: dict[str, tuple[Tensor, ...]], x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        at = batch.fold[:, None], batch.index
        dropouts = dropout_buffers(network, batch.keys, batch.thresholds)
        gradients, loss = slot_gradients(weights, dropouts, x[at], y[at], batch.rows)
        for name, weight in weights.items():
            wide = (-1,) + (1,) * (weight.dim() - 1)
            gradient = gradients[name]
            if name in penalised:
                gradient = gradient + batch.decay[:, penalised[name]].view(wide) * weight
            sizes = tuple(size.view(wide) for size in batch.sizes)
            new, state = optimizer.updated(weight, gradient, moments[name], sizes)
            _keep_where(batch.active.view(wide), weight, new)
            for old, moment in zip(moments[name], state, strict=True):
                _keep_where(batch.active.view(wide), old, moment)
        return torch.where(batch.active, loss.detach() * batch.rows, 0.0)

    return step


def _keep_where(active: Tensor, old: Tensor, new: Tensor) -> None:
    old.copy_(torch.where(active, new, old))


def dropout_buffers(network: RegularizedNetwork, keys: Tensor, thresholds: Tensor) -> Tensors:
    """The dropouts' buffers by name, from `... x L x 2` keys and `... x L` thresholds."""
    buffers = {}
    for layer, name in enumerate(network.places):
        buffers[f"{name}.key0"] = keys[..., layer, 0]
        buffers[f"{name}.key1"] = keys[..., layer, 1]
        buffers[f"{name}.threshold"] = thresholds[..., layer]
    return buffers


def row_scores(network: RegularizedNetwork, task: Task) -> RowScores:
    """Build `(weights, x, y, fold) -> losses and metrics of every row, K x R each`, dropout off (R1).

    Means are left to `losses.mean_over_rows`: compiled code may split a sum by the number of threads.

    Args:
        network: is copied, for its own evaluation mode.
        task: which loss and metric.
    """
    module = copy.deepcopy(network.module).eval()

    def slot_output(weights: Tensors, x: Tensor) -> Any:
        return functional_call(module, weights, (x,))

    outputs = vmap(slot_output)

    def scores(weights: Tensors, x: Tensor, y: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
        output, target = outputs(weights, x[fold]), y[fold]
        return row_losses(task, output, target), row_metrics(task, output, target)

    return scores
