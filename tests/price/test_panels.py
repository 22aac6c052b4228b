"""The pictures of a report: where their arrows, clouds and staircases stand."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sweeper.errors import PriceError
from sweeper.price import Reach, price_sweep, space_curve, summarise_spaces
from sweeper.price.curves import Block, Mode, budget_grid
from sweeper.price.hitting import ErtPrice, Hits
from sweeper.price.intervals import Estimate
from sweeper.price.pairs import pair_up
from sweeper.price.plots import curse_panel, edge_panel, effective_layers, hits_panel, page_svg, plane_layers
from sweeper.price.plots.canvas import thinned

from .problems import A_SHAPES, problem_a, studies


@pytest.fixture
def sweep():
    return problem_a(10, 256, np.random.default_rng(1))


@pytest.fixture
def price(sweep):
    return price_sweep(sweep, A_SHAPES).prices[0]


@pytest.fixture
def pair(sweep, price):
    sides = [{r: Block.of(trials) for r, trials in sweep[space].items()} for space in price.edge]
    return pair_up(price.edge, *sides, Mode.MEASUREMENT)


def rows(chart, *names):
    """Every row in the chart that has these columns."""
    datasets = [layer.get("data", {}).get("values", []) for layer in [chart.to_dict(), *chart.to_dict()["layer"]]]
    return [row for values in datasets for row in values if set(names) <= row.keys()]


def test_the_price_arrow_goes_from_n0_to_the_trials_that_the_larger_space_needs(price, pair):
    assert price.headline.reach is Reach.MEASURED
    arrow = next(row for row in rows(edge_panel(price, pair), "to", "words") if "price" in row["words"])
    assert (arrow["trials"], arrow["to"]) == (price.headline.trials_smaller, price.headline.trials_larger)
    n0 = price.headline.n0
    assert arrow["loss"] == pytest.approx(pair.smaller.curves.mean(axis=0)[pair.budgets == n0].item())


def test_the_gain_arrow_is_as_long_as_what_the_edge_buys(price, pair):
    arrow = next(row for row in rows(edge_panel(price, pair), "to", "words") if "buys" in row["words"])
    assert arrow["trials"] == price.budget
    assert arrow["loss"] - arrow["to"] == pytest.approx(price.buys.value)


def test_there_is_a_diamond_only_where_the_curves_cross(price, pair):
    def diamonds(trials):
        found = edge_panel(replace(price, break_even=replace(price.break_even, trials=trials)), pair)
        return [row["trials"] for row in rows(found, "words") if "break-even" in row["words"]]

    assert set(diamonds(7.5)) == {7.5}
    assert diamonds(math.inf) == diamonds(0.0) == []


def test_the_staircase_rises_by_each_study_and_its_end_tells_who_never_arrived(price):
    hits = ErtPrice(8, 0.1, Hits((2.0, 2.0, 5.0, math.inf), 10), Hits((1.0, 1.0, 1.0, 10.0), 10), Estimate(1, 1, 1))
    found = rows(hits_panel(price.edge, hits), "share")
    steps = {name: [(r["trials"], r["share"]) for r in found if r["space"] == name] for name in price.edge}
    assert steps["shared"] == [(1, 0), (2, 0.5), (5, 0.75), (10, 0.75)]
    assert steps["per_layer"] == [(1, 0.75), (10, 1)]
    assert [(r["space"], r["trials"]) for r in found if r["censored"]] == [("shared", 10)]


def test_the_cloud_is_centred_on_the_edge_and_reaches_as_far_as_hotelling_says(price, pair):
    chart = plane_layers([price], {price.edge: pair})
    point = rows(chart, "reach")[0]
    cloud = rows(chart, "turn")
    assert point["price"] == pytest.approx(price.headline.trials.value ** (1 / price.extra))
    gains = np.array([row["buys"] for row in cloud])
    assert (gains.max() + gains.min()) / 2 == pytest.approx(price.buys.value, abs=1e-4)
    # Hotelling's region is wider than Student's interval by sqrt(2 * 9 / 8 * F(2, 8; .95) = 10.03) / 2.262
    half = (price.buys.upper - price.buys.lower) / 2
    assert (gains.max() - gains.min()) / 2 == pytest.approx(half * math.sqrt(10.03) / 2.262, rel=0.01)


def test_without_a_price_there_is_no_plane(price, pair):
    with pytest.raises(PriceError, match="no plane to draw"):
        plane_layers([replace(price, extra=0)], {price.edge: pair})


def test_the_curse_shows_what_validation_promised_and_what_testing_found():
    rng = np.random.default_rng(1)
    curve = space_curve("shared", studies(np.ones((10, 16)), rng.random((10, 16))))
    last = {row["kind"]: row["loss"] for row in rows(curse_panel(curve), "kind") if row["trials"] == 8}
    assert last == {"found by testing": 1.0, "promised by validation": pytest.approx(curve.validation[-1])}
    assert curve.validation[-1] < 0.3


def test_the_effective_number_stands_beside_the_nominal_one(sweep):
    spaces = summarise_spaces(sweep, A_SHAPES)
    found = {(row["space"], row["kind"]): row["count"] for row in rows(effective_layers(spaces), "kind")}
    for space in spaces:
        assert found[space.space, "given to the search"] == space.dimensions
        assert found[space.space, "that matter"] == space.effective.value
    with pytest.raises(PriceError, match="enough trials"):
        effective_layers([replace(space, effective=None) for space in spaces])


@pytest.mark.parametrize("limit", [1, 80, 81, 5000])
def test_few_points_are_drawn_and_the_ends_are_among_them(limit):
    budgets = budget_grid(limit)
    drawn = list(thinned(budgets))
    assert len(drawn) <= 80
    assert drawn == sorted(set(drawn))
    assert (drawn[0], drawn[-1]) == (0, len(budgets) - 1)


def test_a_picture_for_a_page_has_no_paper_of_its_own(price, pair):
    svg = page_svg(edge_panel(price, pair))
    assert svg.lstrip().startswith("<svg")
    assert 'fill="white"' not in svg
