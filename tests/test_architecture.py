"""The rooms of the house: who may import whom, and where each heavy dependency comes in."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sweeper"
MODULES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

DOORWAYS = {
    "optuna": ("sweeper.search",),
    "cmaes": ("sweeper.search",),
    "mlflow": ("sweeper.export",),
    "requests": ("sweeper.export",),
    "sqlalchemy": ("sweeper.ledger",),
    "alembic": ("sweeper.ledger",),
    "psutil": ("sweeper.ledger", "sweeper.machine"),
    "torch": ("sweeper.engine", "sweeper.networks"),
    "safetensors": ("sweeper.networks", "sweeper.checkpoints"),
    "fsspec": ("sweeper.checkpoints",),
    "filelock": ("sweeper.networks",),
    "ray": ("sweeper.cluster",),
    "scipy": ("sweeper.price",),
    "opda": ("sweeper.price.effective", "sweeper.price.bands"),
    "altair": ("sweeper.price.plots",),
    "vl_convert": ("sweeper.price.plots",),
    "pynvml": ("sweeper.engine.energy",),
    "typer": ("sweeper.cli",),
    "rich": ("sweeper.cli",),
    "sklearn": ("sweeper.data",),
    "pyarrow": ("sweeper.data", "sweeper.report"),
    "pydantic": ("sweeper.config",),
    "pydantic_core": ("sweeper.config",),
    "yaml": ("sweeper.config",),
}
"""Where each dependency may be imported: in that module and those inside it. numpy may be anywhere."""

INSTALLED_AS = {
    "pydantic_core": "pydantic",
    "pynvml": "nvidia-ml-py",
    "requests": "mlflow",  # MLflow's client speaks HTTP with it, and its errors come through
    "sklearn": "scikit-learn",
    "vl_convert": "vl-convert-python",
    "yaml": "pyyaml",
}
TOP = {"sweeper", "studies", "tests", "pyproject.toml", "README.md", "docker-compose.yml"}
LONGEST = 400
RUNS_CODE = ("torch.load", "torch.save", "yaml.load", "yaml.unsafe_load", "eval", "exec")


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Every module that a file imports, wherever in it, with the line."""
    for node in ast.walk(syntax(path)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}:{node.lineno}: imports are absolute"
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_inside(module: str, room: str) -> bool:
    return module == room or module.startswith(f"{room}.")


def layers() -> list[set[str]]:
    """The house as pyproject.toml draws it, the top floor first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return [set(layer.replace(" ", "").split("|")) for layer in contracts[0]["layers"]]


# who may import whom --------------------------------------------------------------------------------------------------


def test_imports_point_down():
    checked = subprocess.run(
        [sys.executable, "-c", "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "KEPT" in checked.stdout
    assert "BROKEN" not in checked.stdout


def test_every_module_has_a_floor():
    """Otherwise the contract would say nothing about it."""
    rooms = {".".join(module.split(".")[:2]) for module in MODULES}
    assert rooms - set().union(*layers()) == {"sweeper", "sweeper.__main__"}


def test_rooms_on_one_floor_are_strangers():
    """import-linter says the same; this reads the files themselves, so that neither can be fooled alone."""
    floors = {room: floor for floor, rooms in enumerate(layers()) for room in rooms}
    for module, path in MODULES.items():
        own = next((room for room in floors if is_inside(module, room)), None)
        for line, imported in imports(path):
            other = next((room for room in floors if is_inside(imported, room)), None)
            if own is not None and other not in (None, own):
                assert floors[own] < floors[other], f"{path}:{line}: {own} imports {other}"


# doorways -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dependency", DOORWAYS)
def test_a_heavy_dependency_has_one_doorway(dependency: str):
    through = [
        f"{path}:{line}"
        for module, path in MODULES.items()
        for line, imported in imports(path)
        if is_inside(imported, dependency) and not any(is_inside(module, room) for room in DOORWAYS[dependency])
    ]
    assert through == []


def test_every_dependency_is_installed_with_the_package_and_has_a_doorway():
    """What is imported and not the standard library's is either light or has a doorway, and pyproject.toml names it."""
    imported = {name.split(".")[0] for path in MODULES.values() for _, name in imports(path)}
    foreign = imported - set(sys.stdlib_module_names) - {"sweeper"}
    assert foreign <= {*DOORWAYS, "numpy"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name != "test" for line in lines]
    listed = "\n".join([*project["dependencies"], *extras]).lower()
    assert [name for name in foreign if INSTALLED_AS.get(name, name) not in listed] == []


def test_the_engine_needs_nothing_but_torch_and_numpy():
    """So that it runs, and can be measured, on a GPU machine that has nothing else."""
    others = sorted({*DOORWAYS} - {"torch"})
    forbid = f"""
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {others!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import sweeper.engine
rooms = {{name.split(".")[1] for name in sys.modules if name.startswith("sweeper.")}}
print(*sorted(rooms))
"""
    loaded = subprocess.run([sys.executable, "-c", forbid], cwd=ROOT, capture_output=True, text=True, check=False)
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.split() == ["engine", "errors", "networks", "records"]


# what must not be -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", ["pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"])
def test_nothing_is_pickled(module: str):
    assert [m for m, path in MODULES.items() for _, name in imports(path) if is_inside(name, module)] == []


def test_nothing_is_loaded_that_could_run_code():
    calls = [
        f"{path}:{node.lineno}"
        for path in MODULES.values()
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in RUNS_CODE and not loads_tensors_alone(node)
    ]
    assert calls == []


def test_arrays_are_read_without_objects_in_them():
    """`np.load` unpickles them where it may; its default is a version's matter, so that it is said at each call."""
    calls = [
        (ast.unparse(node.func), {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords})
        for path in MODULES.values()
        for node in ast.walk(syntax(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load")
    ]
    assert calls
    assert all(said.get("allow_pickle") == "False" for _, said in calls)


@pytest.mark.parametrize("reader", ["read_pickle", "to_pickle", "from_pickle", "Unpickler", "pickle_module"])
def test_no_reader_of_pickles_is_called_by_another_name(reader: str):
    named = [
        f"{path}:{node.lineno}"
        for path in MODULES.values()
        for node in ast.walk(syntax(path))
        if (isinstance(node, ast.Attribute) and node.attr == reader)
        or (isinstance(node, ast.keyword) and node.arg == reader)
        or (isinstance(node, ast.Name) and node.id == reader)
    ]
    assert named == []


def loads_tensors_alone(call: ast.Call) -> bool:
    """Whether it is `torch.load(..., weights_only=True)`, which refuses whatever would run code."""
    said = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    return ast.unparse(call.func) == "torch.load" and said.get("weights_only") == "True"


def test_no_file_is_longer_than_a_reader_can_hold():
    lengths = {str(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES.values()}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST} == {}


def test_the_top_level_holds_only_what_was_agreed():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("this is no git checkout")
    top = {line.split("/")[0] for line in tracked.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} <= TOP


def test_no_module_is_called_after_nothing():
    assert [module for module in MODULES if module.rpartition(".")[2] in ("utils", "helpers", "common", "misc")] == []
