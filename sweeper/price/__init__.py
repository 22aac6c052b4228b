"""What each extra hyperparameter costs and what it buys: pure statistics on recorded trials, no store, no torch.

    lattice     which spaces to compare          curves      test loss against trials
    pairs       two spaces side by side          intervals   Student, jackknife, Holm
    distance    PRICE                            breakeven   BREAK-EVEN
    hitting     ERT                              warm        the larger space from the smaller one's incumbent on
    masks       hit rates of masks               price       all of that but masks, for every edge of a sweep
    effective   hyperparameters that matter      spaces      that, selection gap and overtuning, for every space
    bands       exact bands of a single study
    words       cells and sentences              tables      rows of cells

The pictures are in `sweeper.price.plots`, apart, so that a table doesn't wait for Altair to be imported.
"""

from sweeper.price.bands import LdBand
from sweeper.price.breakeven import BreakEven
from sweeper.price.curves import Mode, SpaceCurve, space_curve, trace
from sweeper.price.distance import CostPrice, PriceAt, Reach
from sweeper.price.effective import Effective
from sweeper.price.hitting import ErtPrice, Hits
from sweeper.price.intervals import Estimate, paired_t
from sweeper.price.lattice import Edge, SpaceShape, default_edges
from sweeper.price.masks import HitRates, Leaning, MaskDraws, hit_rates
from sweeper.price.price import EdgePrice, PriceTable, Unmeasured, Verdict, price_sweep
from sweeper.price.spaces import SpaceSummary, summarise_spaces
from sweeper.price.tables import budget_cells, edge_cells, mask_cells, space_cells, switch_cells
from sweeper.price.warm import Warm
from sweeper.price.words import (
    CURRENCIES,
    break_even_text,
    cost_text,
    difference_text,
    effective_text,
    ert_text,
    mask_sentence,
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
    "HitRates",
    "Hits",
    "LdBand",
    "Leaning",
    "MaskDraws",
    "Mode",
    "PriceAt",
    "PriceTable",
    "Reach",
    "SpaceCurve",
    "SpaceShape",
    "SpaceSummary",
    "Unmeasured",
    "Verdict",
    "Warm",
    "break_even_text",
    "budget_cells",
    "cost_text",
    "default_edges",
    "difference_text",
    "edge_cells",
    "effective_text",
    "ert_text",
    "hit_rates",
    "mask_cells",
    "mask_sentence",
    "p_text",
    "paired_t",
    "price_sweep",
    "price_text",
    "ratio_text",
    "sentence",
    "space_cells",
    "space_curve",
    "summarise_spaces",
    "switch_cells",
    "trace",
]
