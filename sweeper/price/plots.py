"""The pictures of a price: test-loss curves and the price ladder. Altair's one doorway in the house.

Colours are Okabe & Ito's, which stay apart for colour-blind readers; line styles or shapes say the same again.
Pictures are rendered by vl-convert, without a browser.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import altair as alt

from sweeper.errors import PriceError
from sweeper.price.curves import Mode, SpaceCurve
from sweeper.price.distance import PriceAt, Reach
from sweeper.price.price import EdgePrice, Verdict
from sweeper.price.words import difference_text, price_text

Row = dict[str, str | float | bool]

_PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_DASHES: tuple[list[int], ...] = ([1, 0], [7, 3], [2, 2], [10, 3, 2, 3])
_VERDICT_COLOURS = {
    Verdict.PAYS: "#009E73",
    Verdict.NOT_SHOWN: "#6E6E6E",
    Verdict.COSTS_MORE: "#D55E00",
    Verdict.SMOKE: "#B0B0B0",
    Verdict.UNMEASURED: "#B0B0B0",
}
_REACH_SHAPES = alt.Scale(
    domain=[reach.name for reach in Reach], range=["circle", "triangle-right", "triangle-left", "cross"]
)
_LADDER_WIDTH = 380
_COLUMNS = {"price_text": _LADDER_WIDTH + 16, "buys_text": _LADDER_WIDTH + 156}  # points from the left
_HEADINGS = {"price_text": "price", "buys_text": "buys in test loss at B trials"}
_FORMATS = ("svg", "png", "html")
_TRIALS = {
    Mode.MEASUREMENT: "random-search trials (log scale)",
    Mode.PRODUCT: "trials, in the order in which they ran (log scale)",
}
_ORDERS = {Mode.MEASUREMENT: " and all orders of their trials", Mode.PRODUCT: ", one trace each (product mode)"}
_PNG_SCALE = 2  # pixels per point: sharp on slides and in papers


def curve_chart(
    curves: Sequence[SpaceCurve], title: str, loss: str = "cross-entropy, nats per example"
) -> alt.LayerChart:
    """Test loss of the incumbent against the number of trials, one line per space.

    Args:
        curves: one per space, in the order of the legend.
        title: what was swept.
        loss: the loss and its unit, for the axis.

    Returns:
        A chart; the bands are 95 % t-intervals over replicates at each budget on its own.

    Raises:
        PriceError: there is nothing to draw.
    """
    rows = [row for i, curve in enumerate(curves) for row in _curve_rows(curve, _PALETTE[i % len(_PALETTE)])]
    if not rows:
        raise PriceError("no space has two randomly drawn trials yet, so there is no curve to draw. Run the sweep on.")
    spaces = [curve.space for curve in curves]
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "trials:Q",
            title=_TRIALS[curves[0].mode],
            scale=alt.Scale(type="log", base=2, nice=False),
            axis=alt.Axis(values=_powers_of_two(curves), format="d", grid=False),
        ),
    )
    lines = base.mark_line(strokeWidth=2.5).encode(
        y=alt.Y("mean:Q", title=f"mean test loss ({loss})", scale=alt.Scale(zero=False)),
        color=alt.Color("space:N", title="space", sort=spaces, scale=_scale(spaces, _PALETTE)),
        strokeDash=alt.StrokeDash("space:N", title="space", sort=spaces, scale=_scale(spaces, _DASHES)),
    )
    bands = base.mark_area(opacity=0.08).encode(  # fill, not colour: else the legend shows faint areas instead of lines
        y="lower:Q", y2="upper:Q", fill=alt.Fill("colour:N", scale=None), detail="space:N"
    )
    subtitle = [
        f"Test loss of the trial that validation would choose, averaged over {_averaged_over(curves)}.",
        "Bands: 95 % at each budget on its own. Spaces share splits and seeds: bands may overlap where spaces differ.",
    ]
    return _styled(alt.layer(bands, lines), title, subtitle).properties(width=560, height=340)


def _curve_rows(curve: SpaceCurve, colour: str) -> Iterable[Row]:
    """Finite points only; where there is no interval the band has no width."""
    for n, mean, lower, upper in zip(curve.budgets, curve.mean, curve.lower, curve.upper, strict=True):
        if math.isfinite(mean):
            ends = (lower, upper) if math.isfinite(upper - lower) else (mean, mean)
            yield {
                "space": curve.space,
                "colour": colour,
                "trials": int(n),
                "mean": float(mean),
                "lower": float(ends[0]),
                "upper": float(ends[1]),
            }


def _powers_of_two(curves: Sequence[SpaceCurve]) -> list[int]:
    largest = max(int(curve.budgets[-1]) for curve in curves)
    return [2**power for power in range(largest.bit_length())]


def _averaged_over(curves: Sequence[SpaceCurve]) -> str:
    counts = sorted({curve.replicates for curve in curves})
    numbers = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{numbers} replicate{'' if counts[-1] == 1 else 's'}{_ORDERS[curves[0].mode]}"


def _scale(spaces: Sequence[str], values: Sequence[object]) -> alt.Scale:
    return alt.Scale(domain=list(spaces), range=[values[i % len(values)] for i in range(len(spaces))])


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
    rows = [_ladder_row(price) for price in prices]
    if not rows:
        raise PriceError("no edge between two spaces has a price yet, so there is no ladder to draw.")
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("edge:N", sort=None, title=None, axis=alt.Axis(labelLimit=320, ticks=False, domain=False)),
        color=_verdict_colour([price.verdict for price in prices]),
    )
    one = alt.Chart(alt.Data(values=[{"price": 1}])).mark_rule(color="#333", strokeDash=[4, 3]).encode(x="price:Q")
    whiskers = base.mark_rule(strokeWidth=2.5).encode(x="lower:Q", x2="upper:Q")
    points = base.mark_point(filled=True, size=120, opacity=1).encode(
        x=_ratio_axis(rows), shape=alt.Shape("reach:N", legend=None, scale=_REACH_SHAPES)
    )
    subtitle = [
        "Left of 1 the larger space is cheaper. Points: the price at n0 = B/4, with its 95 % interval over replicates.",
        "Triangles: the price lies beyond what this budget can measure. In brackets: hyperparameters added.",
    ]
    chart = alt.layer(one, whiskers, points, *_columns(base))
    return _styled(chart, title, subtitle).properties(width=_LADDER_WIDTH, height=40 * len(rows))


def _verdict_colour(found: Sequence[Verdict]) -> alt.Color:
    verdicts = [verdict for verdict in Verdict if verdict in found]
    return alt.Color(
        "verdict:N",
        title="at equal budget the larger space",
        scale=alt.Scale(domain=[str(v) for v in verdicts], range=[_VERDICT_COLOURS[v] for v in verdicts]),
        legend=alt.Legend(orient="bottom", direction="horizontal", labelLimit=280, titleLimit=400),
    )


def _ratio_axis(rows: Sequence[Row]) -> alt.X:
    """A log axis around 1, from a half to two at least, with a tick at each power of two."""
    low = min([0.5, *(float(row["lower"]) for row in rows)])
    high = max([2.0, *(float(row["upper"]) for row in rows)])
    powers = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
    return alt.X(
        "price:Q",
        title="price: times the smaller space's trials for the same test loss (log scale)",
        scale=alt.Scale(type="log", domain=[low / 1.1, high * 1.1], nice=False),
        axis=alt.Axis(values=[2.0**power for power in powers], format="~r", gridOpacity=0.5),
    )


def _columns(base: alt.Chart) -> Iterable[alt.Chart]:
    """The figures as text, right of the rungs, each column under its heading."""
    for column, x in _COLUMNS.items():
        place = alt.value(x)
        figures = base.mark_text(align="left", fontSize=12)
        yield figures.encode(x=place, text=f"{column}:N", color=alt.value("#222"))
        heading = alt.Chart(alt.Data(values=[{"heading": _HEADINGS[column]}]))
        bold = heading.mark_text(align="left", fontSize=12, fontWeight="bold")
        yield bold.encode(x=place, y=alt.value(-8), text="heading:N")


def _ladder_row(price: EdgePrice) -> Row:
    at = price.headline
    position, lower, upper = (_onto_axis(at, x) for x in (at.trials.value, at.trials.lower, at.trials.upper))
    return {
        "edge": f"{price.edge.smaller} → {price.edge.larger}  ({price.extra:+d})",
        "price": position,
        "lower": lower,
        "upper": upper,
        "reach": at.reach.name,
        "verdict": str(price.verdict),
        "price_text": price_text(at),
        "buys_text": difference_text(price.buys),
    }


def _onto_axis(price: PriceAt, ratio: float) -> float:
    """A ratio, cut off where it could not be measured; the middle (1) where there is no price at all."""
    if price.reach is Reach.NO_TARGET:
        return 1.0
    return min(max(ratio, price.measurable_from), price.measurable_to)


def _styled(chart: alt.LayerChart, title: str, subtitle: list[str]) -> alt.LayerChart:
    heading = alt.TitleParams(
        title, subtitle=subtitle, anchor="start", frame="group", fontSize=16, subtitleFontSize=11, offset=14
    )
    return (
        chart.properties(title=heading, background="white", padding=12)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", titlePadding=10)
        .configure_legend(labelFontSize=12, titleFontSize=12, symbolStrokeWidth=2.5, symbolSize=200)
        .configure_view(stroke=None)
    )


def save_chart(chart: alt.LayerChart, path: Path) -> None:
    """Write a chart as its suffix says: .svg, .png (two pixels per point) or .html (self-contained, works offline).

    Args:
        chart: of this module.
        path: the file to write; its folder must exist.

    Raises:
        PriceError: the suffix is another.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in _FORMATS:
        raise PriceError(f"{path}: a picture can be written as {', '.join(_FORMATS)}, not as {kind!r}.")
    options: dict[str, dict[str, object]] = {"png": {"scale_factor": _PNG_SCALE}, "html": {"inline": True}}
    chart.save(path, format=kind, **options.get(kind, {}))
