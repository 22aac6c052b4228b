"""Which pairs of spaces have a price."""

import pytest

from sweeper.errors import PriceError
from sweeper.price import SpaceShape, default_edges
from sweeper.price.lattice import step_phrase

SHIPPED = {
    "none": SpaceShape("fixed", "fixed", 0),
    "shared": SpaceShape("shared", "fixed", 1),
    "masked": SpaceShape("masked", "fixed", 4),
    "per_layer": SpaceShape("per_layer", "fixed", 3),
    "per_layer_l2": SpaceShape("fixed", "per_layer", 4),
    "both": SpaceShape("per_layer", "per_layer", 7),
}


def test_the_shipped_spaces_have_six_edges():
    assert default_edges(SHIPPED) == (
        ("none", "shared"),
        ("shared", "masked"),
        ("shared", "per_layer"),
        ("none", "per_layer_l2"),
        ("per_layer", "both"),
        ("per_layer_l2", "both"),
    )


def test_a_shared_lambda_and_groups_come_in_between():
    shapes = SHIPPED | {
        "shared_l2": SpaceShape("fixed", "shared", 1),
        "grouped": SpaceShape("grouped", "fixed", 2),
    }
    edges = set(default_edges(shapes))
    assert {("none", "shared_l2"), ("shared_l2", "per_layer_l2")} <= edges
    assert {("shared", "grouped"), ("grouped", "per_layer")} <= edges
    assert not edges & {("none", "per_layer_l2"), ("shared", "per_layer")}


def test_without_a_middle_the_ends_are_joined():
    shapes = {name: SHIPPED[name] for name in ("both", "none")}
    assert default_edges(shapes) == (("none", "both"),)


def test_a_masked_space_is_not_inside_a_per_layer_one():
    assert default_edges({name: SHIPPED[name] for name in ("masked", "per_layer")}) == ()


def test_equal_spaces_have_no_edge_and_both_lead_on():
    shapes = {"one": SHIPPED["shared"], "two": SHIPPED["shared"], "per_layer": SHIPPED["per_layer"]}
    assert default_edges(shapes) == (("one", "per_layer"), ("two", "per_layer"))


def test_a_placebo_hangs_on_the_space_that_it_is_a_placebo_of():
    shapes = SHIPPED | {"placebo": SpaceShape("shared", "fixed", 4, placebo=3)}
    edges = default_edges(shapes)
    assert [edge for edge in edges if "placebo" in edge] == [("shared", "placebo")]
    assert set(edges) - {("shared", "placebo")} == set(default_edges(SHIPPED))
    assert shapes["placebo"].is_placebo_of(shapes["shared"])
    assert not shapes["shared"].is_placebo_of(shapes["placebo"])
    assert not shapes["per_layer"].is_placebo_of(shapes["shared"])


def test_more_dummies_are_a_placebo_of_fewer():
    one, three = SpaceShape("shared", "fixed", 2, placebo=1), SpaceShape("shared", "fixed", 4, placebo=3)
    assert default_edges({"shared": SHIPPED["shared"], "three": three, "one": one}) == (
        ("one", "three"),
        ("shared", "one"),
    )


@pytest.mark.parametrize(
    ("smaller", "larger", "phrase"),
    [
        ("none", "shared", "giving all layers one keep_prob"),
        ("none", "masked", "giving all layers one keep_prob with a switch per layer"),
        ("shared", "masked", "switching the keep_prob on or off per layer"),
        ("shared", "per_layer", "giving each layer its own keep_prob"),
        ("none", "per_layer_l2", "giving each layer its own lambda"),
        ("none", "both", "giving each layer its own keep_prob and giving each layer its own lambda"),
        ("shared", "shared", ""),
    ],
)
def test_a_step_is_told_in_words(smaller, larger, phrase):
    assert step_phrase(SHIPPED[smaller], SHIPPED[larger]) == phrase


def test_a_placebo_s_step_says_that_it_does_nothing():
    placebos = [SpaceShape("shared", "fixed", 1 + count, placebo=count) for count in (1, 3)]
    found = [step_phrase(SHIPPED["shared"], placebo) for placebo in placebos]
    assert found == ["adding one that does nothing", "adding 3 that do nothing"]


def test_an_unknown_kind_is_refused():
    with pytest.raises(PriceError, match="'per-layer'; it must be one of fixed, shared"):
        SpaceShape("fixed", "per-layer", 3)
