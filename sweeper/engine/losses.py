"""The loss and the metric of each row, by task; K slots, B rows, C outputs.

Everything is per row: means are taken where the number of valid rows is known.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from sweeper.records import Task

# A single sum over a whole tensor is split by its length and the number of threads, so its last bits would depend on
# how many slots there are. Sums over blocks of this many rows, then over blocks, don't.
BLOCK = 1024


def row_losses(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """Loss of each row (`Task` says which), without the penalty.

    Args:
        task: what the output means.
        output: `... x C` as the network gives it.
        target: `...`.

    Returns:
        `...`, nats for classification, squared units of y for regression.
    """
    if task is Task.MULTICLASS:
        flat = functional.cross_entropy(output.reshape(-1, output.shape[-1]), target.reshape(-1), reduction="none")
        return flat.reshape(target.shape)
    if task is Task.BINARY:
        return functional.binary_cross_entropy_with_logits(output.squeeze(-1), target, reduction="none")
    return 0.5 * (output.squeeze(-1) - target) ** 2


def row_metrics(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """1 for a row that is classified rightly and 0 else; for regression the squared error. Shapes as `row_losses`."""
    if task is Task.MULTICLASS:
        return (output.argmax(-1) == target).to(output.dtype)
    if task is Task.BINARY:
        return ((output.squeeze(-1) > 0) == (target > 0.5)).to(output.dtype)
    return (output.squeeze(-1) - target) ** 2


def mean_over_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Mean of the first rows[k] of each slot's values, the same bits at any number of slots.

    Args:
        values: `K x B`.
        rows: int64 `K`, how many of the B are real.

    Returns:
        `K`.
    """
    real = torch.arange(values.shape[1], device=values.device)[None] < rows[:, None]
    kept = torch.where(real, values, 0.0)
    blocks = functional.pad(kept, (0, -kept.shape[1] % BLOCK)).view(kept.shape[0], -1, BLOCK)
    return blocks.sum(2).sum(1) / rows


def metric_of_mean(task: Task, mean: Tensor, target_scale: Tensor) -> Tensor:
    """Accuracy as it is; a mean squared error becomes an RMSE in target units."""
    return mean.sqrt() * target_scale if task is Task.REGRESSION else mean
