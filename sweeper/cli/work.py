"""`worker`: a process that serves the sweeps of a store, beside others here or elsewhere."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from subprocess import Popen, TimeoutExpired
from typing import Annotated

import typer

from sweeper.calibration import Setup, Wish
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
    agreed,
    busy,
    calibrated,
    wish_of,
)
from sweeper.cli.console import errors
from sweeper.cli.live import LiveView
from sweeper.cli.making import made
from sweeper.cli.places import HOME, AllowOption, DataRootOption, HomeOption, Places, StoreOption
from sweeper.courier import PATIENCE_S, following
from sweeper.errors import LedgerError, SweepChangedError
from sweeper.launched import launched_file
from sweeper.ledger import reads, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.service import QUANTUM_S, Service
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending, StopRequest, work
from sweeper.workload import Workload, differences


def worker(
    name: Annotated[
        str | None,
        typer.Option("--sweep", metavar="NAME", help="Serve this sweep alone, and end with it; by default every one."),
    ] = None,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="End when nothing is left to do, instead of waiting for more.")
    ] = False,
    home: HomeOption = HOME,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    slots: SlotsOption = None,
    threads: ThreadsOption = None,
    compiling: CompileOption = Compile.AUTO,
    checkpoints: CheckpointsOption = None,
    checkpoint_every: EveryOption = EVERY_S,
    allow: AllowOption = None,
    data_root: DataRootOption = None,
    mlflow: Annotated[
        bool, typer.Option("--mlflow/--no-mlflow", help="Deliver to MLflow what is new of the sweep being served.")
    ] = False,
    quantum: Annotated[
        float, typer.Option("--quantum", min=0, hidden=True, help="Seconds to stay at a sweep while others wait.")
    ] = QUANTUM_S,
    crew: Annotated[
        int | None,
        typer.Option(
            "--crew", min=1, hidden=True, help="One of so many that `sweeper run` started: ends with standard input."
        ),
    ] = None,
) -> None:
    """Serve the sweeps of a store in turns, beside other workers here or elsewhere; it stays, and waits for more."""
    places = Places.of(home, store, data_root)
    ledger = places.awaited_ledger(create=name is None and not until_done)
    wish = wish_of(device, slots, threads, crew or 1, compiling, mlflow=mlflow)
    if name is not None and not _has_work(ledger, name):
        return
    with StopRequest().listening() as stop:
        if crew:  # the same as when the machine is taken back
            on_closed_input(lambda: os.kill(os.getpid(), signal.SIGTERM))
        post = Post(ledger, places, wish, allow, Saved(checkpoints, checkpoint_every), mlflow, stop)
        service = Service(ledger, post.prepare, post.work, errors.print, stop, name, until_done, quantum)
        ending = service.serve()
        if ending is not Ending.INTERRUPTED:
            post.await_delivery()
    if ending is Ending.INTERRUPTED:
        raise typer.Exit(stop.exit_code)
    if service.problems:
        raise typer.Exit(2)  # it said which sweeps it left alone, and why


def _has_work(ledger: Ledger, name: str) -> bool:
    """Whether the sweep of that name wants workers.

    Raises:
        LedgerError: there is none, or it is stopped.
    """
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
        is_done = all(space.is_complete for space in reads.progress(connection, sweep.id))
    if sweep.state == sweeps.STOPPED:
        raise LedgerError(f"the sweep {name!r} is stopped. Open it again with: sweeper resume {name}")
    if is_done or sweep.state != sweeps.OPEN:
        errors.print(f"{name}: nothing to do" + ("" if is_done else f" ({sweep.state})"))
        return False
    return True


@dataclass(frozen=True)
class Post:
    """How this process makes a sweep ready and works on it."""

    ledger: Ledger
    places: Places
    wish: Wish
    allow: list[str] | None
    saved: Saved
    mlflow: bool
    stop: StopRequest
    couriers: list[Popen[bytes]] = field(default_factory=list)

    def prepare(self, sweep: Sweep, times: Timesheet) -> Setup:
        """Make a sweep concrete, and choose how to compute it."""
        with self.stop.obeyed_at_once(), times.on("start"):
            workload = made(self.places, launched_file(sweep), self.wish.device, self.allow, sweep)
            _refuse_changed(sweep, workload)
            setup = calibrated(workload, self.wish, sweep.numerics or None)
            return agreed(self.ledger, sweep, setup, self.wish, sweep.numerics)

    def work(self, sweep: Sweep, setup: Setup, times: Timesheet, is_wanted_elsewhere: Callable[[], bool]) -> Ending:
        """Work on a sweep for a while."""
        argv = ["mlflow", "sync", sweep.name, "--follow"]
        delivering = following(argv, self.places.environment, self.places.log) if self.mlflow else nullcontext()
        with delivering as courier, LiveView(self.ledger, sweep) as view:
            self.couriers.extend([courier] if courier else [])
            ending = work(
                self.ledger,
                sweep,
                setup.workload,
                setup,
                times,
                stop=self.stop,
                saving=self.saved.at(self.places),
                is_wanted_elsewhere=is_wanted_elsewhere,
                on_turn=view,
                on_note=errors.print,
            )
        errors.print(f"{sweep.name}: {ending.value}")
        return ending

    def await_delivery(self) -> None:
        """Stay until MLflow has been told what this process was to deliver, or can't be reached."""
        unfinished = [courier for courier in self.couriers if courier.poll() is None]
        if unfinished:
            with self.stop.obeyed_at_once(), busy("delivering to MLflow"), suppress(TimeoutExpired):
                for courier in unfinished:
                    courier.wait(PATIENCE_S)


def _refuse_changed(sweep: Sweep, workload: Workload) -> None:
    """What this machine finds under the names in the file must be what the sweep was launched with."""
    changed = sweeps.changes(sweep, workload.plan({}), differences)
    if changed:
        raise SweepChangedError(
            f"this worker does not find what {sweep.name!r} was launched with:\n  "
            + "\n  ".join(changed)
            + "\nGive it the same data, code and weights."
        )
