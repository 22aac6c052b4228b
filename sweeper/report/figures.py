"""The pictures of a report, each with how to read it and with its figures in words, for those who don't see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sweeper.errors import PriceError
from sweeper.price import (
    Edge,
    EdgePrice,
    break_even_text,
    difference_text,
    effective_text,
    ert_text,
    price_text,
    ratio_text,
)
from sweeper.price.hitting import ErtPrice, Hits
from sweeper.price.words import per_hyperparameter_text
from sweeper.report.facts import Facts

Chart = Any  # of Altair, which only `sweeper.price.plots` knows
SLIM = 270  # points of a picture's inner width that a phone shows without scrolling


@dataclass(frozen=True)
class Panel:
    """One picture of several, or a figure's only one.

    Attributes:
        title: its heading; "" where the figure's is enough.
        words: its figures in words.
        wide: the chart.
        slim: the chart for narrow screens; None where the other fits.
    """

    title: str
    words: str
    wide: Chart
    slim: Chart | None = None


@dataclass(frozen=True)
class Figure:
    """A numbered picture of the report.

    Attributes:
        name: of its file and its anchor.
        title: its heading.
        reading: two sentences on how to read it.
        panels: its pictures.
        missing: why there are none.
        poster: makes the chart for papers and slides.
    """

    name: str
    title: str
    reading: str
    panels: Sequence[Panel] = ()
    missing: str = ""
    poster: Callable[[], Chart] = field(default=lambda: None)


def figures(facts: Facts) -> list[Figure]:
    """The seven pictures, in the order of the report; whoever needs them twice keeps them, for they take a second."""
    from sweeper.price import plots

    made = (_curves, _edges, _ladder, _plane, _hits, _curse, _effective)
    with plots.unchecked():
        return [figure(facts) for figure in made]


def _curves(facts: Facts) -> Figure:
    from sweeper.price import plots

    reading = (
        "Each line is the test loss that a search of so many trials can expect in one space, choosing by validation: "
        "lower is better, and further left is cheaper. Bands are 95 % intervals at each budget on its own; spaces "
        "share splits and seeds, so that bands may overlap where spaces differ."
    )
    words = "; ".join(
        f"{curve.space}: {curve.mean[0]:.4g} after 1 trial, {curve.mean[-1]:.4g} after {curve.budgets[-1]}"
        for curve in facts.curves
    )
    return _figure(
        Figure("curves", "Test loss against trials", reading),
        lambda: [
            Panel(
                "",
                f"Mean test loss of the chosen trial. {words}.",
                plots.curve_layers(facts.curves, facts.loss),
                plots.curve_layers(facts.curves, "per row", SLIM),
            )
        ],
        lambda _: plots.curve_chart(facts.curves, f"{facts.name}: test loss against the number of trials", facts.loss),
    )


def _edges(facts: Facts) -> Figure:
    from sweeper.price import plots

    title = "Price, gain and break-even of each edge"
    reading = (
        "The horizontal arrow is the price: from the smaller space's n0 trials to those that the larger one needs for "
        "the same loss; the vertical arrow at the right end is what the larger space buys with the same trials. The "
        "diamond is the break-even, where the larger space overtakes for the last time; without a diamond it does not "
        "within this budget, or is ahead from the first trial on."
    )
    return _figure(
        Figure("edges", title, reading),
        lambda: [
            Panel(_name(price.edge), _edge_words(price), plots.edge_panel(price, facts.pairs[price.edge]))
            for price in facts.prices.prices
        ],
        lambda panels: _poster(facts, title, panels),
    )


def _ladder(facts: Facts) -> Figure:
    from sweeper.price import plots

    prices = facts.prices.prices
    reading = (
        "Each rung is an edge: the point says how many times the smaller space's trials the larger needs for the same "
        "test loss, the bar is its 95 % interval, and left of the dashed line the larger space is cheaper. A triangle "
        "points to where a price lies that this budget can't reach, and small dots are the same price in other "
        "currencies."
    )
    words = "; ".join(f"{_name(price.edge)}: {price_text(price.headline)}" for price in prices)
    return _figure(
        Figure("ladder", "The price ladder", reading),
        lambda: [
            Panel(
                "",
                f"Price in trials, with 95 % intervals. {words}.",
                plots.ladder_layers(prices),
                plots.ladder_layers(prices, SLIM),
            )
        ],
        lambda _: plots.ladder_chart(prices, f"{facts.name}: what larger spaces cost"),
    )


def _plane(facts: Facts) -> Figure:
    from sweeper.price import plots

    prices = facts.prices.prices
    reading = (
        "Up is better, left is cheaper: an edge in the upper left gains and saves, one in the lower right pays more "
        "for less. A cloud is the region that holds price and gain together with 95 % confidence; where it crosses a "
        "dashed line, that side is not settled, and a triangle stands at the edge of what could be measured."
    )
    words = "; ".join(
        f"{_name(price.edge)}: {per_hyperparameter_text(price.headline, price.extra)} per hyperparameter, buys "
        f"{difference_text(price.buys)}"
        for price in prices
        if price.extra > 0
    )
    return _figure(
        Figure("plane", "Cost against effect", reading),
        lambda: [
            Panel(
                "",
                f"Price of each more hyperparameter and test loss saved. {words}.",
                plots.plane_layers(prices, facts.pairs),
                plots.plane_layers(prices, facts.pairs, SLIM),
            )
        ],
        lambda _: plots.plane_chart(prices, facts.pairs, f"{facts.name}: cost against effect"),
    )


def _hits(facts: Facts) -> Figure:
    from sweeper.price import plots

    title = "When studies reached the smaller space's loss"
    reading = (
        "A staircase rises by one study whenever its chosen trial has come down to the target for good, where the "
        "target is what other replicates of the smaller space reached in n0 trials. A staircase further left is "
        "cheaper; one that ends below 100 % with a tick has studies that never got there, and their trials count too."
    )

    def panels() -> list[Panel]:
        known = [(price, found) for price in facts.prices.prices if (found := _headline_hits(price)) is not None]
        if not known:
            raise PriceError("no target could be set: that takes two replicates whose trials did not all fail.")
        return [
            Panel(_name(price.edge), _hits_words(price.edge, found), plots.hits_panel(price.edge, found))
            for price, found in known
        ]

    return _figure(Figure("hits", title, reading), panels, lambda made: _poster(facts, title, made))


def _curse(facts: Facts) -> Figure:
    from sweeper.price import plots

    title = "What validation promised and testing found"
    reading = (
        "The more trials a search may choose from, the more the best validation loss flatters: the gap between the "
        "lines is what choosing cost in trust, plus what the two data sets differ anyway. The selection gap in "
        "the space table is without that difference; where the test line rises again, searching on did harm."
    )
    gaps = {space.space: difference_text(space.gap) for space in facts.spaces}

    def panels() -> list[Panel]:
        return [
            Panel(
                curve.space,
                f"At {curve.budgets[-1]} trials validation promised {curve.validation[-1]:.4g} and testing found "
                f"{curve.mean[-1]:.4g}; selection gap {gaps.get(curve.space, 'not measurable')}.",
                plots.curse_panel(curve),
            )
            for curve in facts.curves
        ]

    return _figure(Figure("curse", title, reading), panels, lambda made: _poster(facts, title, made))


def _effective(facts: Facts) -> Figure:
    from sweeper.price import plots

    title = "Hyperparameters given, and hyperparameters that matter"
    reading = (
        "The square is how many hyperparameters a space searches, the circle how many the search felt: the exponent of "
        "the best trials' losses says in how many directions the loss bends. The bar holds the numbers that the data "
        "leave open at 95 %; far left of the square, you pay for more than matters."
    )
    words = "; ".join(
        f"{space.space}: {space.dimensions} given, {effective_text(space.effective)} matter"
        for space in facts.spaces
        if space.effective is not None
    )
    return _figure(
        Figure("effective", title, reading),
        lambda: [
            Panel("", f"{words}.", plots.effective_layers(facts.spaces), plots.effective_layers(facts.spaces, 200))
        ],
        lambda _: plots.effective_chart(facts.spaces, f"{facts.name}: {title.lower()}"),
    )


def _figure(bare: Figure, panels: Callable[[], Sequence[Panel]], poster: Callable[[Sequence[Panel]], Chart]) -> Figure:
    """A figure with its pictures, or with the reason why there are none; its poster may be made of them."""
    try:
        made = panels()
    except PriceError as error:
        return Figure(bare.name, bare.title, bare.reading, missing=str(error))
    missing = "" if made else "no edge has a price yet."
    return Figure(bare.name, bare.title, bare.reading, made, missing, lambda: poster(made))


def _poster(facts: Facts, title: str, panels: Sequence[Panel]) -> Chart:
    from sweeper.price import plots

    return plots.side_by_side([(panel.title, panel.wide) for panel in panels], f"{facts.name}: {title.lower()}", [])


def _name(edge: Edge) -> str:
    return f"{edge.smaller} → {edge.larger}"


def _edge_words(price: EdgePrice) -> str:
    return (
        f"Price {price_text(price.headline)} times the trials at n0 = {price.headline.n0}; buys "
        f"{difference_text(price.buys)} at {price.budget} trials; break-even {break_even_text(price.break_even)}."
    )


def _headline_hits(price: EdgePrice) -> ErtPrice | None:
    at = next(i for i, found in enumerate(price.prices) if found.n0 == price.headline.n0)
    return price.running_times[at]


def _hits_words(edge: Edge, found: ErtPrice) -> str:
    sides = " and ".join(_arrived(space, hits) for space, hits in zip(edge, (found.smaller, found.larger), strict=True))
    return f"Target {found.target:.4g}: {sides}. Ratio of expected running times {ert_text(found)}."


def _arrived(space: str, hits: Hits) -> str:
    expected = f"{ratio_text(hits.expected)} trials expected" if hits.hits else f"> {ratio_text(hits.at_least)} trials"
    return f"{hits.hits} of {len(hits.times)} studies of {space} got there ({expected})"
