"""Pictures of spaces: the hyperparameters that a search felt beside those that it was given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import altair as alt

from sweeper.errors import PriceError
from sweeper.price.effective import Effective
from sweeper.price.plots.canvas import PALETTE, Row, inline, space_scale, styled
from sweeper.price.spaces import SpaceSummary
from sweeper.price.words import effective_text

_GIVEN, _FELT = "given to the search", "that matter"


def effective_chart(spaces: Sequence[SpaceSummary], title: str) -> alt.LayerChart:
    """The effective number of hyperparameters of each space beside the nominal one.

    Args:
        spaces: top to bottom; those without an effective number are left out.
        title: what was swept.

    Raises:
        PriceError: there is nothing to draw.
    """
    subtitle = ["Lines: the effective numbers that the data leave open at 95 %. 10 stands for 10 or more."]
    return styled(effective_layers(spaces), title, subtitle)


def effective_layers(spaces: Sequence[SpaceSummary], width: int = 480) -> alt.LayerChart:
    """The picture of `effective_chart` without its heading.

    Raises:
        PriceError: there is nothing to draw.
    """
    known = [(space, space.effective) for space in spaces if space.effective is not None]
    if not known:
        raise PriceError("no space has enough trials (64) for its effective number of hyperparameters.")
    rows = [row for space, found in known for row in _rows(space, found)]
    spans: list[Row] = [
        {"space": space.space, "low": found.plausible[0], "high": found.plausible[-1]} for space, found in known
    ]
    most = max([space.dimensions for space, _ in known] + [found.plausible[-1] for _, found in known])
    ticks = alt.Axis(values=list(range(most + 1)), format="d")
    x = alt.X("count:Q", title="hyperparameters", axis=ticks, scale=alt.Scale(domain=[0, most + 0.5], nice=False))
    y = alt.Y("space:N", sort=None, title=None, axis=alt.Axis(ticks=False, domain=False, labelLimit=130))
    kinds = [_GIVEN, _FELT]
    lines = (
        alt.Chart(inline(spans))
        .mark_rule(strokeWidth=2.5, color=PALETTE[2], aria=False)
        .encode(x="low:Q", x2="high:Q", y=y)
    )
    legend = alt.Legend(orient="bottom", direction="horizontal")
    points = (
        alt.Chart(inline(rows))
        .mark_point(filled=True, size=110, opacity=1)
        .encode(
            x=x,
            y=y,
            description="words:N",
            color=alt.Color("kind:N", title=None, sort=kinds, scale=space_scale(kinds, PALETTE[1:3]), legend=legend),
            shape=alt.Shape(
                "kind:N", title=None, sort=kinds, scale=space_scale(kinds, ["square", "circle"]), legend=legend
            ),
        )
    )
    return alt.layer(lines, points).properties(width=width, height=40 * len(known))


def _rows(space: SpaceSummary, found: Effective) -> Iterable[Row]:
    yield {
        "space": space.space,
        "count": space.dimensions,
        "kind": _GIVEN,
        "words": f"{space.space}: {space.dimensions} given",
    }
    yield {
        "space": space.space,
        "count": found.value,
        "kind": _FELT,
        "words": f"{space.space}: {effective_text(found)} matter",
    }
