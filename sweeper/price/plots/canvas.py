"""What all pictures share: colours, shapes, headings, and how a chart becomes a file or a part of a page.

Colours are Okabe & Ito's, which stay apart for colour-blind readers; line styles or shapes say the same again.
Pictures are rendered by vl-convert, without a browser.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import altair as alt
import vl_convert
from altair.utils.schemapi import debug_mode

from sweeper.errors import PriceError
from sweeper.price.curves import Ints
from sweeper.price.price import Verdict

Row = dict[str, str | float | bool]

PALETTE = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[list[int], ...] = ([1, 0], [7, 3], [2, 2], [10, 3, 2, 3])
VERDICT_COLOURS = {
    Verdict.PAYS: "#009E73",
    Verdict.NOT_SHOWN: "#6E6E6E",
    Verdict.COSTS_MORE: "#D55E00",
    Verdict.SMOKE: "#B0B0B0",
    Verdict.UNMEASURED: "#B0B0B0",
}
PANEL = (300, 200)  # width and height of one of several small pictures, in points
_FORMATS = ("svg", "png", "html")
_PNG_SCALE = 2  # pixels per point: sharp on slides and in papers
_POINTS = 80  # of a line, so many are drawn: more can't be seen


def inline(rows: Iterable[Row]) -> alt.Data:
    """Rows as a chart's data. A tuple: Altair copies lists deeply whenever it puts charts together, row by row."""
    return alt.Data(values=tuple(rows))


def space_scale(spaces: Sequence[str], values: Sequence[object]) -> alt.Scale:
    """A scale that gives each space its own of the values, in the order of the spaces."""
    return alt.Scale(domain=list(spaces), range=[values[i % len(values)] for i in range(len(spaces))])


def thinned(budgets: Ints) -> Iterable[int]:
    """Which of many budgets to draw: all of few, else some that lie evenly on a log axis, the last among them.

    Args:
        budgets: `G`, increasing, from 1 on.

    Returns:
        Indices into them.
    """
    if len(budgets) <= _POINTS:
        return range(len(budgets))
    wanted = [math.exp(i / (_POINTS - 1) * math.log(int(budgets[-1]))) for i in range(_POINTS)]
    return sorted({min(int(budgets.searchsorted(round(n))), len(budgets) - 1) for n in wanted})


def trials_axis(largest: int, title: str) -> alt.X:
    """A log axis of trials with a tick at each power of two."""
    return alt.X(
        "trials:Q",
        title=title,
        scale=alt.Scale(type="log", base=2, nice=False),
        axis=alt.Axis(values=[2**power for power in range(largest.bit_length())], format="d", grid=False),
    )


def hover(base: alt.Chart, y: str) -> alt.Chart:
    """Unseen points over a line that tell a pointer the row's `words`."""
    return base.mark_circle(opacity=0, size=120).encode(y=y, description="words:N")


def ratio_axis(field: str, values: Iterable[float], title: str) -> alt.X:
    """A log axis around 1, from a half to two at least, with a tick at each power of two."""
    known = list(values)
    low, high = min([0.5, *known]), max([2.0, *known])
    powers = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
    return alt.X(
        field,
        title=title,
        scale=alt.Scale(type="log", domain=[low / 1.1, high * 1.1], nice=False),
        axis=alt.Axis(values=[2.0**power for power in powers], format="~r", gridOpacity=0.5),
    )


def verdict_colour(found: Sequence[Verdict]) -> alt.Color:
    """The colours of the verdicts that occur, with their legend below."""
    verdicts = [verdict for verdict in Verdict if verdict in found]
    return alt.Color(
        "verdict:N",
        title="at equal budget the larger space",
        scale=alt.Scale(domain=[str(v) for v in verdicts], range=[VERDICT_COLOURS[v] for v in verdicts]),
        legend=alt.Legend(orient="bottom", columns=1, labelLimit=280, titleLimit=400),
    )


def styled(
    chart: alt.LayerChart | alt.ConcatChart, title: str, subtitle: Sequence[str]
) -> alt.LayerChart | alt.ConcatChart:
    """Put a heading above a chart, on white paper."""
    heading = alt.TitleParams(
        title, subtitle=list(subtitle), anchor="start", frame="group", fontSize=16, subtitleFontSize=11, offset=14
    )
    return (
        chart.properties(title=heading, background="white", padding=12)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", titlePadding=10)
        .configure_legend(labelFontSize=12, titleFontSize=12, symbolStrokeWidth=2.5, symbolSize=200)
        .configure_view(stroke=None)
    )


def side_by_side(
    panels: Sequence[tuple[str, alt.LayerChart]], title: str, subtitle: Sequence[str]
) -> alt.LayerChart | alt.ConcatChart:
    """One picture of several small ones, each under its own heading, two to a row."""
    titled = [panel.properties(title=alt.TitleParams(name, anchor="start", fontSize=13)) for name, panel in panels]
    return styled(alt.concat(*titled, columns=2, spacing=28), title, subtitle)


@contextmanager
def unchecked() -> Iterator[None]:
    """Charts that are made inside are not compared with Vega-Lite's schema part by part, which takes long.

    That tells who writes a chart what is wrong with it; the tests of this package make each of them with it.
    """
    with debug_mode(False):
        yield


def page_svg(chart: alt.LayerChart) -> str:
    """A chart as SVG for a page that says in its own text what the picture shows: no heading, no paper.

    Args:
        chart: of this package, not yet `styled`.
    """
    plain = (
        chart.properties(background="transparent", padding=4)
        .configure_axis(labelFontSize=12, titleFontSize=12, titleFontWeight="normal", titlePadding=8)
        .configure_legend(labelFontSize=12, titleFontSize=12, symbolStrokeWidth=2.5, symbolSize=160)
        .configure_view(stroke=None)
    )
    return str(vl_convert.vegalite_to_svg(json.dumps(plain.to_dict(validate=False))))


def save_chart(chart: alt.LayerChart | alt.ConcatChart, path: Path) -> None:
    """Write a chart as its suffix says: .svg, .png (two pixels per point) or .html (self-contained, works offline).

    Args:
        chart: of this package.
        path: the file to write; its folder must exist.

    Raises:
        PriceError: the suffix is another.
    """
    kind = path.suffix.removeprefix(".").lower()
    if kind not in _FORMATS:
        raise PriceError(f"{path}: a picture can be written as {', '.join(_FORMATS)}, not as {kind!r}.")
    options: dict[str, dict[str, object]] = {"png": {"scale_factor": _PNG_SCALE}, "html": {"inline": True}}
    chart.save(path, format=kind, **options.get(kind, {}))
