"""`report`: one HTML file that says what extra hyperparameters cost, the same pictures as PNG, and tables."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.console import errors, output
from sweeper.cli.places import HOME, HomeOption, NameArgument, Places, StoreOption
from sweeper.findings import gather, write_tables
from sweeper.ledger import sweeps
from sweeper.report import figures, page, write_pictures


def report(
    name: NameArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="The HTML file to write; default: NAME.html here.", show_default=False)
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--plots", help="Write the pictures as PNG into this folder, too.")
    ] = None,
    listed: Annotated[
        Path | None, typer.Option("--tables", help="Write trials and fits as CSV and Parquet into this folder, too.")
    ] = None,
    home: HomeOption = HOME,
    store: StoreOption = None,
) -> None:
    """Write what extra hyperparameters cost and bought into one HTML file that needs nothing beside it."""
    ledger = Places.of(home, store).ledger()
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
    facts = gather(ledger, sweep)
    drawn = figures(facts)
    path = out or Path(f"{name}.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(facts, drawn), encoding="utf-8")
    written = [path]
    if pictures is not None:
        written += write_pictures(facts, pictures, drawn)
    if listed is not None:
        written += write_tables(ledger, sweep, listed)
    for file in written:
        output.print(str(file), soft_wrap=True)
    if not facts.supports_claims:
        errors.print(f"R = {facts.replicates} replicates: too few for any claim, and the report says so.")
