"""Our side of tests/benchmarks/engine.py: the engine refilled as fits end, or as a pack that only shrinks."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from engine_workload import Side, Tally, Turn, Work

from sweeper.engine import Engine, Tick
from sweeper.records import Fit, Task

RUNG = 3  # epochs after which a sweep prunes the worse half, in `Ours.sweep`


class Ours(Side):
    """K slots; a fit that ends makes room for the next one at the next tick.

    Args:
        work: what is trained.
        slots: K of this process's engine.
        compiled: whether the step goes through torch.compile.
        refills: False makes the pack of TabPack's kind: K fits, and nobody enters before all of them have ended. The
            step is ours, so that the difference is what refilling gives and nothing else.
    """

    def __init__(self, work: Work, slots: int, compiled: bool, refills: bool = True) -> None:
        self.work, self.compiled, self.refills = work, compiled, refills
        self.engine = Engine(
            work.build,
            [work.fold()],
            work.training,
            Task.MULTICLASS,
            slots=slots,
            device=work.device,
            compiled=compiled,
            undropped=[0],
        )
        self._ready: deque[Any] = deque()
        self._ended = 0

    def warm_up(self) -> float:
        fits = self.work.fits(0)
        took = [seconds_of(lambda: self.engine.admit([next(fits)]))]  # the first fit finds the code compiled
        self._admit(fits)
        took += [seconds_of(lambda: self._tick(None)) for _ in range(3)]
        while not self.refills and self.engine.free < self.engine.slots:  # as it shrinks it may meet other sizes
            took.append(seconds_of(lambda: self._tick(None)))
        self._start_over()
        usual = statistics.median(took[1:])
        return sum(max(0.0, seconds - usual) for seconds in took) if self.compiled else 0.0

    def turn(self, seconds: float, fits: Iterator[Fit]) -> Turn:
        tally = Tally()
        while tally.seconds <= seconds:
            self._admit(fits)
            self._count(tally, self._tick(fits if self.refills else None))
            while not self.refills and self.engine.free < self.engine.slots:
                self._count(tally, self._tick(None))
        turn = tally.turn()
        self._start_over()
        return turn

    def _start_over(self) -> None:
        self.engine.evict()
        self._ready.clear()
        self._ended = 0

    def sweep(self, fits: list[Fit]) -> Turn:
        """Also prunes: after `RUNG` epochs whoever is worse than the median of all that came as far."""
        tally, waiting, seen = Tally(), iter(fits), {}
        while len(tally.epochs) < len(fits):
            self._admit(waiting)
            tick = self._tick(waiting)
            self._count(tally, tick)
            reached = {key: score.validation_loss for key, score in tick.scores.items() if score.epoch == RUNG}
            seen |= reached
            bar = statistics.median(seen.values()) if seen else 0.0
            for result in self.engine.prune([key for key, loss in reached.items() if loss > bar]):
                tally.ended(len(result.scores), result.validation_loss)
        return tally.turn()

    def _admit(self, fits: Iterator[Fit]) -> None:
        free = self.engine.free
        entering = [self._ready.popleft() for _ in range(min(free, len(self._ready)))]
        entering += [fit for _, fit in zip(range(free - len(entering)), fits, strict=False)]
        self.engine.admit(entering)

    def _tick(self, fits: Iterator[Fit] | None) -> Tick:
        """One tick; while the device works on it, the host prepares as many fits as are likely to be needed next."""
        if fits is None or not self.engine.overlaps:
            return self.engine.train()
        self.engine.launch()
        wanted = min(self.engine.slots, 2 * max(self._ended, self.engine.slots // self.work.epochs))
        missing = range(wanted - len(self._ready))
        self._ready.extend(self.engine.prepare(fit) for _, fit in zip(missing, fits, strict=False))
        tick = self.engine.collect()
        self._ended = len(tick.results)
        return tick

    def _count(self, tally: Tally, tick: Tick) -> None:
        tally.steps += tick.busy
        tally.computed += tick.steps * tick.slots
        tally.offered += tick.steps * self.engine.slots
        tally.train_s += tick.train_s
        for result in tick.results:
            tally.ended(len(result.scores), result.validation_loss)


def seconds_of(do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start
