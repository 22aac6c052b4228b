"""A sweep's prices, read from the ledger and shown: tables of at most 100 columns, one sentence per edge, and JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from rich.markup import escape
from rich.text import Text

from sweeper.cli import results
from sweeper.cli.console import output, table
from sweeper.findings import Decisive
from sweeper.findings.masks import Masked
from sweeper.launched import launched_shapes
from sweeper.ledger import reads, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.price import (
    CURRENCIES,
    Mode,
    PriceTable,
    SpaceShape,
    SpaceSummary,
    budget_cells,
    edge_cells,
    mask_cells,
    mask_sentence,
    price_sweep,
    space_cells,
    summarise_spaces,
    switch_cells,
)
from sweeper.price.pairs import CLAIM_REPLICATES
from sweeper.price.price import Studies
from sweeper.price.tables import MOST_MASKS

WIDTH = 100
GAP = 2  # between two columns
NOT_MEASURED = "not measured"

_MODES = {
    Mode.MEASUREMENT: "measurement mode: random draws, nothing pruned; curves average over every order of the trials",
    Mode.PRODUCT: "product mode: trials depend on each other, so that each study is one trace",
}


@dataclass(frozen=True)
class Priced:
    """Everything that `price` tells of a sweep.

    Attributes:
        studies: the trials that were priced, by space and replicate.
        shapes: how each space searches.
        energy: what measured the energy, or why nothing did.
        device_hour: money for an hour of the device.
    """

    sweep: Sweep
    studies: Mapping[str, Studies]
    shapes: Mapping[str, SpaceShape]
    prices: PriceTable
    spaces: tuple[SpaceSummary, ...]
    energy: tuple[str, ...] = ()
    device_hour: float | None = None

    @classmethod
    def of(
        cls, ledger: Ledger, name: str, edges: Sequence[tuple[str, str]] | None = None, device_hour: float | None = None
    ) -> Priced:
        """Price a sweep as the ledger has it now.

        Raises:
            UnknownSweepError: there is no sweep of that name.
            PriceError: an edge names a space that the sweep doesn't have.
        """
        with ledger.read() as connection:
            sweep = sweeps.find(connection, name)
            studies = reads.priced(connection, sweep.id)
            notes = tuple(reads.energy_notes(connection, sweep.id))
        shapes, mode = launched_shapes(sweep), Mode(sweep.mode)
        prices = price_sweep(studies, shapes, edges, mode=mode, device_hour=device_hour)
        spaces = summarise_spaces(studies, shapes, mode=mode, device_hour=device_hour)
        return cls(sweep, studies, shapes, prices, spaces, notes, device_hour)

    @property
    def mode(self) -> Mode:
        """How the sweep was searched."""
        return self.prices.mode

    @property
    def supports_claim(self) -> bool:
        """Whether every priced edge has the replicates that a claim needs."""
        return bool(self.prices.prices) and all(edge.supports_claim for edge in self.prices.prices)

    def as_json(self) -> dict[str, Any]:
        """All of it for programs; what is not finite is null there, and an edge's `reach` says why."""
        return {
            "sweep": self.sweep.name,
            "mode": self.sweep.mode,
            "supports_claim": self.supports_claim,
            "comparisons": self.prices.comparisons,
            "device_hour": self.device_hour,
            "energy": list(self.energy),
            "prices": results.prices_json(self.prices),
            "spaces": [asdict(space) for space in self.spaces],
        }

    def show(self) -> None:
        """All of it for people."""
        output.print(f"{self.sweep.name}, {_MODES[self.mode]}.", soft_wrap=True)
        if self.prices.prices and not self.supports_claim:
            fewest = min(len(edge.replicates) for edge in self.prices.prices)
            output.print(f"R = {fewest} replicates: no claim is supported; at least {CLAIM_REPLICATES} are needed.")
        output.print()
        self._show_edges()
        self._show_spaces()
        results.show_sentences(self.prices)

    def _show_edges(self) -> None:
        edges = self.prices.prices
        corrected = f"p after Holm's correction for {self.prices.comparisons}"
        show_cells(f"edges (test loss, 95 % intervals; {corrected})", [edge_cells(one) for one in edges], ("edge",))
        rows = [row for one in edges for row in budget_cells(one)]
        title = "price of the loss that n0 trials of the smaller space reach (all edges: held together)"
        self._explain(show_cells(title, rows, ("edge", "n0")))

    def _show_spaces(self) -> None:
        show_cells("spaces", [space_cells(space) for space in self.spaces], ("space",))

    def _explain(self, unmeasured: Sequence[str]) -> None:
        """Why a currency has no column; one without a price per hour is left out, for nobody asked."""
        missing = [word for word in unmeasured if word != CURRENCIES["money"] or self.device_hour is not None]
        for word in missing:
            why = "; ".join(self.energy).removeprefix(f"{NOT_MEASURED}: ") if word == CURRENCIES["joules"] else ""
            output.print(f"{word}: {NOT_MEASURED}{f' ({why})' if why else ''}", soft_wrap=True, markup=False)
        if missing:
            output.print()


Rows = Sequence[Mapping[str, str]]


def show_cells(title: str, rows: Rows, keys: tuple[str, ...]) -> list[str]:
    """Show rows in as many tables as it takes to stay within 100 columns.

    Rows whose columns are not called alike (budgets differ while a sweep runs) go to tables of their own, and columns
    that nothing was measured for to none.

    Args:
        title: above the first table.
        rows: column to text.
        keys: the columns that say what a row is about; they open every table.

    Returns:
        The columns that were left out.
    """
    left_out: dict[str, None] = {}
    for columns, alike in groupby(sorted(rows, key=tuple), key=tuple):
        group = list(alike)
        empty = [column for column in columns if all(row[column] == NOT_MEASURED for row in group)]
        left_out |= dict.fromkeys(empty)
        told = [column for column in columns if column not in keys and column not in empty]
        for part in _packed(told, group, keys):
            if title:
                output.print(title, style="bold", markup=False)
                title = ""
            output.print(_table([*keys, *part], group))
            output.print()
    return list(left_out)


def _table(columns: Sequence[str], rows: Rows) -> Any:
    names = {column: escape(column) for column in columns}
    numeric = tuple(name for column, name in names.items() if all(_is_number(row[column]) for row in rows))
    shown = table(None, *names.values(), right=numeric)
    for row in rows:
        shown.add_row(*(Text(row[column]) for column in columns))  # no markup: "[0.1, 0.2]" is an interval
    return shown


def _is_number(cell: str) -> bool:
    return cell == "-" or bool(re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?%?", cell))


def _packed(columns: Sequence[str], rows: Rows, keys: tuple[str, ...]) -> Iterator[list[str]]:
    """The columns in order, as many at a time as fit beside the keys."""
    widths = {column: max(len(column), *(len(row[column]) for row in rows)) for column in (*keys, *columns)}
    opened = sum(widths[key] for key in keys) + GAP * (len(keys) - 1)
    part: list[str] = []
    used = opened
    for column in columns:
        if part and used + GAP + widths[column] > WIDTH:
            yield part
            part, used = [], opened
        part.append(column)
        used += GAP + widths[column]
    if part:
        yield part


# importance -----------------------------------------------------------------------------------------------------------


def show_importance(decisive: Decisive) -> None:
    """A table, or why there is none."""
    sheet = decisive.sheet()
    if sheet.missing:
        output.print(f"importance: {sheet.missing}")
    else:
        show_cells(sheet.caption, sheet.rows, ("hyperparameter",))


# masks ----------------------------------------------------------------------------------------------------------------


def show_masks(masked: Masked) -> None:
    """Per masked space its masks, its switches, and what both say."""
    for one in masked.found:
        reached = f"the test loss of {one.n0} trials of {one.edge.smaller}"
        half = MOST_MASKS // 2
        cut = f"; the {half} best and {half} worst of {len(one.masks)}" if len(one.masks) > MOST_MASKS else ""
        show_cells(f"masks of {one.edge.larger}: trials that reach {reached}{cut}", mask_cells(one), ("switched off",))
        show_cells(
            f"switches of {one.edge.larger} (intervals that hold together at 95 %)", switch_cells(one), ("switch",)
        )
        output.print(mask_sentence(one), soft_wrap=True, markup=False)
