"""Pictures: what is drawn, and that it can be drawn without a browser."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from sweeper.errors import PriceError
from sweeper.price import Reach, price_sweep, space_curve
from sweeper.price.plots import curve_chart, ladder_chart, save_chart

from .problems import A_SHAPES, problem_a, studies


@pytest.fixture
def sweep():
    return problem_a(10, 32, np.random.default_rng(1))


@pytest.fixture
def curves(sweep):
    return [space_curve(space, rows) for space, rows in sweep.items()]


@pytest.fixture
def prices(sweep):
    return price_sweep(sweep, A_SHAPES).prices


def rows_of(chart):
    """The rows that the chart draws."""
    spec = chart.to_dict()
    data = [spec.get("data"), *(layer.get("data") for layer in spec["layer"])]
    return max((d["values"] for d in data if d), key=lambda values: len(values[0]))


def texts(svg):
    return [node.text for node in ET.parse(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_the_curves_are_those_of_the_table(curves, prices):
    rows = {(row["space"], row["trials"]): row["mean"] for row in rows_of(curve_chart(curves, "A"))}
    assert len(rows) == 32
    assert rows["shared", 16] - rows["per_layer", 16] == pytest.approx(prices[0].buys.value)


def test_a_curve_begins_where_it_is_finite():
    test = np.random.default_rng(1).random((10, 32))
    test[0, :3] = np.inf
    rows = rows_of(curve_chart([space_curve("shared", studies(test))], "failures"))
    assert [row["trials"] for row in rows] == list(range(4, 17))
    json.dumps(rows, allow_nan=False)


def test_the_ladder_draws_a_censored_price_at_the_edge_of_what_was_measured(prices):
    test = np.random.default_rng(1).random((10, 32))
    dear = price_sweep({"shared": studies(test), "per_layer": studies(test + 2)}, A_SHAPES).prices
    row = rows_of(ladder_chart([*prices, *dear], "A"))[1]
    assert (row["price"], row["reach"]) == (4.0, Reach.BEYOND.name)
    assert row["price_text"] == "> 4.0 [4.0, > 4.0]"


def test_a_price_that_is_not_measurable_has_a_rung_without_an_interval():
    test = np.random.default_rng(1).random((10, 32))
    test[:, :20] = np.inf
    failed = price_sweep({"shared": studies(test), "per_layer": studies(test)}, A_SHAPES).prices
    row = rows_of(ladder_chart(failed, "A"))[0]
    assert (row["price"], row["lower"], row["upper"]) == (1.0, 1.0, 1.0)
    assert (row["reach"], row["price_text"]) == (Reach.NO_TARGET.name, "not measurable")
    json.dumps(row, allow_nan=False)


@pytest.mark.parametrize("kind", ["svg", "png", "html"])
def test_pictures_are_written_without_a_browser(kind, curves, tmp_path):
    path = tmp_path / f"curves.{kind}"
    save_chart(curve_chart(curves, "problem A"), path)
    start = {"svg": b"<svg", "png": b"\x89PNG", "html": b"<!DOCTYPE html>"}[kind]
    assert path.read_bytes().lstrip().startswith(start)


def test_axes_and_legend_say_what_they_are(curves, prices, tmp_path):
    save_chart(curve_chart(curves, "problem A", loss="squared error"), tmp_path / "curves.svg")
    found = texts(tmp_path / "curves.svg")
    assert {"problem A", "random-search trials (log scale)", "shared", "per_layer"} <= set(found)
    assert "mean test loss (squared error)" in found
    save_chart(ladder_chart(prices, "problem A"), tmp_path / "ladder.svg")
    assert "shared → per_layer (+2)" in [" ".join((text or "").split()) for text in texts(tmp_path / "ladder.svg")]


def test_a_picture_in_another_format_is_refused(curves, tmp_path):
    with pytest.raises(PriceError, match="svg, png, html, not as 'gif'"):
        save_chart(curve_chart(curves, "A"), tmp_path / "curves.gif")


def test_without_trials_there_is_nothing_to_draw():
    with pytest.raises(PriceError, match="no curve to draw"):
        curve_chart([], "nothing")
    with pytest.raises(PriceError, match="no ladder to draw"):
        ladder_chart([], "nothing")


def test_one_trial_s_budget_and_one_replicate_can_be_drawn(prices, tmp_path):
    tiny = studies(np.array([[0.3, 0.2]]))
    save_chart(curve_chart([space_curve("shared", tiny)], "tiny"), tmp_path / "curve.png")
    lonely = price_sweep({"shared": tiny, "per_layer": tiny}, A_SHAPES).prices
    save_chart(ladder_chart([*lonely, replace(prices[0], extra=0)], "tiny"), tmp_path / "ladder.png")
    assert (tmp_path / "ladder.png").stat().st_size > 10_000
