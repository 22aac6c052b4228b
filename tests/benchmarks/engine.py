"""How much faster is the engine than its rivals? All sides on one machine, in turns. Needs torch and numpy alone.

    PYTHONPATH=. python tests/benchmarks/engine.py [--device cpu|cuda] [--shape tiny|small|wide|all] [--slots 16 64 256]

eager       one nn.Module after the other, nn.Dropout, Adam(fused=True); on a CPU in as many processes as cores.
compiled    one fit after the other through one torch.compile'd step; on a GPU `captured`: a CUDA graph of each step.
processes   on a GPU: 16 eager processes that share it (under MPS if it runs); `processes-captured`: 16 captured ones.
shrinking   a pack of K fits trained fused by our own step, which nobody enters before all have ended (as TabPack).
sweeper     our engine with K slots, refilled as fits end; on a CPU --engines of them. `sweeper-eager`: not compiled.

All train the same rows and settings (a keep_prob and a lambda per layer) from the same initial weights, with Adam,
the same batch and patience, and keep the best weights. The engine scores training and validation rows after every
epoch; rivals the validation rows only, unless --score-all. `eager` is float32 always; --precision is for the others,
and where it isn't float32 `eager-precision` is eager with it.

A turn lasts about --seconds in every process of a side; the unit is microseconds of the whole machine per fit-step
(slot-step), everything counted: initial weights, evaluation, refills. The ratio is that to `eager` within one repeat;
medians over repeats, with the least and the most. Compiling is reported apart, with the break-even: how many fits of a
sweep pay for it. Every process has one thread, unless fewer --engines than cores share them; each engine has K slots.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from crews import Crew, CrewError
from engine_gpu import check_masks, mps, profiled
from engine_ours import Ours
from engine_rivals import Compiled, Eager
from engine_workload import SHAPES, Side, Turn, Work

from sweeper.engine import can_compile

SLOTS = {"cpu": {"tiny": [64], "small": [32], "wide": [8]}, "cuda": {shape: [16, 64, 256] for shape in SHAPES}}

# side against which, at least, target (shared/engine.md and issue 3)
TARGETS = {
    ("cpu", "tiny"): {"eager": (13.0, 20.0)},
    ("cpu", "small"): {"eager": (4.4, 6.0)},
    ("cpu", "wide"): {"eager": (1.6, 3.0)},
    ("cuda", "wide"): {"eager": (30.0, 30.0), "captured": (5.0, 5.0), "processes": (3.0, 3.0)},
}
SLOT_STEP_US = "target <= 14 us a slot-step, stretch 8; an H200's floors: 13.6 us float32, 8.6 us TF32 (training alone)"


@dataclass(frozen=True)
class Entry:
    """One side at one size: how its processes are made."""

    name: str
    make: Callable[[], Side]
    work: Work
    processes: int
    threads: int = 1


@dataclass
class Measured:
    """What all turns of one entry gave, one number per repeat."""

    entry: Entry
    compile_s: float
    us: list[float] = field(default_factory=list)
    train_us: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    occupancy: list[float] = field(default_factory=list)
    epochs: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)

    def add(self, turns: list[Turn], baseline: float | None) -> None:
        us = us_per_step(turns)
        steps, ended = sum(turn.steps for turn in turns), [epochs for turn in turns for epochs in turn.epochs]
        self.us.append(us)
        self.train_us.append(us * sum(turn.train_s for turn in turns) / sum(turn.seconds for turn in turns))
        self.ratios.append((baseline or us) / us)
        self.occupancy.append(steps / (sum(turn.offered for turn in turns) or steps))
        self.epochs.append(statistics.mean(ended) if ended else float("nan"))
        losses = [loss for turn in turns for loss in turn.losses]
        self.losses.append(statistics.median(losses) if losses else float("nan"))


def us_per_step(turns: list[Turn]) -> float:
    """Microseconds of the whole machine per fit-step; each process is counted until its own end."""
    return 1e6 / sum(turn.steps / turn.seconds for turn in turns)


def entries(args: argparse.Namespace, shape: str) -> list[Entry]:
    """The sides in the order of their turns; the first is what ratios are to."""
    cuda, processes = args.device.startswith("cuda"), args.processes
    work = Work(shape, args.device, args.precision, args.epochs, args.patience, args.score_all, args.rows)
    plain = Work(shape, args.device, "float32", args.epochs, args.patience, args.score_all, args.rows)
    compiles, alone = can_compile(args.device), 1 if cuda else processes
    listed = [Entry("eager", partial(Eager, plain), plain, alone)]
    if args.precision != "float32":
        listed.append(Entry("eager-precision", partial(Eager, work), work, alone))
    if compiles:
        listed.append(Entry("captured" if cuda else "compiled", partial(Compiled, work), work, alone))
    if cuda:
        listed.append(Entry("processes", partial(Eager, work), work, processes))
        listed.append(Entry("processes-captured", partial(Compiled, work), work, processes))
    engines = 1 if cuda else args.engines
    threads = 1 if cuda else max(1, cores() // engines)
    for slots in args.slots or SLOTS["cuda" if cuda else "cpu"][shape]:
        for name, compiled, refills in (
            ("shrinking", compiles, False),
            ("sweeper-eager", False, True),
            ("sweeper", compiles, True),
        ):
            make = partial(Ours, work, slots, compiled, refills)
            listed.append(Entry(f"{name} K={slots}", make, work, engines, threads))
    wanted = set(args.sides or SIDES) - (set() if args.sides else {"processes-captured"})
    return [entry for entry in listed if entry.name.split()[0] in wanted | {"eager"}]


SIDES = (
    "eager",
    "eager-precision",
    "compiled",
    "captured",
    "processes",
    "processes-captured",
    "shrinking",
    "sweeper-eager",
    "sweeper",
)


def measure(args: argparse.Namespace, shape: str, say: Callable[[str], None]) -> list[Measured]:
    """All turns of one shape; a side that fails is named and left out, the others go on."""
    with tempfile.TemporaryDirectory() as caches:
        running: dict[str, tuple[Crew, Measured]] = {}
        try:
            for number, entry in enumerate(entries(args, shape)):
                try:
                    cache = None if args.warm_cache else Path(caches, str(number))
                    crew = Crew(entry.make, entry.work, entry.processes, entry.threads, cache)
                    running[entry.name] = crew, Measured(entry, crew.compile_s)
                    say(f"  ready: {entry.name}, {entry.processes} x {entry.threads} threads")
                except CrewError as error:
                    say(f"  {entry.name} can't start and is left out:\n{error}")
            for repeat in range(args.repeats):
                _one_repeat(args, repeat, running, say)
            for name, (crew, _) in running.items():
                if args.sweep and name.startswith("sweeper K"):
                    say(_whole_sweep(args, name, crew))
        finally:
            for crew, _ in running.values():
                crew.close()
        return [measured for _, measured in running.values() if measured.us]


def _one_repeat(
    args: argparse.Namespace, repeat: int, running: dict[str, tuple[Crew, Measured]], say: Callable[[str], None]
) -> None:
    for name, (crew, measured) in list(running.items()):
        try:
            turns = crew.turn(args.seconds, repeat + 1)
        except CrewError as error:
            say(f"  {name} failed in repeat {repeat} and is left out from here on:\n{error}")
            del running[name]
            continue
        baseline = running["eager"][1].us[repeat] if name != "eager" and "eager" in running else None
        measured.add(turns, baseline)
        say(f"  {repeat + 1}: {name:<22} {measured.us[-1]:>9.1f} us {measured.ratios[-1]:>7.2f} x eager")


def _whole_sweep(args: argparse.Namespace, name: str, crew: Crew) -> str:
    slots = int(name.rpartition("=")[2])
    try:
        turns = crew.sweep(args.sweep * slots, 0)
    except CrewError as error:
        return f"  {name}: the whole sweep failed:\n{error}"
    steps, computed, offered = (sum(getattr(turn, what) for turn in turns) for what in ("steps", "computed", "offered"))
    return (
        f"  {name}: whole sweep of {args.sweep} K fits, early stopping, pruning and drain included: "
        f"{100 * steps / computed:.1f} % of the slot-steps computed were busy, {100 * steps / offered:.1f} % of what K "
        f"slots offered; {us_per_step(turns):.1f} us a slot-step"
    )


def report(args: argparse.Namespace, shape: str, all_measured: list[Measured]) -> list[str]:
    """The table of one shape, medians over repeats with (least-most)."""
    head = f"{'side':<22} {'us/fit-step':>26} {'x eager':>22} {'occupancy':>9} {'epochs/fit':>10} {'loss':>7}"
    lines = [f"{shape}: {SHAPES[shape]}", head + f" {'compile s':>9} {'break-even fits':>15}"]
    for one in all_measured:
        even = break_even(one, all_measured)
        lines.append(
            f"{one.entry.name:<22} {_spread(one.us, 1):>26} {_spread(one.ratios, 2):>22}"
            f" {100 * statistics.median(one.occupancy):>7.1f} % {statistics.median(one.epochs):>10.1f}"
            f" {statistics.median(one.losses):>7.4f} {one.compile_s:>9.1f} {even:>15}"
        )
    lines += _verdicts(args, shape, all_measured)
    if args.device.startswith("cuda") and shape == "wide":
        lines.append(SLOT_STEP_US)
        for one in all_measured:
            if one.entry.name.startswith("sweeper"):
                lines.append(f"  {one.entry.name}: {_spread(one.us, 1)} us, training alone {_spread(one.train_us, 1)}")
    return [*lines, ""]


def break_even(one: Measured, others: list[Measured]) -> str:
    """From how many fits on compiling pays, against the same side eager (for rivals: the eager rival)."""
    name, _, size = one.entry.name.partition(" ")
    against = f"sweeper-eager {size}" if name == "sweeper" else "eager"
    eager = next((other for other in others if other.entry.name == against), None)
    if not one.compile_s or eager is None or name == "shrinking":
        return "-"
    gain_us = statistics.median(eager.us) - statistics.median(one.us)
    work = one.entry.work
    epochs = statistics.median(one.epochs)
    steps = work.network.rows // work.network.batch * (work.epochs if np.isnan(epochs) else epochs)
    return f"{one.compile_s * 1e6 / (gain_us * steps):,.0f}" if gain_us > 0 else "never"


def _verdicts(args: argparse.Namespace, shape: str, all_measured: list[Measured]) -> list[str]:
    kind = "cuda" if args.device.startswith("cuda") else "cpu"
    lines = []
    for rival, (least, target) in TARGETS.get((kind, shape), {}).items():
        base = next((one for one in all_measured if one.entry.name == rival), None)
        for one in all_measured:
            if base is None or not one.entry.name.startswith("sweeper"):
                continue
            ratios = [theirs / ours for theirs, ours in zip(base.us, one.us, strict=False)]
            middle = statistics.median(ratios)
            verdict = "target reached" if middle >= target else "least reached" if middle >= least else "short"
            told = f"{_spread(ratios, 2)} (at least {least}, target {target}): {verdict}"
            lines.append(f"  {one.entry.name} against {rival}: {told}")
    return lines


def _spread(values: list[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def machine(device: str) -> str:
    """Date, device, versions."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = {line.partition(":")[2].strip() for line in lines if line.startswith("model name")}
    name = f"{cores()} cores of {', '.join(names) or platform.processor() or platform.machine()}"
    if device.startswith("cuda"):
        name = f"{torch.cuda.get_device_name(device)} (CUDA {torch.version.cuda}, {mps()}), {name}"
    return f"{datetime.date.today()}, {name}; {versions}"


def cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", default="all", choices=[*SHAPES, "all"])
    parser.add_argument("--slots", type=int, nargs="+", help="K of each engine; by default per shape and device")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a turn; a pack may need longer")
    parser.add_argument("--precision", default="float32", choices=["float32", "tf32", "bfloat16"])
    parser.add_argument("--engines", type=int, default=cores(), help="engines on a CPU; cores are shared among them")
    parser.add_argument("--processes", type=int, help="of the rivals; by default the cores, or 16 on a GPU")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--patience", type=int, default=4)
    parser.add_argument("--rows", type=int, help="training rows, a multiple of the batch; by default per shape")
    parser.add_argument("--score-all", action="store_true", help="rivals score the training rows, too")
    parser.add_argument("--sweep", type=int, default=0, metavar="N", help="also run a sweep of N K fits to its end")
    parser.add_argument("--warm-cache", action="store_true", help="compile from the cache of earlier runs, if any")
    parser.add_argument("--sides", nargs="+", choices=SIDES, help="by default all but processes-captured")
    parser.add_argument("--profile", action="store_true", help="also show where one tick spends its time")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout; everything else on stderr")
    args = parser.parse_args()
    if args.rows is not None and any(args.rows % SHAPES[shape].batch for shape in _shapes(args)):
        parser.error(f"--rows {args.rows} is no multiple of the batch; captured graphs need whole batches.")
    args.processes = args.processes or (16 if args.device.startswith("cuda") else cores())
    return args


def _shapes(args: argparse.Namespace) -> list[str]:
    return list(SHAPES) if args.shape == "all" else [args.shape]


def as_json(all_measured: list[Measured]) -> dict[str, Any]:
    """The numbers of one shape by side."""
    names = ("compile_s", "us", "train_us", "ratios", "occupancy", "epochs", "losses")
    return {one.entry.name: {name: getattr(one, name) for name in names} for one in all_measured}


def main() -> None:
    args = arguments()
    say = partial(print, file=sys.stderr if args.json else sys.stdout, flush=True)
    say(f"{machine(args.device)}\nprecision of products: {args.precision} (eager: float32); {vars(args)}\n")
    if args.device.startswith("cuda"):
        say(check_masks(args.device) + "\n")
    found: dict[str, Any] = {"machine": machine(args.device), "arguments": vars(args), "shapes": {}}
    for shape in _shapes(args):
        all_measured = measure(args, shape, say)
        say("\n" + "\n".join(report(args, shape, all_measured)))
        found["shapes"][shape] = as_json(all_measured)
        if args.profile:
            work = Work(shape, args.device, args.precision, args.epochs, args.patience, rows=args.rows)
            slots = (args.slots or SLOTS["cuda" if args.device.startswith("cuda") else "cpu"][shape])[-1]
            say(profiled(work, slots, can_compile(args.device)))
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
