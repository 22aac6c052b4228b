"""`price`: what each extra hyperparameter costs and what it buys, and where the sweep's time went."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.console import errors, output, print_json
from sweeper.cli.costs import show_accounts
from sweeper.cli.places import HOME, HomeOption, JsonOption, NameArgument, Places, StoreOption
from sweeper.cli.pricing import Priced, show_importance, show_masks
from sweeper.errors import PriceError
from sweeper.findings import Accounts, Decisive
from sweeper.findings.masks import Masked
from sweeper.ledger.store import Ledger
from sweeper.price import Mode, space_curve
from sweeper.price.price import Studies


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
    masks: Annotated[
        bool,
        typer.Option("--masks", help="How often each mask of a masked space reaches the smaller space's loss."),
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the test-loss curves into this .svg, .png or .html file.")
    ] = None,
    replicate: Annotated[
        int | None,
        typer.Option(
            "--replicate", min=0, help="With --plot: this replicate alone, its validation loss in an LD band."
        ),
    ] = None,
    home: HomeOption = HOME,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """What each larger space costs and buys against the smaller one, with 95 % intervals."""
    if replicate is not None and plot is None:
        raise typer.BadParameter("--replicate chooses what --plot draws. Add --plot FILE, or leave it out.")
    ledger = Places.of(home, store).ledger()
    if costs:
        accounts = Accounts.of(ledger, name, device_hour)
        print_json(accounts.as_json()) if json else show_accounts(accounts)
        return
    priced = Priced.of(ledger, name, _pairs(edges), device_hour)
    decisive = Decisive.of(ledger, priced.sweep) if importance else None
    masked = _masked(ledger, priced, asked=masks) if masks or json else None
    if plot is not None:
        _draw(priced, plot, replicate)
    if json:
        found = {"masks": masked.as_json() if masked else []}
        print_json(priced.as_json() | found | ({"importance": decisive.as_json()} if decisive else {}))
        return
    priced.show()
    if masked is not None:
        output.print()
        show_masks(masked)
    if decisive is not None:
        output.print()
        show_importance(decisive)


def _pairs(edges: list[str] | None) -> list[tuple[str, str]] | None:
    """What `--edges none:shared --edges shared:per_layer` means."""
    if not edges:
        return None
    pairs = [edge.split(":") for edge in edges]
    for edge, names in zip(edges, pairs, strict=True):
        if len(names) != 2 or not all(names) or names[0] == names[1]:
            raise typer.BadParameter(f"{edge!r} names no edge. Write smaller:larger, e.g. --edges shared:per_layer.")
    return [(smaller, larger) for smaller, larger in dict.fromkeys(map(tuple, pairs))]


def _masked(ledger: Ledger, priced: Priced, *, asked: bool) -> Masked | None:
    """The hit rates of masks; None where nobody asked for them by name and there are none."""
    try:
        return Masked.of(ledger, priced.sweep, priced.studies, priced.prices)
    except PriceError:
        if asked:
            raise
        return None


def _draw(priced: Priced, path: Path, replicate: int | None) -> None:
    from sweeper.price import plots  # takes a second, which only plots need

    name, mode = priced.sweep.name, Mode(priced.sweep.mode)
    found = {space: _chosen(rows, replicate) for space, rows in priced.studies.items()}
    curves = [curve for space, rows in found.items() if (curve := space_curve(space, rows, mode)) is not None]
    if not curves:
        which = "no study" if replicate is None else f"no study of replicate {replicate}"
        raise PriceError(f"{name} has {which} with two finished trials yet, so there is no curve to draw.")
    plots.save_chart(plots.curve_chart(curves, f"{name}: test loss against the number of trials", loss="per row"), path)
    errors.print(f"drawn: {path}")


def _chosen(studies: Studies, replicate: int | None) -> Studies:
    return studies if replicate is None else {r: trials for r, trials in studies.items() if r == replicate}
