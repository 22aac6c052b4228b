"""tests/benchmarks/engine.py is made for machines that have torch and numpy alone; here it is shown to run on one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from sweeper.engine import Engine
from sweeper.records import Setting

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "tests" / "benchmarks"
ROOMS = {"sweeper.engine", "sweeper.networks", "sweeper.records", "sweeper.errors"}
IMPORTED_AS = {"scikit-learn": "sklearn", "pyyaml": "yaml", "vl-convert-python": "vl_convert", "nvidia-ml-py": "pynvml"}

# Imported by every Python process on its way up, those that the benchmark spawns included.
LACKS = """
from importlib.machinery import PathFinder
found = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    room = ".".join(name.split(".")[:2])
    lacking = name.partition(".")[0] in {lacking!r} or name.startswith("sweeper.") and room not in {rooms!r}
    return None if lacking else found(name, path, target)
PathFinder.find_spec = find_spec
"""


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine on which none of the project's dependencies is installed but torch and numpy."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    names = {requirement.split(">")[0].split("[")[0].strip() for requirement in project["dependencies"]}
    lacking = {IMPORTED_AS.get(name, name) for name in names} - {"torch", "numpy"}
    (tmp_path / "sitecustomize.py").write_text(LACKS.format(lacking=lacking, rooms=ROOMS), encoding="utf-8")
    return os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}


@pytest.mark.slow
def test_the_benchmark_needs_torch_and_numpy_alone_and_prints_ratios(bare):
    gone = subprocess.run([sys.executable, "-c", "import optuna"], env=bare, capture_output=True, text=True)
    assert "No module named 'optuna'" in gone.stderr
    turns = "--device cpu --shape tiny --rows 64 --slots 3 --seconds 0.1 --repeats 2 --epochs 3 --patience 2"
    sides = "--processes 1 --engines 1 --sides eager sweeper-eager --json"
    command = [sys.executable, str(BENCHMARKS / "engine.py"), *turns.split(), *sides.split()]
    run = subprocess.run(command, env=bare, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)["shapes"]["tiny"]
    eager, ours = found["eager"], found["sweeper-eager K=3"]
    assert eager["ratios"] == [1.0, 1.0]
    assert ours["ratios"] == pytest.approx([theirs / own for theirs, own in zip(eager["us"], ours["us"], strict=True)])
    assert min(ours["us"]) > 0
    assert ours["occupancy"] == [1.0, 1.0]  # refilled at every tick: no lane stays empty while fits wait


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import engine_rivals

    return engine_rivals


def trained(side: Any, keep_prob: float) -> list[torch.Tensor]:
    fit = next(side.work.fits(7))
    layers = len(fit.setting.lambda_)
    side.begin(replace(fit, setting=Setting((keep_prob,) * layers, fit.setting.lambda_)))
    side.train_epoch()
    weights = side.weights if hasattr(side, "weights") else side.network.parameters()
    return [weight.detach().clone() for weight in weights]


def test_the_compiled_rival_trains_as_the_eager_one_where_nothing_is_dropped(rivals, one_thread):
    work = rivals.Work("tiny", "cpu", "float32", epochs=2, patience=0, rows=256)
    eager = rivals.Eager(work)
    with torch.compiler.set_stance("force_eager"):
        compiled = rivals.Compiled(work)
        trained(compiled, 0.5)  # another fit before: nothing may be left of it
        for theirs, same in zip(trained(compiled, 1.0), trained(eager, 1.0), strict=True):
            torch.testing.assert_close(theirs, same, rtol=1e-5, atol=1e-6)
        assert compiled.loss("validation") == pytest.approx(eager.loss("validation"), rel=1e-5)


def test_the_compiled_rival_drops_and_keeps_the_mean(rivals, one_thread):
    work = rivals.Work("tiny", "cpu", "float32", epochs=2, patience=0, rows=256)
    with torch.compiler.set_stance("force_eager"):
        compiled = rivals.Compiled(work)
        whole, halved = trained(compiled, 1.0), trained(compiled, 0.5)
    assert not torch.allclose(whole[0], halved[0])
    assert (whole[0] - halved[0]).abs().mean() < 0.1  # Adam moved both by a few learning rates


def test_gaps_are_what_no_kernel_covers(rivals):
    from engine_gpu import covered

    assert covered([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.2, 5.4)]) == 4.0
    assert covered([]) == 0.0


def test_our_side_prepares_fits_while_the_device_works_and_loses_none(rivals, one_thread, monkeypatch):
    from engine_ours import Ours

    work = rivals.Work("tiny", "cpu", "float32", epochs=4, patience=2, rows=64)
    waiting = work.fits(3)
    fits = [next(waiting) for _ in range(9)]
    swept = Ours(work, 3, compiled=False).sweep(fits)
    monkeypatch.setattr(Engine, "overlaps", True)  # as on a GPU; a CPU's launch does the work before it returns
    overlapped = Ours(work, 3, compiled=False).sweep(fits)
    assert len(swept.epochs) == len(fits)
    assert sorted(overlapped.losses) == sorted(swept.losses)
    assert swept.steps == sum(swept.epochs) * 2  # two batches an epoch
    assert swept.steps <= swept.computed <= swept.offered
