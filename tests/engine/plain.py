"""The same fit by other means: plain torch.nn and torch.optim, masks and row order from their definition.

Nothing here comes from sweeper.engine: Philox is written in Python integers, the hash in numpy's uint32, dropout and
the penalty as the lectures write them. What the engine's tests compare with must not share its mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from sweeper.records import Fit, Fold, Task, Training

WORD = 0xFFFFFFFF
ORDER_STREAM = 0xFFFF
Words = npt.NDArray[np.uint32]


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 of Random123, in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & WORD, (p0 >> 32) ^ c3 ^ k1, p0 & WORD
        k0, k1 = (k0 + 0x9E3779B9) & WORD, (k1 + 0xBB67AE85) & WORD
    return c0, c1, c2, c3


def keys(seed: int, stream: int, step: int) -> tuple[int, int]:
    """The two keys of one mask or order."""
    words = philox((step & WORD, step >> 32, stream, 0), (seed & WORD, seed >> 32))
    return words[0], words[1]


def lowbias32(x: Words) -> Words:
    """Chris Wellons' 32-bit finaliser."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> np.uint32(15))) * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def hashed(key: tuple[int, int], elements: int) -> Words:
    """32 bits for each of the elements 0, 1, 2, ..."""
    element = np.arange(elements, dtype=np.uint32)
    return lowbias32(lowbias32(element ^ np.uint32(key[0])) + np.uint32(key[1]))


def mask(seed: int, layer: int, step: int, shape: Sequence[int], keep_prob: float) -> Tensor:
    """What inverted dropout multiplies by: 0 or 1 / keep_prob, float32, with keep_prob rounded to 24 bits."""
    bar = max(1, round(keep_prob * 2**24))
    kept = (hashed(keys(seed, layer, step), int(np.prod(shape))) >> np.uint32(8)) < bar
    return torch.from_numpy(kept.reshape(shape) * np.float32(2**24 / bar))


def order(seed: int, epoch: int, rows: int) -> npt.NDArray[np.int64]:
    """The order of the training rows in an epoch counted from 0: by 30 hash bits, then by index."""
    bits = hashed(keys(seed, ORDER_STREAM, epoch), rows) >> np.uint32(2)
    return np.lexsort((np.arange(rows), bits)).astype(np.int64)


def row_loss(task: Task, output: Tensor, target: Tensor) -> Tensor:
    """Mean loss of some rows."""
    if task is Task.MULTICLASS:
        return nn.CrossEntropyLoss()(output, target)
    if task is Task.BINARY:
        return nn.BCEWithLogitsLoss()(output[:, 0], target)
    return 0.5 * nn.MSELoss()(output[:, 0], target)


class PlainFit:
    """One fit as people write it: an `nn.Sequential`, a `torch.optim` optimiser, a loop over batches.

    `penalty` says where L2 enters: "loss" adds (1/2m) sum lambda_l ||W_l||^2 to the loss, "weight_decay" hands
    lambda_l / m to the optimiser's parameter groups of the weights (not of the biases).
    """

    def __init__(
        self,
        build: Callable[[], nn.Sequential],
        fit: Fit,
        fold: Fold,
        training: Training,
        task: Task,
        penalty: str = "loss",
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(fit.seed)
            self.network = build()
        self.linears = [layer for layer in self.network if isinstance(layer, nn.Linear)]
        self.fit, self.fold, self.training, self.task, self.penalty = fit, fold, training, task, penalty
        self.optimizer = self._optimizer()
        self.step = self.epoch = 0

    def _optimizer(self) -> torch.optim.Optimizer:
        decays = [0.0] * len(self.linears)
        if self.penalty == "weight_decay":
            decays = [lambda_ / len(self.fold.y_train) for lambda_ in self.fit.setting.lambda_]
        weights = [
            {"params": [layer.weight], "weight_decay": decay} for layer, decay in zip(self.linears, decays, strict=True)
        ]
        groups: list[dict[str, Any]] = [*weights, {"params": [layer.bias for layer in self.linears]}]
        training = self.training
        if training.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=training.learning_rate, momentum=training.momentum)
        betas = (training.beta1, training.beta2)
        return torch.optim.Adam(groups, lr=training.learning_rate, betas=betas, eps=training.epsilon)

    def train_epoch(self) -> float:
        """One epoch; returns its loss as trained, a mean over rows without the penalty."""
        rows = len(self.fold.y_train)
        x, y = torch.from_numpy(self.fold.x_train), torch.from_numpy(self.fold.y_train)
        total = 0.0
        for batch in torch.from_numpy(order(self.fit.seed, self.epoch, rows)).split(self.training.batch_size):
            loss = row_loss(self.task, self._dropped(x[batch]), y[batch])
            self.optimizer.zero_grad()
            (loss + self._penalty()).backward()
            self.optimizer.step()
            self.step += 1
            total += float(loss.detach()) * len(batch)
        self.epoch += 1
        return total / rows

    def train_epochs(self, epochs: int) -> PlainFit:
        """Train several epochs."""
        for _ in range(epochs):
            self.train_epoch()
        return self

    def _dropped(self, x: Tensor) -> Tensor:
        layer = 0
        for module in self.network:
            if isinstance(module, nn.Linear):
                x = x * mask(self.fit.seed, layer, self.step, x.shape, self.fit.setting.keep_prob[layer])
                layer += 1
            x = module(x)
        return x

    def _penalty(self) -> Tensor:
        if self.penalty != "loss":
            return torch.zeros(())
        norms = [
            lambda_ * layer.weight.square().sum()
            for layer, lambda_ in zip(self.linears, self.fit.setting.lambda_, strict=True)
        ]
        return torch.stack(norms).sum() / (2 * len(self.fold.y_train))

    def loss(self, part: str) -> float:
        """Loss of the "train", "validation" or "test" rows, dropout off, without the penalty."""
        x, y = getattr(self.fold, f"x_{part}"), getattr(self.fold, f"y_{part}")
        with torch.no_grad():
            return float(row_loss(self.task, self.network(torch.from_numpy(x)), torch.from_numpy(y)))

    @property
    def squared_norms(self) -> tuple[float, ...]:
        """||W_l||^2 of each layer."""
        return tuple(float(layer.weight.detach().double().square().sum()) for layer in self.linears)
