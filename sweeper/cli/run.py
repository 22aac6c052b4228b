"""`run` and `resume`: launch a sweep or go on with one, work here until it is done, and show what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from enum import StrEnum
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Annotated

import typer

from sweeper.cli import results
from sweeper.cli.console import duration, errors, output, print_json
from sweeper.cli.live import LiveView
from sweeper.cli.places import HOME, HomeOption, JsonOption, NameArgument, Places, StoreOption
from sweeper.config import SweepFile, read_sweep
from sweeper.courier import following
from sweeper.engine import use_threads
from sweeper.ledger import deliveries, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.letters import opening_letters
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending, Setup, StopRequest, set_up, work
from sweeper.workload import Workload, differences, launched_file, workload_of

PATIENCE_S = 600.0  # that `run` waits for MLflow after the last trial; `mlflow sync` delivers what is left


class Compile(StrEnum):
    """Whether the training step is compiled."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


DeviceOption = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")
]
SlotsOption = Annotated[
    int | None, typer.Option("--slots", min=1, help="Fits trained at once; default: what the sweep can use, up to 64.")
]
CompileOption = Annotated[Compile, typer.Option("--compile", help="Compile the training step; auto where it pays.")]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads for training; default: all cores but MLflow's one.")
]
MlflowOption = Annotated[bool, typer.Option("--mlflow/--no-mlflow", help="Deliver to MLflow while training.")]


def run(
    file: Annotated[Path, typer.Argument(help="A sweep file.", show_default=False)],
    home: HomeOption = HOME,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    compiling: CompileOption = Compile.AUTO,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget the sweep of that name and its trials first.")] = False,
    mlflow: MlflowOption = True,
    json: JsonOption = False,
) -> None:
    """Launch a sweep and work on it here until it is done; a sweep that was interrupted goes on."""
    places, times = Places.of(home, store), Timesheet()
    sweep_file = read_sweep(file)
    ledger = places.ledger(create=True)
    use_threads(threads, spared=1 if mlflow else 0)
    _go(ledger, places, sweep_file, times, device, slots, compiling, fresh=fresh, mlflow=mlflow, json=json)


def resume(
    name: NameArgument,
    home: HomeOption = HOME,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    compiling: CompileOption = Compile.AUTO,
    mlflow: MlflowOption = True,
    json: JsonOption = False,
) -> None:
    """Go on with a sweep that was interrupted, stopped or killed."""
    places, times = Places.of(home, store), Timesheet()
    ledger = places.ledger()
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
    sweep_file = launched_file(sweep)
    use_threads(threads, spared=1 if mlflow else 0)
    _go(ledger, places, sweep_file, times, device, slots, compiling, fresh=False, mlflow=mlflow, json=json)


def _go(
    ledger: Ledger,
    places: Places,
    sweep_file: SweepFile,
    times: Timesheet,
    device: str,
    slots: int | None,
    compiling: Compile,
    *,
    fresh: bool,
    mlflow: bool,
    json: bool,
) -> None:
    with times.on("start"):
        workload = workload_of(sweep_file)
        results.show_plan(workload)
        setup = _set_up(ledger, workload, device, slots, compiling, fresh)
        sweep = _launch(ledger, workload, setup, fresh)
        _show_estimate(workload, setup)
    argv = ["mlflow", "sync", sweep.name, "--follow"]
    with following(argv, places.environment, places.log) if mlflow else nullcontext() as courier:
        ending = _work(ledger, sweep, workload, setup, times)
    if ending is not Ending.DONE:
        _say_how_to_resume(sweep, ending, places)
        raise typer.Exit(130 if ending is Ending.INTERRUPTED else 0)
    _show_results(ledger, sweep, workload, places, json)
    if courier is not None:
        _await_delivery(ledger, sweep, courier, places)


def _set_up(
    ledger: Ledger, workload: Workload, device: str, slots: int | None, compiling: Compile, fresh: bool
) -> Setup:
    with ledger.read() as connection:
        known = {sweep.name: sweep for sweep in sweeps.every(connection)}
    old = None if fresh else known.get(workload.sweep.name)
    wanted = {Compile.AUTO: None, Compile.ON: True, Compile.OFF: False}[compiling]
    with _busy("measuring this machine, and compiling the training step where it pays"):
        return set_up(workload, device=device, slots=slots, compiling=wanted, pinned=old.numerics if old else None)


def _launch(ledger: Ledger, workload: Workload, setup: Setup, fresh: bool) -> Sweep:
    plan = workload.plan(vars(setup.numerics))
    with ledger.write() as connection:
        old = [sweep.id for sweep in sweeps.every(connection) if sweep.name == plan.name]
        before = [study for id_ in old for study in sweeps.studies(connection, id_)]
        sweep = sweeps.launch(connection, plan, fresh=fresh, differences=differences)
        launched = [study for study in sweeps.studies(connection, sweep.id) if study not in before]  # new or extended
        deliveries.post(connection, sweep.id, opening_letters(sweep, launched))
        return sweep


def _show_estimate(workload: Workload, setup: Setup) -> None:
    least, most = setup.estimate_s(workload)
    how = "compiled" if setup.numerics.compiled else "eager"
    for note in setup.notes:
        errors.print(f"note: {note}")
    errors.print(
        f"estimate: {duration(least)} to {duration(most)} for all {workload.trials} trials, "
        f"{setup.engine.slots} fits at once on {setup.device.name}, {how}"
    )


def _work(ledger: Ledger, sweep: Sweep, workload: Workload, setup: Setup, times: Timesheet) -> Ending:
    with StopRequest().listening() as stop, LiveView(ledger, sweep) as view:
        return work(ledger, sweep, workload, setup, times, stop=stop, on_turn=view)


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
    with _busy("delivering to MLflow; Ctrl-C leaves that to the background"):
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
    else:
        errors.print(f"MLflow has all {delivered} runs, {duration(time.monotonic() - began)} after the last trial")


@contextmanager
def _busy(what: str) -> Iterator[None]:
    if not errors.is_terminal:
        errors.print(f"{what} ...")
        yield
        return
    with errors.status(what):
        yield
