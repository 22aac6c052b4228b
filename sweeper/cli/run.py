"""`run` and `resume`: launch a sweep or go on with one, work here until it is done, and show what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from subprocess import Popen, TimeoutExpired
from typing import Annotated

import typer

from sweeper.blueprint import named_packages
from sweeper.calibration import Setup, Wish
from sweeper.cli import results
from sweeper.cli.budget import spending, spending_words
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
    agreed,
    busy,
    calibrated,
    foretell,
    wish_of,
)
from sweeper.cli.console import errors, output, print_json
from sweeper.cli.launch import FileArgument, FreshOption, launched, leave_nothing
from sweeper.cli.live import LiveView
from sweeper.cli.making import made, vouched
from sweeper.cli.places import (
    HOME,
    AllowOption,
    DataRootOption,
    HomeOption,
    JsonOption,
    NameArgument,
    Places,
    StoreOption,
)
from sweeper.cli.placing import OnOption, Placing, Wanted, placing
from sweeper.config import SweepFile, read_sweep, with_trials
from sweeper.courier import PATIENCE_S, following
from sweeper.crew import crew, devices, part
from sweeper.engine import find_device, gpu_count
from sweeper.errors import SettingError
from sweeper.launched import launched_file, named_places
from sweeper.ledger import deliveries, reads, sweeps, workers
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.quantities import duration
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending, StopRequest, work
from sweeper.workload import Workload


def run(
    file: FileArgument,
    home: HomeOption = HOME,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    processes: ProcessesOption = None,
    compiling: CompileOption = Compile.AUTO,
    checkpoints: CheckpointsOption = None,
    checkpoint_every: EveryOption = EVERY_S,
    fresh: FreshOption = False,
    allow: AllowOption = None,
    mlflow: MlflowOption = True,
    on: OnOption = None,
    json: JsonOption = False,
) -> None:
    """Launch a sweep and work on it here until it is done; a sweep that was interrupted goes on."""
    places, times = Places.of(home, store), Timesheet()
    sweep_file = vouched(places, read_sweep(file))
    ledger = places.ledger(create=True)
    making = partial(made, places, sweep_file, device, allow)
    wish = wish_of(device, slots, threads, processes, compiling, mlflow=mlflow)
    allowed = [*(allow or ()), *sorted(named_packages(sweep_file.sweep))]
    saving = Saved(checkpoints, checkpoint_every)
    if on is not None:
        making = partial(made, places, sweep_file, "auto", allow)  # --device means the cluster's
        wanted = Wanted(processes, device, slots, threads, compiling, allowed, named_places(sweep_file))
        with placing(on, ledger, places, wanted, saving) as cluster:
            forgets = partial(leave_nothing, places, checkpoints)
            done = _place(ledger, places, making, cluster, forgets, fresh=fresh, mlflow=mlflow)
        _conclude(ledger, places, *done, json=json)
        return
    _go(ledger, places, making, times, wish, allowed, saving, fresh=fresh, mlflow=mlflow, json=json)


def resume(
    name: NameArgument,
    trials: Annotated[
        str | None,
        typer.Option(
            "--trials", metavar="[+]N", help="So many trials in each study from now on; +N: so many more than it had."
        ),
    ] = None,
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
    data_root: DataRootOption = None,
    mlflow: MlflowOption = True,
    json: JsonOption = False,
) -> None:
    """Go on with a sweep that was interrupted, stopped or killed, or that is to have more trials."""
    places, times = Places.of(home, store, data_root), Timesheet()
    ledger = places.ledger()
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
    sweep_file = _extended(launched_file(sweep), trials)
    making = partial(made, places, sweep_file, device, allow, sweep)
    wish = wish_of(device, slots, threads, processes, compiling, mlflow=mlflow)
    saving = Saved(checkpoints, checkpoint_every)
    _go(ledger, places, making, times, wish, allow or [], saving, fresh=False, mlflow=mlflow, json=json)


def _extended(file: SweepFile, trials: str | None) -> SweepFile:
    """The file with more trials per study, as the option asks for."""
    if trials is None:
        return file
    before, wanted = file.sweep.search.trials, trials.removeprefix("+")
    if not wanted.isdecimal() or (count := int(wanted) + before * trials.startswith("+")) < before:
        raise SettingError(
            f"--trials {trials}: each study of {file.sweep.name} has {before} trials, and a sweep can only be "
            f"extended. Pass a number from {before} on, or +N for N more."
        )
    return with_trials(file, count)


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
    spread = devices(find_device(wish.device), wish.processes, gpu_count())
    if spread:
        wish = replace(wish, device=spread[0], processes=len(spread), apart=len(set(spread)) > 1)
    with StopRequest().listening() as stop:
        with stop.obeyed_at_once(), times.on("start"):
            workload = making()
            results.show_plan(workload)
            sweep, setup = _set_up(ledger, workload, wish, fresh, partial(leave_nothing, places, saved.url))
            if setup is not None:
                foretell(ledger, sweep, setup)
        argv, ending = ["mlflow", "sync", sweep.name, "--follow"], Ending.DONE
        with following(argv, places.environment, places.log) if mlflow else nullcontext() as courier:
            if setup is not None:
                mates = further_workers(sweep, setup, spread, allowed, saved)
                ending = _work(ledger, places, sweep, setup, times, saved, mates, stop)
        _conclude(ledger, places, sweep, workload, ending, courier, stop, json=json)


def _place(
    ledger: Ledger,
    places: Places,
    making: Callable[[], Workload],
    cluster: Placing,
    forgets: Callable[[str], None],
    *,
    fresh: bool,
    mlflow: bool,
) -> tuple[Sweep, Workload, Ending, Popen[bytes] | None, StopRequest]:
    """Launch a sweep, and have it worked on by a cluster; the first of its workers chooses how to compute it."""
    with StopRequest().listening() as stop:
        with stop.obeyed_at_once():
            workload = making()
            results.show_plan(workload)
            sweep = launched(ledger, workload, {}, fresh, forgets)
        argv = ["mlflow", "sync", sweep.name, "--follow"]
        with following(argv, places.environment, places.log) if mlflow else nullcontext() as courier:
            ending = cluster.work(sweep, stop)
        return sweep, workload, ending, courier, stop


def _conclude(
    ledger: Ledger,
    places: Places,
    sweep: Sweep,
    workload: Workload,
    ending: Ending,
    courier: Popen[bytes] | None,
    stop: StopRequest,
    *,
    json: bool,
) -> None:
    """Show what came of a sweep that is done or has spent its budget, or how to go on with it."""
    if ending is Ending.SPENT:
        _say_what_is_spent(ledger, sweep)
    elif ending is not Ending.DONE:
        _say_how_to_resume(sweep, ending, places)
        raise typer.Exit(stop.exit_code if ending is Ending.INTERRUPTED else 0)
    with stop.listening(), stop.obeyed_at_once():
        _show_results(ledger, sweep, workload, places, json)
        if courier is not None:
            _await_delivery(ledger, sweep, courier, places)


def _set_up(
    ledger: Ledger, workload: Workload, wish: Wish, fresh: bool, forgets: Callable[[str], None]
) -> tuple[Sweep, Setup | None]:
    """Launch a sweep, and choose how to compute it; one that was launched before keeps its choice.

    Nothing is chosen for one that is complete: it has nothing to train.
    """
    with ledger.read() as connection:
        found = {sweep.name: sweep for sweep in sweeps.every(connection)}
    old = None if fresh else found.get(workload.sweep.name)
    if old is None:
        setup = calibrated(workload, wish, None)
        sweep = launched(ledger, workload, vars(setup.numerics), fresh, forgets)
        return sweep, agreed(ledger, sweep, setup, wish, {})
    sweep = launched(ledger, workload, old.numerics, fresh, forgets)
    with ledger.write() as connection:
        workers.bury_dead(connection)  # whoever was killed as it left
        if all(space.is_complete for space in reads.progress(connection, sweep.id)):
            return sweep, None
    setup = calibrated(workload, wish, old.numerics or None)
    return sweep, agreed(ledger, sweep, setup, wish, old.numerics)


def further_workers(
    sweep: Sweep, setup: Setup, spread: Sequence[str], allowed: Sequence[str], saved: Saved
) -> list[list[str]]:
    """The commands of the further workers, which are told what was chosen; `spread` has a device for each, if any."""
    argv = ["worker", "--sweep", sweep.name, "--crew", str(setup.sharers)]
    argv += ["--slots", str(setup.engine.slots), "--threads", str(setup.device.threads)]
    argv += ["--checkpoint-every", str(saved.every_s)]
    argv += [word for package in allowed for word in ("--allow-import", package)]
    others = spread[1:] or [str(setup.engine.device)] * (setup.processes - 1)
    return [[*argv, "--device", device] for device in others]


def _work(
    ledger: Ledger,
    places: Places,
    sweep: Sweep,
    setup: Setup,
    times: Timesheet,
    saved: Saved,
    others: Sequence[Sequence[str]],
    stop: StopRequest,
) -> Ending:
    """Work here, and in further processes by their commands."""
    environment, saving = places.environment | saved.environment, saved.at(places)
    with (
        crew(others, environment, setup.device.threads, places.home) as mates,
        LiveView(ledger, sweep) as view,
    ):
        stop.then(partial(part, mates))  # their last tick ends beside this one's
        ending = work(
            ledger, sweep, setup.workload, setup, times, stop=stop, saving=saving, on_turn=view, on_note=errors.print
        )
    for problem in (mate.problem for mate in mates):
        if problem:
            errors.print(f"note: {problem}")
    return ending


def _say_how_to_resume(sweep: Sweep, ending: Ending, places: Places) -> None:
    errors.print(f"{ending.value}. Every finished trial is kept; go on with: sweeper resume {sweep.name}{places.hint}")


def _say_what_is_spent(ledger: Ledger, sweep: Sweep) -> None:
    with ledger.read() as connection:
        told, spaces = spending(connection, sweep), reads.progress(connection, sweep.id)
    finished, planned = sum(space.finished for space in spaces), sum(space.planned for space in spaces)
    errors.print(
        f"{spending_words(told or {})}, and no further tick fits into it: {finished} of {planned} trials are finished. "
        f"What was under way is kept; to go on, raise search.budget in the file and run it again."
    )


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
