"""`check`: what a sweep file means, and what it would take, before anything is launched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper.calibration import Estimate, Pace, Setup, Wish, estimate, pilot, rehearsed_pace
from sweeper.cli import results
from sweeper.cli.computing import (
    Compile,
    CompileOption,
    DeviceOption,
    MlflowOption,
    ProcessesOption,
    SlotsOption,
    ThreadsOption,
    busy,
    calibrated,
    wish_of,
)
from sweeper.cli.console import output, print_json
from sweeper.cli.estimates import span_words
from sweeper.cli.making import made
from sweeper.cli.places import HOME, AllowOption, HomeOption, JsonOption, Places
from sweeper.config import read_sweep
from sweeper.machine import free_bytes
from sweeper.quantities import duration, energy
from sweeper.workload import Workload


@dataclass
class Checked:
    """What the checks have found so far; each reads what those before it found.

    Attributes:
        make: makes the sweep file concrete.
        wish: how the user wants it computed.
    """

    make: Callable[[], Workload]
    wish: Wish
    workload: Workload = field(init=False)
    setup: Setup = field(init=False)
    pace: Pace = field(init=False)
    expected: Estimate = field(init=False)


def check(
    file: Annotated[Path, typer.Argument(help="A sweep file.", show_default=False)],
    home: HomeOption = HOME,
    device: DeviceOption = "auto",
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    processes: ProcessesOption = None,
    compiling: CompileOption = Compile.AUTO,
    allow: AllowOption = None,
    mlflow: MlflowOption = True,
    json: JsonOption = False,
) -> None:
    """Say what a sweep would take, from a short pilot on this machine; nothing is launched or kept."""
    places = Places.of(home, None)
    wish = wish_of(device, slots, threads, processes, compiling, mlflow=mlflow)
    checked, found = Checked(partial(made, places, read_sweep(file), device, allow), wish), {}
    for name, step in CHECKS.items():
        found[name] = step(checked)
        if not json:
            for line in found[name]:
                output.print(f"{name}: {line}", soft_wrap=True)
    if json:
        print_json({"sweep": checked.workload.sweep.name, "checks": found, "estimate": _recorded(checked)})


def _sweep(checked: Checked) -> list[str]:
    checked.workload = checked.make()
    results.show_plan(checked.workload)
    fits = checked.workload.trials * checked.workload.folds_per_trial
    return [f"{checked.workload.trials} trials, {fits} fits of at most {checked.workload.training.epochs} epochs"]


def _machine(checked: Checked) -> list[str]:
    checked.setup = calibrated(checked.workload, checked.wish, None)
    compiled = checked.setup.numerics.compiled
    return [f"ready after {duration(checked.setup.took_s)}" + (", compiling included" if compiled else "")]


def _pilot(checked: Checked) -> list[str]:
    with busy("training some random settings to their end"):
        found = pilot(checked.setup)
    checked.pace = found or rehearsed_pace(checked.setup)
    epochs = span_words(checked.pace.epochs, lambda value: f"{value:.3g}")
    if found is None:
        tick = duration(checked.setup.tick_s)
        return [f"none, since an epoch of all slots takes {tick}; a fit trains {epochs} epochs"]
    prunes = checked.workload.prunes
    covers = "from the first rung to no pruning at all" if prunes else "95 % for the mean of random settings"
    return [f"{found.basis}: a fit trains {epochs} epochs ({covers})"]


def _expected(checked: Checked) -> list[str]:
    checked.expected = expected = estimate(checked.setup, checked.pace, checked.workload.trials)
    seconds, rate = expected.seconds, expected.trials_per_s
    where = "of the GPU" if checked.setup.device.kind == "cuda" else "in each process"
    free = f", {_gigabytes(free_bytes())} are free" if where != "of the GPU" else ""
    most = ", at most without any pruning" if checked.workload.prunes else ""
    return [
        f"time: {span_words(seconds)}, {span_words(rate, lambda value: f'{value:.3g}')} trials/s{most}",
        f"device time: {span_words(expected.device_s)}",
        f"energy: {span_words(expected.joules, energy) + '; ' if expected.joules else ''}{expected.energy}",
        f"peak memory: {span_words(expected.peak_bytes, _gigabytes)} {where}{free}",
        "measured here and now; a busier machine, or a sampler that comes to prefer longer fits, takes longer",
    ]


CHECKS: dict[str, Callable[[Checked], list[str]]] = {
    "sweep": _sweep,
    "machine": _machine,
    "pilot": _pilot,
    "estimate": _expected,
}
"""What is checked, in this order; each gives the lines that say what it found."""


def _recorded(checked: Checked) -> dict[str, Any]:
    return checked.expected.recorded(checked.setup)


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.2f} GB"
