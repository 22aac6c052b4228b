"""Backbones: weights that are read without running code, and activations that are what the network really makes."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sweeper.errors import CodeError, DataError
from sweeper.networks.backbone import (
    BATCH_ROWS,
    Body,
    activations_of,
    file_sha256,
    read_weights,
    torchvision_network,
    with_weights,
)


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU())


def run(module: nn.Module, x: Any, shape: tuple[int, ...] | None = None) -> Any:
    return activations_of(module, x, shape=shape, device="cpu", progress=lambda done, rows: None)


# weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("w.safetensors", lambda state, path: save_file(state, path)),
        ("w.pt", torch.save),
        ("w.pth", lambda state, path: torch.save(OrderedDict(state), path)),
    ],
)
def test_weights_come_back_as_they_were_saved(tmp_path: Path, name: str, save: Callable[[Any, Path], None]) -> None:
    saved, loaded = network(), network()
    save(saved.state_dict(), tmp_path / name)
    with_weights(loaded, tmp_path / name)
    for one, other in zip(saved.state_dict().values(), loaded.state_dict().values(), strict=True):
        assert torch.equal(one, other)


class Evil:
    """Runs code as it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (Path("ran"), "code")


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"0.weight": Evil()}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="have to be unpickled, which runs code, so it is refused"):
        read_weights(tmp_path / "w.pt")
    assert not (tmp_path / "ran").exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(network(), tmp_path / "w.pt")
    with pytest.raises(DataError, match=r"safetensors\.torch\.save_file"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("w.safetensors", b"\x00" * 40, "can't be read as safetensors"),
        ("w.safetensors", b"", "can't be read as safetensors"),
        ("w.pt", b"no zip", "can't be read as plain tensors"),
        ("w.h5", b"", "is no weights file. Known: .safetensors, .pt, .pth, .bin."),
    ],
)
def test_a_damaged_or_unknown_file_is_refused(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_weights(tmp_path / name)


def test_what_is_no_mapping_of_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "w.pt")
    with pytest.raises(DataError, match="holds no mapping of names to tensors"):
        read_weights(tmp_path / "w.pt")


def test_weights_of_another_network_are_refused_with_what_differs(tmp_path: Path) -> None:
    state = network().state_dict()
    state["0.weight"], state["9.bias"] = torch.zeros(6, 5), state.pop("0.bias")
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(DataError) as caught:
        with_weights(network(), tmp_path / "w.pt")
    assert str(caught.value) == (
        f"the weights in {tmp_path / 'w.pt'} are not this backbone's: has no 0.bias, has 9.bias, which the backbone "
        "has not, 0.weight is (6, 5), not (6, 4)."
    )


def test_a_files_hash_is_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    with pytest.raises(DataError, match="can't be read"):
        file_sha256(tmp_path)


# activations ----------------------------------------------------------------------------------------------------------


def test_activations_are_those_of_evaluation_mode_row_by_row() -> None:
    torch.manual_seed(0)
    module, x = network().train(), np.random.default_rng(0).normal(size=(2 * BATCH_ROWS + 3, 4))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = run(module, x)
    alone = module.eval()(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(found, alone, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])  # BatchNorm's statistics among them


def test_progress_is_told_after_each_batch() -> None:
    told = []
    x = np.zeros((BATCH_ROWS + 1, 4))
    activations_of(network(), x, shape=None, device="cpu", progress=lambda *done: told.append(done))
    assert told == [(BATCH_ROWS, BATCH_ROWS + 1), (BATCH_ROWS + 1, BATCH_ROWS + 1)]


def test_feature_maps_are_concat_pooled_maxima_first() -> None:
    """fast.ai's AdaptiveConcatPool2d, worked by hand on one map of 2 x 2."""
    x = np.array([[1.0, 2.0, 3.0, 6.0, -1.0, -1.0, -1.0, -5.0]])
    assert run(nn.Identity(), x, (2, 2, 2)).tolist() == [[6.0, -1.0, 3.0, -2.0]]


def test_rows_take_the_shape_that_the_backbone_wants() -> None:
    x = np.arange(12.0).reshape(2, 6)
    assert run(nn.Flatten(), x, (3, 2)).tolist() == x.tolist()


class Pair(nn.Module):
    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows, rows


class Summed(nn.Module):
    def forward(self, rows: Tensor) -> Tensor:
        return rows.sum(0, keepdim=True)


@pytest.mark.parametrize(("module", "found"), [(Pair(), "tuple"), (Summed(), r"\(1, 4\)")])
def test_a_backbone_returns_one_tensor_with_a_row_per_row(module: nn.Module, found: str) -> None:
    with pytest.raises(CodeError, match=f"a row for each of 3 rows, but returned {found}"):
        run(module, np.zeros((3, 4)))


def test_activations_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(DataError, match="not all finite numbers"):
        run(nn.Identity(), np.array([[np.inf, 1.0]]))


# torchvision ----------------------------------------------------------------------------------------------------------


class Tiny(nn.Module):
    """As torchvision's classifiers are written: children that run one by one, pooling and a classifier last."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, width, 1), nn.BatchNorm2d(width), nn.ReLU()
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(width, 10)


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    """A torchvision of three networks; the real one is optional and not needed to test what we do with it."""
    models = ModuleType("torchvision.models")
    made = {"tiny": Tiny, "bare": lambda: nn.Sequential(nn.Linear(2, 2)), "twice": lambda: _twice()}

    def get_model(name: str, weights: object = "default", **arguments: Any) -> nn.Module:
        assert weights is None, "nothing is downloaded"
        return made[name](**arguments)

    models.__dict__.update(list_models=lambda: list(made), get_model=get_model)
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


def _twice() -> nn.Module:
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 2, 1), aux1=nn.Conv2d(3, 2, 1), fc=nn.Linear(2, 2)))


@pytest.mark.usefixtures("torchvision")
def test_a_torchvision_network_is_cut_before_its_pooling_and_classifier() -> None:
    whole = torchvision_network("tiny", {"width": 5})
    maps = Body(whole)(torch.ones(1, 3, 4, 4))
    assert maps.shape == (1, 5, 4, 4)
    assert isinstance(whole, Tiny)
    assert torch.equal(maps, whole.relu(whole.bn(whole.conv(torch.ones(1, 3, 4, 4)))))


@pytest.mark.usefixtures("torchvision")
def test_grey_images_fill_all_three_channels() -> None:
    body = Body(torchvision_network("tiny", {})).eval()
    grey = torch.randn(2, 1, 4, 4)
    assert torch.equal(body(grey), body(grey.repeat(1, 3, 1, 1)))


@pytest.mark.usefixtures("torchvision")
@pytest.mark.parametrize("name", ["bare", "twice"])
def test_a_network_that_can_not_be_cut_names_the_way_out(name: str) -> None:
    with pytest.raises(CodeError, match=r"can't be cut before its classifier.*python:PKG\.MOD:FUNCTION"):
        Body(torchvision_network(name, {}))


@pytest.mark.usefixtures("torchvision")
def test_an_unknown_torchvision_network_names_the_nearest() -> None:
    with pytest.raises(CodeError, match=r"torchvision has no network 'tinny'\. Did you mean 'tiny'"):
        torchvision_network("tinny", {})


def test_without_torchvision_what_to_install_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    with pytest.raises(CodeError, match="pip install torchvision"):
        torchvision_network("resnet18", {})
