"""`price`: what each extra hyperparameter costs and what it buys, and where the sweep's time went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.console import errors, output, print_json
from sweeper.cli.costs import Accounts
from sweeper.cli.places import HOME, HomeOption, JsonOption, NameArgument, Places, StoreOption
from sweeper.cli.pricing import Decisive, Priced
from sweeper.errors import PriceError
from sweeper.price import Mode, space_curve


def price(
    name: NameArgument,
    edges: Annotated[
        list[str] | None,
        typer.Option(
            "--edges",
            metavar="A:B",
            help="Compare these spaces, the smaller one first (repeatable); by default each with the next larger ones.",
        ),
    ] = None,
    device_hour: Annotated[
        float | None, typer.Option("--device-hour", min=0.0, help="Money for an hour of the device: adds that price.")
    ] = None,
    importance: Annotated[
        bool, typer.Option("--importance", help="Which hyperparameters of the largest space decide (takes seconds).")
    ] = False,
    costs: Annotated[
        bool,
        typer.Option("--costs", help="Where the workers' time went instead, every attempt of every trial counted."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the test-loss curves into this .svg, .png or .html file.")
    ] = None,
    home: HomeOption = HOME,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """What each larger space costs and buys against the smaller one, with 95 % intervals."""
    ledger = Places.of(home, store).ledger()
    if costs:
        accounts = Accounts.of(ledger, name, device_hour)
        print_json(accounts.as_json()) if json else accounts.show()
        return
    priced = Priced.of(ledger, name, _pairs(edges), device_hour)
    decisive = Decisive.of(ledger, priced.sweep) if importance else None
    if plot is not None:
        _draw(priced, plot)
    if json:
        print_json(priced.as_json() | ({"importance": decisive.as_json()} if decisive else {}))
        return
    priced.show()
    if decisive is not None:
        output.print()
        decisive.show()


def _pairs(edges: list[str] | None) -> list[tuple[str, str]] | None:
    """What `--edges none:shared --edges shared:per_layer` means."""
    if not edges:
        return None
    pairs = [edge.split(":") for edge in edges]
    for edge, names in zip(edges, pairs, strict=True):
        if len(names) != 2 or not all(names) or names[0] == names[1]:
            raise typer.BadParameter(f"{edge!r} names no edge. Write smaller:larger, e.g. --edges shared:per_layer.")
    return [(smaller, larger) for smaller, larger in dict.fromkeys(map(tuple, pairs))]


def _draw(priced: Priced, path: Path) -> None:
    from sweeper.price import plots  # takes a second, which only plots need

    name, mode = priced.sweep.name, Mode(priced.sweep.mode)
    found = priced.studies.items()
    curves = [curve for space, rows in found if (curve := space_curve(space, rows, mode)) is not None]
    if not curves:
        raise PriceError(f"{name} has no study with two finished trials yet, so there is no curve to draw.")
    plots.save_chart(plots.curve_chart(curves, f"{name}: test loss against the number of trials", loss="per row"), path)
    errors.print(f"drawn: {path}")
