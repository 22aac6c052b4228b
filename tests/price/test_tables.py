"""Rows for people: the figures of the table, each in its column."""

import numpy as np
import pytest

from sweeper.price import (
    SpaceShape,
    budget_cells,
    difference_text,
    edge_cells,
    price_sweep,
    space_cells,
    summarise_spaces,
)

from .problems import A_SHAPES, problem_a, studies


@pytest.fixture(scope="module")
def sweep():
    return problem_a(20, 128, np.random.default_rng(4))


@pytest.fixture(scope="module")
def edge(sweep):
    return price_sweep(sweep, A_SHAPES, device_hour=2.0).prices[0]


def test_an_edge_says_what_it_buys_costs_and_when_it_pays(edge):
    cells = edge_cells(edge)
    assert (cells["edge"], cells["extra"]) == ("shared -> per_layer", "2")
    assert list(cells) == [
        "edge",
        "extra",
        "buys at 64 trials",
        "p (Holm)",
        "price at n0 = 16",
        "per hyperparameter",
        "per bit",
        "break-even trials",
        "ERT ratio at n0 = 16",
        "warm buys at 64 trials",
    ]
    value = float(cells["price at n0 = 16"].split()[0])
    assert value == pytest.approx(edge.headline.trials.value, rel=0.05)
    assert float(cells["per hyperparameter"].split()[0]) == pytest.approx(value**0.5, rel=0.05)
    assert cells["break-even trials"].startswith("> 64")
    assert cells["per bit"] == "-"
    assert cells["warm buys at 64 trials"] == difference_text(edge.warm.buys)


def test_every_budget_has_its_price_in_every_currency(edge):
    rows = budget_cells(edge)
    assert [row["n0"] for row in rows] == ["8", "16", "32"]
    for row in rows:
        assert row["joules"] == "not measured"
        assert row["money"] == row["device-seconds as run"] == row["trials"]  # every trial costs the same
        assert row["all edges"] == row["trials"]  # there is one edge


def test_a_space_says_what_its_choice_is_worth(sweep):
    shared, per_layer = map(space_cells, summarise_spaces(sweep, A_SHAPES))
    assert (per_layer["space"], per_layer["hyperparameters"]) == ("per_layer", "3")
    assert per_layer["that matter"].startswith("3")
    assert "+" not in per_layer["test loss at 64 trials"]
    assert (shared["selection gap"], shared["ends worse"]) == ("+0.000 [+0.000, +0.000]", "0%")
    assert shared["device-seconds as run a trial"] == "1"
    assert shared["joules a trial"] == "not measured"


def test_without_extra_hyperparameters_nothing_is_told_per_hyperparameter():
    test = np.random.default_rng(1).random((10, 32))
    shapes = {**A_SHAPES, "per_layer": SpaceShape("per_layer", "fixed", 1)}
    found = price_sweep({"shared": studies(test), "per_layer": studies(test)}, shapes, [("shared", "per_layer")])
    assert edge_cells(found.prices[0])["per hyperparameter"] == "-"


def test_what_failed_is_not_measurable_in_every_column():
    test = np.full((10, 32), np.inf)
    cells = edge_cells(price_sweep({"shared": studies(test), "per_layer": studies(test)}, A_SHAPES).prices[0])
    for column in ("buys at 16 trials", "price at n0 = 4", "per hyperparameter", "ERT ratio at n0 = 4"):
        assert cells[column] == "not measurable"
    assert (cells["p (Holm)"], cells["break-even trials"]) == ("-", "> 16 [1, > 16]")
