"""The sweep files under studies/ are valid, ask what their comments say, and find their data."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from sweeper.config import SweepFile, json_schema, read_sweep
from sweeper.config.tree import read_tree
from sweeper.data import SplitPlan, load, split
from sweeper.records import Setting, Task

STUDIES = sorted((Path(__file__).parents[2] / "studies").glob("*.yaml"))


def shipped(name: str) -> SweepFile:
    return read_sweep(next(path for path in STUDIES if path.stem == name))


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_sweep_is_valid_and_without_warnings(path):
    file = read_sweep(path)
    assert file.sweep.name == path.stem
    assert file.warnings == ()
    Draft202012Validator(json_schema()).validate(read_tree(file.text).value)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_sweep_finds_and_divides_its_data(path):
    file = read_sweep(path)
    data = file.sweep.data
    table = load(data.source, folder=file.folder, target=data.target, columns=data.columns, task=data.task)
    plan = SplitPlan(data.train, data.validation, data.test, data.folds, data.repeats, data.standardise, data.stratify)
    for replicate in range(file.sweep.search.replicates):
        for fold in split(table, plan, replicate, file.sweep.seed):
            assert len(fold.x_train) == data.train


@pytest.mark.parametrize("name", ["digits", "digits_noisy"])
def test_digits_measures_seven_spaces_and_a_placebo(name: str):
    sweep = shipped(name).sweep
    spaces = ["none", "shared", "placebo", "masked", "per_layer", "shared_l2", "per_layer_l2", "both"]
    assert list(sweep.spaces) == spaces
    assert [sweep.dimensions(name, 4).numbers for name in sweep.spaces] == [0, 1, 4, 1, 3, 1, 4, 7]
    assert sweep.mode == "measurement"
    assert (sweep.search.trials, sweep.search.replicates) == (32, 10)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_shipped_sweep_has_a_placebo_of_its_shared_space(path):
    spaces = read_sweep(path).sweep.spaces
    assert spaces["placebo"].placebo >= 2
    assert spaces["placebo"].model_copy(update={"placebo": 0}) == spaces["shared"]


def test_the_noisy_digits_are_the_digits_but_for_a_fifth_of_the_training_labels():
    plain, noisy = shipped("digits").sweep, shipped("digits_noisy").sweep
    assert noisy.data.label_noise == 0.2
    assert noisy.data.model_copy(update={"label_noise": 0.0}) == plain.data
    assert (noisy.model, noisy.train, noisy.search, noisy.ranges) == (
        plain.model,
        plain.train,
        plain.search,
        plain.ranges,
    )
    assert noisy.spaces == plain.spaces


def test_digits_tpe_is_in_product_mode():
    assert shipped("digits_tpe").sweep.mode == "product"


def test_lecture_ships_the_lectures_network_and_its_keep_probs():
    """R3: 3 inputs, layers of 7, 7, 3, 2 and 1 units, kept 1.0 | 0.7 | 0.5 | 0.7 | 1.0 | 1.0."""
    sweep = shipped("lecture").sweep
    table = load(sweep.data.source, columns=sweep.data.columns)
    assert table.feature_names == ("mean radius", "mean texture", "mean concavity")
    assert table.task is Task.BINARY, "one sigmoid output"
    assert sweep.model.hidden == (7, 7, 3, 2)
    assert sweep.starts("per_layer", 5) == (Setting((1.0, 0.7, 0.5, 0.7, 1.0), (0.0,) * 5),)


def test_diabetes_is_a_regression():
    assert load(shipped("diabetes").sweep.data.source).task is Task.REGRESSION
