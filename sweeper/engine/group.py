"""Lanes that train together: the code for one width, bound to the memory of some slots.

Letters: G lanes of a group, T steps of a tick, R rows evaluated.
A group's working memory is meant to stay in a core's cache, so groups take turns for a whole tick; a group without a
fit takes no turn, so that a sweep's last fits don't carry empty lanes along.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from sweeper.engine.arena import Arena
from sweeper.engine.compiler import Bound, captured
from sweeper.engine.folds import DeviceFolds
from sweeper.engine.losses import mean_over_rows, metric_of_mean
from sweeper.engine.optimizers import Optimizer
from sweeper.engine.plan import Plan, Tensors, batch_at, lay_out
from sweeper.engine.step import TrainStep, row_scores, train_step
from sweeper.networks import RegularizedNetwork
from sweeper.records import Task, Training

# Evaluation runs over as many lanes at a time as keep one layer's activations within a core's cache (measured on
# 64-64-64-64-10, 60 slots, one thread: 12.9 ms in parts of 6, 21 in parts of 15, 15.8 in pairs); a GPU takes as many
# as its memory is meant to hold.
TOGETHER_FLOATS = {"cpu": 1 << 19, "cuda": 1 << 28}


class Code(Protocol):
    """A function that can be bound to its arguments, see `compiler`."""

    def bind(self, *arguments: Any) -> Bound:
        """The function with its arguments."""


@dataclass(frozen=True)
class Programs:
    """The three functions of a tick, the same for every group."""

    lay_out: Code
    step: Code
    scores: Code

    @classmethod
    def of(
        cls,
        network: RegularizedNetwork,
        task: Task,
        training: Training,
        optimizer: Optimizer,
        folds: DeviceFolds,
        make: Callable[[Callable[..., Any]], Code],
        *,
        together: bool = True,
    ) -> Programs:
        """The functions for a network, made by `Eager` or `Compiled`; `together` is False where vmap can't take it."""
        return cls(
            lay_out=make(lay_out(training, optimizer, folds.longest, folds.held)),
            step=make(_planned(train_step(network, task, optimizer, together=together))),
            scores=make(row_scores(network, task, together=together)),
        )


def _planned(step: TrainStep) -> Callable[..., None]:
    """A training step that finds its batch in a plan, and counts on."""

    def next_step(
        weights: Tensors,
        moments: dict[str, tuple[Tensor, ...]],
        x: Tensor,
        y: Tensor,
        by_step: Tensors,
        decay: Tensor,
        at: Tensor,
        lanes: Tensors,
    ) -> None:
        batch = batch_at(by_step, decay, at, lanes["fold"], lanes["thresholds"])
        lanes["trained_loss"] += step(weights, moments, x, y, batch)
        at += 1

    return next_step


class Group:
    """G lanes, their part of the arena and of the plan, and the programs bound to them.

    Args:
        lanes: which of the arena's.
        arena: of all lanes.
        plan: of all lanes.
        folds: what is trained on.
        task: what the network's output means.
        programs: what to run.
        least: the fewest lanes that the programs may be bound to.
    """

    def __init__(
        self, lanes: slice, arena: Arena, plan: Plan, folds: DeviceFolds, task: Task, programs: Programs, least: int
    ) -> None:
        self.lanes, self._folds, self._task = lanes, folds, task
        self._arena, self._plan = arena.part(lanes), plan.part(lanes)
        mine, today = self._arena, self._plan
        per_lane = mine.per_lane
        laid_out = today.by_step, today.decay, today.at
        self._lay_out = programs.lay_out.bind(per_lane, folds.train_rows, *laid_out)
        self._step = programs.step.bind(mine.weights, mine.moments, folds.x, folds.y, *laid_out, per_lane)
        if folds.device.type == "cuda":
            self._step = captured(self._step, folds.device)  # no fit is here yet
        self._scores = [self._bound_scores(programs.scores, part) for part in self._parts(least)]

    @property
    def width(self) -> int:
        """G."""
        return self._arena.lanes

    @property
    def steps(self) -> int:
        """T."""
        return self._plan.steps

    def train(self, steps: int | None = None) -> None:
        """All steps of a tick; a rehearsal may make fewer."""
        self._arena.trained_loss.zero_()
        self._lay_out()
        for _ in range(self._plan.steps if steps is None else steps):
            self._step()

    def evaluate(self) -> Tensor:
        """`4 x G`: loss on training and on validation rows, dropout off, and both metrics."""
        folds, fold = self._folds, self._arena.fold
        losses, metrics = (torch.cat(parts) for parts in zip(*(part() for part in self._scores), strict=True))
        both = torch.stack([losses, metrics])  # (2, G, R)
        held, sample = folds.validation_rows[fold], folds.train_rows[fold].clamp(max=folds.sample)
        held_loss, held_metric = _means(both[:, :, : folds.held], held)
        train_loss, train_metric = _means(both[:, :, folds.held :], sample)
        scale = folds.target_scale[fold]
        train_metric, held_metric = (metric_of_mean(self._task, mean, scale) for mean in (train_metric, held_metric))
        return torch.stack([train_loss, held_loss, train_metric, held_metric])

    def sample_evaluation(self) -> float:
        """Evaluate some of the lanes, to no effect; returns their share of all."""
        self._scores[0]()
        return 1 / len(self._scores)

    def _bound_scores(self, scores: Code, part: slice) -> Bound:
        weights = {name: weight[part] for name, weight in self._arena.weights.items()}
        rows = slice(0, self._folds.held + self._folds.sample)
        return scores.bind(weights, self._folds.x[:, rows], self._folds.y[:, rows], self._arena.fold[part])

    def _parts(self, least: int) -> list[slice]:
        """Lanes to evaluate together: parts of one size for one compiled function; all of them if none fits."""
        rows, widest = (
            self._folds.held + self._folds.sample,
            max(w.shape[1] for w in self._arena.weights.values() if w.dim() > 1),
        )
        most = min(self.width, max(least, TOGETHER_FLOATS[self._folds.device.type] // (rows * widest)))
        size = max((n for n in range(least, most + 1) if self.width % n == 0 and n > most // 4), default=self.width)
        return [slice(start, start + size) for start in range(0, self.width, size)]


def _means(values: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Means over the first rows[k] of `2 x G x R` values, each `G`."""
    means = mean_over_rows(values.flatten(0, 1), rows.repeat(2))
    return means[: len(rows)], means[len(rows) :]
