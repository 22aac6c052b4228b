"""What all sides of tests/benchmarks/engine.py train: the shapes, the rows, the fits, and how a turn is counted.

Letters: L weight layers, B rows of a batch. Needs torch, numpy and sweeper's
engine, networks and records alone.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from torch import nn

from sweeper.networks import mlp
from sweeper.records import Fit, Fold, Setting, Training

KEEP_PROB, LAMBDA = (0.5, 1.0), (1e-3, 30.0)
LEARNING_RATE = 3e-3  # quick enough that fits overfit and stop early, after varying numbers of epochs


@dataclass(frozen=True)
class Shape:
    """A network and its data: an epoch has `rows / batch` steps.

    Attributes:
        sizes: inputs, hidden units, classes.
        batch: B. rows: training rows; a quarter of it are validation rows, and as many again test rows.
    """

    sizes: tuple[int, ...]
    batch: int
    rows: int

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, batch {self.batch}"


SHAPES = {
    "tiny": Shape((20, 64, 64, 2), 32, 2048),
    "small": Shape((64, 128, 128, 10), 64, 4096),
    "wide": Shape((784, 512, 512, 10), 128, 8192),
}


@dataclass(frozen=True)
class Work:
    """One side's work, whoever does it.

    Attributes:
        shape: a key of `SHAPES`.
        device: PyTorch's name.
        precision: of matrix products, as `Training` names it.
        epochs, patience: a fit ends after so many epochs, or so many without a better validation loss.
        score_all: whether rivals, too, score the training rows after every epoch, as the engine does.
        rows: training rows; None for those of the shape.
    """

    shape: str
    device: str
    precision: str
    epochs: int
    patience: int
    score_all: bool = False
    rows: int | None = None

    @property
    def network(self) -> Shape:
        shape = SHAPES[self.shape]
        return shape if self.rows is None else Shape(shape.sizes, shape.batch, self.rows)

    @property
    def training(self) -> Training:
        return Training(
            epochs=self.epochs,
            batch_size=self.network.batch,
            learning_rate=LEARNING_RATE,
            patience=self.patience,
            precision=self.precision,
        )

    @property
    def build(self) -> partial[nn.Sequential]:
        inputs, *hidden, classes = self.network.sizes
        return partial(mlp, inputs, hidden, classes)

    def fold(self) -> Fold:
        """Rows of a noisy linear teacher, so that fits overfit, some sooner than others; always the same."""
        rng, shape = np.random.default_rng(0), self.network
        parts = (shape.rows, shape.rows // 4, shape.rows // 4)
        inputs, classes = shape.sizes[0], shape.sizes[-1]
        x = rng.standard_normal((sum(parts), inputs), dtype=np.float32)
        signal = x @ rng.standard_normal((inputs, classes)) / np.sqrt(inputs)
        y = (signal + rng.standard_normal(signal.shape)).argmax(1).astype(np.int64)
        (a, b, c), (p, q, r) = (np.split(both, np.cumsum(parts)[:2]) for both in (x, y))
        return Fold(a, p, b, q, c, r)

    def fits(self, seed: int) -> Iterator[Fit]:
        """Fits without end, the same for every side: a keep_prob per hidden layer (the input is kept, R4: no side draws
        masks for it) and a lambda per layer, drawn at random.
        """
        rng, layers, number = np.random.default_rng(seed), len(self.network.sizes) - 1, 0
        while True:
            keep_prob = rng.uniform(*KEEP_PROB, layers - 1)
            lambda_ = np.exp(rng.uniform(*np.log(LAMBDA), layers))
            setting = Setting((1.0, *keep_prob.tolist()), tuple(lambda_.tolist()))
            yield Fit(f"{seed}/{number}", setting, int(rng.integers(2**62)), 0)
            number += 1


@dataclass(frozen=True)
class Turn:
    """What one process did in one turn, or all of a side's processes together.

    Attributes:
        seconds: wall time, initial weights and evaluation included.
        steps: optimiser steps of fits (slot-steps). computed: those and the empty lanes'. offered: as many as K slots
            could have done; a pack that shrinks computes fewer. Both are 0 for rivals.
        train_s: the part of `seconds` that trained; NaN where it was not told apart.
        epochs, losses: epochs and best validation loss of every fit that ended; they show that all do the same work.
    """

    seconds: float
    steps: int
    computed: int
    offered: int
    train_s: float
    epochs: tuple[int, ...]
    losses: tuple[float, ...]


@dataclass
class Tally:
    """Counts a turn while it runs."""

    start: float = field(default_factory=time.perf_counter)
    steps: int = 0
    computed: int = 0
    offered: int = 0
    train_s: float = 0.0
    epochs: list[int] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start

    def ended(self, epochs: int, loss: float) -> None:
        self.epochs.append(epochs)
        self.losses.append(loss)

    def turn(self) -> Turn:
        counted = self.steps, self.computed, self.offered, self.train_s
        return Turn(self.seconds, *counted, tuple(self.epochs), tuple(self.losses))


class Side(ABC):
    """One way to train fits, made and used within one process."""

    @abstractmethod
    def warm_up(self) -> float:
        """Do everything that happens once; returns the seconds of compiling and capturing in it."""

    @abstractmethod
    def turn(self, seconds: float, fits: Iterator[Fit]) -> Turn:
        """Train fits one after another for about so many seconds."""

    def sweep(self, fits: list[Fit]) -> Turn:
        """Train all of these fits to their ends, drain included."""
        raise NotImplementedError(f"{type(self).__name__} has no sweep")
