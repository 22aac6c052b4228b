"""`worker`: join in with the work on sweeps that were launched, here or elsewhere, until they are done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from sweeper.calibration import Wish
from sweeper.child import on_closed_input
from sweeper.cli.computing import (
    EVERY_S,
    CheckpointsOption,
    Compile,
    CompileOption,
    DeviceOption,
    EveryOption,
    Saved,
    SlotsOption,
    ThreadsOption,
    calibrated,
    wish_of,
)
from sweeper.cli.console import errors
from sweeper.cli.live import LiveView
from sweeper.cli.making import made
from sweeper.cli.places import HOME, AllowOption, HomeOption, Places, StoreOption
from sweeper.errors import LedgerError
from sweeper.launched import launched_file
from sweeper.ledger import reads, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.scheduler import Saving
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending, StopRequest, work


def worker(
    name: Annotated[
        str | None, typer.Option("--sweep", metavar="NAME", help="Work on this sweep; by default on every open one.")
    ] = None,
    home: HomeOption = HOME,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    compiling: CompileOption = Compile.AUTO,
    checkpoints: CheckpointsOption = None,
    checkpoint_every: EveryOption = EVERY_S,
    allow: AllowOption = None,
    crew: Annotated[
        int | None,
        typer.Option(
            "--crew", min=1, hidden=True, help="One of so many that `sweeper run` started: ends with standard input."
        ),
    ] = None,
) -> None:
    """Join in with sweeps that were launched, beside other workers here or elsewhere, until they are done."""
    places = Places.of(home, store)
    ledger = places.ledger()
    wish = wish_of(device, slots, threads, crew or 1, compiling, mlflow=False)
    with StopRequest().listening() as stop:
        if crew:
            on_closed_input(stop.set)
        saving = Saved(checkpoints, checkpoint_every).at(places)
        endings = [
            _work(ledger, places, sweep, wish, allow, saving, stop) for sweep in _chosen(ledger, name) if not stop
        ]
    if Ending.INTERRUPTED in endings and not crew:
        raise typer.Exit(130)


def _chosen(ledger: Ledger, name: str | None) -> Iterator[Sweep]:
    """The sweep of that name, or each that is open and not done when its turn comes."""
    with ledger.read() as connection:
        known = sweeps.chosen(connection, name)
    for sweep in known:
        with ledger.read() as connection:
            state = sweeps.state_of(connection, sweep.id)
            is_done = all(space.is_complete for space in reads.progress(connection, sweep.id))
        if name and state != sweeps.OPEN:
            raise LedgerError(f"the sweep {name!r} is stopped. Open it again with: sweeper resume {name}")
        if is_done or state != sweeps.OPEN:
            errors.print(f"{sweep.name}: nothing to do")
        else:
            yield sweep


def _work(
    ledger: Ledger,
    places: Places,
    sweep: Sweep,
    wish: Wish,
    allow: list[str] | None,
    saving: Saving,
    stop: StopRequest,
) -> Ending:
    times = Timesheet()
    with times.on("start"):
        workload = made(places, launched_file(sweep), wish.device, allow, sweep)
        setup = calibrated(workload, wish, sweep.numerics)
    with LiveView(ledger, sweep) as view:
        ending = work(
            ledger, sweep, workload, setup, times, stop=stop, saving=saving, on_turn=view, on_note=errors.print
        )
    errors.print(f"{sweep.name}: {ending.value}")
    return ending
