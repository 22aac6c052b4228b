"""A sweep's network made concrete: what is built, what is kept of it, and what code and weights may not do."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from small import Change, write_sweep
from sweeper.blueprint import Blueprint, named_packages
from sweeper.config import read_sweep
from sweeper.construction import Access, Construction, construct
from sweeper.data import Table
from sweeper.errors import SweepFileError
from sweeper.records import Task
from sweeper.workload import workload_of

NETS = """\
from torch import nn

COUNT = []


def net(inputs, outputs, width=5, drop_p=0.0):
    layers = [nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs)]
    return nn.Sequential(*layers)


def nothing(inputs, outputs):
    return None


def wrong(inputs, outputs):
    return nn.Linear(inputs, outputs - 1)


def narrow(inputs, outputs):
    return nn.Linear(inputs + 1, outputs)


def failing(inputs, outputs):
    raise ValueError("no such luck")


def backbone(inputs, width=6):
    COUNT.append(width)
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh())
"""
MLP = "model: {kind: mlp, hidden: [6, 5]}"
CODE = frozenset({"b_blue"})


def python(call: str) -> Change:
    return (MLP, f"model: {{kind: python:b_blue:{call}}}")


def head(more: str = "xtra_fc: [7]", backbone: str = "python:b_blue:backbone") -> Change:
    return (MLP, f"model: {{kind: head, backbone: {backbone}, weights: w.safetensors, {more}}}")


@pytest.fixture(autouse=True)
def _code(tmp_path: Path) -> Iterator[None]:
    """A module of the user's own beside the sweep file, and weights; both are gone from this process afterwards."""
    (tmp_path / "b_blue.py").write_text(NETS)
    save_weights(tmp_path)
    path = list(sys.path)
    yield
    sys.modules.pop("b_blue", None)
    sys.path[:] = path


def save_weights(folder: Path, seed: int = 0, width: int = 6) -> nn.Module:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Linear(4, width), nn.Tanh())
    save_file(network.state_dict(), folder / "w.safetensors")
    return network


def rows(task: Task = Task.MULTICLASS) -> Table:
    random = np.random.default_rng(0)
    classes = {Task.MULTICLASS: ("a", "b", "c"), Task.BINARY: ("a", "b"), Task.REGRESSION: ()}[task]
    return Table(random.normal(size=(9, 4)), np.zeros(9, np.int64), tuple("abcd"), task, classes, "sha of the rows")


def made(
    folder: Path, change: Change, table: Table | None = None, known: Blueprint | None = None, **access: object
) -> Construction:
    file = read_sweep(write_sweep(folder, change))
    return construct(file, table or rows(), replace(Access(allowed=CODE), **access), known)


def refused(folder: Path, change: Change, **access: object) -> str:
    with pytest.raises(SweepFileError) as caught:
        made(folder, change, **access)
    return str(caught.value).replace(str(folder), "DIR")


# python ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("task", "outputs"), [(Task.MULTICLASS, 3), (Task.BINARY, 1), (Task.REGRESSION, 1)])
def test_the_function_is_told_the_datas_inputs_and_outputs(tmp_path: Path, task: Task, outputs: int):
    construction = made(tmp_path, python("net, width: 8"), rows(task))
    assert construction.build()(torch.zeros(2, 4)).shape == (2, outputs)
    assert construction.blueprint.sizes == (4, 8, outputs)
    assert not construction.per_channel


def test_layers_go_by_the_names_that_the_module_gives_them(tmp_path: Path):
    blueprint = made(tmp_path, python("net")).blueprint
    assert blueprint.words == ("0 5 units", "2 3 outputs")
    assert blueprint.title == "4 inputs | 0 5 units | 2 3 outputs"


def test_channels_are_dropped_on_request(tmp_path: Path):
    assert made(tmp_path, python("net, drop: channel")).per_channel


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("nett", "DIR/b_blue.py has no function 'nett'. Did you mean 'net'?"),
        ("nothing", "a network must be a torch.nn.Module, but this is a NoneType."),
        ("wrong", "the network makes B x 2 of B rows, but multiclass needs B x C with C = at least 3"),
        ("narrow", "the network fails on a batch of 4 x 4 in evaluation mode: RuntimeError: mat1 and mat2"),
        ("failing", "it failed: ValueError: no such luck (DIR/b_blue.py:24)."),
    ],
)
def test_a_function_that_makes_no_network_for_the_data_names_file_and_line(tmp_path: Path, call: str, message: str):
    assert f"DIR/small.yaml:3: model.kind: {message}" in refused(tmp_path, python(call))


def test_arguments_that_the_function_does_not_take_name_the_right_ones(tmp_path: Path):
    assert refused(tmp_path, python("net, widht: 8, inputs: 3")).splitlines() == [
        "DIR/small.yaml:3: model.widht: net: it has no argument 'widht'. Did you mean 'width'? Its arguments: width, "
        "drop_p.",
        "DIR/small.yaml:3: model.inputs: net: the data say what 'inputs' is. Leave it out. Its arguments: width, "
        "drop_p.",
    ]


@pytest.mark.parametrize("change", [python("net"), head()])
def test_code_is_imported_only_where_it_is_allowed(tmp_path: Path, change: Change):
    message = refused(tmp_path, change, allowed=frozenset())
    assert "nobody vouched for it" in message
    assert "add --allow-import b_blue" in message
    assert "b_blue" not in sys.modules


@pytest.mark.parametrize(
    ("change", "packages"), [(python("net"), {"b_blue"}), (head(), {"b_blue"}), ((MLP, MLP), set())]
)
def test_a_sweep_names_the_packages_that_it_would_import(tmp_path: Path, change: Change, packages: frozenset[str]):
    assert named_packages(read_sweep(write_sweep(tmp_path, change)).sweep) == packages


# what is kept ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [(MLP, MLP), python("net"), head()])
def test_a_blueprint_comes_back_from_the_ledger_as_it_was(tmp_path: Path, change: Change):
    blueprint = made(tmp_path, change).blueprint
    assert Blueprint.of(json.loads(json.dumps(blueprint.recorded()))) == blueprint


def test_a_perceptrons_layers_need_no_names(tmp_path: Path):
    blueprint = made(tmp_path, (MLP, MLP), rows(Task.BINARY)).blueprint
    assert blueprint.words == ("6 units", "5 units", "1 output")
    assert blueprint.title == "4-6-5-1"
    assert blueprint.marks == {}


# head -----------------------------------------------------------------------------------------------------------------


def test_a_head_is_trained_on_what_the_backbone_makes_of_the_rows(tmp_path: Path):
    table = rows()
    with torch.no_grad():
        expected = save_weights(tmp_path, seed=3)(torch.from_numpy(table.x).float())
    construction = made(tmp_path, head(), table)
    np.testing.assert_allclose(construction.table.x, expected.numpy(), rtol=1e-6)
    assert construction.table.x.dtype == np.float64
    assert construction.table.y is table.y
    assert construction.table.feature_names[:2] == ("activation_0", "activation_1")
    assert construction.blueprint.sizes == (6, 7, 3)
    assert construction.build()(torch.zeros(2, 6)).shape == (2, 3)
    assert construction.notes == (
        "the head is trained on 6 activations per row of python:b_blue:backbone, kept frozen",
    )


def counted(folder: Path, change: Change = head(), **access: object) -> tuple[Construction, int]:  # noqa: B008
    """A construction, and how often the backbone was made for it."""
    before = len(sys.modules["b_blue"].COUNT) if "b_blue" in sys.modules else 0
    construction = made(folder, change, activations=folder / "kept", **access)
    return construction, (len(sys.modules["b_blue"].COUNT) if "b_blue" in sys.modules else 0) - before


def test_activations_are_computed_once_per_rows_weights_code_and_arguments(tmp_path: Path):
    first, times = counted(tmp_path)
    again, more = counted(tmp_path)
    assert (times, more) == (1, 0)
    assert again.table.sha256 == first.table.sha256
    assert np.array_equal(again.table.x, first.table.x)
    shas = {first.table.sha256}
    for change in (
        lambda: save_weights(tmp_path, seed=1),
        lambda: (tmp_path / "b_blue.py").write_text(NETS + "\nMORE = 1\n"),
    ):
        change()
        sys.modules.pop("b_blue", None)
        construction, times = counted(tmp_path)
        assert times == 1
        shas.add(construction.table.sha256)
    save_weights(tmp_path, width=8)
    construction, times = counted(tmp_path, head(backbone="{kind: python:b_blue:backbone, width: 8}"))
    assert (times, construction.table.x.shape[1]) == (1, 8)
    other = replace(rows(), sha256="other rows")
    assert counted(tmp_path, head(backbone="{kind: python:b_blue:backbone, width: 8}"), table=other)[1] == 1
    assert len(shas) == 3


def test_another_head_takes_the_same_activations(tmp_path: Path):
    counted(tmp_path)
    assert counted(tmp_path, head("xtra_fc: [3], ps: 0.3"))[1] == 0


def test_a_head_that_is_read_back_takes_the_activations_it_was_launched_with_and_imports_nothing(tmp_path: Path):
    launched, _ = counted(tmp_path)
    del sys.modules["b_blue"]
    (tmp_path / "b_blue.py").write_text("raise AssertionError('imported')")
    (tmp_path / "w.safetensors").unlink()
    again, _ = counted(tmp_path, known=launched.blueprint, allowed=frozenset())
    assert "b_blue" not in sys.modules
    assert np.array_equal(again.table.x, launched.table.x)
    assert again.blueprint == launched.blueprint


def test_without_kept_activations_code_is_needed_and_asked_for(tmp_path: Path):
    launched, _ = counted(tmp_path)
    for file in (tmp_path / "kept").glob("*.safetensors"):
        file.write_bytes(b"damaged")
    assert "add --allow-import b_blue" in refused(
        tmp_path, head(), known=launched.blueprint, allowed=frozenset(), activations=tmp_path / "kept"
    )


@pytest.mark.parametrize(
    ("spoil", "more", "message"),
    [
        pytest.param(
            lambda folder: (folder / "w.safetensors").unlink(),
            "made_by: python train.py",
            "model.weights: there is no file DIR/w.safetensors. Make it: python train.py",
            id="weights that are not there, and the command that makes them",
        ),
        pytest.param(
            lambda folder: (folder / "w.safetensors").unlink(),
            "ps: 0.5",
            "model.weights: there is no file DIR/w.safetensors. Give the file of trained weights.",
            id="weights that are not there",
        ),
        pytest.param(
            lambda folder: save_weights(folder, width=9),
            "ps: 0.5",
            "model.weights: the weights in DIR/w.safetensors are not this backbone's: 0.weight is (9, 4), not (6, 4)",
            id="another network's weights",
        ),
        pytest.param(
            lambda folder: (folder / "b_blue.py").write_text("def backbone(inputs):\n    return [inputs]\n"),
            "ps: 0.5",
            "model.weights: a backbone must be a torch.nn.Module, but this is a list.",
            id="what is no module",
        ),
        pytest.param(
            lambda folder: None,
            "shape: [1, 3, 3]",
            "model.shape: a row has 4 numbers, which are no 1 x 3 x 3.",
            id="a shape that rows don't have",
        ),
    ],
)
def test_what_a_backbone_lacks_names_file_and_line(
    tmp_path: Path, spoil: Callable[[Path], object], more: str, message: str
):
    spoil(tmp_path)
    found = refused(tmp_path, head(f"xtra_fc: [7], {more}"))
    assert found.startswith(f"DIR/small.yaml:3: {message}")


def test_the_whole_workload_stands_on_the_activations(tmp_path: Path):
    """Divided and standardised like any rows; the ledger keeps the hash of the rows themselves."""
    spaces = "shared: {keep_prob: shared}\n  both: {keep_prob: per_layer, lambda: per_layer}"
    file = read_sweep(write_sweep(tmp_path, head("xtra_fc: [7], ps: [0.3, 0.6]"), (spaces, "fastai: {}\n  " + spaces)))
    workload = workload_of(file, Access(CODE, tmp_path / "kept"))
    (fold,) = workload.folds[0]
    assert fold.x_train.shape == (24, 6)
    np.testing.assert_allclose(fold.x_train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(fold.x_train.std(0), 1, rtol=1e-5)
    plan = workload.plan({})
    assert plan.data_sha256 == workload.blueprint.marks["rows"] != workload.table.sha256
    assert workload.spaces["fastai"].setting({}).keep_prob == (0.7, 0.4)
    assert workload.spaces["shared"].setting({"keep_prob": 0.5}).keep_prob == (0.7, 0.5)
