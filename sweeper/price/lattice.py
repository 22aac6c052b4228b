"""Which spaces nest in which, and so which pairs have a price.

A space is smaller than another when its keep_prob and its lambda are both searched in the same or a smaller way:

    fixed -> shared -> masked
                    -> grouped -> per_layer

A masked space is not inside a per_layer one: it reaches "off" with a probability that no continuous range has.
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

_PHRASES: Mapping[str, str] = {
    "fixed": "no {}",
    "shared": "one {} for all layers",
    "masked": "one {} switched on or off per layer",
    "grouped": "a {} per group of layers",
    "per_layer": "a {} per layer",
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
        dimensions: number of hyperparameters that are searched.

    Raises:
        PriceError: a kind is none of the five.
    """

    keep_prob: str
    lambda_: str
    dimensions: int

    def __post_init__(self) -> None:
        for name, kind in (("keep_prob", self.keep_prob), ("lambda", self.lambda_)):
            if kind not in _SMALLER_KINDS:
                raise PriceError(f"{name} is searched as {kind!r}; it must be one of {', '.join(_SMALLER_KINDS)}.")

    def is_inside(self, other: SpaceShape) -> bool:
        """Whether the other space can reach all that this one can, and more."""
        kinds = ((self.keep_prob, other.keep_prob), (self.lambda_, other.lambda_))
        nested = all(small == large or small in _SMALLER_KINDS[large] for small, large in kinds)
        return nested and any(small != large for small, large in kinds)


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
    """What the larger space searches that the smaller does not, e.g. "a keep_prob per layer"; "" if nothing."""
    steps = (
        (smaller.keep_prob, larger.keep_prob, "keep_prob"),
        (smaller.lambda_, larger.lambda_, "lambda"),
    )
    return " and ".join(_PHRASES[large].format(name) for small, large, name in steps if small != large)
