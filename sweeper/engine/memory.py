"""How much memory an engine of so many slots takes, known before it is built.

Letters: K slots, G lanes that train together, T steps of a tick, B rows of a batch, L weight layers, R rows evaluated.
A slot holds its weights, moments, best weights and its part of the tick's plan for good; gradients and activations are
there for the lanes that train together alone. It is a prediction, meant to be too high rather than too low.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from sweeper.engine.folds import SAMPLE_ROWS
from sweeper.engine.optimizers import optimizer_of
from sweeper.records import Fold, Training

# What is kept for the gradient of a step, and beside it: the gradient itself and the operations' own results.
PER_SAVED = 2
# A step's new weights and moments stand beside the old ones for a moment.
UPDATES = 2
PLAN_NUMBERS = 8  # bytes of an index into the rows; it is sorted with its key, and copied
PLAN_COPIES = 4
SCORES = 4 * 8  # of one evaluated row: loss and metric, apart, stacked, masked and averaged
LEAST_LANES = 2  # that are evaluated together on a CPU


@dataclass(frozen=True)
class Footprint:
    """What an engine takes, in bytes.

    Attributes:
        fixed: the folds' rows, once for all.
        slot: what each slot holds for good.
        lane: what each of the lanes that train together needs beside it.
    """

    fixed: int
    slot: int
    lane: int

    def total(self, slots: int, width: int) -> int:
        """For K slots of which G train together."""
        return self.fixed + slots * self.slot + min(slots, width) * self.lane

    def most_slots(self, free: int, width: int) -> int:
        """The most slots that fit into so many bytes, `width` of them at most training together."""
        together = (free - self.fixed) // (self.slot + self.lane)
        if together < width:
            return max(0, together)
        return (free - self.fixed - width * self.lane) // self.slot


def footprint(
    build: Callable[[], nn.Module], folds: Sequence[Fold], training: Training, device: str = "cpu"
) -> Footprint:
    """Predict it from the plain network and one batch through it.

    Args:
        build: makes the plain network.
        folds: what fits train on.
        training: how.
        device: where.
    """
    network = build()
    weights = sum(tensor.nbytes for tensor in (*network.parameters(), *network.buffers()))
    trained = sum(parameter.nbytes for parameter in network.parameters())
    longest, held = (max(len(getattr(fold, name)) for fold in folds) for name in ("y_train", "y_validation"))
    steps = -(-longest // training.batch_size)
    layers = sum(parameter.dim() > 1 for parameter in network.parameters())
    plan = steps * (training.batch_size * PLAN_NUMBERS + layers * 8 + 32) + longest * PLAN_NUMBERS * PLAN_COPIES
    saved = _saved_bytes(network, _batch(folds[0], training.batch_size)) * PER_SAVED
    evaluated = held + min(longest, max(held, SAMPLE_ROWS))
    evaluation = evaluated * saved // training.batch_size
    on_cpu = torch.device(device).type == "cpu"  # takes a few lanes at a time, see group.TOGETHER_FLOATS
    return Footprint(
        fixed=sum(_padded_bytes(folds, name) for name in ("x", "y")) + LEAST_LANES * evaluation * on_cpu,
        slot=2 * weights + optimizer_of(training).moments * trained + plan,
        lane=trained * (1 + UPDATES) + saved + evaluated * SCORES + evaluation * (not on_cpu),
    )


def device_free_bytes(device: str) -> int:
    """What a GPU has to spare."""
    return int(torch.cuda.mem_get_info(device)[0])


def device_peak_bytes(device: str) -> int:
    """The most that this process has had of a GPU's memory at a time."""
    return int(torch.cuda.max_memory_reserved(device))


def _batch(fold: Fold, rows: int) -> Tensor:
    return torch.from_numpy(fold.x_train[np.arange(rows) % len(fold.x_train)])


def _saved_bytes(network: nn.Module, batch: Tensor) -> int:
    """Bytes that a forward pass keeps for its gradient, each tensor once; the weights are not among them."""
    own = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(batch)
    return int(sum(size for at, size in kept.items() if at not in own) + output.nbytes)


def _padded_bytes(folds: Sequence[Fold], name: str) -> int:
    longest = sum(max(getattr(fold, f"{name}_{part}").nbytes for fold in folds) for part in ("train", "validation"))
    return int(len(folds) * longest)
