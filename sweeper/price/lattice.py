"""Which spaces nest in which, and so which pairs have a price.

A space is smaller than another when its keep_prob and its lambda are both searched in the same or a smaller way:

    fixed -> shared -> masked
                    -> grouped -> per_layer

A masked space is not inside a per_layer one: it reaches "off" with a probability that no continuous range has.

A placebo space is another one plus parameters that do nothing, and so a larger one that can't be better. Random
search draws the same settings in both, and the price of that edge must come out as 1: the experiment's control.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from sweeper.errors import PriceError

_SMALLER_KINDS: Mapping[str, frozenset[str]] = {
    "fixed": frozenset(),
    "shared": frozenset({"fixed"}),
    "masked": frozenset({"fixed", "shared"}),
    "grouped": frozenset({"fixed", "shared"}),
    "per_layer": frozenset({"fixed", "shared", "grouped"}),
}

_STEPS: Mapping[tuple[str, str], str] = {
    ("fixed", "shared"): "giving all layers one {}",
    ("fixed", "masked"): "giving all layers one {} with a switch per layer",
    ("shared", "masked"): "switching the {} on or off per layer",
    ("", "grouped"): "giving each group of layers its own {}",
    ("", "per_layer"): "giving each layer its own {}",
}


class Edge(NamedTuple):
    """From a smaller space to a larger one, by their names."""

    smaller: str
    larger: str


@dataclass(frozen=True, slots=True)
class SpaceShape:
    """How a space searches, as far as its price asks.

    Attributes:
        keep_prob, lambda_: "fixed", "shared", "masked", "grouped" or "per_layer".
        dimensions: number of hyperparameters that are searched, placebos included.
        placebo: how many of them do nothing.
        bits: how many of them are switches, on or off.

    Raises:
        PriceError: a kind is none of the five.
    """

    keep_prob: str
    lambda_: str
    dimensions: int
    placebo: int = 0
    bits: int = 0

    def __post_init__(self) -> None:
        for name, kind in (("keep_prob", self.keep_prob), ("lambda", self.lambda_)):
            if kind not in _SMALLER_KINDS:
                raise PriceError(f"{name} is searched as {kind!r}; it must be one of {', '.join(_SMALLER_KINDS)}.")

    def is_inside(self, other: SpaceShape) -> bool:
        """Whether the other space can reach all that this one can, and searches more."""
        kinds = ((self.keep_prob, other.keep_prob), (self.lambda_, other.lambda_))
        nested = all(small == large or small in _SMALLER_KINDS[large] for small, large in kinds)
        more = any(small != large for small, large in kinds) or self.placebo < other.placebo
        return nested and more and self.placebo <= other.placebo

    def is_placebo_of(self, other: SpaceShape) -> bool:
        """Whether all that this space searches in addition does nothing."""
        same = (self.keep_prob, self.lambda_) == (other.keep_prob, other.lambda_)
        return same and self.placebo > other.placebo


def default_edges(shapes: Mapping[str, SpaceShape]) -> tuple[Edge, ...]:
    """The edges from each space to the next larger ones: pairs that nest with no other present space in between.

    Args:
        shapes: the spaces of a sweep by name.

    Returns:
        Edges in the order of the larger spaces, then of the smaller.
    """
    inside = {larger: [name for name, shape in shapes.items() if shape.is_inside(shapes[larger])] for larger in shapes}
    return tuple(
        Edge(smaller, larger)
        for larger, candidates in inside.items()
        for smaller in candidates
        if not any(smaller in inside[between] for between in candidates)
    )


def step_phrase(smaller: SpaceShape, larger: SpaceShape) -> str:
    """What searching the larger space means, e.g. "giving each layer its own keep_prob"; "" if it is nothing more."""
    steps = [
        _step(smaller.keep_prob, larger.keep_prob, "keep_prob"),
        _step(smaller.lambda_, larger.lambda_, "lambda"),
        _dummies(larger.placebo - smaller.placebo),
    ]
    return " and ".join(step for step in steps if step)


def _step(smaller: str, larger: str, name: str) -> str:
    if smaller == larger:
        return ""
    return _STEPS.get((smaller, larger), _STEPS.get(("", larger), f"searching {{}} as {larger}")).format(name)


def _dummies(count: int) -> str:
    if count <= 0:
        return ""
    return "adding one that does nothing" if count == 1 else f"adding {count} that do nothing"
