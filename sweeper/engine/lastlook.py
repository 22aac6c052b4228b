"""What is measured of a fit when it has ended: its best weights, on rows that decided nothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sweeper.engine.folds import DeviceFolds
from sweeper.engine.losses import mean_over_rows, metric_of_mean
from sweeper.engine.meter import RowFlops, Stopwatch
from sweeper.engine.seat import Final
from sweeper.engine.step import RowScores
from sweeper.networks import RegularizedNetwork
from sweeper.records import Cost, Task


@dataclass(frozen=True)
class LastLook:
    """Looks at one fit at a time: what else ends in the same tick can't touch its result."""

    network: RegularizedNetwork
    task: Task
    folds: DeviceFolds
    score_rows: RowScores
    flops: RowFlops
    watch: Stopwatch

    def at(self, best: dict[str, Tensor], fold: int, train_loss: float) -> Final:
        """Score the sealed test rows, for the first and only time, and all training rows if only some were so far.

        Args:
            best: the weights of the best epoch.
            fold: the fit's.
            train_loss: as measured after that epoch.
        """
        parts = [self.folds.test(fold)]
        if self.folds.rows_of(fold)[0] > self.folds.sample:
            parts.append(self.folds.training(fold))
        with self.watch.phase("test"):
            (test_loss, test_metric), *rest = self._scored(best, fold, parts)
        seconds, joules = self.watch.take("test"), self.watch.take_joules()
        flops = sum(len(y) for _, y in parts) * self.flops.evaluate
        cost = Cost(flops=flops, evaluate_s=seconds, joules=joules)
        train_loss = rest[0][0] if rest else train_loss
        return Final(train_loss, test_loss, test_metric, self.squared_norms(best), cost)

    def squared_norms(self, best: dict[str, Tensor]) -> tuple[float, ...]:
        """||W_l||_F^2 of each weight layer, summed in float64."""
        return tuple(float(best[name].double().square().flatten(1).sum(1).sum()) for name in self.network.weight_names)

    def _scored(self, weights: dict[str, Tensor], fold: int, parts: list[tuple[Tensor, Tensor]]) -> list[list[float]]:
        """Mean loss and metric of each part, in one pass over all their rows."""
        x, y = (torch.cat(columns) for columns in zip(*parts, strict=True))
        only = torch.zeros(1, dtype=torch.int64, device=x.device)
        stacked = {name: weight[None] for name, weight in weights.items()}
        losses, metrics = self.score_rows(stacked, x[None], y[None], only)
        means, start = [], 0
        for _, part in parts:
            count, rows = torch.tensor([len(part)], device=x.device), slice(start, start + len(part))
            metric = metric_of_mean(self.task, mean_over_rows(metrics[:, rows], count), self.folds.target_scale[fold])
            means.append(torch.cat([mean_over_rows(losses[:, rows], count), metric.view(1)]))
            start += len(part)
        pairs: list[list[float]] = torch.stack(means).tolist()
        return pairs
