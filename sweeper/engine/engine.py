"""Trains many fits at once: K slots of one stacked network, refilled as fits end.

Letters: K slots, G lanes of a group, S folds, T steps of a tick (one epoch of the longest fold), B rows of a batch.
`admit` puts fits into free slots, `train` does one tick for all of them and says who ended, `prune` and `evict` end
fits from outside. A fit's result depends on its setting, seed and fold alone, not on its slot or company
(tests/engine/test_promise.py).

A tick has two halves: `launch` hands the device its work, `collect` waits for it. On a GPU the host is free in between;
all that comes back is one small tensor.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from functools import cached_property

import torch
from torch import Tensor, nn

from sweeper.engine.arena import Arena, initial_weights
from sweeper.engine.checks import check_fit, check_past
from sweeper.engine.compiler import Compiled, Eager
from sweeper.engine.device import find_device, memory_errors
from sweeper.engine.folds import DeviceFolds
from sweeper.engine.formation import in_front, in_groups
from sweeper.engine.group import Group, Programs
from sweeper.engine.judge import OUTCOMES, LaneReport, judge
from sweeper.engine.lastlook import LastLook
from sweeper.engine.layers import keep_all
from sweeper.engine.meter import Stopwatch, lane_share, row_flops
from sweeper.engine.optimizers import optimizer_of
from sweeper.engine.plan import Plan, counted
from sweeper.engine.products import steady_products
from sweeper.engine.rehearsal import part_of_tick, whole_tick
from sweeper.engine.seat import NAN, Final, Seat, diverged_result, ended_result
from sweeper.engine.stacking import example_rows, network_in_slots, stacking_obstacle
from sweeper.engine.step import row_scores
from sweeper.engine.tick import Launched, Prepared, Snapshot, Tick
from sweeper.errors import EngineError
from sweeper.records import Cost, Fit, FitResult, Fold, Outcome, Score, Task, Training

# A single lane takes other kernels than two or more, whose bits agree: compiled code always, eager code where a product
# sums over many rows (measured: the weight's gradient from 1,797 rows on); a spare lane stays empty.
LEAST_LANES = 2

# Lanes that train together. Compiled code on a CPU is quickest while a group's weights and moments stay near its core,
# and there are enough lanes to share what a step costs beside them (measured, us per slot-step: 20-64-64-2 in groups of
# 8, 16, 32, 64: 34, 26, 24, 28; 64-128-128-10 in groups of 4, 8, 16: 149, 141, 143). Eager code and a GPU are quickest
# with all lanes at once.
CACHE_BYTES = 3 << 20
MOST_LANES = 64
LEAST_GROUP = 8


class Engine:
    """K slots on one device.

    Args:
        build: makes the plain network from torch's global generator; called once per fit, for its initial weights.
        folds: what fits train on; `Fit.fold` is an index into them.
        training: how, the same for every fit.
        task: what the network's output means.
        slots: K.
        device: "cpu", "cuda", "cuda:1", ...
        compiled: whether the tick's functions are compiled (see `compiler.can_compile`).
        width: G, lanes that train together; None chooses.
        per_channel: whether dropout before a convolution drops whole channels.
        undropped: layers whose keep_prob is 1 in every fit; drawing no masks for them changes no result.
        sharers: processes that work on the device side by side, each of which takes a share of its energy.
        alone: whether to train fit after fit with PyTorch's plain operations, as without this engine: for comparison.

    Raises:
        EngineError: the network has no weight layer, the device is not there, or the code can't be compiled.
        OutOfMemoryError: so many slots don't fit the device; any tick may raise it, and the engine is then of no use.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module],
        folds: Sequence[Fold],
        training: Training,
        task: Task,
        *,
        slots: int,
        device: str = "cpu",
        compiled: bool = False,
        width: int | None = None,
        per_channel: bool = False,
        undropped: Collection[int] = (),
        sharers: int = 1,
        alone: bool = False,
    ) -> None:
        self.device = torch.device(find_device(device))
        self.training, self.task, self.build = training, task, build
        self.optimizer = optimizer_of(training)
        self.folds = DeviceFolds(folds, self.device)
        self.network = network_in_slots(build(), folds, training, task, per_channel=per_channel)
        self._undropped = frozenset(undropped)
        keep_all(self.network, self._undropped)
        self.obstacle = (
            "it is to train alone"
            if alone
            else stacking_obstacle(self.network, example_rows(folds), device=device, compiled=compiled)
        )
        self.network.module.to(self.device)
        self.flops = row_flops(build(), self.folds.row_shape)
        self.slots = slots
        self._compiled = compiled and self.obstacle is None
        self.width = self._even_width(width or self._best_width())
        lanes = -(-slots // self.width) * self.width
        self.seats: list[Seat | None] = [None] * lanes  # a lane more than slots may stand empty
        with memory_errors(slots):
            self.arena = Arena(self.network, lanes, self.optimizer.moments, self.device)
        self._groups: dict[tuple[int, int], Group] = {}
        self._watch = Stopwatch(self.device, sharers)
        scores = row_scores(self.network, task, together=False)  # one fit at a time
        self._last_look = LastLook(self.network, task, self.folds, scores, self.flops, self._watch)
        self._launched: Launched | None = None

    @property
    def free(self) -> int:
        """Slots without a fit."""
        return self.slots - len(self._seated(None))

    @property
    def steps(self) -> int:
        """T."""
        return -(-self.folds.longest // self.training.batch_size)

    @property
    def overlaps(self) -> bool:
        """Whether the host is free while the device works on a tick."""
        return self.device.type == "cuda"

    def prepare(self, fit: Fit, past: Snapshot | None = None) -> Prepared:
        """Draw the weights that a fit starts from; the device may be at work.

        Args:
            fit: which.
            past: how far it had come in another engine, or in this one before.

        Raises:
            EngineError: the setting has the wrong number of layers, there is no such fold, or the snapshot is of
                another network or optimiser.
        """
        check_fit(fit, self.network.layers, self._undropped, self.folds.count)
        if past is not None:
            check_past(fit, past, self.arena)
        return Prepared(fit, initial_weights(self.build, fit.seed), past)

    def snapshots(self) -> dict[str, Snapshot]:
        """How far the fits have come, between ticks; not those that have yet to begin."""
        self._refuse_in_flight("take snapshots")
        return {
            seat.fit.key: Snapshot(self.arena.state_of(slot), tuple(seat.scores), seat.before + seat.cost)
            for slot, seat in self._seated(None)
            if seat.scores
        }

    def admit(self, fits: Sequence[Fit | Prepared]) -> None:
        """Put fits into free slots, between ticks; they start at the next one.

        Raises:
            EngineError: there are more fits than free slots, or one can't be trained here.
        """
        self._refuse_in_flight("admit fits")
        if len(fits) > self.free:
            raise EngineError(f"{len(fits)} fits were admitted, but only {self.free} of {self.slots} slots are free.")
        prepared = [fit if isinstance(fit, Prepared) else self.prepare(fit) for fit in fits]
        self._bind()
        empty = [slot for slot, seat in enumerate(self.seats) if seat is None]
        for one, slot in zip(prepared, empty, strict=False):
            self.arena.fill(slot, one.fit, dict(one.initial))
            self.seats[slot] = seat = Seat(one.fit)
            if one.past is not None:
                self.arena.resume(slot, one.past.tensors)
                seat.scores, seat.before = list(one.past.scores), one.past.cost
                seat.best_epoch = int(one.past.tensors["fit/best_epoch"])

    def evict(self, keys: Sequence[str] | None = None) -> dict[str, Cost]:
        """Give fits up (all of them by default) and free their slots; returns what each has cost so far."""
        self._refuse_in_flight("evict fits")
        return {seat.fit.key: self._vacate(slot).cost for slot, seat in self._seated(keys)}

    def prune(self, keys: Sequence[str]) -> tuple[FitResult, ...]:
        """End fits that are not worth going on with, at their best epoch so far; the test rows stay sealed.

        Fits that have not been trained for an epoch yet are left alone.
        """
        self._refuse_in_flight("prune fits")
        pruned = []
        for slot, seat in self._seated(keys):
            if seat.best_epoch:
                norms = self._last_look.squared_norms(self.arena.best_of(slot))
                final = Final(seat.best.train_loss, NAN, NAN, norms, Cost())
                pruned.append(ended_result(seat, Outcome.PRUNED, final))
                self._vacate(slot)
        return tuple(pruned)

    def train(self) -> Tick:
        """One tick: every active fit trains one epoch and is evaluated; fits that end leave their slots."""
        self.launch()
        return self.collect()

    def launch(self) -> None:
        """Hand the device one tick's work.

        Raises:
            EngineError: the tick before was not collected.
        """
        self._refuse_in_flight("launch a tick")
        self._bind()
        self._watch.take_joules()  # what the device took since the tick before is nobody's
        with torch.no_grad(), self._numerics(), memory_errors(self.slots):
            groups = self._formed()
            with self._watch.phase("train"):
                for group in groups:
                    group.train()
                counted(self.arena, self.folds, self.training.batch_size)
            with self._watch.phase("evaluate"):
                verdicts = judge(self.arena, self._measured(groups), self.training)
        self._launched = Launched(verdicts, sum(group.width for group in groups))

    def collect(self) -> Tick:
        """Wait for the tick that was launched, and say what it did.

        Raises:
            EngineError: none was launched.
        """
        launched, self._launched = self._launched, None
        if launched is None:
            raise EngineError("there is no tick to collect. Call launch first.")
        reports = launched.verdicts.lanes()
        train_s, evaluate_s = self._watch.take("train"), self._watch.take("evaluate")
        took = Cost(train_s=train_s, evaluate_s=evaluate_s, joules=self._watch.take_joules())
        lanes, busy = launched.lanes, self.slots - self.free
        steps = self.steps
        self._record(reports, lane_share(took, lanes))
        with torch.no_grad(), self._numerics(), memory_errors(self.slots):
            ended = [self._release(slot, OUTCOMES[int(reports[slot].ending)]) for slot in self._ending(reports)]
        scores = {seat.fit.key: seat.scores[-1] for _, seat in self._seated(None)}
        idle_s = took.device_s * (lanes - busy) / max(1, lanes)
        took = sum((cost for _, cost in ended), took)
        results, spent = tuple(result for result, _ in ended), (took.train_s, took.evaluate_s, idle_s, took.joules)
        return Tick(results, scores, steps, busy * steps, lanes, *spent)

    def rehearse(self, within_s: float = math.inf) -> float:
        """Seconds that a tick takes with every slot empty: the same arithmetic, without effect. Compiles first.

        Args:
            within_s: about how long this may take; of a tick that takes longer, a part stands for all of it.

        Raises:
            EngineError: there are fits in the slots, which would be trained, or the code can't be compiled.
        """
        if self.free < self.slots:
            raise EngineError("only an engine without fits can rehearse. Rehearse before the first admit.")
        self._bind()
        groups = list(self._groups.values())

        def tick() -> None:
            for group in groups:
                group.train()
            judge(self.arena, self._measured(groups), self.training).lanes()

        with torch.no_grad(), self._numerics(), memory_errors(self.slots):
            return part_of_tick(self._watch, groups, within_s) or whole_tick(self._watch, tick)

    # lanes ----------------------------------------------------------------------------------------------------------

    def _best_width(self) -> int:
        if not (self._compiled and self.device.type == "cpu"):
            return MOST_LANES
        numbers = sum(parameter.numel() for parameter in self.network.module.parameters())
        lane_bytes = 4 * numbers * (2 + self.optimizer.moments)  # weights, gradients, moments
        return max(LEAST_GROUP, CACHE_BYTES // lane_bytes)

    def _even_width(self, width: int) -> int:
        """The slots in as many groups as it takes, all of them of one width."""
        if self.obstacle:
            return 1
        groups = -(-self.slots // min(width, self.slots))
        even = -(-self.slots // groups)
        quarters = even + -even % 4  # evaluation can cut such a group into parts
        return max(LEAST_LANES, even if self.slots % quarters else quarters)

    def _bind(self) -> None:
        """Make the tick's code, before the first fit comes in: a rehearsal of it must not train anybody."""
        if not self._groups:
            for turn in in_groups([True] * self.arena.lanes, self.width).turns:
                self._group(turn)

    def _group(self, lanes: slice) -> Group:
        """The lanes of one turn, bound to the tick's code."""
        at = lanes.start, lanes.stop
        if at not in self._groups:
            with torch.no_grad(), self._numerics(), memory_errors(self.slots):
                self._groups[at] = Group(
                    lanes, self.arena, self._plan, self.folds, self.task, self._programs, self._least
                )
        return self._groups[at]

    @cached_property
    def _programs(self) -> Programs:
        make = Compiled if self._compiled else Eager
        together = self.obstacle is None
        return Programs.of(self.network, self.task, self.training, self.optimizer, self.folds, make, together=together)

    @cached_property
    def _plan(self) -> Plan:
        sizes = len(self.optimizer.step_sizes(torch.ones(1), torch.zeros(1, dtype=torch.int64)))
        return Plan.empty(self.arena.lanes, self.network.layers, self.folds, self.training.batch_size, sizes)

    @property
    def _least(self) -> int:
        return 1 if self.obstacle else LEAST_LANES

    def _numerics(self) -> AbstractContextManager[None]:
        return steady_products(self.device, self.training.precision)

    def _formed(self) -> list[Group]:
        """Close ranks, and say who takes a turn. Code made for one width stays; eager code takes any."""
        taken = [seat is not None for seat in self.seats]
        is_fixed = self._compiled or self.overlaps or self.obstacle
        formation = in_groups(taken, self.width) if is_fixed else in_front(taken, self._least)
        for source, target in formation.moves:
            self.arena.move(source, target)
            self.seats[target], self.seats[source] = self.seats[source], None
        return [self._group(turn) for turn in formation.turns]

    def _measured(self, groups: Sequence[Group]) -> Tensor:
        """`4 x K`, see `Group.evaluate`; zeros for lanes without a turn."""
        measured = torch.zeros(4, self.arena.lanes, device=self.device)
        for group in groups:
            measured[:, group.lanes] = group.evaluate()
        return measured

    # seats ----------------------------------------------------------------------------------------------------------

    def _seated(self, keys: Sequence[str] | None) -> list[tuple[int, Seat]]:
        """Taken slots and who sits there; all of them, or those of some fits."""
        taken = [(slot, seat) for slot, seat in enumerate(self.seats) if seat is not None]
        return taken if keys is None else [(slot, seat) for slot, seat in taken if seat.fit.key in keys]

    def _refuse_in_flight(self, what: str) -> None:
        if self._launched is not None:
            raise EngineError(f"a tick is under way, so this is no time to {what}. Call collect first.")

    def _record(self, reports: Sequence[LaneReport], share: Cost) -> None:
        at_ms = time.time_ns() // 1_000_000
        for slot, seat in self._seated(None):
            one = reports[slot]
            losses = one.dropped_loss, one.train_loss, one.validation_loss, one.train_metric, one.validation_metric
            seat.scores.append(Score(int(one.epoch), *losses, at_ms))
            seat.best_epoch = int(one.best_epoch)
            seat.cost += self._epoch_cost(seat.fit.fold) + share

    def _epoch_cost(self, fold: int) -> Cost:
        rows, held = self.folds.rows_of(fold)
        steps = -(-rows // self.training.batch_size)
        flops = rows * self.flops.train + (min(rows, self.folds.sample) + held) * self.flops.evaluate
        return Cost(steps=steps, epochs=1, examples=rows, flops=flops)

    def _ending(self, reports: Sequence[LaneReport]) -> list[int]:
        return [slot for slot, _ in self._seated(None) if reports[slot].ending >= 0]

    def _release(self, slot: int, outcome: Outcome) -> tuple[FitResult, Cost]:
        """The result of a fit that ended, and what the last look at it cost."""
        seat = self._vacate(slot)
        if outcome is Outcome.DIVERGED:
            return diverged_result(seat, self.network.layers), Cost()
        final = self._last_look.at(self.arena.best_of(slot), seat.fit.fold, seat.best.train_loss)
        return ended_result(seat, outcome, final), final.cost

    def _vacate(self, slot: int) -> Seat:
        seat, self.seats[slot] = self.seats[slot], None
        assert seat is not None  # only taken slots are vacated
        self.arena.active[slot] = False
        return seat
