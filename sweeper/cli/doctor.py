"""`doctor`: whether this machine, the store and MLflow are fit for sweeps, what is wrong, and how to mend it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from sweeper.cli.console import errors, output, print_json
from sweeper.cli.places import (
    HOME,
    AllowOption,
    CheckpointsOption,
    DataRootOption,
    DeviceOption,
    HomeOption,
    JsonOption,
    Places,
    StoreOption,
    allowed_packages,
)
from sweeper.doctor import Finding, Level, Place, examine
from sweeper.ledger.rights import roles_sql


def doctor(
    home: HomeOption = HOME,
    store: StoreOption = None,
    device: DeviceOption = "auto",
    checkpoints: CheckpointsOption = None,
    allow: AllowOption = None,
    data_root: DataRootOption = None,
    roles: Annotated[
        bool, typer.Option("--roles", help="Print SQL that makes the roles of workers and analysts on PostgreSQL.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Check store, MLflow, device, disk and rights; say what is wrong (exit code 1) and how to mend it."""
    if roles:
        print(roles_sql(), end="")  # noqa: T201 - as it is, for psql
        return
    places = Places.of(home, store, data_root)
    place = Place(
        places.home,
        places.store,
        places.tracking_uri,
        checkpoints or str(places.checkpoints),
        device,
        places.roots,
        tuple(sorted(allowed_packages(allow))),
    )
    found = list[Finding]()
    for finding in examine(place):
        found.append(finding)
        if not json:
            _show(finding)
    problems = sum(one.level is Level.PROBLEM for one in found)
    if json:
        print_json({"problems": problems, "findings": [asdict(one) for one in found]})
    else:
        errors.print(f"{problems} problem{'s' * (problems != 1)}")
    if problems:
        raise typer.Exit(1)


def _show(one: Finding) -> None:
    output.print(f"{one.level.value:<8} {one.check}: {one.found}", soft_wrap=True, markup=False)
    if one.mend:
        output.print(f"         {one.mend}", soft_wrap=True, markup=False)
