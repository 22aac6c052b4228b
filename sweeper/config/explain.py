"""Pydantic's errors as sentences: what was found, what would be right, and the nearest known name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, TypeGuard, Union, get_args, get_origin

from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from sweeper.config.base import PROBLEM, Place, Section
from sweeper.config.model import Sweep
from sweeper.config.tree import Tree

_LONGEST_VALUE = 60
_TYPES = {
    "int_type": "should be a whole number",
    "float_type": "should be a number",
    "finite_number": "should be a finite number",
    "bool_type": "should be true or false",
    "string_type": "should be text",
    "tuple_type": "should be a list",
}


def explain(error: ErrorDetails, tree: Tree) -> tuple[int, str]:
    """Line and sentence for one of pydantic's errors.

    Args:
        error: as `ValidationError.errors()` gives it.
        tree: the file that was validated.
    """
    place = tree.nearest(error["loc"])
    return tree.line(place), _sentence(error, place)


def dotted(place: Place) -> str:
    """A place as people write it, e.g. `spaces.both.start[0].keep_prob`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def did_you_mean(found: object, known: Sequence[str]) -> str:
    """` Did you mean 'x'?` where a known name is near, else nothing."""
    near = get_close_matches(str(found), known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""


def _sentence(error: ErrorDetails, place: Place) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case kind if kind == PROBLEM:
            return f"{dotted(place) or 'the sweep'}: {error['msg']}"
        case "extra_forbidden":
            return _unknown_key(error["loc"], place)
        case "missing":
            return _missing_key(error["loc"], place)
        case "union_tag_not_found":
            return f"missing key 'kind' in {dotted(place)}. It is one of: {', '.join(_kinds_at(error['loc']))}."
        case "literal_error":
            return _unknown_value(place, error["input"], context["expected"])
        case "union_tag_invalid":
            return _unknown_value(place, context["tag"], context["expected_tags"])
        case "string_pattern_mismatch":
            found = _shown(error["input"])
            return f"{found} is no name: start with a letter, go on with letters, digits, - or _."
        case "model_type" | "model_attributes_type" | "dict_type" | "mapping_type":
            found = _shown(error["input"])
            return f"{dotted(place)} = {found} should be a mapping of keys to values; {{}} is an empty one."
    return _wrong_value(error, place)


def _unknown_key(loc: Place, place: Place) -> str:
    known = list(dict.fromkeys(key for section in _sections_at(loc[:-1]) for key in _keys(section)))
    where = f"in {dotted(place[:-1])}" if place[:-1] else "at the top level"
    return f"unknown key {str(loc[-1])!r} {where}.{did_you_mean(loc[-1], known)} Known keys: {', '.join(known)}."


def _missing_key(loc: Place, place: Place) -> str:
    field = _field_at(loc)
    meaning = f" ({field.description})" if field and field.description else ""
    where = f"in {dotted(place)}" if place else "at the top level"
    return f"missing key {str(loc[-1])!r} {where}{meaning}."


def _unknown_value(place: Place, found: object, expected: str) -> str:
    known = re.findall(r"'([^']*)'", expected)
    hint = did_you_mean(found, known)
    return f"{dotted(place)} = {_shown(found)} is not known.{hint} Known: {', '.join(known)}."


def _wrong_value(error: ErrorDetails, place: Place) -> str:
    field = _field_at(error["loc"])
    meaning = f" ({field.description})" if field and field.description else ""
    right = _TYPES.get(error["type"]) or error["msg"].removeprefix("Input ")
    return f"{dotted(place)} = {_shown(error['input'])} {right[0].lower()}{right[1:]}{meaning}."


def _shown(value: object) -> str:
    """A value as it stands in YAML, shortened."""
    text = (
        {None: "null", True: "true", False: "false"}[value] if value is None or isinstance(value, bool) else repr(value)
    )
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 3]}..."


def _keys(section: type[Section]) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _field_at(loc: Place) -> FieldInfo | None:
    """The declaration nearest to a place."""
    for end in range(len(loc), 0, -1):
        for section in _sections_at(loc[: end - 1]):
            if loc[end - 1] in _keys(section):
                return _keys(section)[str(loc[end - 1])]
    return None


def _sections_at(loc: Place) -> list[type[Section]]:
    """The sections that may stand at a place; walks the declarations along pydantic's own location."""
    here: list[Any] = [Sweep]
    for element in loc:
        here = [inner for outer in here for inner in _step(outer, element)] or _tagged(here, element)
    return [each for each in here if _is_section(each)]


def _step(outer: Any, element: str | int) -> Iterator[Any]:
    if _is_section(outer):
        field = _keys(outer).get(str(element))
        return _members(field.annotation) if field else iter(())
    if get_origin(outer) is Mapping:
        return _members(get_args(outer)[1])
    return (inner for part in get_args(outer) for inner in _members(part)) if isinstance(element, int) else iter(())


def _tagged(here: list[Any], tag: str | int) -> list[Any]:
    """Members of a union that the tag stands for; all of them where it names a form."""
    return [each for each in here if _is_section(each) and tag in (_tag_of(each), *get_args(_kind(each)))] or here


def _kinds_at(loc: Place) -> list[str]:
    return [kind for section in _sections_at(loc) for kind in get_args(_kind(section)) or (_form_of(section),)]


def _tag_of(section: type[Section]) -> str:
    """What a union calls a section whose `kind` is an open set."""
    return getattr(section, "tag", "")


def _form_of(section: type[Section]) -> str:
    """How a file writes such a `kind`."""
    return getattr(section, "form", "")


def _kind(section: type[Section]) -> Any:
    field = section.model_fields.get("kind")
    return field.annotation if field else None


def _members(annotation: Any) -> Iterator[Any]:
    """The types that a possibly annotated union may be."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _members(part)
    else:
        yield annotation


def _is_section(each: Any) -> TypeGuard[type[Section]]:
    return isinstance(each, type) and issubclass(each, Section)
