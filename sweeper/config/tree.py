"""YAML text -> plain values, with the line on which each key stands.

Scalars follow YAML 1.2's core schema. PyYAML follows 1.1, where 1e-3 is a string and a space called `off` is
a boolean. Aliases are refused: a few lines of them expand to gigabytes, and workers read sweep files from a
shared store.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import yaml

from sweeper.config.base import Place


@dataclass(frozen=True)
class Tree:
    """A parsed file.

    Attributes:
        value: mappings, lists and scalars; a key that stands twice keeps its last value.
        lines: line (from 1) of each key and list item, by place.
        repeated: place and line of each key that its mapping already had.
    """

    value: object
    lines: Mapping[Place, int] = field(repr=False)
    repeated: tuple[tuple[Place, int], ...] = ()

    def nearest(self, place: Place) -> Place:
        """A place without the elements that the file doesn't have (names of union members, missing keys)."""
        found: Place = ()
        for element in place:
            if (*found, element) in self.lines:
                found = (*found, element)
        return found

    def line(self, place: Place) -> int:
        """Line of the nearest key or item that the file has."""
        return self.lines[self.nearest(place)]


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 - PyYAML's own declaration; filled below

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lines: dict[Place, int] = {(): 1}
        self.repeated: list[tuple[Place, int]] = []

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark: yaml.Mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.MarkedYAMLError(problem="sweep files have no aliases; write the value out", problem_mark=mark)
        return super().compose_node(parent, index)

    def plain(self, node: yaml.Node, at: Place = ()) -> object:
        """The value of a node, with the lines of everything in it noted."""
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return {key: self.plain(item, (*at, key)) for key, item in self._items(node, at)}
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self._item(item, (*at, number)) for number, item in enumerate(node.value)]
        if isinstance(node, yaml.ScalarNode):
            return self.construct_object(node)
        raise yaml.MarkedYAMLError(problem=f"the tag {node.tag} is not known here", problem_mark=node.start_mark)

    def _items(self, node: yaml.MappingNode, at: Place) -> list[tuple[str | int, yaml.Node]]:
        items = []
        for key_node, item in node.value:
            key, line = self.plain(key_node), key_node.start_mark.line + 1
            if not isinstance(key, str | int):
                raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=key_node.start_mark)
            if (*at, key) in self.lines:
                self.repeated.append(((*at, key), line))
            self.lines.setdefault((*at, key), line)
            items.append((key, item))
        return items

    def _item(self, node: yaml.Node, at: Place) -> object:
        self.lines[at] = node.start_mark.line + 1
        return self.plain(node, at)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+",
        "-+.0123456789",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), list(_first))


def read_tree(text: str) -> Tree:
    """Parse one YAML document; an empty one gives None.

    Raises:
        yaml.YAMLError: the text is not YAML, or uses tags or aliases.
        ValueError: a number has more digits than Python converts.
        RecursionError: the text is nested thousands deep.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        value = None if node is None else loader.plain(node)
        return Tree(value, loader.lines, tuple(loader.repeated))
    finally:
        loader.dispose()


def scalar_span(text: str, place: Place) -> tuple[int, int] | None:
    """Where the value at a place of mappings stands in a text: its first character, and the one after its last.

    None where there is no such place, or what stands there is no plain value.
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
    finally:
        loader.dispose()
    for key in place:
        items = node.value if isinstance(node, yaml.MappingNode) else []
        node = next((item for name, item in items if name.value == key), None)
    return (node.start_mark.index, node.end_mark.index) if isinstance(node, yaml.ScalarNode) else None
