"""Small workloads that the engine's tests share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from torch import nn

from sweeper.engine import Engine
from sweeper.networks import mlp
from sweeper.records import Fit, FitResult, Fold, Setting, Task, Training


def fold(task: Task, inputs: int, rows: tuple[int, int, int] = (100, 60, 50), classes: int = 4, seed: int = 0) -> Fold:
    rng = np.random.default_rng(seed)
    total = sum(rows)
    x = rng.standard_normal((total, inputs)).astype(np.float32)
    score = x @ rng.standard_normal((inputs, classes)).astype(np.float32) + rng.standard_normal((total, classes))
    y = {
        Task.MULTICLASS: score.argmax(1).astype(np.int64),
        Task.BINARY: (score[:, 0] > 0).astype(np.float32),
        Task.REGRESSION: (score[:, 0] / score[:, 0].std()).astype(np.float32),
    }[task]
    cuts = np.cumsum(rows)[:2]
    (a, b, c), (p, q, r) = np.split(x, cuts), np.split(y, cuts)
    return Fold(a, p, b, q, c, r, target_scale=2.0 if task is Task.REGRESSION else 1.0)


def build(inputs: int, hidden: Sequence[int], outputs: int) -> Callable[[], nn.Sequential]:
    return partial(mlp, inputs, hidden, outputs)


def fit(number: int, layers: int, fold: int = 0, key: str | None = None) -> Fit:
    """The number-th of a series of fits with different settings and seeds."""
    rng = np.random.default_rng(1000 + number)
    keep = tuple(float(k) for k in 1 - 0.6 * rng.random(layers))
    lambda_ = tuple(float(v) for v in 10 ** rng.uniform(-3, 1, layers))
    return Fit(key or f"fit {number}", Setting(keep, lambda_), int(rng.integers(2**62)), fold)


def run_alone(engine: Engine, one: Fit) -> FitResult:
    return run_all(engine, [one])[one.key]


def run_all(engine: Engine, fits: Sequence[Fit]) -> dict[str, FitResult]:
    """Train fits with refill until all have ended."""
    waiting, results = list(fits), {}
    while waiting or engine.free < engine.slots:
        now, waiting = waiting[: engine.free], waiting[engine.free :]
        engine.admit(now)
        results |= {result.key: result for result in engine.train().results}
    return results


ADAM = Training(epochs=6, batch_size=32, learning_rate=0.01, patience=3)
SGD = Training(epochs=6, batch_size=32, optimizer="sgd", learning_rate=0.05, momentum=0.9)
