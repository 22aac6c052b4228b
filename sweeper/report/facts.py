"""All that a report tells: what was read from the ledger, and what the price makes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from sweeper.price import Edge, Mode, PriceTable, SpaceCurve, SpaceShape, SpaceSummary, space_curve
from sweeper.price.curves import Block
from sweeper.price.pairs import CLAIM_REPLICATES, Pair, pair_up
from sweeper.price.price import Studies


@dataclass(frozen=True, slots=True)
class Machine:
    """A process that trained trials, or several alike.

    Attributes:
        device: the name of what it computed on.
        host: of which machine.
        workers: how many such processes there were.
        began, ended: first start and last end; None while one still works.
        details: versions, threads, slots and the like, as the worker registered them.
    """

    device: str
    host: str
    workers: int
    began: datetime
    ended: datetime | None
    details: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Sheet:
    """A table in words.

    Attributes:
        caption: what it shows.
        rows: column to text, all with the same columns; the first column heads the rows.
        missing: why there are no rows.
    """

    caption: str
    rows: Sequence[Mapping[str, str]]
    missing: str = ""


@dataclass(frozen=True)
class Facts:
    """What a report is made of.

    Attributes:
        name: of the sweep.
        workload: what was trained on what, in words.
        loss: the loss and its unit.
        mode: how it was searched.
        finished, planned: trials.
        studies: the finished trials by space and replicate.
        shapes: how each space searches, in the file's order.
        prices: the price table.
        spaces: the space table.
        importance: which hyperparameters of the largest space decide.
        accounts: the seconds of every attempt by space, by how they ended and by kind; empty before any was counted.
        balance: whether these seconds add up to those for which the workers held their devices.
        amounts: what all trials took together, in words: label and figure.
        machines: who trained.
        numerics: what decides a fit's last bits.
        data_sha256: the digest of the data.
        file_path, file_text: the sweep file as it was launched.
        made_at: when the report was made.
        versions: of the software that made the report, by name.
    """

    name: str
    workload: str
    loss: str
    mode: Mode
    finished: int
    planned: int
    studies: Mapping[str, Studies]
    shapes: Mapping[str, SpaceShape]
    prices: PriceTable
    spaces: Sequence[SpaceSummary]
    importance: Sheet
    accounts: Sequence[Sheet]
    balance: str
    amounts: Sequence[tuple[str, str]]
    machines: Sequence[Machine]
    numerics: Mapping[str, str]
    data_sha256: str
    file_path: str
    file_text: str
    made_at: datetime
    versions: Mapping[str, str]

    @cached_property
    def curves(self) -> tuple[SpaceCurve, ...]:
        """One per space that has two trials, in the file's order."""
        found = (space_curve(space, self.studies.get(space, {}), self.mode) for space in self.shapes)
        return tuple(curve for curve in found if curve is not None)

    @cached_property
    def pairs(self) -> Mapping[Edge, Pair]:
        """The two spaces of each priced edge, side by side."""
        names = {space for price in self.prices.prices for space in price.edge}
        blocks = {
            space: {r: Block.of(trials, self.mode) for r, trials in self.studies[space].items()} for space in names
        }
        edges = [price.edge for price in self.prices.prices]
        return {edge: pair_up(edge, blocks[edge.smaller], blocks[edge.larger], self.mode) for edge in edges}

    @property
    def replicates(self) -> int:
        """R, the least of any edge; 0 without a price."""
        return min((len(price.replicates) for price in self.prices.prices), default=0)

    @property
    def supports_claims(self) -> bool:
        """Whether the sweep is more than smoke-sized."""
        return self.replicates >= CLAIM_REPLICATES
