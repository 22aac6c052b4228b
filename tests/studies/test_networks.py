"""The studies whose networks are code of one's own: their functions, weights and spaces fit each other and the data."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sweeper.blueprint import named_packages
from sweeper.config import read_sweep
from sweeper.construction import Access
from sweeper.errors import SweepFileError
from sweeper.workload import Workload, workload_of

STUDIES = Path(__file__).parents[2] / "studies"
CODE = ("models", "backbone")


@pytest.fixture
def studies(tmp_path: Path) -> Iterator[Path]:
    """A copy of the studies without weights, whose modules leave nothing in this process."""
    folder = shutil.copytree(
        STUDIES, tmp_path / "studies", ignore=shutil.ignore_patterns("*.safetensors", "__pycache__")
    )
    known, path = {name: sys.modules.pop(name, None) for name in CODE}, list(sys.path)
    yield folder
    for name, module in known.items():
        sys.modules.pop(name, None)
        if module is not None:
            sys.modules[name] = module
    sys.path[:] = path


def made(folder: Path, name: str) -> Workload:
    file = read_sweep(folder / f"{name}.yaml")
    return workload_of(file, Access(named_packages(file.sweep), folder / "kept"))


def test_digits_conv_is_two_convolutions_with_batch_normalisation_and_a_residual(studies: Path):
    workload = made(studies, "digits_conv")
    convolutions = [layer for layer in workload.blueprint.layers if layer.kind == "channels"]
    assert len(convolutions) == 2
    assert workload.blueprint.sizes[-1] == 10
    assert workload.per_channel
    assert workload.file.warnings == ()
    network = workload.build()
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.modules())


def test_without_weights_the_command_that_makes_them_is_said(studies: Path):
    with pytest.raises(SweepFileError) as caught:
        made(studies, "digits_head")
    message = str(caught.value)
    assert f"there is no file {studies / 'digits_backbone.safetensors'}. Make it: python studies/backbone.py" in message


def test_the_script_makes_weights_that_the_head_stands_on(studies: Path):
    script = [sys.executable, str(studies / "backbone.py"), "--epochs", "1"]
    trained = subprocess.run(script, capture_output=True, text=True, check=False)
    assert trained.returncode == 0, trained.stderr
    workload = made(studies, "digits_head")
    assert workload.blueprint.title == "128-64-64-10"
    assert workload.spaces["fastai"].setting({}).keep_prob == (0.75, 0.75, 0.5)
    assert workload.starts("per_layer")[0].keep_prob == (0.75, 0.75, 0.5)
    assert len(list((studies / "kept").glob("*.safetensors"))) == 1
