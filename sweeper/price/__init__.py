"""What each extra hyperparameter costs and what it buys: pure statistics on recorded trials, no store, no torch.

    lattice     which spaces to compare          curves      test loss against trials
    pairs       two spaces side by side          intervals   Student, jackknife, Holm
    distance    PRICE                            breakeven   BREAK-EVEN
    hitting     ERT                              price       all of that, for every edge of a sweep
    effective   hyperparameters that matter      spaces      that, selection gap and overtuning, for every space
    words       cells and sentences              tables      rows of cells

The pictures are in `sweeper.price.plots`, apart, so that a table doesn't wait for Altair to be imported.
"""

from sweeper.price.breakeven import BreakEven
from sweeper.price.curves import Mode, SpaceCurve, space_curve, trace
from sweeper.price.distance import CostPrice, PriceAt, Reach
from sweeper.price.effective import Effective
from sweeper.price.hitting import ErtPrice, Hits
from sweeper.price.intervals import Estimate, paired_t
from sweeper.price.lattice import Edge, SpaceShape, default_edges
from sweeper.price.price import EdgePrice, PriceTable, Unmeasured, Verdict, price_sweep
from sweeper.price.spaces import SpaceSummary, summarise_spaces
from sweeper.price.tables import budget_cells, edge_cells, space_cells
from sweeper.price.words import (
    CURRENCIES,
    break_even_text,
    cost_text,
    difference_text,
    effective_text,
    ert_text,
    p_text,
    price_text,
    ratio_text,
    sentence,
)

__all__ = [
    "CURRENCIES",
    "BreakEven",
    "CostPrice",
    "Edge",
    "EdgePrice",
    "Effective",
    "ErtPrice",
    "Estimate",
    "Hits",
    "Mode",
    "PriceAt",
    "PriceTable",
    "Reach",
    "SpaceCurve",
    "SpaceShape",
    "SpaceSummary",
    "Unmeasured",
    "Verdict",
    "break_even_text",
    "budget_cells",
    "cost_text",
    "default_edges",
    "difference_text",
    "edge_cells",
    "effective_text",
    "ert_text",
    "p_text",
    "paired_t",
    "price_sweep",
    "price_text",
    "ratio_text",
    "sentence",
    "space_cells",
    "space_curve",
    "summarise_spaces",
    "trace",
]
