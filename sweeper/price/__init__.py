"""What each extra hyperparameter costs and what it buys: pure statistics on recorded trials, no store, no torch.

The pictures are in `sweeper.price.plots`, apart, so that a table doesn't wait for Altair to be imported.
"""

from sweeper.price.curves import SpaceCurve, space_curve, trace
from sweeper.price.intervals import Estimate
from sweeper.price.lattice import Edge, SpaceShape, default_edges
from sweeper.price.price import (
    CostPrice,
    EdgePrice,
    PriceAt,
    PriceTable,
    Reach,
    Unmeasured,
    Verdict,
    price_sweep,
)
from sweeper.price.report import difference_text, price_text, sentence

__all__ = [
    "CostPrice",
    "Edge",
    "EdgePrice",
    "Estimate",
    "PriceAt",
    "PriceTable",
    "Reach",
    "SpaceCurve",
    "SpaceShape",
    "Unmeasured",
    "Verdict",
    "default_edges",
    "difference_text",
    "price_sweep",
    "price_text",
    "sentence",
    "space_curve",
    "trace",
]
