"""`run` and `resume`: launch a sweep or go on with one, work here until it is done, and show what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Annotated

import typer

from sweeper.blueprint import named_packages
from sweeper.calibration import Setup, Wish
from sweeper.cli import results
from sweeper.cli.computing import (
    EVERY_S,
    CheckpointsOption,
    Compile,
    CompileOption,
    DeviceOption,
    EveryOption,
    MlflowOption,
    ProcessesOption,
    Saved,
    SlotsOption,
    ThreadsOption,
    busy,
    calibrated,
    foretell,
    wish_of,
)
from sweeper.cli.console import errors, output, print_json
from sweeper.cli.live import LiveView
from sweeper.cli.making import made
from sweeper.cli.places import HOME, AllowOption, HomeOption, JsonOption, NameArgument, Places, StoreOption
from sweeper.config import read_sweep
from sweeper.courier import following
from sweeper.crew import crew
from sweeper.launched import launched_file
from sweeper.ledger import deliveries, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.letters import opening_letters
from sweeper.quantities import duration
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending, StopRequest, work
from sweeper.workload import Workload, differences

PATIENCE_S = 600.0  # that `run` waits for MLflow after the last trial; `mlflow sync` delivers what is left


def run(
    file: Annotated[Path, typer.Argument(help="A sweep file.", show_default=False)],
    home: HomeOption = HOME,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    processes: ProcessesOption = None,
    compiling: CompileOption = Compile.AUTO,
    checkpoints: CheckpointsOption = None,
    checkpoint_every: EveryOption = EVERY_S,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the sweep of that name and its trials first.")] = False,
    allow: AllowOption = None,
    mlflow: MlflowOption = True,
    json: JsonOption = False,
) -> None:
    """Launch a sweep and work on it here until it is done; a sweep that was interrupted goes on."""
    places, times = Places.of(home, store), Timesheet()
    sweep_file = read_sweep(file)
    ledger = places.ledger(create=True)
    making = partial(made, places, sweep_file, device, allow)
    wish = wish_of(device, slots, threads, processes, compiling, mlflow=mlflow)
    allowed = [*(allow or ()), *sorted(named_packages(sweep_file.sweep))]
    saving = Saved(checkpoints, checkpoint_every)
    _go(ledger, places, making, times, wish, allowed, saving, fresh=fresh, mlflow=mlflow, json=json)


def resume(
    name: NameArgument,
    home: HomeOption = HOME,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    processes: ProcessesOption = None,
    compiling: CompileOption = Compile.AUTO,
    checkpoints: CheckpointsOption = None,
    checkpoint_every: EveryOption = EVERY_S,
    allow: AllowOption = None,
    mlflow: MlflowOption = True,
    json: JsonOption = False,
) -> None:
    """Go on with a sweep that was interrupted, stopped or killed."""
    places, times = Places.of(home, store), Timesheet()
    ledger = places.ledger()
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
    sweep_file = launched_file(sweep)
    making = partial(made, places, sweep_file, device, allow, sweep)
    wish = wish_of(device, slots, threads, processes, compiling, mlflow=mlflow)
    saving = Saved(checkpoints, checkpoint_every)
    _go(ledger, places, making, times, wish, allow or [], saving, fresh=False, mlflow=mlflow, json=json)


def _go(
    ledger: Ledger,
    places: Places,
    making: Callable[[], Workload],
    times: Timesheet,
    wish: Wish,
    allowed: Sequence[str],
    saved: Saved,
    *,
    fresh: bool,
    mlflow: bool,
    json: bool,
) -> None:
    with times.on("start"):
        workload = making()
        results.show_plan(workload)
        setup = _set_up(ledger, workload, wish, fresh)
        sweep = _launch(ledger, workload, setup, fresh)
        foretell(ledger, sweep, setup)
    argv = ["mlflow", "sync", sweep.name, "--follow"]
    with following(argv, places.environment, places.log) if mlflow else nullcontext() as courier:
        ending = _work(ledger, places, sweep, setup, times, allowed, saved)
    if ending is not Ending.DONE:
        _say_how_to_resume(sweep, ending, places)
        raise typer.Exit(130 if ending is Ending.INTERRUPTED else 0)
    _show_results(ledger, sweep, workload, places, json)
    if courier is not None:
        _await_delivery(ledger, sweep, courier, places)


def _set_up(ledger: Ledger, workload: Workload, wish: Wish, fresh: bool) -> Setup:
    with ledger.read() as connection:
        known = {sweep.name: sweep for sweep in sweeps.every(connection)}
    old = None if fresh else known.get(workload.sweep.name)
    return calibrated(workload, wish, old.numerics if old else None)


def _launch(ledger: Ledger, workload: Workload, setup: Setup, fresh: bool) -> Sweep:
    plan = workload.plan(vars(setup.numerics))
    with ledger.write() as connection:
        old = [sweep.id for sweep in sweeps.every(connection) if sweep.name == plan.name]
        before = [study for id_ in old for study in sweeps.studies(connection, id_)]
        sweep = sweeps.launch(connection, plan, fresh=fresh, differences=differences)
        launched = [study for study in sweeps.studies(connection, sweep.id) if study not in before]  # new or extended
        deliveries.post(connection, sweep.id, opening_letters(sweep, launched))
        return sweep


def _work(
    ledger: Ledger,
    places: Places,
    sweep: Sweep,
    setup: Setup,
    times: Timesheet,
    allowed: Sequence[str],
    saved: Saved,
) -> Ending:
    """Work here and in as many further processes as were chosen, which are told what was chosen."""
    count, threads = setup.processes, setup.device.threads
    argv = ["worker", "--sweep", sweep.name, "--device", str(setup.engine.device), "--crew", str(count)]
    argv += ["--slots", str(setup.engine.slots), "--threads", str(threads)]
    argv += ["--checkpoint-every", str(saved.every_s)]
    argv += [word for package in allowed for word in ("--allow-import", package)]
    saving = saved.at(places)
    with (
        StopRequest().listening() as stop,
        crew(count - 1, argv, places.environment | saved.environment, threads, places.home) as mates,
        LiveView(ledger, sweep) as view,
    ):
        ending = work(
            ledger, sweep, setup.workload, setup, times, stop=stop, saving=saving, on_turn=view, on_note=errors.print
        )
    for problem in (mate.problem for mate in mates):
        if problem:
            errors.print(f"note: {problem}")
    return ending


def _say_how_to_resume(sweep: Sweep, ending: Ending, places: Places) -> None:
    errors.print(f"{ending.value}. Every finished trial is kept; go on with: sweeper resume {sweep.name}{places.hint}")


def _show_results(ledger: Ledger, sweep: Sweep, workload: Workload, places: Places, json: bool) -> None:
    summary = results.Summary.of(ledger, sweep, workload)
    if json:
        print_json(summary.as_json())
        return
    summary.show()
    output.print(f"\ngo on with:\n  sweeper price {sweep.name}{places.hint}\n  sweeper dashboard{places.hint}")


def _await_delivery(ledger: Ledger, sweep: Sweep, courier: Popen[bytes], places: Places) -> None:
    """The trials are safe in the ledger; stay until MLflow has them too, or can't be reached."""
    deadline = time.monotonic() + PATIENCE_S
    began = time.monotonic()
    with busy("delivering runs and report to MLflow; Ctrl-C leaves that to the background"):
        while time.monotonic() < deadline:
            try:
                courier.wait(timeout=0.5)
                break
            except TimeoutExpired:
                continue
    with ledger.read() as connection:
        delivered, waiting, parked = deliveries.counts(connection, sweep.id)
    if waiting or parked:
        errors.print(
            f"MLflow has {delivered} runs; {waiting + parked} are still to be delivered (see {places.log}). "
            f"Deliver them with: sweeper mlflow sync {sweep.name}{places.hint}"
        )
    elif courier.returncode:
        errors.print(
            f"MLflow has all {delivered} runs, but not the report yet (see {places.log}). "
            f"Log it with: sweeper mlflow sync {sweep.name}{places.hint}"
        )
    else:
        report = " and the report" if courier.returncode == 0 else ""  # it is still being made after ten minutes
        errors.print(
            f"MLflow has all {delivered} runs{report}, {duration(time.monotonic() - began)} after the last trial"
        )
