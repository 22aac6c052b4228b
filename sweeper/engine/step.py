"""The two functions that do the work: one training step, one evaluation, each for all slots at once.

Letters: K slots, L weight layers, S folds, M training rows of the longest fold, B rows of a batch, R rows evaluated.
A slot's loss is its own mean and slots are summed, so no gradient crosses over; a slot that is not active is computed
along and left as it was. Everything that a new fit changes is a tensor: a refill recompiles nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap
from torch.utils._pytree import tree_map_only

from sweeper.engine.layers import Dropped
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


def train_step(network: RegularizedNetwork, task: Task, optimizer: Optimizer, *, together: bool = True) -> TrainStep:
    """Build the step `(weights, moments, x, y, batch) -> summed row losses, K`, which updates its first two in place.

    `weights` holds a fit's whole state: what trains (that has moments), frozen parameters, and buffers.

    Args:
        network: its module is put into training mode.
        task: which loss.
        optimizer: which update.
        together: for K slots at once; False runs a module that vmap can't take, with K = 1. The numbers are the same,
            bit for bit but for PyTorch's fused normalisations (LayerNorm, GroupNorm: 1e-6), whose parts vmap takes.
    """
    module = network.module.train()
    penalised = {name: layer for layer, name in enumerate(network.weight_names)}

    def slot_loss(weights: Tensors, rest: Tensors, x: Tensor, y: Tensor, rows: Tensor) -> tuple[Tensor, Tensors]:
        output, moved = _run(network, module, {**rest, **weights}, x)
        real = torch.arange(y.shape[0], device=y.device) < rows
        return torch.where(real, row_losses(task, output, y), 0.0).sum() / rows.clamp(min=1), moved

    slot_gradients: Callable[..., Any] = (
        vmap(grad_and_value(slot_loss, has_aux=True)) if together else _alone(_plain_gradients(slot_loss))
    )

    def step(weights: Tensors, moments: dict[str, tuple[Tensor, ...]], x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        at = batch.fold[:, None], batch.index
        trained = {name: weights[name] for name in network.trained}
        rest = {name: weights[name] for name in network.kept} | dials(network, batch)
        # a module may write to its buffers, and only an active slot keeps that
        rest |= {name: weights[name].clone() for name in network.survey.moving}
        gradients, (loss, moved) = slot_gradients(trained, rest, x[at], y[at], batch.rows)
        for name, weight in trained.items():
            gradient = gradients[name]
            if name in penalised:
                gradient = gradient + _wide(batch.decay[:, penalised[name]], weight) * weight
            sizes = tuple(_wide(size, weight) for size in batch.sizes)
            new, state = optimizer.updated(weight, gradient, moments[name], sizes)
            _keep_where(batch.active, weight, new)
            for old, moment in zip(moments[name], state, strict=True):
                _keep_where(batch.active, old, moment)
        for name, new in moved.items():
            _keep_where(batch.active, weights[name], new)
        return torch.where(batch.active, loss.detach() * batch.rows, 0.0)

    return step


def row_scores(network: RegularizedNetwork, task: Task, *, together: bool = True) -> RowScores:
    """Build `(weights, x, y, fold) -> losses and metrics of every row, K x R each`, dropout off (R1).

    Means are left to `losses.mean_over_rows`: compiled code may split a sum by the number of threads.

    Args:
        network: is copied, for its own evaluation mode.
        task: which loss and metric.
        together: for K slots at once; False runs a module that vmap can't take, with K = 1.
    """
    module = copy.deepcopy(network.module).eval()

    def slot_output(weights: Tensors, x: Tensor) -> Tensor:
        return _run(network, module, weights, x)[0]

    outputs = vmap(slot_output) if together else _alone(slot_output)

    def scores(weights: Tensors, x: Tensor, y: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
        output, target = outputs(weights, x[fold]), y[fold]
        return row_losses(task, output, target), row_metrics(task, output, target)

    return scores


def dials(network: RegularizedNetwork, batch: Batch) -> Tensors:
    """What a step sets on the layers beside their state, by name: masks, keep_prob, and how many rows are real."""
    buffers = {}
    for layer, place in enumerate(network.places):
        buffers[within(place, "key0")] = batch.keys[:, layer, 0]
        buffers[within(place, "key1")] = batch.keys[:, layer, 1]
        buffers[within(place, "threshold")] = batch.thresholds[:, layer]
    return buffers | {within(norm.name, "rows"): batch.rows for norm in network.survey.norms}


def within(place: str, name: str) -> str:
    """The full name of what a module at some place calls `name`."""
    return f"{place}.{name}" if place else name


def _run(network: RegularizedNetwork, module: nn.Module, tensors: Tensors, x: Tensor) -> tuple[Tensor, Tensors]:
    """One slot's output, and its buffers that the pass has replaced."""
    for place in network.places:
        cast(Dropped, module.get_submodule(place)).uses = 0
    # functional_call ties names together by itself, but then leaves the module with the wrong tensors (torch 2.13)
    state = tensors | {alias: tensors[name] for alias, name in network.aliases.items()}
    output: Tensor = functional_call(module, state, (x,), tie_weights=False)
    moving = network.survey.moving if module.training else ()
    return output, {name: state[name].detach() for name in moving}


def _wide(per_slot: Tensor, like: Tensor) -> Tensor:
    return per_slot.view((-1,) + (1,) * (like.dim() - 1))


def _keep_where(active: Tensor, old: Tensor, new: Tensor) -> None:
    old.copy_(torch.where(_wide(active, old), new, old))


# what torch.func does, for one slot without it ------------------------------------------------------------------------


def _alone(function: Callable[..., Any]) -> Callable[..., Any]:
    """What `vmap(function)` computes of stacked tensors with K = 1."""

    def one(*arguments: Any) -> Any:
        result = function(*tree_map_only(Tensor, lambda tensor: tensor[0], arguments))
        return tree_map_only(Tensor, lambda tensor: tensor[None], result)

    return one


def _plain_gradients(loss: Callable[..., tuple[Tensor, Tensors]]) -> Callable[..., Any]:
    """What `grad_and_value(loss, has_aux=True)` computes, by autograd itself: that takes whatever a module may do."""

    def gradients(weights: Tensors, rest: Tensors, *arguments: Tensor) -> tuple[Tensors, tuple[Tensor, Tensors]]:
        with torch.enable_grad():
            leaves = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
            value, moved = loss(leaves, rest, *arguments)
            found = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
        return dict(zip(leaves, found, strict=True)), (value.detach(), moved)

    return gradients
