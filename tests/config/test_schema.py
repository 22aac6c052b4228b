"""The JSON Schema that editors complete and check sweep files with."""

from __future__ import annotations

import pytest
from jsonschema import Draft202012Validator

from config.sweeps import DIGITS, changed
from sweeper.config import json_schema
from sweeper.config.tree import read_tree


@pytest.fixture(scope="module")
def validator() -> Draft202012Validator:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_every_field_is_described():
    schema = json_schema()
    sections = {"Sweep": schema, **schema["$defs"]}
    bare = [
        f"{section}.{name}"
        for section, declared in sections.items()
        for name, field in declared.get("properties", {}).items()
        if not field.get("description")
    ]
    assert not bare
    assert all(declared.get("description") for declared in sections.values())


def test_lambda_goes_by_its_name_in_the_file():
    assert "lambda" in json_schema()["$defs"]["Space"]["properties"]


@pytest.mark.parametrize(
    "text",
    [
        DIGITS,
        changed(("random", "{kind: tpe, n_startup_trials: 5}")),
        changed(("keep_prob: shared", "keep_prob: {grouped: [[1, 2], [3]]}, input_keep_prob: 0.9")),
        changed(("keep_prob: shared", "keep_prob: per_layer, start: [{ps: [0, 0.3, 0.5, 0]}, {p: 0.5, lambda: 1}]")),
        changed((", train: 300, validation: 0.5", ", folds: 5, train: null, test: 0.3")),
        changed(("trials: 32", "trials: 32\n  budget: {device_seconds: 60, joules: 1.5e+3}")),
    ],
)
def test_what_the_reader_takes_the_schema_takes(validator, text):
    validator.validate(read_tree(text).value)


@pytest.mark.parametrize(
    "change",
    [
        ("trials: 32", "trails: 32"),
        ("trials: 32", "trials: 0"),
        ("trials: 32", "trials: 32\n  budget: {joules: 0}"),
        ("random", "simulated_annealing"),
        ("random", "{kind: tpe, points: 3}"),
        ("keep_prob: shared", "keep_prob: sharde"),
        ("kind: mlp", "kind: cnn"),
        ("name: digits", "name: 1"),
    ],
)
def test_what_the_reader_refuses_by_shape_the_schema_refuses(validator, change):
    assert not validator.is_valid(read_tree(changed(change)).value)
