"""The rivals of tests/benchmarks/engine.py: one fit after the other, as well as plain PyTorch can.

Eager      nn.Dropout in front of every layer, torch.optim.Adam(fused=True) with a weight_decay per layer.
Compiled   the whole step (gather, dropout, forward, backward, decay, Adam) as one torch.compile'd function, compiled
           once for all fits: keep_prob and decay are tensors, weights and moments are refilled in place. On a GPU
           the step and the evaluations are CUDA graphs captured by hand, so that an epoch is nothing but replays.
           Adam is fused by the compiler, decay included: torch.optim's fused kernel works in chunks of 65,536
           numbers, which is a dozen blocks for these networks, on a GPU of more than a hundred multiprocessors.

Both keep all rows on the device, score the validation rows after every epoch (the engine also scores the training
rows; `Work.score_all` makes the rivals do so), keep the best weights, and score the test rows once at the end.
"""

from __future__ import annotations

import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import torch
from engine_workload import Side, Tally, Turn, Work
from torch import Tensor, nn
from torch.func import grad_and_value
from torch.nn.functional import cross_entropy, linear, relu

from sweeper.records import Fit

WARM_UPS = 3  # calls before a capture: code, cuBLAS's handles and the allocator's memory must be there


class Sequential(Side):
    """One fit at a time; what a step and a score are is left open."""

    def __init__(self, work: Work) -> None:
        self.work, self.device = work, torch.device(work.device)
        torch.set_float32_matmul_precision("high" if work.precision == "tf32" else "highest")
        fold = work.fold()
        names = [f"{axis}_{part}" for axis in "xy" for part in ("train", "validation", "test")]
        self.rows = {name: torch.from_numpy(getattr(fold, name)).to(self.device) for name in names}
        self.m = len(fold.y_train)
        self.steps = self.m // work.network.batch

    @abstractmethod
    def begin(self, fit: Fit) -> None:
        """Initial weights under the fit's seed, a fresh optimiser, the fit's setting."""

    @abstractmethod
    def train_epoch(self) -> None:
        """One pass over the training rows in a new order."""

    @abstractmethod
    def loss(self, part: str) -> float:
        """Loss of some rows, dropout off; waits for the device."""

    @abstractmethod
    def keep_best(self) -> None:
        """Remember the weights as they are."""

    @abstractmethod
    def restore_best(self) -> None:
        """Go back to the weights remembered."""

    def turn(self, seconds: float, fits: Iterator[Fit]) -> Turn:
        tally = Tally()
        for fit in fits:
            if not self._train(fit, tally, seconds):
                break
        return tally.turn()

    def _train(self, fit: Fit, tally: Tally, seconds: float) -> bool:
        """Train one fit; returns whether there is time for another one."""
        self.begin(fit)
        best, stale, epoch = math.inf, 0, 0
        while epoch < self.work.epochs:
            epoch += 1
            self.train_epoch()
            tally.steps += self.steps
            loss = self.loss("validation")
            if self.work.score_all:
                self.loss("train")
            stale = 0 if loss < best else stale + 1
            if loss < best:
                best = loss
                self.keep_best()
            if tally.seconds > seconds:
                return False
            if stale >= self.work.patience > 0 or not math.isfinite(loss):
                break
        self.restore_best()
        self.loss("test")
        tally.ended(epoch, best)
        return True

    def autocast(self) -> torch.autocast:
        """Products in bfloat16 if asked for; without the cache of casts, which a CUDA graph must not capture."""
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.work.precision == "bfloat16", cache_enabled=False
        )

    def initial(self, fit: Fit) -> nn.Sequential:
        torch.manual_seed(fit.seed)
        return self.work.build()


class Eager(Sequential):
    """Written as a good tutorial would."""

    def warm_up(self) -> float:
        self.turn(0.0, self.work.fits(0))
        return 0.0

    def begin(self, fit: Fit) -> None:
        keep_prob = iter(fit.setting.keep_prob)
        layers: list[nn.Module] = []
        for layer in self.initial(fit):
            keep = next(keep_prob) if isinstance(layer, nn.Linear) else 1.0
            layers += [nn.Dropout(1 - keep)] if keep < 1 else []
            layers.append(layer)
        self.network = nn.Sequential(*layers).to(self.device)
        linears = [layer for layer in self.network if isinstance(layer, nn.Linear)]
        groups: list[dict[str, Any]] = [
            {"params": [layer.weight], "weight_decay": lambda_ / self.m}
            for layer, lambda_ in zip(linears, fit.setting.lambda_, strict=True)
        ]
        biases = {"params": [layer.bias for layer in linears]}
        rate = self.work.training.learning_rate
        self.optimizer = torch.optim.Adam([*groups, biases], lr=rate, fused=True)

    def train_epoch(self) -> None:
        x, y = self.rows["x_train"], self.rows["y_train"]
        self.network.train()
        for batch in torch.randperm(self.m, device=self.device).split(self.work.network.batch):
            self.optimizer.zero_grad()
            with self.autocast():
                loss = cross_entropy(self.network(x[batch]), y[batch])
            loss.backward()
            self.optimizer.step()

    def loss(self, part: str) -> float:
        self.network.eval()
        with torch.no_grad(), self.autocast():
            return float(cross_entropy(self.network(self.rows[f"x_{part}"]), self.rows[f"y_{part}"]))

    def keep_best(self) -> None:
        self.best = {name: value.clone() for name, value in self.network.state_dict().items()}

    def restore_best(self) -> None:
        self.network.load_state_dict(self.best)


class Compiled(Sequential):
    """One compiled step for all fits; on a GPU one captured graph for all of them."""

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        # Inductor draws random numbers one by one on a CPU; PyTorch's own generator is several times faster there.
        options = {"fallback_random": self.device.type == "cpu"}
        layers, width = len(work.network.sizes) - 1, work.network.batch
        self.weights = [parameter.detach().to(self.device) for parameter in work.build().parameters()]
        self.best, self.first, self.second = ([torch.zeros_like(w) for w in self.weights] for _ in range(3))
        self.count = torch.zeros((), device=self.device)
        self.keep_prob = torch.ones(layers, device=self.device)
        self.decay = torch.zeros(layers, device=self.device)
        self.order = torch.zeros(self.steps, width, dtype=torch.int64, device=self.device)
        self.at = torch.zeros(1, dtype=torch.int64, device=self.device)
        step = torch.compile(self._train_step, fullgraph=True, dynamic=False, options=options)
        self._score = torch.compile(self._plain_loss, fullgraph=True, dynamic=False)
        self._step: Callable[[], Tensor] = lambda: step(self.weights, self.first, self.second)
        self._losses = {part: self._scorer(part) for part in ("train", "validation", "test")}

    def warm_up(self) -> float:
        start = time.perf_counter()
        self.begin(next(self.work.fits(0)))
        if self.device.type == "cuda":
            self._step = captured(self._step)
            self._losses = {part: captured(scored) for part, scored in self._losses.items()}
        self.turn(0.0, self.work.fits(0))
        for part in self._losses:
            self.loss(part)  # compiled now, not in the first turn
        warm = time.perf_counter()
        self.turn(0.0, self.work.fits(0))
        return max(0.0, (warm - start) - (time.perf_counter() - warm))

    def begin(self, fit: Fit) -> None:
        for weight, value in zip(self.weights, self.initial(fit).parameters(), strict=True):
            weight.copy_(value.detach())
        torch._foreach_zero_([*self.first, *self.second, self.count])
        self.keep_prob.copy_(torch.tensor(fit.setting.keep_prob))
        self.decay.copy_(torch.tensor(fit.setting.lambda_) / self.m)

    @torch.no_grad()
    def train_epoch(self) -> None:
        self.order.copy_(torch.randperm(self.m, device=self.device).view_as(self.order))
        self.at.zero_()
        for _ in range(self.steps):
            self._step()

    @torch.no_grad()
    def loss(self, part: str) -> float:
        return float(self._losses[part]())

    def keep_best(self) -> None:
        torch._foreach_copy_(self.best, self.weights)

    def restore_best(self) -> None:
        torch._foreach_copy_(self.weights, self.best)

    def _train_step(self, weights: list[Tensor], first: list[Tensor], second: list[Tensor]) -> Tensor:
        """Everything that a step does: rows, dropout, forward, backward, decay, Adam, all of it in place."""
        index = self.order[self.at].flatten()
        gradients, loss = grad_and_value(self._dropped_loss)(weights, index)
        for layer, weight in enumerate(weights[::2]):
            gradients[2 * layer] = gradients[2 * layer] + self.decay[layer] * weight
        training = self.work.training
        beta1, beta2 = training.beta1, training.beta2
        self.count.add_(1)
        torch._foreach_lerp_(first, gradients, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, gradients, gradients, 1 - beta2)
        scale = training.learning_rate / (1 - beta1**self.count)
        correction = (1 - beta2**self.count).sqrt()
        for weight, mean, square in zip(weights, first, second, strict=True):
            weight.sub_(scale * mean / (square.sqrt() / correction + training.epsilon))
        self.at.add_(1)
        return loss

    def _dropped_loss(self, weights: list[Tensor], index: Tensor) -> Tensor:
        x = self.rows["x_train"][index]
        with self.autocast():
            for layer, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
                if layer:
                    keep = self.keep_prob[layer]
                    x = torch.where(torch.rand(x.shape, device=x.device) < keep, relu(x) / keep, 0.0)
                x = linear(x, weight, bias)
            return cross_entropy(x, self.rows["y_train"][index])

    def _plain_loss(self, weights: list[Tensor], x: Tensor, y: Tensor) -> Tensor:
        with self.autocast():
            for layer, (weight, bias) in enumerate(zip(weights[::2], weights[1::2], strict=True)):
                x = linear(relu(x) if layer else x, weight, bias)
            return cross_entropy(x, y)

    def _scorer(self, part: str) -> Callable[[], Tensor]:
        return lambda: self._score(self.weights, self.rows[f"x_{part}"], self.rows[f"y_{part}"])


def captured(function: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """A CUDA graph of a function on static tensors; the result is one static tensor, overwritten by every replay.

    Warm-up and capture share a stream, so that nothing is compiled, allocated or given a handle during the capture.
    PyTorch's CUDA generator knows of captures: every replay draws other numbers.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.no_grad():
        with torch.cuda.stream(stream):
            for _ in range(WARM_UPS):
                function()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            result = function()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay
