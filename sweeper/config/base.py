"""What every part of a sweep file is made of: a strict section, its scalar types, and problems with a place.

Values are never coerced: `true` is no number and `"3"` is no count, so that a slip is an error and not a
sweep.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StringConstraints,
    Tag,
    ValidationError,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from sweeper.errors import SettingError
from sweeper.records import check_keep_prob

Place = tuple[str | int, ...]
"""Keys and list indices from the top of a sweep file down to a value."""

PROBLEM = "sweep_problem"
"""Pydantic's error type for problems whose message is a whole sentence."""

FORM = "sweep_form"
"""Pydantic's error type for values of the wrong form; the message goes on from `KEY = VALUE`."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a sweep that is wrong, or worth a warning.

    Attributes:
        at: where, from the section that reports it.
        why: what was found, what would be right, what to do.
    """

    at: Place
    why: str


def refuse(problems: Iterable[Problem]) -> None:
    """Report problems as pydantic does, so that they join those of other fields and keep their places.

    Raises:
        ValidationError: there is at least one.
    """
    details = [
        InitErrorDetails(type=PydanticCustomError(PROBLEM, "{why}", {"why": problem.why}), loc=problem.at, input=None)
        for problem in problems
    ]
    if details:
        raise ValidationError.from_exception_data("sweep", details)


def refuse_here(why: str) -> NoReturn:
    """Report one problem with the value that is being validated.

    Raises:
        PydanticCustomError: always.
    """
    raise PydanticCustomError(PROBLEM, "{why}", {"why": why})


class Section(BaseModel):
    """A mapping of a sweep file: its keys are known, its values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def is_number(value: Any) -> bool:
    """Whether a value counts as a number in a sweep file; `true` and `false` don't."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _kept(value: float) -> float:
    try:
        check_keep_prob(value, "keep_prob")
    except SettingError as error:
        refuse_here(str(error))
    return value


def _dropped(value: float) -> float:
    if not 0.0 <= value < 1.0:
        refuse_here(
            f"p = {value} lies outside [0, 1). p is the chance that a unit is dropped, as PyTorch and "
            "fast.ai count; keep_prob = 1 - p is the chance that it is kept, and something must be kept."
        )
    return value


def _pair(value: Any) -> Any:
    if not (isinstance(value, list | tuple) and len(value) == 2):
        raise PydanticCustomError(FORM, "should be two numbers, [lowest, highest]")
    return value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] < value[1]:
        refuse_here(
            f"the range [{value[0]:g}, {value[1]:g}] is empty. Write [lowest, highest]; a value that is not "
            "to be searched goes into the spaces as a number."
        )
    return value


def _share_form(value: Any) -> str | None:
    return ("rows" if isinstance(value, int) else "fraction") if is_number(value) else None


Number = Annotated[float, Strict()]
Positive = Annotated[float, Strict(), Field(gt=0)]
Count = Annotated[int, Strict(), Field(ge=1)]
CountOrZero = Annotated[int, Strict(), Field(ge=0)]
Flag = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), StringConstraints(min_length=1)]
Name = Annotated[str, Strict(), StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=64)]

Kept = Annotated[float, Strict(), AfterValidator(_kept)]
Dropped = Annotated[float, Strict(), AfterValidator(_dropped)]

KeptRange = Annotated[tuple[Kept, Kept], BeforeValidator(_pair), AfterValidator(_rising)]
PositiveRange = Annotated[tuple[Positive, Positive], BeforeValidator(_pair), AfterValidator(_rising)]

Share = Annotated[
    Annotated[int, Strict(), Field(ge=1), Tag("rows")] | Annotated[float, Strict(), Field(gt=0, lt=1), Tag("fraction")],
    Discriminator(
        _share_form,
        custom_error_type=FORM,
        custom_error_message="should be a whole number of rows, or a fraction between 0 and 1",
    ),
]
"""Part of the rows: a count (int), or a fraction (float in (0, 1))."""
