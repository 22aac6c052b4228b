"""Code of the user's own: imported only if somebody vouched for it, from where one expects, with errors that help."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import CodeError, DataError
from sweeper.imports import Importer, Reference, argument_problems, called, code_sha256, told

NET = "def net(inputs, outputs, width=3):\n    return inputs, outputs, width\n"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Neither modules nor the path outlive a test."""
    modules, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    sys.path[:] = path


def write(path: Path, text: str = NET) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def function(folder: Path, name: str, *allowed: str) -> Any:
    reference = Reference.of(f"python:{name}")
    return Importer.beside(folder, allowed or (reference.package,)).function(reference)


def refused(folder: Path, name: str, *allowed: str) -> str:
    with pytest.raises(CodeError) as caught:
        function(folder, name, *allowed)
    return str(caught.value)


# trust ----------------------------------------------------------------------------------------------------------------


def test_what_nobody_vouched_for_is_not_imported_and_the_message_says_what_to_type(tmp_path: Path):
    write(tmp_path / "b_fateful.py", "raise AssertionError('imported')")
    message = refused(tmp_path, "b_fateful:net", "other", "b_fate")
    assert "b_fateful" not in sys.modules
    assert "add --allow-import b_fateful, or set SWEEPER_ALLOW_IMPORT=b_fateful" in message
    assert str(tmp_path) in message


@pytest.mark.parametrize(
    ("allowed", "is_allowed"),
    [
        ("b_pkg", True),
        ("b_pkg.nets", True),
        ("b_pkg.net", False),
        ("b_pkg.nets.deep", False),
        ("b", False),
        ("", False),
    ],
)
def test_a_package_or_a_module_in_it_is_allowed(allowed: str, is_allowed: bool):
    importer = Importer.beside(Path(), [allowed])
    assert importer.allows(Reference.of("python:b_pkg.nets:net")) == is_allowed


# where ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["b_nets:net", "b_studies.b_nets:net"])
def test_a_module_is_found_beside_the_sweep_file_and_through_the_folder_above(tmp_path: Path, name: str):
    write(tmp_path / "b_studies" / "b_nets.py")
    assert function(tmp_path / "b_studies", name)(1, 2) == (1, 2, 3)


def test_an_installed_function_is_found_too(tmp_path: Path):
    assert function(tmp_path, "json:dumps") is json.dumps


def test_neighbours_import_each_other_and_hide_nobody(tmp_path: Path):
    write(tmp_path / "b_near.py", "import b_helper, json\n\n\ndef net():\n    return b_helper.N, json.dumps([1])\n")
    write(tmp_path / "b_helper.py", "N = 5\n")
    write(tmp_path / "json.py", "raise AssertionError('the wrong json')\n")
    assert function(tmp_path, "b_near:net")() == (5, "[1]")


def test_the_module_beside_the_file_comes_before_an_installed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "installed" / "b_twice.py", "def net():\n    return 'installed'\n")
    write(tmp_path / "b_twice.py", "def net():\n    return 'near'\n")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    assert function(tmp_path, "b_twice:net")() == "near"


def test_a_bare_folder_does_not_hide_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "installed" / "b_pack" / "__init__.py", "")
    write(tmp_path / "installed" / "b_pack" / "nets.py")
    write(tmp_path / "b_pack" / "data.txt", "")
    monkeypatch.syspath_prepend(str(tmp_path / "installed"))
    assert function(tmp_path, "b_pack.nets:net")(1, 2) == (1, 2, 3)


def test_a_name_that_another_module_has_taken_is_refused(tmp_path: Path):
    write(tmp_path / "one" / "b_same.py")
    write(tmp_path / "two" / "deep" / "b_same.py")
    function(tmp_path / "one", "b_same:net")
    message = refused(tmp_path / "two" / "deep", "b_same:net")
    assert f"the name 'b_same' is taken by {(tmp_path / 'one' / 'b_same.py').resolve()}" in message


# errors ---------------------------------------------------------------------------------------------------------------


def test_a_missing_module_says_where_it_was_sought(tmp_path: Path):
    message = refused(tmp_path, "b_nowhere.nets:net")
    assert message.startswith("there is no module 'b_nowhere'. It was sought in ")
    assert str(tmp_path.parent) in message


def test_a_module_that_misses_another_is_not_itself_missing(tmp_path: Path):
    path = write(tmp_path / "b_lacking.py", "import b_absent\n")
    message = refused(tmp_path, "b_lacking:net")
    assert message == f"importing b_lacking failed: ModuleNotFoundError: No module named 'b_absent' ({path}:1)."


def test_a_module_that_fails_says_with_what_and_where(tmp_path: Path):
    path = write(tmp_path / "b_failing.py", "x = 1\ny = x / 0\n")
    message = refused(tmp_path, "b_failing:net")
    assert message == f"importing b_failing failed: ZeroDivisionError: division by zero ({path}:2)."
    assert "b_failing" not in sys.modules


def test_a_missing_function_names_the_nearest(tmp_path: Path):
    path = write(tmp_path / "b_named.py")
    assert refused(tmp_path, "b_named:nett") == f"{path} has no function 'nett'. Did you mean 'net'?"


def test_what_a_function_raises_is_told_with_its_line_and_our_own_errors_pass(tmp_path: Path):
    path = write(tmp_path / "b_raising.py", "def net(x):\n    raise ValueError('no\\nmore')\n")
    with pytest.raises(CodeError, match=r"^it failed: ValueError: no \(.*b_raising\.py:2\)\.$") as caught:
        called(function(path.parent, "b_raising:net"), 1)
    assert isinstance(caught.value.__cause__, ValueError)

    def ours() -> None:
        raise DataError("as it is")

    with pytest.raises(DataError, match=r"^as it is$"):
        called(ours)


def test_the_line_told_is_the_users_and_not_a_librarys():
    with pytest.raises(ValueError, match="Expecting property name") as caught:
        json.loads("{")
    assert told(caught.value).endswith(f"({__file__}:{caught.tb.tb_lineno}).")


# arguments ------------------------------------------------------------------------------------------------------------


def plain(inputs: int, outputs: int, width: int, deep: bool = False, *, act: str = "relu") -> None: ...
def takes_any(inputs: int, outputs: int, **more: Any) -> None: ...
def takes_one(inputs: int) -> None: ...


@pytest.mark.parametrize(
    ("called_one", "given", "found"),
    [
        pytest.param(plain, {"width": 1}, [], id="right"),
        pytest.param(plain, {"width": 1, "act": "tanh"}, [], id="by keyword alone"),
        pytest.param(
            plain,
            {"widht": 1},
            [
                ("widht", "it has no argument 'widht'. Did you mean 'width'? Its arguments: width, deep, act."),
                ("", "its argument 'width' is missing. Its arguments: width, deep, act."),
            ],
            id="misspelt",
        ),
        pytest.param(
            plain,
            {"width": 1, "inputs": 3},
            [("inputs", "the data say what 'inputs' is. Leave it out. Its arguments: width, deep, act.")],
            id="what the data say",
        ),
        pytest.param(takes_any, {"whatever": 1}, [], id="takes any"),
        pytest.param(
            takes_one, {}, [("", "it takes 1 arguments by position, but is called with 2")], id="takes too few"
        ),
        pytest.param(dict, {"a": 1}, [], id="without a signature"),
    ],
)
def test_arguments_are_checked_before_the_call(called_one: Any, given: dict[str, Any], found: list[tuple[str, str]]):
    assert list(argument_problems(called_one, given, 2)) == found


# code -----------------------------------------------------------------------------------------------------------------


def test_code_is_the_same_whatever_its_comments_and_layout(tmp_path: Path):
    hashes = []
    for number, text in enumerate((NET, f"# new\n\n{NET}\n# end\n", NET.replace("width=3", "width=4"))):
        write(tmp_path / f"b_hashed_{number}.py", text)
        hashes.append(code_sha256(function(tmp_path, f"b_hashed_{number}:net")))
    assert hashes[0] == hashes[1] != hashes[2]


def test_code_without_a_source_has_no_hash():
    assert code_sha256(len) is None
