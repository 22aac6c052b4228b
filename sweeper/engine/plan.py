"""A tick laid out beforehand: which rows, which masks and which step sizes every slot takes at every step.

Letters: K slots, T steps of a tick (one epoch of the longest fold), L weight layers, B rows of a batch.
The tensors are static and a step finds its place in them by a counter on the device, so that the host has nothing to do
between steps, and a captured graph can be replayed as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from sweeper.engine.arena import Arena
from sweeper.engine.folds import DeviceFolds
from sweeper.engine.optimizers import Optimizer
from sweeper.engine.random import row_order, slot_keys
from sweeper.engine.step import Batch
from sweeper.records import Training

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Plan:
    """One tick of some slots.

    Attributes:
        steps: T.
        by_step: name -> `K x T x ...`: keys (int32 `... x L x 2`), index (int64 `... x B`, rows of the fold), rows
            (int64, how many of the B are real), active (bool), and the optimiser's step sizes.
        decay: float32 `K x L`, lambda_l / m.
        at: int64 `1`, the step that comes next.
    """

    steps: int
    by_step: Tensors
    decay: Tensor
    at: Tensor

    @classmethod
    def empty(cls, lanes: int, layers: int, folds: DeviceFolds, batch_size: int, sizes: int) -> Plan:
        """A plan for so many slots, still without content.

        Args:
            lanes: K.
            layers: L.
            folds: what is trained on.
            batch_size: B.
            sizes: how many step sizes the optimiser has.
        """
        steps = -(-folds.longest // batch_size)

        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(lanes, *shape, dtype=dtype, device=folds.device)

        by_step = {
            "keys": zeros(steps, layers, 2, dtype=torch.int32),
            "index": zeros(steps, batch_size),
            "rows": zeros(steps),
            "active": zeros(steps, dtype=torch.bool),
            **{f"size{number}": zeros(steps, dtype=torch.float32) for number in range(sizes)},
        }
        at = torch.zeros(1, dtype=torch.int64, device=folds.device)
        return cls(steps, by_step, zeros(layers, dtype=torch.float32), at)

    def part(self, lanes: slice) -> Plan:
        """Some slots' part of this plan, on the same memory, with a counter of its own."""
        by_step = {name: tensor[lanes] for name, tensor in self.by_step.items()}
        return Plan(self.steps, by_step, self.decay[lanes], torch.zeros_like(self.at))


def batch_at(by_step: Tensors, decay: Tensor, at: Tensor, fold: Tensor, thresholds: Tensor) -> Batch:
    """What the step that comes next needs, out of a plan's tensors."""
    now = {name: tensor.index_select(1, at).squeeze(1) for name, tensor in by_step.items()}
    sizes = tuple(now[f"size{number}"] for number in range(len(by_step) - len(_FIXED)))
    return Batch(now["keys"], thresholds, decay, sizes, fold, now["index"], now["rows"], now["active"])


_FIXED = ("keys", "index", "rows", "active")

LayOut = Callable[[Tensors, Tensor, Tensors, Tensor, Tensor], None]


def lay_out(training: Training, optimizer: Optimizer, longest: int, held: int) -> LayOut:
    """Build `(lanes, train_rows, by_step, decay, at) -> None`, which writes a tick's plan into its last three.

    `lanes` is `Arena.per_lane` of the plan's slots, `train_rows` the rows of each fold.

    Args:
        training: rows per step and the learning rate.
        optimizer: its step sizes.
        longest: training rows of the longest fold.
        held: where a fold's training rows begin.
    """
    batch_size = training.batch_size
    steps = -(-longest // batch_size)

    def write(lanes: Tensors, train_rows: Tensor, by_step: Tensors, decay: Tensor, at: Tensor) -> None:
        device = at.device
        rows = train_rows[lanes["fold"]][:, None]  # (K, 1)
        number = torch.arange(steps, device=device)[None]  # (1, T)
        order = row_order(lanes["seed"], lanes["epoch"], rows[:, 0], longest)
        # rows that a batch lacks point at the fold's first row and count nothing
        order = functional.pad(order, (0, steps * batch_size - longest)).clamp(max=longest - 1)
        by_step["index"].copy_(order.view(-1, steps, batch_size) + held)
        by_step["rows"].copy_((rows - number * batch_size).clamp(0, batch_size))
        by_step["active"].copy_(lanes["active"][:, None] & (number * batch_size < rows))
        step = lanes["step"][:, None] + number  # (K, T)
        layers = torch.arange(lanes["lambda_"].shape[1], device=device)
        by_step["keys"].copy_(slot_keys(lanes["seed"][:, None, None], layers[None, None], step[:, :, None]))
        rates = torch.full_like(lanes["best_loss"], training.learning_rate)[:, None].expand(-1, steps)
        for size, values in enumerate(optimizer.step_sizes(rates, step)):
            by_step[f"size{size}"].copy_(values)
        decay.copy_(lanes["lambda_"] / rows)
        at.zero_()

    return write


def counted(arena: Arena, folds: DeviceFolds, batch_size: int) -> None:
    """Enter a trained tick into the slots' counters, and make their summed training losses means."""
    rows = folds.train_rows[arena.fold]
    arena.step += torch.where(arena.active, (rows + batch_size - 1) // batch_size, 0)
    arena.epoch += arena.active
    arena.trained_loss /= rows
