"""Reads sweep files; every error names the file, the line, what was found and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from hashlib import sha256
from operator import itemgetter
from pathlib import Path

import yaml
from pydantic import ValidationError

from sweeper.config.advice import warnings_of
from sweeper.config.base import Problem
from sweeper.config.explain import dotted, explain
from sweeper.config.model import Sweep
from sweeper.config.tree import Tree, read_tree
from sweeper.errors import SweepFileError


@dataclass(frozen=True)
class SweepFile:
    """A sweep with the text that it was read from.

    Attributes:
        name: the file as its user named it, for messages.
        folder: where relative paths in it start.
        text: the whole file.
        sha256: of the text in UTF-8, as hexadecimal digits.
        sweep: what it says.
        warnings: what deserves a second look, each with file and line; see `for_layers`.
    """

    name: str
    folder: Path
    text: str
    sha256: str
    sweep: Sweep
    warnings: tuple[str, ...]
    _tree: Tree = field(repr=False, compare=False)

    @property
    def path(self) -> str:
        """The file's absolute path, so that it is the same from every folder; one from a ledger stays as it is."""
        return self.name if Path(self.name).is_absolute() else str(self.folder.resolve() / Path(self.name).name)

    def where(self, *place: str | int) -> str:
        """`FILE:LINE` of a key, for errors that only show when data is read: `where("data", "target")`."""
        return f"{self.name}:{self._tree.line(place)}"

    def for_layers(self, layers: int) -> SweepFile:
        """The file, judged and warned of with the number of weight layers, which some models only tell once built.

        Args:
            layers: L of the network.

        Raises:
            SweepFileError: a space or a start asks for layers that the network doesn't have; one line per problem.
        """
        if self.sweep.model.weight_layers is None:
            problems = [self._at_line(problem) for problem in self.sweep.layer_problems(layers)]
            if problems:
                raise SweepFileError(_listed(self.name, problems))
        warnings = [self._at_line(problem) for problem in warnings_of(self.sweep, layers)]
        return replace(self, warnings=tuple(_lines(self.name, warnings)))

    def _at_line(self, problem: Problem) -> tuple[int, str]:
        return self._tree.line(problem.at), f"{dotted(self._tree.nearest(problem.at))}: {problem.why}"


def read_sweep(path: str | Path) -> SweepFile:
    """Read a sweep file.

    Raises:
        SweepFileError: it is missing or can't be read, or `parse_sweep` refuses it.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SweepFileError(f"{path}: there is no such file.{_similar_file(path)}") from None
    except UnicodeDecodeError as error:
        raise SweepFileError(f"{path}: not a text file in UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except OSError as error:
        raise SweepFileError(f"{path}: can't be read: {error.strerror}.") from error
    return parse_sweep(text, str(path), path.parent)


def parse_sweep(text: str, name: str, folder: str | Path) -> SweepFile:
    """Parse the text of a sweep file, from disk or from the ledger.

    Args:
        text: YAML.
        name: what messages call it.
        folder: where relative paths in it start.

    Raises:
        SweepFileError: the text is not YAML, has unknown or repeated keys, or says what can't be; one line
            per problem.
    """
    tree = _parsed(text, name)
    repeated = [
        (line, f"{dotted(place)} is given twice, first on line {tree.line(place)}. Keep one.")
        for place, line in tree.repeated
    ]
    try:
        sweep = Sweep.model_validate(tree.value)
    except ValidationError as error:
        found = [explain(each, tree) for each in error.errors(include_url=False)]
        raise SweepFileError(_listed(name, [*repeated, *found])) from None
    if repeated:
        raise SweepFileError(_listed(name, repeated))
    digest = sha256(text.encode()).hexdigest()
    file = SweepFile(name, Path(folder).absolute(), text, digest, sweep, (), tree)
    layers = sweep.model.weight_layers
    return file if layers is None else file.for_layers(layers)


def _parsed(text: str, name: str) -> Tree:
    try:
        tree = read_tree(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        what = ", ".join(filter(None, (error.context, error.problem)))
        raise SweepFileError(f"{name}{line}: not valid YAML: {what}.") from None
    except (yaml.YAMLError, ValueError) as error:
        raise SweepFileError(f"{name}: not valid YAML: {error}.") from None
    except RecursionError:
        raise SweepFileError(f"{name}: nested too deeply for a sweep file.") from None
    if tree.value is None:
        raise SweepFileError(f"{name}: the file is empty. A sweep needs name, data, model, train, search and spaces.")
    if not isinstance(tree.value, dict):
        found = "a list" if isinstance(tree.value, list) else "a single value"
        raise SweepFileError(f"{name}:1: a sweep file is a mapping of keys to values, but this is {found}.")
    return tree


def _lines(name: str, found: Iterable[tuple[int, str]]) -> list[str]:
    return [f"{name}:{line}: {sentence}" for line, sentence in sorted(found, key=itemgetter(0))]


def _listed(name: str, found: Iterable[tuple[int, str]]) -> str:
    return "\n".join(_lines(name, found))


def _similar_file(path: Path) -> str:
    neighbours = [str(each) for each in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    near = get_close_matches(str(path), neighbours, n=1)
    return f" Did you mean {near[0]}?" if near else ""
