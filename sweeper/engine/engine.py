"""Trains many fits at once: K slots of one stacked network, refilled as fits end.

Letters: K slots, S folds, T steps of a tick (one epoch of the longest fold), B rows of a batch.
`admit` puts fits into free slots, `train` does one tick for all of them and says who ended, `evict` gives fits up.
A fit's result depends on its setting, seed and fold alone, not on its slot or company (tests/engine/test_promise.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from sweeper.engine.arena import Arena, initial_weights
from sweeper.engine.compiler import compile_errors
from sweeper.engine.compiler import compiled as compile_function
from sweeper.engine.device import find_device
from sweeper.engine.dropout import DroppedLinear
from sweeper.engine.folds import DeviceFolds
from sweeper.engine.losses import mean_over_rows, metric_of_mean
from sweeper.engine.meter import Stopwatch, row_flops
from sweeper.engine.optimizers import Adam, Optimizer, Sgd
from sweeper.engine.products import steady_products
from sweeper.engine.random import row_order, slot_keys
from sweeper.engine.step import Batch, row_scores, train_step
from sweeper.errors import EngineError
from sweeper.networks import regularize
from sweeper.records import Cost, Fit, FitResult, Fold, Outcome, Score, Task, Training

# Evaluation runs over as many slots at a time as keep one layer's activations within a core's cache (measured on
# 64-64-64-64-10, 60 slots, one thread: 12.9 ms in groups of 6, 21 in groups of 15, 15.8 in pairs); a GPU takes as many
# as its memory is meant to hold.
TOGETHER_FLOATS = {"cpu": 1 << 19, "cuda": 1 << 28}

# Compiled code for a single lane takes other kernels than for two or more, whose bits agree; a spare lane stays empty.
LEAST_LANES = {False: 1, True: 2}

REHEARSALS = 3


@dataclass(frozen=True)
class Tick:
    """What one tick did.

    Attributes:
        results: the fits that ended, their slots free again.
        steps: T; busy: slot-steps of active fits; slots: K.
        train_s, evaluate_s: the device's seconds for the whole tick, idle slots included.
        idle_s: the idle slots' share of them.
    """

    results: tuple[FitResult, ...]
    steps: int
    busy: int
    slots: int
    train_s: float
    evaluate_s: float
    idle_s: float


@dataclass
class _Seat:
    """A fit in a slot, and what it has cost and scored so far."""

    fit: Fit
    scores: list[Score]
    cost: Cost


class Engine:
    """K slots on one device.

    Args:
        build: makes the plain network from torch's global generator; called once per fit, for its initial weights.
        folds: what fits train on; `Fit.fold` is an index into them.
        training: how, the same for every fit.
        task: what the network's output means.
        slots: K.
        device: "cpu", "cuda", "cuda:1", ...
        compiled: whether the training step goes through torch.compile (see `compiler.can_compile`).

    Raises:
        EngineError: the network has no weight layer, or the device is not there.
    """

    def __init__(
        self,
        build: Callable[[], nn.Sequential],
        folds: Sequence[Fold],
        training: Training,
        task: Task,
        *,
        slots: int,
        device: str = "cpu",
        compiled: bool = False,
    ) -> None:
        self.device = torch.device(find_device(device))
        self.training, self.task, self.build = training, task, build
        self.network = regularize(build(), DroppedLinear)
        self.network.module.to(self.device)
        self.optimizer = _optimizer(training)
        self.arena = Arena(self.network, max(slots, LEAST_LANES[compiled]), self.optimizer.moments, self.device)
        self.folds = DeviceFolds(folds, self.device)
        self.flops = row_flops(build(), self.folds.row_shape)
        self.seats: list[_Seat | None] = [None] * slots
        self._score_rows = row_scores(self.network, task)
        step = train_step(self.network, task, self.optimizer)
        self._step = compile_function(step) if compiled else step
        self._score_groups = compile_function(self._score_rows) if compiled else self._score_rows
        self._groups = self._slot_groups(LEAST_LANES[compiled])
        self._watch = Stopwatch(self.device)

    @property
    def slots(self) -> int:
        """K."""
        return len(self.seats)

    @property
    def free(self) -> int:
        """Slots without a fit."""
        return self.seats.count(None)

    def admit(self, fits: Sequence[Fit]) -> None:
        """Put fits into free slots; they start at the next tick.

        Raises:
            EngineError: there are more fits than free slots, or a setting has the wrong number of layers.
        """
        if len(fits) > self.free:
            raise EngineError(f"{len(fits)} fits were admitted, but only {self.free} of {self.slots} slots are free.")
        for fit in fits:
            self._check(fit)
        empty = [slot for slot, seat in enumerate(self.seats) if seat is None]
        for fit, slot in zip(fits, empty, strict=False):
            names = self.arena.weights
            initial = dict(zip(names, initial_weights(self.build, fit.seed), strict=True))
            self.arena.fill(slot, fit, initial)
            self.seats[slot] = _Seat(fit, [], Cost())

    def evict(self, keys: Sequence[str] | None = None) -> dict[str, Cost]:
        """Give fits up (all of them by default) and free their slots; returns what each has cost so far."""
        given_up = {}
        for slot, seat in enumerate(self.seats):
            if seat is not None and (keys is None or seat.fit.key in keys):
                given_up[seat.fit.key] = seat.cost
                self._vacate(slot)
        return given_up

    def train(self) -> Tick:
        """One tick: every active fit trains one epoch and is evaluated; fits that end leave their slots."""
        with torch.no_grad(), steady_products(self.device):
            with self._watch.phase("train"):
                steps = self._train_epoch()
            with self._watch.phase("evaluate"):
                measured = self._evaluate()
                ended = self._judge(measured)
            train_s, evaluate_s = self._watch.take("train"), self._watch.take("evaluate")
            self._record(measured, train_s / self.slots, evaluate_s / self.slots)
            busy = self.slots - self.free
            with self._watch.phase("test"):
                results = tuple(self._release(slot, outcome) for slot, outcome in ended)
        tested_s = self._watch.take("test") if results else 0.0
        results = tuple(_charged(result, tested_s / len(results)) for result in results)
        idle_s = (train_s + evaluate_s) * (self.slots - busy) / self.slots
        return Tick(results, steps, busy * steps, self.slots, train_s, evaluate_s + tested_s, idle_s)

    def rehearse(self) -> float:
        """Seconds that a tick takes with every slot empty: the same arithmetic, without effect. Compiles first.

        The quickest of a few, so that a neighbour's passing load is not taken for the machine's speed.

        Raises:
            EngineError: there are fits in the slots, which would be trained, or the code can't be compiled.
        """
        if self.free < self.slots:
            raise EngineError("only an engine without fits can rehearse. Rehearse before the first admit.")
        took = []
        with torch.no_grad(), steady_products(self.device):
            for _ in range(1 + REHEARSALS):
                with self._watch.phase("rehearse"), compile_errors():
                    self._train_epoch()
                    self._evaluate()
                took.append(self._watch.take("rehearse"))
        return min(took[1:])

    def _check(self, fit: Fit) -> None:
        layers = len(fit.setting.keep_prob)
        if layers != self.network.layers:
            raise EngineError(
                f"fit {fit.key}: its setting has {layers} layers, but the network has {self.network.layers} weight "
                f"layers. Give one keep_prob and one lambda_ per weight layer."
            )
        if not 0 <= fit.fold < self.folds.count:
            raise EngineError(f"fit {fit.key}: there is no fold {fit.fold}; the engine has {self.folds.count}, from 0.")

    def _train_epoch(self) -> int:
        arena, batch_size = self.arena, self.training.batch_size
        rows = self.folds.train_rows[arena.fold]
        steps = -(-self.folds.longest // batch_size)
        slot_steps = (rows + batch_size - 1) // batch_size
        order = row_order(arena.seed, arena.epoch, rows, self.folds.longest)
        # rows that a batch lacks point at row 0 and count nothing
        order = functional.pad(order, (0, steps * batch_size - order.shape[1])).clamp(max=self.folds.longest - 1)
        at = arena.step[None] + torch.arange(steps, device=self.device)[:, None]  # (T, K)
        layers = torch.arange(self.network.layers, device=self.device)
        keys = slot_keys(arena.seed[None, :, None], layers[None, None], at[:, :, None])  # (T, K, L, 2)
        rates = torch.full_like(arena.best_loss, self.training.learning_rate)
        sizes = self.optimizer.step_sizes(rates[None].expand(steps, -1), at)
        decay = (arena.lambda_ / rows[:, None]).to(torch.float32)
        arena.trained_loss.zero_()
        for t in range(steps):
            batch = Batch(
                keys=keys[t],
                thresholds=arena.thresholds,
                decay=decay,
                sizes=tuple(size[t] for size in sizes),
                fold=arena.fold,
                index=order[:, t * batch_size : (t + 1) * batch_size],
                rows=(rows - t * batch_size).clamp(0, batch_size),
                active=arena.active & (t < slot_steps),
            )
            arena.trained_loss += self._step(arena.weights, arena.moments, self.folds.x, self.folds.y, batch)
        arena.step += torch.where(arena.active, slot_steps, 0)
        arena.epoch += arena.active
        arena.trained_loss /= rows
        return steps

    def _evaluate(self) -> Tensor:
        """`5 x K`: loss as trained, loss on training and validation rows as evaluated, and both metrics."""
        arena, folds = self.arena, self.folds
        scores = [
            self._score_groups(
                {name: weight[group] for name, weight in arena.weights.items()}, folds.x, folds.y, arena.fold[group]
            )
            for group in self._groups
        ]
        losses, metrics = (torch.cat(parts) for parts in zip(*scores, strict=True))
        train_rows, held_rows = folds.train_rows[arena.fold], folds.validation_rows[arena.fold]
        train, held = slice(0, folds.longest), slice(folds.longest, None)
        scale = folds.target_scale[arena.fold]
        return torch.stack(
            [
                arena.trained_loss,
                mean_over_rows(losses[:, train], train_rows),
                mean_over_rows(losses[:, held], held_rows),
                metric_of_mean(self.task, mean_over_rows(metrics[:, train], train_rows), scale),
                metric_of_mean(self.task, mean_over_rows(metrics[:, held], held_rows), scale),
            ]
        )

    def _slot_groups(self, least: int) -> list[slice]:
        """Slots to evaluate together: groups of one size for one compiled function; all of them if none fits."""
        lanes, widest = self.arena.lanes, max(weight.shape[1] for weight in self.arena.weights.values())
        most = min(lanes, max(least, TOGETHER_FLOATS[self.device.type] // (self.folds.x.shape[1] * widest)))
        size = max((n for n in range(least, most + 1) if lanes % n == 0 and n > most // 4), default=lanes)
        return [slice(start, start + size) for start in range(0, lanes, size)]

    def _judge(self, measured: Tensor) -> list[tuple[int, Outcome]]:
        """Keep the best weights and say which slots end, by evaluation-mode losses alone (R10, R15)."""
        arena, training = self.arena, self.training
        arena.keep_best(measured[2])
        finite = measured[:3].isfinite().all(0)
        tired = (arena.stale >= training.patience) if training.patience else torch.zeros_like(arena.active)
        done = arena.epoch >= training.epochs
        ends = torch.stack([~finite, done, tired]) & arena.active
        first = ends.to(torch.int8).argmax(0)
        outcomes = (Outcome.DIVERGED, Outcome.FINISHED, Outcome.STOPPED_EARLY)
        slots = ends.any(0).nonzero().flatten().tolist()
        return [(slot, outcomes[int(first[slot])]) for slot in slots]

    def _record(self, measured: Tensor, train_s: float, evaluate_s: float) -> None:
        at_ms = time.time_ns() // 1_000_000
        values, epochs = measured.T.tolist(), self.arena.epoch.tolist()
        for slot, seat in enumerate(self.seats):
            if seat is not None:
                dropped, train, held, train_metric, held_metric = values[slot]
                seat.scores.append(Score(epochs[slot], dropped, train, held, train_metric, held_metric, at_ms))
                seat.cost += self._epoch_cost(seat.fit.fold, train_s, evaluate_s)

    def _epoch_cost(self, fold: int, train_s: float, evaluate_s: float) -> Cost:
        rows, held = self.folds.rows_of(fold)
        steps = -(-rows // self.training.batch_size)
        flops = rows * self.flops.train + (rows + held) * self.flops.evaluate
        return Cost(steps=steps, epochs=1, examples=rows, flops=flops, train_s=train_s, evaluate_s=evaluate_s)

    def _release(self, slot: int, outcome: Outcome) -> FitResult:
        seat = self.seats[slot]
        assert seat is not None  # _judge names active slots only, and those are taken
        if outcome is Outcome.DIVERGED:
            result = _diverged(seat, self.network.layers)
        else:
            result = self._best_result(slot, seat, outcome)
        self._vacate(slot)
        return result

    def _best_result(self, slot: int, seat: _Seat, outcome: Outcome) -> FitResult:
        """The fit at its best epoch, with the sealed test rows scored there for the first and only time."""
        best = self.arena.best_of(slot)
        test_loss, test_metric = self._test(best, seat.fit.fold)
        score = seat.scores[int(self.arena.best_epoch[slot]) - 1]
        norms = (best[name].double().square().flatten(1).sum(1).sum() for name in self.network.weight_names)
        flops = self.folds.test_rows(seat.fit.fold) * self.flops.evaluate
        return FitResult(
            key=seat.fit.key,
            outcome=outcome,
            best_epoch=score.epoch,
            train_loss=score.train_loss,
            validation_loss=score.validation_loss,
            validation_metric=score.validation_metric,
            test_loss=test_loss,
            test_metric=test_metric,
            squared_norms=tuple(float(norm) for norm in norms),
            scores=tuple(seat.scores),
            cost=seat.cost + Cost(flops=flops),
        )

    def _test(self, weights: dict[str, Tensor], fold: int) -> tuple[float, float]:
        """Always one fit at a time: what else ends in the same tick can't touch the result."""
        x, y = self.folds.test(fold)
        rows = torch.tensor([y.shape[0]], device=self.device)
        only = torch.zeros(1, dtype=torch.int64, device=self.device)
        stacked = {name: weight[None] for name, weight in weights.items()}
        losses, metrics = self._score_rows(stacked, x[None], y[None], only)
        metric = metric_of_mean(self.task, mean_over_rows(metrics, rows), self.folds.target_scale[fold])
        return float(mean_over_rows(losses, rows)), float(metric)

    def _vacate(self, slot: int) -> None:
        self.seats[slot] = None
        self.arena.active[slot] = False


def _optimizer(training: Training) -> Optimizer:
    if training.optimizer == "adam":
        return Adam(training.beta1, training.beta2, training.epsilon)
    if training.optimizer == "sgd":
        return Sgd(training.momentum)
    raise EngineError(f"optimizer {training.optimizer!r} is not known. Choose adam or sgd.")


def _diverged(seat: _Seat, layers: int) -> FitResult:
    nan = float("nan")
    return FitResult(
        key=seat.fit.key,
        outcome=Outcome.DIVERGED,
        best_epoch=seat.scores[-1].epoch,
        train_loss=nan,
        validation_loss=nan,
        validation_metric=nan,
        test_loss=nan,
        test_metric=nan,
        squared_norms=(nan,) * layers,
        scores=tuple(seat.scores),
        cost=seat.cost,
    )


def _charged(result: FitResult, tested_s: float) -> FitResult:
    """Scoring the test rows is evaluation too."""
    return replace(result, cost=result.cost + Cost(evaluate_s=tested_s))
