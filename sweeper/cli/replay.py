"""`replay`: train a recorded trial once more, and say how far it came out the same."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sweeper.cli.computing import DeviceOption
from sweeper.cli.console import counting, errors, output, print_json, table
from sweeper.cli.making import made
from sweeper.cli.places import HOME, AllowOption, DataRootOption, HomeOption, JsonOption, Places, StoreOption
from sweeper.engine import can_compile, device_facts, find_device
from sweeper.errors import UnknownTrialError
from sweeper.launched import launched_file
from sweeper.ledger import sweeps
from sweeper.ledger.recorded import recorded
from sweeper.ledger.rows import Sweep
from sweeper.replay import Replayed
from sweeper.replay import replay as replayed

TrialArgument = Annotated[
    str, typer.Argument(metavar="TRIAL", help="SWEEP/SPACE/REPLICATE/NUMBER, as digits/shared/0/7.", show_default=False)
]


def replay(
    trial: TrialArgument,
    home: HomeOption = HOME,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    allow: AllowOption = None,
    data_root: DataRootOption = None,
    json: JsonOption = False,
) -> None:
    """Train a recorded trial once more, alone in a slot and from the ledger alone; report every difference."""
    places = Places.of(home, store, data_root)
    ledger = places.ledger()
    name, space, replicate, number = _parts(trial)
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
        found = recorded(connection, sweep.id, space, replicate, number)
    workload = made(places, launched_file(sweep), device, allow, sweep)
    where = find_device(device)
    compiled = bool(sweep.numerics.get("compiled")) and can_compile(where)
    notes = _otherwise(sweep, where, compiled)
    with counting(f"replaying {trial}", "epochs") as progress:
        result = replayed(workload, found, device=where, compiled=compiled, on_epoch=progress)
    if json:
        rows = [asdict(one) for one in result.differences]
        print_json(
            {"trial": trial, "same": result.is_same, "notes": notes, "outcomes": result.outcomes, "measures": rows}
        )
        return
    for note in notes:
        errors.print(f"note: {note}")
    _show(trial, result)


def _parts(trial: str) -> tuple[str, str, int, int]:
    parts = trial.split("/")
    if len(parts) != 4 or not (parts[2].isdecimal() and parts[3].isdecimal()):
        raise UnknownTrialError(
            f"{trial!r} names no trial. Write SWEEP/SPACE/REPLICATE/NUMBER, as digits/shared/0/7; `sweeper trials "
            f"SWEEP` shows which there are."
        )
    return parts[0], parts[1], int(parts[2]), int(parts[3])


def _otherwise(sweep: Sweep, device: str, compiled: bool) -> list[str]:
    """In what this machine computes otherwise than the sweep was launched."""
    facts = device_facts(device)
    now = {"compiled": compiled, "torch": facts.torch, "device": facts.kind}
    return [
        f"the sweep was launched with {name} {sweep.numerics[name]}, and this is {name} {value}: expect other last bits"
        for name, value in now.items()
        if sweep.numerics.get(name, value) != value
    ]


def _show(trial: str, result: Replayed) -> None:
    shown = table(None, "measure", "values", "largest difference", right=("values", "largest difference"))
    for one in result.differences:
        shown.add_row(one.measure, str(one.values), f"{one.largest:.3g}")
    output.print(shown)
    for fold, (then, now) in enumerate(result.outcomes):
        if then != now:
            output.print(f"fold {fold}: {then}; now: {now}", soft_wrap=True)
    verdict = "the same, bit for bit" if result.is_same else "NOT the same"
    output.print(f"{trial}: {verdict}", soft_wrap=True)
