"""`price`: what each extra hyperparameter costs and what it buys."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli import results
from sweeper.cli.console import errors, print_json
from sweeper.cli.places import HOME, HomeOption, JsonOption, NameArgument, Places, StoreOption
from sweeper.errors import PriceError
from sweeper.ledger import reads, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.price import Mode, price_sweep, space_curve
from sweeper.price.price import Studies
from sweeper.workload import launched_shapes


def price(
    name: NameArgument,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the test-loss curves into this .svg, .png or .html file.")
    ] = None,
    home: HomeOption = HOME,
    store: StoreOption = None,
    json: JsonOption = False,
) -> None:
    """What each larger space costs and buys against the smaller one, with 95 % intervals."""
    ledger = Places.of(home, store).ledger()
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
        found = reads.priced(connection, sweep.id)
    shapes = launched_shapes(sweep)
    prices = price_sweep(found, shapes, mode=Mode(sweep.mode))
    if plot is not None:
        _draw(sweep, found, plot)
    if json:
        print_json({"sweep": name, "mode": sweep.mode, "prices": results.prices_json(prices)})
    else:
        results.show_prices(sweep, prices)


def _draw(sweep: Sweep, found: Mapping[str, Studies], path: Path) -> None:
    from sweeper.price import plots  # takes a second, which only plots need

    curves = [curve for name, rows in found.items() if (curve := space_curve(name, rows, Mode(sweep.mode))) is not None]
    if not curves:
        raise PriceError(f"{sweep.name} has no study with two finished trials yet, so there is no curve to draw.")
    plots.save_chart(
        plots.curve_chart(curves, f"{sweep.name}: test loss against the number of trials", loss="per row"), path
    )
    errors.print(f"drawn: {path}")
