"""Functions of the user's own, named python:PKG.MOD:FUNCTION in a sweep file.

Importing a module runs it. So a package is imported only where somebody vouched for it by name: who types a sweep
file's path vouches for what that file names; a file that is read back from a ledger, which others may write to, vouches
for nothing.

Where a package is found: beside the sweep file, then in the folder above, then among what is installed. So
`python:models:net` and `python:studies.models:net` both reach studies/models.py from studies/x.yaml. The two folders
stand last on sys.path: the file's neighbours can import each other, and none of them hides a module of the standard
library or an installed one. A package without an __init__.py never hides an installed one either.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from pathlib import Path
from sysconfig import get_path
from types import ModuleType
from typing import Any

from sweeper.errors import CodeError, SweeperError
from sweeper.urls import masked

PREFIX = "python:"
OPTION, VARIABLE = "--allow-import", "SWEEPER_ALLOW_IMPORT"
_LIBRARIES = {str(Path(__file__).parent), *(get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib"))}


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of a function: `module` dotted, `function` in it."""

    module: str
    function: str

    @classmethod
    def of(cls, text: str) -> Reference:
        """From python:PKG.MOD:FUNCTION."""
        module, _, function = text.removeprefix(PREFIX).partition(":")
        return cls(module, function)

    @property
    def package(self) -> str:
        """The top-level package: what is allowed or not."""
        return self.module.partition(".")[0]

    def __str__(self) -> str:
        return f"{PREFIX}{self.module}:{self.function}"


@dataclass(frozen=True, slots=True)
class Importer:
    """What may be imported, and where it is sought first.

    Attributes:
        allowed: names of packages, or of modules in them (`studies.models`), that somebody vouched for.
        folders: sought before what is installed, in this order.
    """

    allowed: frozenset[str]
    folders: tuple[Path, ...]

    @classmethod
    def beside(cls, folder: Path, allowed: Collection[str]) -> Importer:
        """For a sweep file in that folder."""
        return cls(frozenset(allowed), (folder, folder.parent))

    def function(self, reference: Reference) -> Callable[..., Any]:
        """Import a function.

        Raises:
            CodeError: its package is not allowed, or it is not there, or importing it fails.
        """
        self._check_allowed(reference)
        module = self._module(reference)
        found = getattr(module, reference.function, None)
        if not callable(found):
            known = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
            raise CodeError(
                f"{module.__file__ or reference.module} has no function {reference.function!r}."
                f"{_did_you_mean(reference.function, known)}"
            )
        return found  # type: ignore[no-any-return]

    def allows(self, reference: Reference) -> bool:
        """Whether somebody vouched for a function's package, or for the very module."""
        return any(f"{reference.module}.".startswith(f"{name}.") for name in self.allowed)

    def _check_allowed(self, reference: Reference) -> None:
        if not self.allows(reference):
            raise CodeError(
                f"{reference} would import the package {reference.package!r} (sought in {self._sought()}), which runs "
                f"its code, and nobody vouched for it: this sweep file was not named by its path but read from a "
                f"ledger. If you trust it, add {OPTION} {reference.package}, or set {VARIABLE}={reference.package}."
            )

    def _module(self, reference: Reference) -> ModuleType:
        try:
            neighbour = self._neighbour(reference.package)
            module = importlib.import_module(reference.module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{reference.module}.".startswith(f"{error.name}."):
                raise CodeError(f"importing {reference.module} failed: {told(error)}") from error
            raise CodeError(
                f"there is no module {error.name!r}. It was sought in {self._sought()} and among what is installed."
            ) from None
        except Exception as error:
            raise CodeError(f"importing {reference.module} failed: {told(error)}") from error
        self._check_place(module, neighbour)
        return module

    def _neighbour(self, package: str) -> ModuleSpec | None:
        """The package beside the sweep file, if it is there; it is imported, and its folder can be imported from."""
        folders = [str(folder) for folder in self.folders]
        importlib.invalidate_caches()  # a file that was just written counts
        found = PathFinder.find_spec(package, folders)
        if found is None or (found.origin is None and _is_regular(PathFinder.find_spec(package))):
            return None
        sys.path += [folder for folder in folders if folder not in sys.path]
        if found.origin is not None and package not in sys.modules:
            _load(package, found)
        return found

    def _check_place(self, module: ModuleType, neighbour: ModuleSpec | None) -> None:
        """Python knows one module of a name; a neighbour that lost to another is no surprise to leave unsaid."""
        if neighbour is None or module.__file__ is None:
            return
        place = Path(module.__file__).resolve()
        if not any(place.is_relative_to(folder.resolve()) for folder in self.folders):
            raise CodeError(
                f"the name {module.__name__!r} is taken by {place}, which was imported earlier; the one beside the "
                f"sweep file can't be imported too. Rename it."
            )

    def _sought(self) -> str:
        return " and ".join(map(str, self.folders)) or "no folder, since the sweep file's is under no data root"


def argument_problems(
    function: Callable[..., Any], given: Mapping[str, Any], leading: int
) -> Iterator[tuple[str, str]]:
    """What is wrong with a function's keyword arguments: the argument's name ("" for one that is missing), and why.

    Args:
        function: what is to be called.
        given: keyword arguments.
        leading: how many arguments come before them, by position.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return  # a builtin without a signature: calling it will tell
    by_position = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(by_position) < leading and not any(p.kind is p.VAR_POSITIONAL for p in parameters):
        yield "", f"it takes {len(by_position)} arguments by position, but is called with {leading}"
        return
    taken = {p.name for p in by_position[:leading]}
    by_name = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    free = {p.name: p for p in by_name if p.name not in taken}
    right = f"Its arguments: {', '.join(free) or 'none'}."
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters)
    for name in given:
        if name in taken:
            yield name, f"the data say what {name!r} is. Leave it out. {right}"
        elif name not in free and not takes_any:
            yield name, f"it has no argument {name!r}.{_did_you_mean(name, list(free))} {right}"
    for name, parameter in free.items():
        if parameter.default is parameter.empty and name not in given:
            yield "", f"its argument {name!r} is missing. {right}"


def called(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """What a function of the user's own returns.

    Raises:
        CodeError: it fails; says with what, and on which line. Our own errors pass through as they are.
    """
    try:
        return function(*args, **kwargs)
    except SweeperError:
        raise
    except Exception as error:
        raise CodeError(f"it failed: {told(error)}") from error


def told(error: BaseException) -> str:
    """An exception in one line, its credentials masked, with the last line of the user's own that it came through."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {masked(first_line)}{where}."


def code_sha256(function: Callable[..., Any]) -> str | None:
    """Hash of the module that a function stands in, comments and layout left out; None where it has no source."""
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    path = Path(getattr(module, "__file__", None) or "")
    if path.suffix != ".py" or not path.is_file():
        return None
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return sha256(ast.unparse(tree).encode()).hexdigest()


def _load(package: str, spec: ModuleSpec) -> None:
    """Import a top-level package from where it was found, whatever else is on the path."""
    module = module_from_spec(spec)
    sys.modules[package] = module
    try:
        assert spec.loader is not None  # what has an origin has a loader
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[package]
        raise


def _is_users(filename: str) -> bool:
    return not filename.startswith("<") and not any(Path(filename).is_relative_to(place) for place in _LIBRARIES)


def _is_regular(spec: ModuleSpec | None) -> bool:
    return spec is not None and spec.origin is not None


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]!r}?" if near else ""
