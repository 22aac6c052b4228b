"""Kinds of networks in a sweep file: what each may say, and which errors name the line and the nearest right word."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from config.sweeps import changed, refused, space, sweep_with
from config.test_reader import PLAIN, complaints, places, planted
from sweeper.config import Dimensions, Head, Python, Sweep, json_schema, parse_sweep, with_defaults
from sweeper.config.tree import read_tree
from sweeper.errors import SweepFileError
from sweeper.records import Setting, Training

MLP = "kind: mlp\n  hidden: [64, 64, 64]"
HEAD = "kind: head\n  backbone: torchvision:resnet18\n  weights: resnet18.safetensors"
PYTHON = "kind: python:models:digits_conv\n  channels: 16\n  drop: channel"
INPUT_RANGE = ("lambda: [1e-3, 30]", "lambda: [1e-3, 30]\n  input_keep_prob: [0.5, 1.0]")


def model(text: str) -> tuple[str, str]:
    return (MLP, text)


def head(more: str) -> tuple[str, str]:
    return model(f"{HEAD}\n  {more}")


# every kind -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [MLP, HEAD, PYTHON, HEAD + "\n  xtra_fc: [9]\n  ps: 0.4"])
def test_a_recorded_sweep_of_any_kind_reads_back_as_itself(text: str):
    sweep = sweep_with(model(text))
    assert Sweep.model_validate(sweep.model_dump(by_alias=True)) == sweep
    assert Sweep.model_validate_json(sweep.model_dump_json(by_alias=True)) == sweep


@pytest.mark.parametrize(
    "text", [MLP, HEAD, PYTHON, HEAD.replace("torchvision:resnet18", "{kind: python:a.b:c, d: 1}")]
)
def test_the_schema_takes_what_the_reader_takes(text: str):
    Draft202012Validator(json_schema()).validate(read_tree(changed(model(text))).value)


@pytest.mark.parametrize("text", [MLP.replace("mlp", "cnn"), "kind: python:models", HEAD.replace("torch", "touch")])
def test_the_schema_refuses_what_the_reader_refuses(text: str):
    assert refused(model(text))
    assert not Draft202012Validator(json_schema()).is_valid(read_tree(changed(model(text))).value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: mpl", "4: model.kind: 'mpl' is no kind of network. Did you mean 'mlp'? Known: mlp, head, python:PKG."),
        ("kind: pyhton:a:b", "4: model.kind: 'pyhton:a:b' is no kind of network. Did you mean 'python:PKG.MOD:FUNCT"),
        (
            "kind: python:models",
            "4: model.kind: 'python:models' names no function. Write python:PKG.MOD:FUNCTION",
        ),
        ("kind: python:mo dels:net", "4: model.kind: 'python:mo dels:net' names no function."),
        ("hidden: [64]", "3: missing key 'kind' in model. It is one of: mlp, head, python:PKG.MOD:FUNCTION."),
        ("kind: python:models:net\n  drop: layer", "5: model.drop = 'layer' is not known. Known: unit, channel."),
        (MLP + "\n  drop: unit", "6: unknown key 'drop' in model. Known keys: kind, hidden, activation."),
    ],
)
def test_an_unknown_kind_or_key_names_its_line_and_what_is_known(text: str, message: str):
    assert f"x.yaml:{message}" in refused(model(text))


def test_a_model_is_a_mapping():
    assert "x.yaml:3: model = 3 should be a mapping with a kind" in refused((f"\n  {MLP}", " 3"))


RICH = {
    "head": changed(head("shape: [1, 8, 8]\n  xtra_fc: [8]\n  ps: [0.1, 0.2]"), space("keep_prob: ps")),
    "python": changed(model("kind: python:a.b:c\n  drop: channel\n  widths: [1, {deep: 2}]")),
}


@pytest.mark.parametrize("kind", RICH)
@given(st.data())
def test_any_value_anywhere_is_read_or_refused_with_its_line(kind: str, data: st.DataObject):
    tree = read_tree(RICH[kind]).value
    place = data.draw(st.sampled_from([place for place in places(tree) if place[0] == "model"]))
    text = yaml.safe_dump(planted(tree, place, data.draw(PLAIN)), sort_keys=False)
    assert all(line.startswith("x.yaml:") and line.endswith(".") for line in complaints(text)), complaints(text)


# python ---------------------------------------------------------------------------------------------------------------


def test_every_other_key_is_an_argument_of_the_function():
    found = sweep_with(model("kind: python:models:net\n  width: 3\n  deep: {a: [1, x]}")).model
    assert isinstance(found, Python)
    assert found.arguments == {"width": 3, "deep": {"a": [1, "x"]}}
    assert (found.drop, found.references) == ("unit", ("python:models:net",))


def test_reading_a_file_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "fateful.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path))
    parse_sweep(changed(model("kind: python:fateful:net")), str(tmp_path / "x.yaml"), tmp_path)
    assert "fateful" not in sys.modules


def test_layers_that_only_building_shows_are_judged_later_with_file_and_line():
    text = changed(model(PYTHON), space("keep_prob: {grouped: [[1], [2, 3]]}, start: [{keep_prob: [1, 0.5]}]"))
    file = parse_sweep(text, "x.yaml", ".")
    with pytest.raises(SweepFileError) as caught:
        file.for_layers(3)
    assert str(caught.value).splitlines() == [
        "x.yaml:19: spaces.shared.keep_prob.grouped: there is no layer 3; this model's hidden layers are numbered 1 to "
        "2, and each must stand in exactly one group.",
        "x.yaml:19: spaces.shared.start[0]: keep_prob has 2 values, but this model takes 3 (the input and 2 hidden "
        "layers), or 4 with the output's 1.0 at the end.",
    ]


def test_warnings_that_ask_for_layers_come_with_them():
    file = parse_sweep(changed(model(PYTHON), ("random", "cmaes"), space("keep_prob: masked")), "x.yaml", ".")
    assert file.warnings == ()
    (warning,) = file.for_layers(4).warnings
    assert warning.startswith("x.yaml:19: spaces.shared: CMA-ES can't search on/off switches, so the 3 of this space")


def test_layers_of_a_perceptron_are_judged_at_once():
    file = parse_sweep(changed(), "x.yaml", ".")
    assert file.for_layers(4) == file


# head -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "xtra_fc", "ps"),
    [
        pytest.param("made_by: x", (512,), (0.25, 0.5), id="fast.ai's defaults (R11)"),
        pytest.param("xtra_fc: [64, 32]", (64, 32), (0.25, 0.25, 0.5), id="the defaults of two extra layers"),
        pytest.param("xtra_fc: []", (), (0.5,), id="nothing extra: one linear layer to the classes (R12)"),
        pytest.param("ps: 0.4", (512,), (0.4, 0.4), id="one number stands for all"),
        pytest.param("xtra_fc: [9]\n  ps: [0, 0.9]", (9,), (0.0, 0.9), id="as given"),
    ],
)
def test_xtra_fc_and_ps_mean_what_fastai_means(more: str, xtra_fc: tuple[int, ...], ps: tuple[float, ...]):
    found = sweep_with(head(more), ("both:\n    keep_prob: per_layer\n    lambda: per_layer", "none2: {}"),
                       space("lambda: shared")).model  # fmt: skip
    assert isinstance(found, Head)
    assert (found.xtra_fc, found.ps) == (xtra_fc, ps)
    assert found.weight_layers == len(xtra_fc) + 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            "ps: [0.25, 0.25, 0.5]",
            "7: model.ps: 3 given, but this head has 2 linear layers: the 1 of xtra_fc and the one to the classes. "
            "Give one p for each, or one number for all.",
        ),
        ("xtra_fc: []\n  ps: [0.1, 0.2]", "8: model.ps: 2 given, but this head has 1 linear layers: the one to the"),
        ("ps: 1.0", "7: model.ps: p = 1.0 lies outside [0, 1). p is the chance that a unit is dropped"),
        ("ps: [0.1, 1.5]", "7: model.ps[1]: p = 1.5 lies outside [0, 1)."),
        ("p: 0.5", "7: unknown key 'p' in model. Did you mean 'ps'?"),
        ("keep_prob: 0.5", "7: unknown key 'keep_prob' in model."),
    ],
)
def test_ps_that_do_not_fit_the_head_are_refused(more: str, message: str):
    assert f"x.yaml:{message}" in refused(head(more))


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("torchvison:resnet18", "5: model.backbone: 'torchvison:resnet18' names no backbone. Write python:PKG.MOD"),
        ("3", "5: model.backbone = 3 should be a name, or {kind: NAME, ...}"),
        ("{name: x}", "5: missing key 'kind' in model.backbone"),
    ],
)
def test_a_backbone_that_is_none_is_refused(backbone: str, message: str):
    assert f"x.yaml:{message}" in refused(model(HEAD.replace("torchvision:resnet18", backbone)))


def test_a_backbone_takes_arguments_as_a_mapping():
    found = sweep_with(model(HEAD.replace("torchvision:resnet18", "{kind: python:a:b, width: 3}"))).model
    assert isinstance(found, Head)
    assert (found.backbone.arguments, found.references) == ({"width": 3}, ("python:a:b",))


def test_a_space_of_a_head_fixes_what_it_does_not_search_at_its_ps():
    sweep = sweep_with(head("xtra_fc: [64, 32]\n  ps: [0.1, 0.2, 0.6]"))
    assert sweep.spaces["none"].keep_prob == "ps"
    assert [sweep.input_keep_prob(name) for name in sweep.spaces] == [0.9] * 3
    assert sweep.dimensions("none", 3) == Dimensions(0, 0)
    assert sweep.dimensions("both", 3) == Dimensions(2 + 3, 0)
    assert sweep.model.keep_prob == (0.9, 0.8, 0.4)


def test_what_a_head_leaves_out_is_recorded_as_its_ps():
    recorded = sweep_with(head("made_by: x")).model_dump(mode="json", by_alias=True)
    assert recorded["spaces"]["none"]["keep_prob"] == "ps"
    assert recorded["ranges"]["input_keep_prob"] == "ps"
    assert recorded["model"]["ps"] == [0.25, 0.5]


def test_the_activations_are_searched_where_they_have_a_range():
    sweep = sweep_with(head("ps: [0.3, 0.5]"), INPUT_RANGE)
    assert {name: sweep.input_keep_prob(name) for name in sweep.spaces} == {
        "none": 0.7,
        "shared": "searched",
        "both": "searched",
    }


@pytest.mark.parametrize(
    ("text", "keep_prob"),
    [
        ("keep_prob: per_layer, start: [{keep_prob: ps}]", (0.9, 0.8, 0.4)),
        ("keep_prob: per_layer, input_keep_prob: 1.0, start: [{keep_prob: ps}]", (1.0, 0.8, 0.4)),
        ("keep_prob: per_layer, start: [{keep_prob: 0.5}]", (0.9, 0.5, 0.5)),
        ("keep_prob: per_layer, start: [{ps: [0.1, 0.3, 0.5]}]", (0.9, 0.7, 0.5)),
        ("lambda: shared, start: [{lambda: 0}]", (0.9, 0.8, 0.4)),
    ],
)
def test_a_space_can_start_from_a_heads_ps(text: str, keep_prob: tuple[float, ...]):
    sweep = sweep_with(head("xtra_fc: [64, 32]\n  ps: [0.1, 0.2, 0.6]"), space(text))
    assert sweep.starts("shared", 3) == (Setting(keep_prob, (0.0,) * 3),)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        (space("keep_prob: ps"), "18: spaces.shared.keep_prob"),
        (space("keep_prob: shared, start: [{keep_prob: ps}]"), "18: spaces.shared.start[0].keep_prob"),
        (("lambda: [1e-3, 30]", "lambda: [1e-3, 30]\n  input_keep_prob: ps"), "16: ranges.input_keep_prob"),
    ],
)
def test_ps_are_a_heads(change: tuple[str, str], where: str):
    assert f"x.yaml:{where}: ps are a head's, and this model is none. Give numbers." in refused(change)


# training and recorded sweeps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "tf32", "bfloat16"])
def test_precision_is_the_engines_to_keep(precision: str):
    sweep = sweep_with(("batch_size: 32", f"precision: {precision}"))
    assert sweep.training == Training(40, 32, precision=precision)


def test_an_unknown_precision_is_refused_and_the_tolerances_are_told():
    assert refused(("batch_size: 32", "precision: fp16")) == (
        "x.yaml:8: train.precision = 'fp16' is not known. Known: float32, tf32, bfloat16."
    )
    described = json_schema()["$defs"]["Train"]["properties"]["precision"]["description"]
    assert "3e-4" in described
    assert "1e-3 to 1e-2" in described


def test_a_sweep_that_was_recorded_before_a_key_existed_has_its_default():
    recorded = sweep_with().model_dump(mode="json", by_alias=True)
    old = {**recorded, "train": {key: value for key, value in recorded["train"].items() if key != "precision"}}
    assert with_defaults(old) == recorded
    assert with_defaults({"a": 1}) == {"a": 1}
