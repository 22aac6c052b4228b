"""Test loss against trials: all spaces in one picture, one picture per edge, and what choosing cost in trust."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import altair as alt

from sweeper.errors import PriceError
from sweeper.price.curves import Mode, SpaceCurve
from sweeper.price.distance import Reach
from sweeper.price.intervals import ends, t_interval
from sweeper.price.pairs import Pair, Side
from sweeper.price.plots.canvas import (
    DASHES,
    PALETTE,
    PANEL,
    Row,
    hover,
    inline,
    space_scale,
    styled,
    thinned,
    trials_axis,
)
from sweeper.price.price import EdgePrice
from sweeper.price.words import break_even_text, difference_text, price_text

LOSS = "cross-entropy, nats per example"
_TRIALS = {
    Mode.MEASUREMENT: "random-search trials (log scale)",
    Mode.PRODUCT: "trials, in the order in which they ran (log scale)",
}
_ORDERS = {Mode.MEASUREMENT: " and all orders of their trials", Mode.PRODUCT: ", one trace each (product mode)"}
_BANDS = "Bands: 95 % at each budget on its own. Spaces share splits and seeds: bands may overlap where spaces differ."
_SMALLER, _LARGER = PALETTE[1], PALETTE[2]
_MARKS = "#333333"  # arrows and the diamond


def curve_chart(curves: Sequence[SpaceCurve], title: str, loss: str = LOSS) -> alt.LayerChart:
    """Test loss of the incumbent against the number of trials, one line per space.

    Args:
        curves: one per space, in the order of the legend.
        title: what was swept.
        loss: the loss and its unit, for the axis.

    Returns:
        A chart; the bands are 95 % t-intervals over replicates at each budget on its own. A space with a single study
        has no such interval: beside its line stands the median validation loss (dotted) in its LD band.

    Raises:
        PriceError: there is nothing to draw.
    """
    subtitle = [f"Test loss of the trial that validation would choose, averaged over {_averaged_over(curves)}."]
    if any(curve.replicates > 1 for curve in curves):
        subtitle.append(_BANDS)
    if any(curve.validation_band for curve in curves):
        subtitle += [
            "One split has no interval of the test loss. Dotted: median of the best validation loss, in its LD band",
            "(at least 95 %, all budgets at once, on this split alone), drawn as far as the trials set both its ends.",
        ]
    promised, tested = _ld_layer(curves), curve_layers(curves, loss)
    return styled(tested if promised is None else alt.layer(promised, tested), title, subtitle)


def _ld_layer(curves: Sequence[SpaceCurve]) -> alt.LayerChart | None:
    """The LD bands of the validation loss, and their medians; None without any that has both ends somewhere."""
    rows = [row for i, curve in enumerate(curves) for row in _ld_rows(curve, PALETTE[i % len(PALETTE)])]
    if not rows:
        return None
    base = alt.Chart(inline(rows)).encode(x=trials_axis(_largest(curves), _TRIALS[curves[0].mode]), detail="space:N")
    bands = base.mark_area(opacity=0.12, aria=False).encode(
        y="lower:Q", y2="upper:Q", fill=alt.Fill("colour:N", scale=None)
    )
    medians = base.mark_line(strokeWidth=1.2, strokeDash=[1, 3], aria=False).encode(
        y="median:Q", stroke=alt.Stroke("colour:N", scale=None)
    )
    return alt.layer(bands, medians, hover(base, "median:Q"))


def _ld_rows(curve: SpaceCurve, colour: str) -> Iterable[Row]:
    """Where both ends are finite."""
    band = curve.validation_band
    if band is None:
        return
    for i in thinned(curve.budgets):
        median, lower, upper = (float(part[i]) for part in (band.median, band.lower, band.upper))
        if math.isfinite(upper - lower):
            n = int(curve.budgets[i])
            words = f"{curve.space}, {n} trials: median of the best validation loss {median:.4g}"
            yield {
                "space": curve.space,
                "colour": colour,
                "trials": n,
                "median": median,
                "lower": lower,
                "upper": upper,
                "words": f"{words}, LD band [{lower:.4g}, {upper:.4g}]",
            }


def curve_layers(curves: Sequence[SpaceCurve], loss: str = LOSS, width: int = 560) -> alt.LayerChart:
    """The picture of `curve_chart` without its heading; a narrow one has its legend below.

    Raises:
        PriceError: there is nothing to draw.
    """
    rows = [row for i, curve in enumerate(curves) for row in _curve_rows(curve, PALETTE[i % len(PALETTE)])]
    if not rows:
        raise PriceError("no space has two randomly drawn trials yet, so there is no curve to draw. Run the sweep on.")
    spaces = [curve.space for curve in curves]
    base = alt.Chart(inline(rows)).encode(x=trials_axis(_largest(curves), _TRIALS[curves[0].mode]))
    narrow = width < 500
    legend = alt.Legend(orient="bottom", columns=2) if narrow else alt.Legend()
    lines = base.mark_line(strokeWidth=2.5, aria=False).encode(
        y=alt.Y("mean:Q", title=f"mean test loss ({loss})", scale=alt.Scale(zero=False)),
        color=alt.Color("space:N", title="space", sort=spaces, scale=space_scale(spaces, PALETTE), legend=legend),
        strokeDash=alt.StrokeDash(
            "space:N", title="space", sort=spaces, scale=space_scale(spaces, DASHES), legend=legend
        ),
    )
    bands = base.mark_area(
        opacity=0.08, aria=False
    ).encode(  # fill, not colour: else the legend shows faint areas instead of lines
        y="lower:Q", y2="upper:Q", fill=alt.Fill("colour:N", scale=None), detail="space:N"
    )
    return alt.layer(bands, lines, hover(base, "mean:Q")).properties(width=width, height=300 if narrow else 340)


def edge_panel(price: EdgePrice, pair: Pair) -> alt.LayerChart:
    """The two curves of an edge, with its price, what it buys, and where it breaks even.

    Args:
        price: the edge.
        pair: its two spaces, side by side.

    Returns:
        A chart: a horizontal arrow from the smaller space's n0 trials to the trials that the larger needs for the
        same loss, a vertical one of what it buys at B, and a diamond at the break-even budget. What could not be read
        is not drawn.
    """
    spaces = [*price.edge]
    sides = _side_curve(spaces[0], pair, pair.smaller), _side_curve(spaces[1], pair, pair.larger)
    rows = [row for curve, colour in zip(sides, (_SMALLER, _LARGER), strict=True) for row in _curve_rows(curve, colour)]
    base = alt.Chart(inline(rows)).encode(x=trials_axis(price.budget, "trials (log scale)"))
    legend = alt.Legend(orient="bottom", direction="horizontal", labelLimit=130)
    colours = space_scale(spaces, [_SMALLER, _LARGER])
    lines = base.mark_line(strokeWidth=2.5, aria=False).encode(
        y=alt.Y("mean:Q", title="mean test loss", scale=alt.Scale(zero=False)),
        color=alt.Color("space:N", title=None, sort=spaces, scale=colours, legend=legend),
        strokeDash=alt.StrokeDash("space:N", title=None, sort=spaces, scale=space_scale(spaces, DASHES), legend=legend),
    )
    bands = base.mark_area(opacity=0.12, aria=False).encode(
        y="lower:Q", y2="upper:Q", fill=alt.Fill("colour:N", scale=None), detail="space:N"
    )
    layers = [
        bands,
        lines,
        hover(base, "mean:Q"),
        *_price_arrow(price, sides[0]),
        *_gain_arrow(price, *sides),
        *_diamond(price, sides[0]),
    ]
    return alt.layer(*layers).properties(width=PANEL[0], height=PANEL[1])


def _side_curve(space: str, pair: Pair, side: Side) -> SpaceCurve:
    """One space's curve over the replicates and the trials that both spaces of an edge have."""
    mean, half = t_interval(side.curves)
    return SpaceCurve(space, pair.budgets, mean, *ends(mean, half), {}, mean, len(pair.replicates), pair.mode)


def curse_panel(curve: SpaceCurve) -> alt.LayerChart:
    """The winner's curse of one space: the loss that validation promised and the one that testing found.

    Args:
        curve: of the space.
    """
    kinds = ["promised by validation", "found by testing"]
    rows: list[Row] = []
    for i in thinned(curve.budgets):
        for kind, losses in zip(kinds, (curve.validation, curve.mean), strict=True):
            if math.isfinite(losses[i]):
                n, loss = int(curve.budgets[i]), float(losses[i])
                rows.append({"trials": n, "loss": loss, "kind": kind, "words": f"{kind}, {n} trials: {loss:.4g}"})
    base = alt.Chart(inline(rows)).encode(x=trials_axis(int(curve.budgets[-1]), "trials (log scale)"))
    legend = alt.Legend(orient="bottom", direction="horizontal")
    lines = base.mark_line(strokeWidth=2.5, aria=False).encode(
        y=alt.Y("loss:Q", title="loss of the chosen trial", scale=alt.Scale(zero=False)),
        color=alt.Color("kind:N", title=None, sort=kinds, scale=space_scale(kinds, PALETTE[3:5]), legend=legend),
        strokeDash=alt.StrokeDash("kind:N", title=None, sort=kinds, scale=space_scale(kinds, DASHES), legend=legend),
    )
    return alt.layer(lines, hover(base, "loss:Q")).properties(width=PANEL[0], height=PANEL[1])


def _price_arrow(price: EdgePrice, smaller: SpaceCurve) -> Iterable[alt.Chart]:
    """From n0 to n', at the loss that the smaller space reached by n0."""
    at = price.headline
    if at.reach is Reach.NO_TARGET:
        return
    loss = float(smaller.mean[smaller.budgets <= at.n0].min())
    to = min(max(at.trials_larger, 1.0), float(price.budget))
    words = f"price {price_text(at)}"
    rows: list[Row] = [{"trials": at.trials_smaller, "to": to, "loss": loss, "words": words}]
    base = alt.Chart(inline(rows)).encode(x="trials:Q", y="loss:Q", description="words:N")
    yield base.mark_rule(color=_MARKS, strokeWidth=1.5).encode(x2="to:Q")
    shape = "triangle-right" if to >= at.trials_smaller else "triangle-left"
    yield base.mark_point(shape=shape, filled=True, size=70, color=_MARKS, opacity=1).encode(x="to:Q")


def _gain_arrow(price: EdgePrice, smaller: SpaceCurve, larger: SpaceCurve) -> Iterable[alt.Chart]:
    """At B, from the smaller space's loss to the larger one's."""
    before, after = float(smaller.mean[-1]), float(larger.mean[-1])
    if not (math.isfinite(before) and math.isfinite(after)):
        return
    words = f"buys {difference_text(price.buys)}"
    rows: list[Row] = [{"trials": price.budget, "loss": before, "to": after, "words": words}]
    base = alt.Chart(inline(rows)).encode(x="trials:Q", description="words:N")
    yield base.mark_rule(color=_MARKS, strokeWidth=1.5).encode(y="loss:Q", y2="to:Q")
    shape = "triangle-down" if after < before else "triangle-up"
    yield base.mark_point(shape=shape, filled=True, size=70, color=_MARKS, opacity=1).encode(y="to:Q")


def _diamond(price: EdgePrice, smaller: SpaceCurve) -> Iterable[alt.Chart]:
    """Where the curves cross for the last time, between the first trial and B."""
    found = price.break_even
    if not 1 <= found.trials <= price.budget:
        return
    at = min(int(smaller.budgets.searchsorted(found.trials)), len(smaller.budgets) - 1)
    words = f"break-even at {break_even_text(found)} trials"
    rows: list[Row] = [{"trials": found.trials, "loss": float(smaller.mean[at]), "words": words}]
    base = alt.Chart(inline(rows)).encode(x="trials:Q", y="loss:Q", description="words:N")
    yield base.mark_point(shape="diamond", filled=True, size=130, color=PALETTE[3], opacity=1)


def _curve_rows(curve: SpaceCurve, colour: str) -> Iterable[Row]:
    """Finite points only; where there is no interval the band has no width."""
    for i in thinned(curve.budgets):
        mean, lower, upper = (float(part[i]) for part in (curve.mean, curve.lower, curve.upper))
        if math.isfinite(mean):
            low, high = (lower, upper) if math.isfinite(upper - lower) else (mean, mean)
            yield {
                "space": curve.space,
                "colour": colour,
                "trials": int(curve.budgets[i]),
                "mean": mean,
                "lower": low,
                "upper": high,
                "words": f"{curve.space}, {curve.budgets[i]} trials: {mean:.4g} [{low:.4g}, {high:.4g}]",
            }


def _largest(curves: Sequence[SpaceCurve]) -> int:
    return max(int(curve.budgets[-1]) for curve in curves)


def _averaged_over(curves: Sequence[SpaceCurve]) -> str:
    counts = sorted({curve.replicates for curve in curves})
    if not counts:
        return "nothing"
    numbers = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{numbers} replicate{'' if counts[-1] == 1 else 's'}{_ORDERS[curves[0].mode]}"
