"""Search spaces as a sweep file writes them, and the settings that it enqueues at a study's start.

Letters: L weight layers, H = L - 1 hidden layers. keep_prob's layers are the hidden ones (1..H), lambda's the
weight layers (1..L). The input's keep_prob stands apart; the output is never dropped.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Strict, Tag, model_validator

from sweeper.config.base import (
    FORM,
    Count,
    CountOrZero,
    Dropped,
    Kept,
    KeptRange,
    PositiveRange,
    Problem,
    Section,
    is_number,
    refuse,
)
from sweeper.errors import SettingError
from sweeper.records import Setting

Penalty = Annotated[float, Strict(), Field(ge=0)]
Pattern = Literal["shared", "masked", "per_layer"]
PS: Literal["ps"] = "ps"
"""The word for what a head's own `ps` say: keep_prob[l] = 1 - ps[l]."""


class Grouped(Section):
    """One value per group of layers."""

    grouped: Annotated[tuple[tuple[Count, ...], ...], Field(min_length=1)] = Field(
        description="groups of layers that share a value, e.g. [[1, 2], [3]]; each layer is in exactly one"
    )


def _form(value: Any) -> str | None:
    """Which member of a union a value is meant to be, so that only that member's errors are shown."""
    if is_number(value):
        return "number"
    if isinstance(value, str):
        return "word"
    if isinstance(value, list | tuple):
        return "list"
    return "groups" if isinstance(value, Mapping | Grouped) else None


def _told_apart(right: str) -> Discriminator:
    return Discriminator(_form, custom_error_type=FORM, custom_error_message=f"should be {right}")


_PATTERNS = _told_apart("a number, shared, masked, per_layer, or {grouped: [[1, 2], [3]]}")
_NUMBER_OR_LIST = _told_apart("a number or a list of numbers")
_PatternWord = Annotated[Pattern, Tag("word")]
_Ps = Annotated[Literal["ps"], Tag("word")]
_Groups = Annotated[Grouped, Tag("groups")]

KeptChoice = Annotated[
    Annotated[Kept, Tag("number")] | Annotated[Pattern | Literal["ps"], Tag("word")] | _Groups, _PATTERNS
]
PenaltyChoice = Annotated[Annotated[Penalty, Tag("number")] | _PatternWord | _Groups, _PATTERNS]
InputChoice = Annotated[
    Annotated[Kept, Tag("number")] | Annotated[Literal["searched"], Tag("word")],
    _told_apart("a number in (0, 1], or searched"),
]
InputRange = Annotated[
    Annotated[Kept, Tag("number")] | Annotated[KeptRange, Tag("list")] | _Ps,
    _told_apart("a number in (0, 1], [lowest, highest], or ps for a head's own"),
]
Kepts = Annotated[
    Annotated[Kept, Tag("number")] | Annotated[tuple[Kept, ...], Tag("list")] | _Ps,
    _told_apart("a number, a list of numbers, or ps for a head's own"),
]
Drops = Annotated[Annotated[Dropped, Tag("number")] | Annotated[tuple[Dropped, ...], Tag("list")], _NUMBER_OR_LIST]
Penalties = Annotated[Annotated[Penalty, Tag("number")] | Annotated[tuple[Penalty, ...], Tag("list")], _NUMBER_OR_LIST]


class Ranges(Section):
    """Between which values a searched keep_prob or lambda lies, the same in every space."""

    keep_prob: KeptRange = Field((0.2, 1.0), description="[lowest, highest] keep_prob of a hidden layer")
    input_keep_prob: InputRange = Field(
        1.0,
        description="keep_prob of the input: a number that fixes it, [lowest, highest] to search it, or ps for a "
        "head's own; default 1.0, with a head ps",
    )
    lambda_: PositiveRange = Field(
        (1e-3, 30.0),
        alias="lambda",
        description="[lowest, highest] lambda of a weight layer, searched on a log scale",
    )


def kept_from(dropped: Any) -> Any:
    """1 - p as one would write it: 0.1 for 0.9, where floats give 0.09999999999999998; of a list, of each."""
    if isinstance(dropped, list | tuple):
        return tuple(map(kept_from, dropped))
    return float(1 - Decimal(repr(dropped)))


def _are_dropped(value: Any) -> bool:
    values = value if isinstance(value, list | tuple) else [value]
    return all(is_number(p) and 0 <= p < 1 for p in values)


def _translate_dropped(given: Any) -> Any:
    """Put keep_prob in the place of `p` or `ps`; what is no drop probability stays, for its field to refuse."""
    if not isinstance(given, Mapping):
        return given
    said = [name for name in ("keep_prob", "p", "ps") if name in given]
    if len(said) > 1:
        refuse([Problem((said[-1],), f"{' and '.join(said)} say the same thing (keep_prob = 1 - p). Keep one.")])
    if not said or said[0] == "keep_prob" or not _are_dropped(given[said[0]]):
        return given
    others = {name: value for name, value in given.items() if name != said[0]}
    return {**others, "keep_prob": kept_from(given[said[0]])}


class Start(Section):
    """A setting that is tried before the sampler's own. What the space fixes may be left out."""

    keep_prob: Kepts | None = Field(
        None,
        description="one number for all hidden layers, a list (input, hidden layers, and 1.0 at will for the output), "
        "or ps for a head's own",
    )
    p: Dropped | None = Field(
        None, exclude=True, description="chance to be dropped in all hidden layers, 1 - keep_prob"
    )
    ps: tuple[Dropped, ...] | None = Field(
        None,
        exclude=True,
        description="chances to be dropped: input, hidden layers, and 0 at will for the output",
    )
    lambda_: Penalties | None = Field(
        None,
        alias="lambda",
        description="one number for all weight layers, or a list with one per weight layer",
    )

    _translate = model_validator(mode="before")(_translate_dropped)


class Space(Section):
    """One search space: what is fixed, and what is searched for which layers.

    `keep_prob` and `lambda` are each a number (fixed), `shared` (one value), `masked` (one value and a switch
    per layer), `per_layer` (a value per layer) or `{grouped: ...}` (a value per group of layers). With a head,
    `keep_prob: ps` fixes each layer at 1 - ps, and is what a space has that leaves keep_prob out. `placebo` adds
    hyperparameters that do nothing, as a control: random search must not pay for them.
    """

    keep_prob: KeptChoice = Field(
        1.0,
        description="of the hidden layers: a number, shared, masked, per_layer or {grouped: [[1, 2], [3]]}; or ps, a "
        "head's own and its default",
    )
    p: Dropped | None = Field(
        None, exclude=True, description="chance to be dropped in all hidden layers, 1 - keep_prob"
    )
    input_keep_prob: InputChoice | None = Field(
        None,
        description="of the input: a number or searched; left out, it follows ranges.input_keep_prob, and is "
        "1.0 (with a head, 1 - ps) where that is a range but this space searches no keep_prob",
    )
    lambda_: PenaltyChoice = Field(
        0.0,
        alias="lambda",
        description="of the weight layers: a number, shared, masked, per_layer or {grouped: [[1, 2], [3]]}",
    )
    placebo: CountOrZero = Field(0, description="hyperparameters to add that do nothing: what they cost is a control")
    start: tuple[Start, ...] = Field((), description="settings to try before the sampler's own, in this order")

    _translate = model_validator(mode="before")(_translate_dropped)


@dataclass(frozen=True, slots=True)
class Dimensions:
    """How many hyperparameters a space has: `numbers` on an interval, and on/off `switches`."""

    numbers: int
    switches: int

    def __add__(self, other: Dimensions) -> Dimensions:
        return Dimensions(self.numbers + other.numbers, self.switches + other.switches)


def is_fixed(choice: float | str | Grouped) -> bool:
    """Whether a choice leaves nothing to search."""
    return isinstance(choice, float) or choice == PS


def dimensions(choice: float | str | Grouped, layers: int) -> Dimensions:
    """Hyperparameters that a choice for so many layers adds."""
    if isinstance(choice, Grouped):
        return Dimensions(len(choice.grouped), 0)
    known = {"searched": (1, 0), "shared": (1, 0), "masked": (1, layers), "per_layer": (layers, 0)}
    return Dimensions(*known.get(str(choice), (0, 0)))


def layer_problems(space: Space, weight_layers: int) -> Iterator[Problem]:
    """What a space asks of layers that a model doesn't have; places from the space down."""
    hidden = weight_layers - 1
    if not hidden and not is_fixed(space.keep_prob):
        why = "this model has no hidden layer to drop units from. Try `input_keep_prob: searched`."
        yield Problem(("keep_prob",), why)
        return
    for name, choice, kind, layers in (
        ("keep_prob", space.keep_prob, "hidden", hidden),
        ("lambda", space.lambda_, "weight", weight_layers),
    ):
        if isinstance(choice, Grouped):
            yield from _group_problems(choice, name, f"this model's {kind} layers are numbered", layers)


def _group_problems(choice: Grouped, name: str, numbered: str, layers: int) -> Iterator[Problem]:
    times = Counter(layer for group in choice.grouped for layer in group)
    right = f"{numbered} 1 to {layers}, and each must stand in exactly one group."
    for layer in sorted({*times, *range(1, layers + 1)}):
        if layer > layers:
            yield Problem((name, "grouped"), f"there is no layer {layer}; {right}")
        elif times[layer] != 1:
            found = f"in {times[layer]} groups" if times[layer] else "in no group"
            yield Problem((name, "grouped"), f"layer {layer} stands {found}; {right}")


def setting_of(start: Start, space: Space, kept: tuple[float, ...], weight_layers: int) -> Setting:
    """A start written out for every layer.

    Args:
        start: as the file gives it.
        space: the space that it starts; fills what the start leaves out.
        kept: of the input, where the start gives no list; then, with a head, what its ps say of the hidden layers.
        weight_layers: L.

    Raises:
        SettingError: a list has the wrong length, the output is dropped, or what the space searches is left
            out.
    """
    keep = _given_or_fixed(start.keep_prob, space.keep_prob, "keep_prob")
    lambda_ = _given_or_fixed(start.lambda_, space.lambda_, "lambda")
    if keep == PS:
        keep = kept
    return Setting(
        _all_kept(keep, weight_layers) if isinstance(keep, tuple) else (kept[0],) + (keep,) * (weight_layers - 1),
        _all_penalties(lambda_, weight_layers) if isinstance(lambda_, tuple) else (lambda_,) * weight_layers,
    )


def _given_or_fixed(given: Any, choice: float | str | Grouped, name: str) -> Any:
    if given is not None:
        return given
    if not is_fixed(choice):
        raise SettingError(f"this space searches {name}, so each start must say what {name} it starts from.")
    return choice


def _all_kept(keep: tuple[float, ...], weight_layers: int) -> tuple[float, ...]:
    if len(keep) not in (weight_layers, weight_layers + 1):
        raise SettingError(
            f"keep_prob has {len(keep)} values, but this model takes {weight_layers} (the input and "
            f"{weight_layers - 1} hidden layers), or {weight_layers + 1} with the output's 1.0 at the end."
        )
    if len(keep) > weight_layers and keep[-1] != 1.0:
        raise SettingError(
            f"keep_prob ends with {keep[-1]} for the output, but the output is never dropped. "
            "Write 1.0 (p: 0) there, or leave it out."
        )
    return keep[:weight_layers]


def _all_penalties(lambda_: tuple[float, ...], weight_layers: int) -> tuple[float, ...]:
    if len(lambda_) != weight_layers:
        raise SettingError(f"lambda has {len(lambda_)} values, but this model has {weight_layers} weight layers.")
    return lambda_
