"""The choice: how many fits at once, eager or compiled, on how many threads, in how many processes.

Letters: K slots of one process, N processes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sweeper.calibration.setup import REHEARSAL_S, Maker, Numerics, Setup, step_s
from sweeper.engine import (
    Engine,
    can_compile,
    cpu_cores,
    device_facts,
    device_free_bytes,
    energy_note,
    find_device,
    find_meter,
    footprint,
    keep_freed_memory,
    let_go_of_memory,
    use_threads,
)
from sweeper.errors import EngineError, OutOfMemoryError
from sweeper.machine import free_bytes, peak_bytes
from sweeper.workload import Workload

# A CPU gains little from more slots than these (a group fills its cache), a GPU goes on gaining.
MOST_SLOTS = {"cpu": 64, "cuda": 256}
# From so many fits per slot on, the end of a sweep, when slots stay empty, takes less than a twentieth of it.
ROUNDS = 20
# Compiling takes 10 to 20 seconds on two cores and makes a step about four times as fast: below this much eager work
# it does not pay.
COMPILE_ABOVE_S = 60.0
COMPILED_GAIN = 4.0
# A further process takes 10 to 20 seconds until it trains, on a core that is then not free for anything else.
PROCESSES_SAVE_S = 30.0
# A thread more must make a step faster by this factor: a step ends when its slowest thread does, so that a busy
# neighbour holds up all of them.
THREADS_GAIN = 1.1
# Eager code on wide layers is quicker in small groups, whose activations stay in the cache.
EAGER_WIDTHS = (8, 2)
MEMORY_SHARE = 0.8  # of what is free; samplers, results and other programs want some too
NO_COMPILER = "no C++ compiler and Python headers were found. Install g++ (or clang) and python3-dev."


@dataclass(frozen=True)
class Wish:
    """What a user asked for; None leaves the choice to the calibration.

    Attributes:
        device: "auto", "cpu", "cuda", "cuda:1", ...
        slots: K of each process. threads: of each process. processes: N.
        compiling: whether to compile.
        spared: cores that are left to other processes of ours.
        apart: whether each process has a device of its own.
    """

    device: str = "auto"
    slots: int | None = None
    threads: int | None = None
    processes: int | None = None
    compiling: bool | None = None
    spared: int = 0
    apart: bool = False


def set_up(workload: Workload, wish: Wish, pinned: Mapping[str, Any] | None = None) -> Setup:
    """Choose how to compute a workload, build the engine for it, and measure a tick.

    Args:
        workload: what to train.
        wish: what is not left to choose.
        pinned: the numerics that the sweep was launched with, which a resumed sweep keeps.

    Raises:
        EngineError: the device is not there, or can't train this.
        OutOfMemoryError: its memory has no room for a single trial.
    """
    began = time.perf_counter()
    keep_freed_memory()
    device = find_device(wish.device)
    _refuse_unmeasured(workload, device)
    setup = _Calibration(workload, device, wish, pinned).setup()
    setup.took_s = time.perf_counter() - began
    return setup


def _refuse_unmeasured(workload: Workload, device: str) -> None:
    """A budget of joules can be kept only where they are measured."""
    joules = workload.sweep.search.budget.joules
    if joules is not None and find_meter(device) is None:
        raise EngineError(
            f"{workload.file.where('search', 'budget', 'joules')}: search.budget.joules = {joules:g} can't be kept on "
            f"this machine. The energy of its {device} is {energy_note(device)}. Work where it is measured, or give a "
            "budget of device_seconds instead."
        )


def most_parallel(workload: Workload) -> int:
    """How many fits of a sweep may be under way at once."""
    if workload.order_is_free:
        return workload.trials * workload.folds_per_trial
    return len(workload.studies()) * workload.sweep.search.concurrency * workload.folds_per_trial


def useful_slots(workload: Workload, kind: str, processes: int = 1) -> int:
    """How many slots of one process keep a sweep's fits going without many of them empty at its end.

    Args:
        workload: the sweep.
        kind: "cpu" or "cuda".
        processes: N.
    """
    folds, studies = workload.folds_per_trial, len(workload.studies())
    wanted = most_parallel(workload)
    if workload.order_is_free:  # one trial per study at least, and more where each has many
        wanted = min(wanted, max(studies * folds, -(-wanted // ROUNDS)))
    share = -(-wanted // (processes * folds)) * folds
    return max(folds, min(MOST_SLOTS[kind], share))


@dataclass
class _Eager:
    """An eager engine that was rehearsed.

    Attributes:
        ticks: seconds of one tick with all slots, by the number of threads.
    """

    engine: Engine
    ticks: Mapping[int, float]

    @property
    def threads(self) -> int:
        """How many threads are best: no more than make it clearly faster."""
        fewest, best = min(self.ticks), min(self.ticks, key=lambda threads: self.ticks[threads])
        return best if self.ticks[fewest] > THREADS_GAIN * self.ticks[best] else fewest

    def step_s(self, threads: int) -> float:
        """Seconds of one step of one fit, on so many threads or those that were tried."""
        return step_s(self.engine, self.ticks.get(threads, self.ticks[self.threads]))

    def work_s(self, workload: Workload, threads: int | None = None) -> float:
        """What the whole sweep would take in one process, with every fit trained to its end."""
        tick_s = self.ticks.get(threads or self.threads, self.ticks[self.threads])
        fits = workload.trials * workload.folds_per_trial
        return fits * workload.training.epochs * tick_s / self.engine.slots


class _Calibration:
    """One choice under way."""

    def __init__(self, workload: Workload, device: str, wish: Wish, pinned: Mapping[str, Any] | None) -> None:
        self.workload, self.device, self.wish, self.pinned = workload, device, wish, pinned
        self.on_cpu = device == "cpu"
        self.cores = max(1, cpu_cores() - wish.spared)
        self.before_bytes = peak_bytes() if self.on_cpu else 0
        self.footprint = footprint(workload.build, workload.engine_folds, workload.training, device)
        self.notes: list[str] = []

    def setup(self) -> Setup:
        """The choice, its engine built."""
        wanted = self._wanted()
        eager = self._eager() if wanted is None or self._has_cores_to_share() else None
        compiled = self._is_compiled(wanted, eager)
        processes = self._processes(eager, compiled)
        threads = self._threads(eager, processes)
        use_threads(threads)
        eager_step_s = eager.step_s(threads) if eager else None
        solo_step_s = Maker(self.workload, self.device).solo_step_s()
        if eager is not None and not compiled and processes == 1:
            engine, tick_s = self._in_best_groups(eager)
        else:
            if eager is not None:
                del eager
                let_go_of_memory(self.device)
            engine, tick_s, compiled = self._built(processes, compiled)
        facts = device_facts(self.device)
        numerics = Numerics(compiled, facts.torch, facts.kind, self.workload.training.precision)
        self._compare(numerics)
        return Setup(
            self.workload,
            engine,
            facts,
            numerics,
            processes,
            tick_s,
            self.footprint,
            self.before_bytes,
            eager_step_s,
            solo_step_s,
            notes=self.notes,
            sharers=1 if self.wish.apart else processes,
        )

    # eager or compiled ----------------------------------------------------------------------------------------------

    def _wanted(self) -> bool | None:
        return bool(self.pinned["compiled"]) if self.pinned else self.wish.compiling

    def _is_compiled(self, wanted: bool | None, eager: _Eager | None) -> bool:
        pays = eager is not None and eager.work_s(self.workload) > COMPILE_ABOVE_S
        compiled = pays if wanted is None else wanted
        if compiled and not can_compile(self.device):
            self._stay_eager(NO_COMPILER)
            return False
        return compiled

    def _stay_eager(self, why: str) -> None:
        self.notes.append(f"training runs eager, several times slower than compiled: {why}")

    def _compare(self, now: Numerics) -> None:
        """Say so if a sweep goes on in another way than it was launched."""
        before = {name: value for name, value in (self.pinned or {}).items() if name in asdict(now)}
        changed = [name for name, value in before.items() if value != asdict(now)[name]]
        if changed:
            was = ", ".join(f"{name} {before[name]}" for name in changed)
            self.notes.append(f"this sweep was launched with {was}; results differ in their last bits from now on.")

    def _eager(self) -> _Eager:
        """Rehearse eager code, on one thread and on all there are."""
        candidates = [self.wish.threads] if self.wish.threads else [self.cores] if not self.on_cpu else [1, self.cores]
        use_threads(candidates[0])
        engine, tick_s = Maker(self.workload, self.device).fitting(self._slots(1), compiled=False)
        ticks = {candidates[0]: tick_s}
        for threads in set(candidates) - set(ticks):
            use_threads(threads)
            ticks[threads] = engine.rehearse(REHEARSAL_S)
        return _Eager(engine, ticks)

    def _in_best_groups(self, eager: _Eager) -> tuple[Engine, float]:
        """The rehearsed engine; for long work perhaps one whose slots train in smaller groups."""
        best = eager.engine, eager.ticks[eager.threads]
        if self.on_cpu and eager.engine.obstacle is None and eager.work_s(self.workload) > COMPILE_ABOVE_S:
            slots, maker = eager.engine.slots, Maker(self.workload, self.device)
            others = [maker.fitting(slots, False, width) for width in EAGER_WIDTHS if width < eager.engine.width]
            best = min(best, *others, key=lambda one: one[1] / one[0].slots) if others else best
        return best

    def _built(self, processes: int, compiled: bool) -> tuple[Engine, float, bool]:
        """An engine, its tick's seconds, and whether it is compiled; eager where nobody insists and it can't be."""
        sharers = 1 if self.wish.apart else processes
        maker, slots = Maker(self.workload, self.device, sharers), self._slots(processes)
        try:
            return *maker.fitting(slots, compiled), compiled
        except OutOfMemoryError:
            raise
        except EngineError as error:
            if not compiled or self.wish.compiling:
                raise
            self._stay_eager(str(error))
        return *maker.fitting(slots, compiled=False), False

    # threads and processes ------------------------------------------------------------------------------------------

    def _has_cores_to_share(self) -> bool:
        is_open = self.wish.threads is None or self.wish.processes is None
        return self.on_cpu and is_open and self.cores > 1

    def _processes(self, eager: _Eager | None, compiled: bool) -> int:
        """One process per core where the work is long enough: threads wait for each other, processes don't."""
        if self.wish.processes or eager is None or not self.on_cpu:
            return self.wish.processes or 1
        threads = self.wish.threads or 1
        trials = most_parallel(self.workload) // self.workload.folds_per_trial
        most = max(1, min(self.cores // threads, trials // 2))
        expected_s = eager.work_s(self.workload, threads) / (COMPILED_GAIN if compiled else 1.0)
        return most if expected_s * (1 - 1 / most) > PROCESSES_SAVE_S else 1

    def _threads(self, eager: _Eager | None, processes: int) -> int:
        if self.wish.threads:
            return self.wish.threads
        room = max(1, self.cores // processes)
        return min(room, eager.threads) if eager is not None and self.on_cpu else room

    # slots ----------------------------------------------------------------------------------------------------------

    def _slots(self, processes: int) -> int:
        """K: what was asked for, or what is of use; as far as the memory goes.

        Raises:
            OutOfMemoryError: what was asked for, or a single trial, needs more than is free.
        """
        kind, folds = self.device.partition(":")[0], self.workload.folds_per_trial
        free = free_bytes() // processes if self.on_cpu else device_free_bytes(self.device)
        room = self.footprint.most_slots(free, min(EAGER_WIDTHS))
        least = max(self.wish.slots or folds, folds)
        if room < least:
            raise OutOfMemoryError(
                f"{least} fits at once would take about {_gigabytes(self.footprint.total(least, min(EAGER_WIDTHS)))}, "
                f"but only {_gigabytes(free)} are free for each process. "
                + (f"Pass --slots {room} or fewer." if room >= folds else "Take a smaller batch_size or network.")
            )
        if self.wish.slots:
            return least
        useful = useful_slots(self.workload, kind, processes)
        roomy = self.footprint.most_slots(int(free * MEMORY_SHARE), MOST_SLOTS[kind])
        if roomy < useful:
            note = f"the memory that is free ({_gigabytes(free)}) has room for {max(roomy, folds)} fits at once."
            self.notes += [note] if note not in self.notes else []
        return max(folds, min(useful, roomy))


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
