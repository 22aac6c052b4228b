"""What a price table, a budget table and a space table show: cells by column, for the terminal and the report alike."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import chain

from sweeper.price.masks import HitRates
from sweeper.price.price import EdgePrice
from sweeper.price.spaces import SpaceSummary
from sweeper.price.words import (
    CURRENCIES,
    break_even_text,
    cost_text,
    difference_text,
    effective_text,
    ert_text,
    p_text,
    per_bit_text,
    per_hyperparameter_text,
    price_text,
    switched_off,
    warm_text,
)

Cells = Mapping[str, str]
"""Column to text; all rows of a table have the same columns in the same order."""

MOST_MASKS = 16  # 2^L masks are too many to read: the best half of these and the worst


def edge_cells(price: EdgePrice) -> Cells:
    """One row per edge: what it buys, whether that is shown, what it costs, and from which budget on it pays."""
    headline, n0 = price.headline, price.headline.n0
    times = price.running_times[[at.n0 for at in price.prices].index(n0)]
    return {
        "edge": _name(price),
        "extra": str(price.extra),
        f"buys at {price.budget} trials": difference_text(price.buys),
        "p (Holm)": p_text(price.adjusted_p),
        f"price at n0 = {n0}": price_text(headline),
        "per hyperparameter": per_hyperparameter_text(headline, price.extra),
        "per bit": per_bit_text(headline, price.bits),
        "break-even trials": break_even_text(price.break_even),
        f"ERT ratio at n0 = {n0}": ert_text(times),
        f"warm buys at {price.budget} trials": warm_text(price.warm),
    }


def budget_cells(price: EdgePrice) -> list[Cells]:
    """One row per n0 of an edge: its price in every currency, and with an interval for all edges at once."""
    rows: list[Cells] = []
    for at in price.prices:
        at_once = price_text(at, simultaneous=True)
        costs = {word: cost_text(at, name) for name, word in CURRENCIES.items() if name != "trials"}
        rows.append({"edge": _name(price), "n0": str(at.n0), "trials": price_text(at), "all edges": at_once, **costs})
    return rows


def space_cells(space: SpaceSummary) -> Cells:
    """One row per space: its loss, what choosing cost in trust, its hyperparameters, and what a trial took."""
    costs = {f"{word} a trial": _cost(space.costs.get(name)) for name, word in CURRENCIES.items() if name != "trials"}
    return {
        "space": space.space,
        "hyperparameters": str(space.dimensions),
        "that matter": effective_text(space.effective),
        f"test loss at {space.budget} trials": difference_text(space.test_loss).replace("+", ""),
        "selection gap": difference_text(space.gap),
        "overtuning": difference_text(space.overtuning),
        "ends worse": f"{space.ends_worse:.0%}",
        "failed or pruned": f"{space.failed:.0%}",
        **costs,
    }


def mask_cells(found: HitRates) -> list[Cells]:
    """One row per mask, the best first: how many trials drew it, and how many of them reached the target.

    Of more than 16 masks, the 8 best and the 8 worst.
    """
    masks, half = found.masks, MOST_MASKS // 2
    shown = masks if len(masks) <= MOST_MASKS else chain(masks[:half], masks[-half:])
    return [
        {
            "switched off": switched_off(mask.off, len(found.switches)),
            "trials": str(mask.trials),
            "that reach it": str(mask.hits),
            "share": f"{mask.rate:.1%}",
        }
        for mask in shown
    ]


def switch_cells(found: HitRates) -> list[Cells]:
    """One row per switch: the hit rate without and with what it switches, and which is shown to be better."""
    return [
        {
            "switch": one.switch,
            "share with it off": _rate(one.off),
            "share with it on": _rate(one.on),
            "off minus on": difference_text(one.gain),
            "better": str(one.leaning),
        }
        for one in found.switches
    ]


def _rate(rate: float) -> str:
    return "-" if math.isnan(rate) else f"{rate:.1%}"


def _name(price: EdgePrice) -> str:
    return f"{price.edge.smaller} -> {price.edge.larger}"


def _cost(cost: float | None) -> str:
    return "not measured" if cost is None or math.isnan(cost) else f"{cost:.3g}"
