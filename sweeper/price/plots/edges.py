"""Pictures of edges: the price ladder, cost against effect, and when studies reached the smaller space's loss."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import altair as alt
import numpy as np
from scipy import special

from sweeper.errors import PriceError
from sweeper.price.curves import Doubles
from sweeper.price.distance import PriceAt, Reach, jackknife_logs
from sweeper.price.hitting import ErtPrice, Hits
from sweeper.price.intervals import CONFIDENCE, leave_one_out
from sweeper.price.lattice import Edge
from sweeper.price.pairs import Pair
from sweeper.price.plots.canvas import (
    DASHES,
    PALETTE,
    PANEL,
    Row,
    hover,
    inline,
    ratio_axis,
    space_scale,
    styled,
    trials_axis,
    verdict_colour,
)
from sweeper.price.price import EdgePrice
from sweeper.price.words import CURRENCIES, cost_text, difference_text, per_hyperparameter_text, price_text

_REACH_SHAPES = alt.Scale(
    domain=[reach.name for reach in Reach], range=["circle", "triangle-right", "triangle-left", "cross"]
)
_LADDER_WIDTH = 380
_COLUMNS = {"price_text": _LADDER_WIDTH + 16, "buys_text": _LADDER_WIDTH + 156}  # points from the left
_HEADINGS = {"price_text": "price", "buys_text": "buys in test loss at B trials"}
_DOTS = {"device_s": PALETTE[1], "solo_s": PALETTE[6], "joules": PALETTE[5], "flops": PALETTE[4]}
_PRICE_TITLE = "price: times the smaller space's trials for the same test loss (log scale)"
_NARROW = 500
_TURN = np.linspace(0, 2 * np.pi, 49)  # of an ellipse


def ladder_chart(prices: Sequence[EdgePrice], title: str) -> alt.LayerChart:
    """The price ladder: one rung per edge, how many times the trials the larger space needs.

    Args:
        prices: one per edge, top to bottom.
        title: what was swept.

    Returns:
        A chart of the headline prices with their intervals; a triangle points to where a price lies that could not
        be read, and an interval that leaves the measurable range ends at its edge.

    Raises:
        PriceError: there is nothing to draw.
    """
    subtitle = [
        "Left of 1 the larger space is cheaper. Points: the price at n0 = B/4, with its 95 % interval over replicates.",
        "Triangles: the price lies beyond what this budget can measure. Small dots: the price in other currencies.",
        "In brackets: hyperparameters added.",
    ]
    return styled(ladder_layers(prices), title, subtitle)


def ladder_layers(prices: Sequence[EdgePrice], width: int = _LADDER_WIDTH) -> alt.LayerChart:
    """The picture of `ladder_chart` without its heading.

    Args:
        prices: one per edge, top to bottom.
        width: of the axis; one below 380 points leaves the figures out and writes the edges above their rungs.

    Raises:
        PriceError: there is nothing to draw.
    """
    rows = [_ladder_row(price) for price in prices]
    if not rows:
        raise PriceError("no edge between two spaces has a price yet, so there is no ladder to draw.")
    narrow = width < _LADDER_WIDTH
    labels = alt.Axis(labels=not narrow, labelLimit=320, ticks=False, domain=False)
    base = alt.Chart(inline(rows)).encode(
        y=alt.Y("edge:N", sort=None, title=None, axis=labels, scale=alt.Scale(domain=[row["edge"] for row in rows])),
        color=verdict_colour([price.verdict for price in prices]),
    )
    one = (
        alt.Chart(inline([{"price": 1}])).mark_rule(color="#333333", strokeDash=[4, 3], aria=False).encode(x="price:Q")
    )
    whiskers = base.mark_rule(strokeWidth=2.5, aria=False).encode(x="lower:Q", x2="upper:Q")
    dots = [row for price in prices for row in _currency_rows(price)]
    positions = [float(row[end]) for row in rows for end in ("lower", "upper")] + [float(dot["price"]) for dot in dots]
    points = base.mark_point(filled=True, size=120, opacity=1).encode(
        x=ratio_axis("price:Q", positions, "price (log scale)" if narrow else _PRICE_TITLE),
        shape=alt.Shape("reach:N", legend=None, scale=_REACH_SHAPES),
        description="words:N",
    )
    words = _edge_names(base) if narrow else _columns(base)
    chart = alt.layer(one, whiskers, points, *_currency_dots(dots), *words)
    return chart.properties(width=width, height=(52 if narrow else 40) * len(rows))


def plane_chart(prices: Sequence[EdgePrice], pairs: Mapping[Edge, Pair], title: str) -> alt.LayerChart:
    """Cost against effect: what each edge buys at B over the price of one more hyperparameter.

    Args:
        prices: one per edge.
        pairs: the two spaces of each edge, side by side.
        title: what was swept.

    Raises:
        PriceError: no edge has both a price and more hyperparameters.
    """
    subtitle = [
        "Up: the larger space finds a lower test loss. Right: each more hyperparameter asks for more trials.",
        "Clouds: where price and gain lie together in 95 % of such experiments; triangles: the price is out of reach.",
    ]
    return styled(plane_layers(prices, pairs), title, subtitle)


def plane_layers(prices: Sequence[EdgePrice], pairs: Mapping[Edge, Pair], width: int = 560) -> alt.LayerChart:
    """The picture of `plane_chart` without its heading; a narrow one has its legend in one column.

    Raises:
        PriceError: no edge has both a price and more hyperparameters.
    """
    drawn = [price for price in prices if price.extra > 0 and _has_place(price)]
    if not drawn:
        raise PriceError("no edge has a price for its further hyperparameters yet, so there is no plane to draw.")
    names = [_name(price) for price in drawn]
    rows = [_plane_row(price) for price in drawn]
    clouds = [row for price in drawn for row in _cloud(price, pairs[price.edge])]
    every = [float(row["price"]) for row in [*rows, *clouds]]
    legend = alt.Legend(orient="bottom", columns=1 if width < _NARROW else 2, labelLimit=300, symbolStrokeWidth=0)
    colour = alt.Color("edge:N", title=None, sort=names, scale=space_scale(names, PALETTE), legend=legend)
    x = ratio_axis("price:Q", every, "price of each more hyperparameter (log scale)")
    base = alt.Chart(inline(rows)).encode(x=x, color=colour)
    gains = alt.Y("buys:Q", title="buys: test loss saved at B")
    zero = alt.Chart(inline([{"buys": 0}])).mark_rule(color="#333333", strokeDash=[4, 3], aria=False).encode(y="buys:Q")
    one = (
        alt.Chart(inline([{"price": 1}])).mark_rule(color="#333333", strokeDash=[4, 3], aria=False).encode(x="price:Q")
    )
    shadows = (
        alt.Chart(inline(clouds))
        .mark_line(strokeWidth=1.2, opacity=0.8, aria=False)
        .encode(x="price:Q", y="buys:Q", order="turn:Q", color=colour)
    )
    whiskers = base.transform_filter("datum.reach !== 'MEASURED'").mark_rule(strokeWidth=1.5, aria=False)
    points = base.mark_point(filled=True, size=110, opacity=1).encode(
        y=gains, shape=alt.Shape("reach:N", legend=None, scale=_REACH_SHAPES), description="words:N"
    )
    chart = alt.layer(zero, one, shadows, whiskers.encode(y="lower:Q", y2="upper:Q"), points)
    return chart.properties(width=width, height=300)


def hits_panel(edge: Edge, found: ErtPrice) -> alt.LayerChart:
    """The share of an edge's studies that had reached the target for good, against trials.

    Args:
        edge: the names of its two spaces.
        found: when their studies got there.

    Returns:
        A chart of two staircases. A tick at their end marks studies that never got there.
    """
    sides = {edge.smaller: found.smaller, edge.larger: found.larger}
    rows = [row for space, hits in sides.items() for row in _staircase(space, hits)]
    spaces, horizon = list(sides), found.smaller.horizon
    legend = alt.Legend(orient="bottom", direction="horizontal", labelLimit=130, symbolType="stroke")
    base = alt.Chart(inline(rows)).encode(
        x=trials_axis(horizon, "trials (log scale)"),
        y=alt.Y("share:Q", title="studies at the target", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
        color=alt.Color("space:N", title=None, sort=spaces, scale=space_scale(spaces, PALETTE[1:3]), legend=legend),
    )
    steps = base.mark_line(strokeWidth=2.5, interpolate="step-after", aria=False).encode(
        strokeDash=alt.StrokeDash("space:N", title=None, sort=spaces, scale=space_scale(spaces, DASHES), legend=legend)
    )
    ticks = base.transform_filter("datum.censored").mark_tick(aria=False, thickness=2.5, orient="vertical", size=14)
    return alt.layer(steps, ticks, hover(base, "share:Q")).properties(width=PANEL[0], height=PANEL[1])


def _name(price: EdgePrice) -> str:
    return f"{price.edge.smaller} → {price.edge.larger}"


def _columns(base: alt.Chart) -> Iterable[alt.Chart]:
    """The figures as text, right of the rungs, each column under its heading."""
    for column, x in _COLUMNS.items():
        place = alt.value(x)
        figures = base.mark_text(aria=False, align="left", fontSize=12)
        yield figures.encode(x=place, text=f"{column}:N", color=alt.value("#222222"))
        heading = alt.Chart(inline([{"heading": _HEADINGS[column]}]))
        bold = heading.mark_text(aria=False, align="left", fontSize=12, fontWeight="bold", color="#222222")
        yield bold.encode(x=place, y=alt.value(-8), text="heading:N")


def _edge_names(base: alt.Chart) -> Iterable[alt.Chart]:
    """The edges' names above their rungs, where there is no room beside them."""
    names = base.mark_text(aria=False, align="left", fontSize=12, dy=-17, limit=300)
    yield names.encode(x=alt.value(0), text="edge:N", color=alt.value("#222222"))


def _ladder_row(price: EdgePrice) -> Row:
    at = price.headline
    position, lower, upper = (_onto_axis(at, x) for x in (at.trials.value, at.trials.lower, at.trials.upper))
    return {
        "edge": f"{_name(price)}  ({price.extra:+d})",
        "price": position,
        "lower": lower,
        "upper": upper,
        "reach": at.reach.name,
        "verdict": str(price.verdict),
        "price_text": price_text(at),
        "buys_text": difference_text(price.buys),
        "words": f"{_name(price)}: price {price_text(at)}, buys {difference_text(price.buys)}",
    }


def _currency_rows(price: EdgePrice) -> Iterable[Row]:
    """The price in the other currencies, where it could be read."""
    at = price.headline
    if at.reach is Reach.MEASURED:
        for name in _DOTS:
            if name in at.costs:
                edge = f"{_name(price)}  ({price.extra:+d})"
                words = f"{_name(price)}: {cost_text(at, name)} in {CURRENCIES[name]}"
                yield {
                    "edge": edge,
                    "price": at.costs[name].price.value,
                    "currency": CURRENCIES[name],
                    "words": words,
                }


def _currency_dots(rows: Sequence[Row]) -> Iterable[alt.Chart]:
    if rows:
        shown = {CURRENCIES[name]: colour for name, colour in _DOTS.items()}
        present = [currency for currency in shown if any(row["currency"] == currency for row in rows)]
        scale = alt.Scale(domain=present, range=[shown[currency] for currency in present])
        legend = alt.Legend(orient="bottom", columns=1, labelLimit=280, symbolType="circle", symbolSize=60)
        yield (
            alt.Chart(inline(rows))
            .mark_point(filled=True, size=28, yOffset=11, opacity=1)
            .encode(
                x="price:Q",
                y=alt.Y("edge:N", sort=None),
                fill=alt.Fill("currency:N", title="price in", scale=scale, legend=legend),
                description="words:N",
            )
        )


def _onto_axis(price: PriceAt, ratio: float) -> float:
    """A ratio, cut off where it could not be measured; the middle (1) where there is no price at all."""
    if price.reach is Reach.NO_TARGET:
        return 1.0
    return min(max(ratio, price.measurable_from), price.measurable_to)


def _has_place(price: EdgePrice) -> bool:
    return price.headline.reach is not Reach.NO_TARGET and math.isfinite(price.buys.value)


def _plane_row(price: EdgePrice) -> Row:
    at, buys = price.headline, price.buys
    bounded = math.isfinite(buys.upper - buys.lower)
    return {
        "edge": _name(price),
        "price": _onto_axis(at, at.trials.value) ** (1 / price.extra),
        "buys": buys.value,
        "lower": buys.lower if bounded else buys.value,
        "upper": buys.upper if bounded else buys.value,
        "reach": at.reach.name,
        "words": f"{_name(price)}: {per_hyperparameter_text(at, price.extra)} each, buys {difference_text(buys)}",
    }


def _cloud(price: EdgePrice, pair: Pair) -> Iterable[Row]:
    """Where log price and gain lie together, an ellipse from the jackknife; none where a replicate can't be read."""
    at = price.headline
    if at.reach is not Reach.MEASURED or len(pair.replicates) < 3:
        return
    logs, gains = jackknife_logs(at.n0, pair), leave_one_out(pair.differences)[:, -1]
    if not np.isfinite([*logs, *gains]).all():
        return
    centre = np.array([math.log(at.trials.value) / price.extra, price.buys.value])
    outline = centre[:, None] + _joint(np.stack([logs / price.extra, gains])) @ np.stack([np.cos(_TURN), np.sin(_TURN)])
    for turn, (log, gain) in enumerate(outline.T):
        yield {"edge": _name(price), "price": float(np.exp(log)), "buys": float(gain), "turn": turn}


def _joint(replicates: Doubles) -> Doubles:
    """What turns the unit circle into the joint 95 % region of two jackknifed estimates.

    Args:
        replicates: `2 x R`, each without one of the blocks.

    Returns:
        `2 x 2`: the root of the jackknife covariance times that of Hotelling's quantile.
    """
    count = replicates.shape[1]
    covariance = (count - 1) * np.cov(replicates, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    root: Doubles = vectors * np.sqrt(np.maximum(values, 0.0) * _hotelling(count))
    return root


def _hotelling(replicates: int) -> float:
    """T squared of two means over R replicates: 2 (R - 1) / (R - 2) times the quantile of F(2, R - 2)."""
    quantile = float(special.fdtri(2, replicates - 2, CONFIDENCE))
    return 2 * (replicates - 1) / (replicates - 2) * quantile


def _staircase(space: str, hits: Hits) -> Iterable[Row]:
    """Where a space's share of arrived studies rises; its end says whether some never arrived."""
    times = sorted(time for time in hits.times if math.isfinite(time))
    shares = {1.0: 0.0} | {time: (i + 1) / len(hits.times) for i, time in enumerate(times)}
    shares[float(hits.horizon)] = len(times) / len(hits.times)
    for time, share in sorted(shares.items()):
        censored = time == hits.horizon and hits.hits < len(hits.times)
        words = f"{space}: {share:.0%} of the studies after {time:g} trials"
        yield {"space": space, "trials": time, "share": share, "censored": censored, "words": words}
