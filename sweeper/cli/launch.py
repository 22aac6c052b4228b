"""`launch`: hand a sweep to the workers of a store; nothing is trained here."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Annotated, Any

import typer

from sweeper.checkpoints import Checkpoints
from sweeper.cli import results
from sweeper.cli.console import output, print_json
from sweeper.cli.making import made, vouched
from sweeper.cli.places import HOME, AllowOption, HomeOption, JsonOption, Places, StoreOption
from sweeper.config import read_sweep
from sweeper.ledger import deliveries, reads, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.letters import opening_letters
from sweeper.workload import Workload, differences

FileArgument = Annotated[Path, typer.Argument(help="A sweep file.", show_default=False)]
FreshOption = Annotated[bool, typer.Option("--fresh", help="Forget the sweep of that name and its trials first.")]


def launch(
    file: FileArgument,
    home: HomeOption = HOME,
    store: StoreOption = None,
    fresh: FreshOption = False,
    allow: AllowOption = None,
    json: JsonOption = False,
) -> None:
    """Submit a sweep to the workers of this store, or extend the one of its name; nothing is trained here."""
    places = Places.of(home, store)
    sweep_file = vouched(places, read_sweep(file))
    ledger = places.ledger(create=True)
    workload = made(places, sweep_file, "auto", allow)
    results.show_plan(workload)
    sweep = launched(ledger, workload, {}, fresh, partial(leave_nothing, places, os.environ.get("SWEEPER_CHECKPOINTS")))
    with ledger.read() as connection:
        spaces = reads.progress(connection, sweep.id)
    planned, finished = sum(space.planned for space in spaces), sum(space.finished for space in spaces)
    if json:
        trials = {"finished": finished, "planned": planned}
        print_json({"sweep": sweep.name, "mode": sweep.mode, "state": sweep.state, "trials": trials})
        return
    left = f"{planned - finished} of {planned} trials are left" if finished else f"{planned} trials"
    output.print(
        f"{sweep.name} is launched: {left}. Workers of this store take it up; start one where it is to be trained:\n"
        f"  sweeper worker{places.hint}\n  sweeper status {sweep.name} --watch{places.hint}",
        soft_wrap=True,
    )


def leave_nothing(places: Places, checkpoints: str | None, uid: str) -> None:
    """Remove the files of a sweep that was forgotten: nobody will go on with its trials.

    Args:
        places: where it lived.
        checkpoints: where its trials were saved, if that was not at home.
        uid: its unique name.
    """
    Checkpoints(checkpoints or str(places.checkpoints)).forget(uid)
    rmtree(places.unsettled / uid, ignore_errors=True)


def launched(
    ledger: Ledger,
    workload: Workload,
    numerics: Mapping[str, Any],
    fresh: bool,
    on_forgotten: Callable[[str], None],
) -> Sweep:
    """Enter a sweep, or go on with the one of its name, and tell MLflow of what is new.

    Args:
        ledger: the store.
        workload: what is launched.
        numerics: how its fits are computed; empty leaves that to the first worker.
        fresh: forget the sweep of that name first.
        on_forgotten: told the unique name of one that was.

    Raises:
        SweepChangedError: the name is taken by a sweep with another content.
    """
    plan = workload.plan(numerics)
    with ledger.write() as connection:
        old = [sweep for sweep in sweeps.every(connection) if sweep.name == plan.name]
        before = [study for one in old for study in sweeps.studies(connection, one.id)]
        sweep = sweeps.launch(connection, plan, fresh=fresh, differences=differences)
        new = [study for study in sweeps.studies(connection, sweep.id) if study not in before]  # or extended
        reopens = any(one.state == sweeps.SPENT for one in old)
        deliveries.post(connection, sweep.id, opening_letters(sweep, new, reopens=reopens))
    for one in old if fresh else ():
        on_forgotten(one.uid)
    return sweep
