"""Which masks of a sweep's masked spaces are any good: read from the ledger apart, so that a price doesn't wait for it.

A trial of the price carries no parameters: of 100,000 trials they are most of what the ledger holds, and only masked
spaces need them. They are read here, one masked space at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sweeper.errors import PriceError
from sweeper.launched import launched_spaces
from sweeper.ledger import reads
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.price import Edge, HitRates, MaskDraws, Mode, PriceTable, hit_rates, mask_sentence
from sweeper.price.price import Studies


@dataclass(frozen=True)
class Masked:
    """The hit rates of every edge of a price table that adds switches."""

    found: tuple[HitRates, ...]

    @classmethod
    def of(cls, ledger: Ledger, sweep: Sweep, studies: Mapping[str, Studies], prices: PriceTable) -> Masked:
        """Read what the masked spaces drew.

        Args:
            ledger: where the sweep is.
            sweep: one that was searched at random.
            studies: its finished trials by space and replicate.
            prices: its priced edges.

        Raises:
            PriceError: the sampler was no random one, no priced edge adds switches, or there is no target.
        """
        if prices.mode is Mode.PRODUCT:
            raise PriceError(
                f"{sweep.name} ran in product mode, so its masks are no random draws and their hit rates say nothing "
                f"of the masks. Search with sampler: random and no pruner."
            )
        edges = [price.edge for price in prices.prices if price.bits > 0]
        if not edges:
            raise PriceError(
                f"{sweep.name} has no priced edge to a masked space, so there are no masks to compare. Give it a "
                f"space with keep_prob: masked or lambda: masked, or let it run on."
            )
        switches = {name: space.switches for name, space in launched_spaces(sweep).items()}
        drawn = {edge.larger: _drawn(ledger, sweep, edge.larger, switches[edge.larger]) for edge in edges}
        return cls(tuple(_rates(edge, studies, switches[edge.larger], drawn[edge.larger]) for edge in edges))

    def as_json(self) -> list[dict[str, Any]]:
        """For programs: every mask that was drawn and every switch, edge by edge."""
        return [
            {
                **asdict(one),
                "masks": [{**asdict(mask), "rate": mask.rate} for mask in one.masks],
                "sentence": mask_sentence(one),
            }
            for one in self.found
        ]


def _rates(edge: Edge, studies: Mapping[str, Studies], switches: tuple[str, ...], drawn: MaskDraws) -> HitRates:
    return hit_rates(edge, studies[edge.smaller], studies[edge.larger], switches, drawn)


def _drawn(ledger: Ledger, sweep: Sweep, space: str, switches: tuple[str, ...]) -> MaskDraws:
    """Which switches each trial of a masked space had on."""
    with ledger.read() as connection:
        params = reads.drawn_params(connection, sweep.id, space)
    return {
        replicate: {number: tuple(bool(values[name]) for name in switches) for number, values in numbers.items()}
        for replicate, numbers in params.items()
    }
