"""Sweep files in, sentences out: every error names file, line, what was found and what would be right."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from config.sweeps import DIGITS, changed
from sweeper.config import parse_sweep, read_sweep
from sweeper.config.tree import read_tree
from sweeper.errors import SweepFileError


def refused(text: str) -> str:
    with pytest.raises(SweepFileError) as caught:
        parse_sweep(text, "studies/x.yaml", ".")
    return str(caught.value)


def test_a_sweep_file_is_read():
    sweep = parse_sweep(DIGITS, "digits.yaml", ".").sweep
    assert sweep.name == "digits"
    assert sweep.seed == 0
    assert sweep.model.hidden == (64, 64, 64)
    assert sweep.ranges.lambda_ == (1e-3, 30.0)
    assert list(sweep.spaces) == ["none", "shared", "both"]
    assert sweep.spaces["both"].lambda_ == "per_layer"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param(
            changed(("replicates: 10", "replicats: 10")),
            "studies/x.yaml:9: missing key 'replicates' in search (studies per space, each on its own split of the "
            "data; prices need 10 or more).\n"
            "studies/x.yaml:12: unknown key 'replicats' in search. Did you mean 'replicates'? "
            "Known keys: sampler, trials, replicates, budget, concurrency, pruner.",
            id="unknown key",
        ),
        pytest.param(
            changed(("trials: 32", "trials: 0")),
            "studies/x.yaml:11: search.trials = 0 should be greater than or equal to 1 "
            "(settings that each study tries).",
            id="no budget",
        ),
        pytest.param(
            changed(("epochs: 40", "epochs: many")),
            "studies/x.yaml:7: train.epochs = 'many' should be a whole number "
            "(passes over the training rows, at most).",
            id="wrong type",
        ),
        pytest.param(
            changed(("epochs: 40", "epochs: true")),
            "studies/x.yaml:7: train.epochs = true should be a whole number (passes over the training rows, at most).",
            id="a flag is no number",
        ),
        pytest.param(
            changed(("epochs: 40", 'epochs: "40"')),
            "studies/x.yaml:7: train.epochs = '40' should be a whole number (passes over the training rows, at most).",
            id="quoted digits are text",
        ),
        pytest.param(
            changed(("random", "tpee")),
            "studies/x.yaml:10: search.sampler = 'tpee' is not known. Did you mean 'tpe'? "
            "Known: random, tpe, gp, cmaes, qmc, grid.",
            id="unknown sampler",
        ),
        pytest.param(
            changed(("random", "{kind: gp, n_ei_candidates: 3}")),
            "studies/x.yaml:10: unknown key 'n_ei_candidates' in search.sampler. Known keys: kind, n_startup_trials.",
            id="another sampler's argument",
        ),
        pytest.param(
            changed(("random", "{n_startup_trials: 3}")),
            "studies/x.yaml:10: missing key 'kind' in search.sampler. It is one of: random, tpe, gp, cmaes, qmc, grid.",
            id="sampler without a name",
        ),
        pytest.param(
            changed(("sampler: random", "pruner: ahsa")),
            "studies/x.yaml:10: search.pruner = 'ahsa' is not known. Did you mean 'asha'? "
            "Known: none, median, asha, hyperband.",
            id="unknown pruner",
        ),
        pytest.param(
            changed(("sampler: random", "pruner: {kind: asha, n_warmup_steps: 3}")),
            "studies/x.yaml:10: unknown key 'n_warmup_steps' in search.pruner. Known keys: kind, min_resource, "
            "reduction_factor, min_early_stopping_rate, bootstrap_count.",
            id="another pruner's argument",
        ),
        pytest.param(
            changed(("mlp", "mpl")),
            "studies/x.yaml:4: model.kind: 'mpl' is no kind of network. Did you mean 'mlp'? "
            "Known: mlp, head, python:PKG.MOD:FUNCTION.",
            id="unknown model",
        ),
        pytest.param(
            changed(("none: {}", "none:")),
            "studies/x.yaml:17: spaces.none = null should be a mapping of keys to values; {} is an empty one.",
            id="space without braces",
        ),
        pytest.param(
            changed(("shared:", "sh ared:")),
            "studies/x.yaml:18: 'sh ared' is no name: start with a letter, go on with letters, digits, - or _.",
            id="space name",
        ),
        pytest.param(
            changed(("keep_prob: shared", "keep_prob: 0")),
            "studies/x.yaml:18: spaces.shared.keep_prob: keep_prob = 0.0 lies outside (0, 1]. keep_prob is the chance "
            "that a unit is kept; PyTorch and fast.ai count p, the chance that it is dropped. From a p, pass 1 - p.",
            id="keep_prob 0, both conventions explained (R2)",
        ),
        pytest.param(
            changed(("keep_prob: shared", "keep_prob: [0.5, 0.7, 0.5]")),
            "studies/x.yaml:18: spaces.shared.keep_prob = [0.5, 0.7, 0.5] should be a number, shared, masked, "
            "per_layer, or {grouped: [[1, 2], [3]]} (of the hidden layers: a number, shared, masked, per_layer or "
            "{grouped: [[1, 2], [3]]}; or ps, a head's own and its default).",
            id="keep_prob of no known form",
        ),
        pytest.param(
            changed(("keep_prob: shared", "p: 1")),
            "studies/x.yaml:18: spaces.shared.p: p = 1.0 lies outside [0, 1). p is the chance that a unit is dropped, "
            "as PyTorch and fast.ai count; keep_prob = 1 - p is the chance that it is kept, and something must be "
            "kept.",
            id="p 1, both conventions explained (R2)",
        ),
        pytest.param(
            changed(("keep_prob: shared", "keep_prob: 0.5, p: 0.5")),
            "studies/x.yaml:18: spaces.shared.p: keep_prob and p say the same thing (keep_prob = 1 - p). Keep one.",
            id="said twice",
        ),
        pytest.param(
            changed(("keep_prob: shared", "keep_prob: {grouped: [[1, 2], [2, 4]]}")),
            "studies/x.yaml:18: spaces.shared.keep_prob.grouped: layer 2 stands in 2 groups; "
            "this model's hidden layers are numbered 1 to 3, and each must stand in exactly one group.\n"
            "studies/x.yaml:18: spaces.shared.keep_prob.grouped: layer 3 stands in no group; "
            "this model's hidden layers are numbered 1 to 3, and each must stand in exactly one group.\n"
            "studies/x.yaml:18: spaces.shared.keep_prob.grouped: there is no layer 4; "
            "this model's hidden layers are numbered 1 to 3, and each must stand in exactly one group.",
            id="groups",
        ),
        pytest.param(
            changed(("[1e-3,", "[0,")),
            "studies/x.yaml:15: ranges.lambda[0] = 0 should be greater than 0 "
            "([lowest, highest] lambda of a weight layer, searched on a log scale).",
            id="lambda's log scale has no 0",
        ),
        pytest.param(
            changed(("[0.2, 1.0]", "[1.0, 0.2]")),
            "studies/x.yaml:14: ranges.keep_prob: the range [1, 0.2] is empty. Write [lowest, highest]; "
            "a value that is not to be searched goes into the spaces as a number.",
            id="range upside down",
        ),
        pytest.param(
            changed(("[0.2, 1.0]", "[0.2]")),
            "studies/x.yaml:14: ranges.keep_prob = [0.2] should be two numbers, [lowest, highest] "
            "([lowest, highest] keep_prob of a hidden layer).",
            id="half a range",
        ),
        pytest.param(
            changed(("sklearn:digits", "sklern:digits")),
            "studies/x.yaml:2: data.source: 'sklern:digits' is no data source. Did you mean 'sklearn'? "
            "Write sklearn:NAME (as sklearn:digits), csv:PATH, parquet:PATH or npz:PATH.",
            id="data source",
        ),
        pytest.param(
            changed(("train: 300", "train: 1.5")),
            "studies/x.yaml:2: data.train = 1.5 should be less than 1 (training rows: a count, or a fraction of all "
            "rows; default 0.6, with folds every row that is not for testing).",
            id="more than all rows",
        ),
        pytest.param(
            DIGITS + "name: again\n",
            "studies/x.yaml:22: name is given twice, first on line 1. Keep one.",
            id="repeated",
        ),
        pytest.param(
            "",
            "studies/x.yaml: the file is empty. A sweep needs name, data, model, train, search and spaces.",
            id="empty",
        ),
        pytest.param(
            "# to do\n",
            "studies/x.yaml: the file is empty. A sweep needs name, data, model, train, search and spaces.",
            id="comments only",
        ),
        pytest.param(
            "- a\n", "studies/x.yaml:1: a sweep file is a mapping of keys to values, but this is a list.", id="list"
        ),
        pytest.param(
            "a: 1\nb: {\n",
            "studies/x.yaml:3: not valid YAML: while parsing a flow node, expected the node content, but found "
            "'<stream end>'.",
            id="not YAML",
        ),
        pytest.param(
            "a: &x 1\nb: *x\n",
            "studies/x.yaml:2: not valid YAML: sweep files have no aliases; write the value out.",
            id="alias",
        ),
    ],
)
def test_an_error_names_file_line_and_what_would_be_right(text, message):
    assert refused(text) == message


def test_all_errors_are_reported_at_once_in_the_order_of_the_file():
    text = changed(
        ("trials: 32", "trials: -1"), ("name: digits", "name: 1st"), ("kind: mlp", "kind: mlp\n  hiden: [3]")
    )
    lines = [line.split(": ")[0] for line in refused(text + "seed: 1\nseed: 2\n").splitlines()]
    assert lines == ["studies/x.yaml:1", "studies/x.yaml:5", "studies/x.yaml:12", "studies/x.yaml:24"]


def test_scientific_numbers_without_a_dot_are_numbers():
    sweep = parse_sweep(changed(("batch_size: 32", "learning_rate: 2e-3")), "x.yaml", ".").sweep
    assert sweep.train.learning_rate == 0.002


def test_words_that_yaml_1_1_takes_for_booleans_can_name_spaces():
    assert "off" in parse_sweep(changed(("none: {}", "off: {}")), "x.yaml", ".").sweep.spaces


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a: " + "[" * 5000, id="deep"),
        pytest.param("a: " + "9" * 5000, id="endless number"),
        pytest.param("a: !!python/object/apply:os.getcwd []", id="python tag"),
        pytest.param("a: !!python/name:os.getcwd", id="python name"),
        pytest.param("a: \x00", id="control character"),
        pytest.param("? [1, 2]\n: 3", id="list as key"),
        pytest.param("a: 1\n---\nb: 2", id="two documents"),
    ],
)
def test_text_that_no_sweep_file_holds_is_refused_and_never_run(text):
    assert "studies/x.yaml" in refused(text)


def test_the_text_and_its_hash_are_kept_for_the_ledger(tmp_path: Path):
    path = tmp_path / "digits.yaml"
    path.write_text(DIGITS, encoding="utf-8")
    file = read_sweep(path)
    assert file.text == DIGITS
    assert file.sha256 == hashlib.sha256(DIGITS.encode()).hexdigest()
    assert file.folder == tmp_path
    assert parse_sweep(file.text, file.name, file.folder) == file


def test_where_points_at_a_key_that_turns_out_wrong_later():
    file = parse_sweep(DIGITS, "x.yaml", ".")
    assert file.where("spaces", "both", "lambda") == "x.yaml:21"
    assert file.where("data", "target") == "x.yaml:2", "an absent key is at its section"


def test_a_missing_file_is_named_with_its_nearest_neighbour(tmp_path: Path):
    (tmp_path / "digits.yaml").write_text(DIGITS, encoding="utf-8")
    with pytest.raises(SweepFileError) as caught:
        read_sweep(tmp_path / "digit.yaml")
    assert str(caught.value) == (
        f"{tmp_path / 'digit.yaml'}: there is no such file. Did you mean {tmp_path / 'digits.yaml'}?"
    )


def test_a_folder_and_a_binary_file_are_refused(tmp_path: Path):
    (tmp_path / "x.yaml").write_bytes(b"name: \xff")
    with pytest.raises(SweepFileError, match="not a text file in UTF-8"):
        read_sweep(tmp_path / "x.yaml")
    with pytest.raises(SweepFileError, match="can't be read: Is a directory"):
        read_sweep(tmp_path)


FINITE = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = st.none() | st.booleans() | st.integers() | FINITE | st.text("ab :#'-", max_size=5)
PLAIN = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("xyz", min_size=1), inner, max_size=3),
    max_leaves=8,
)


@given(PLAIN)
def test_the_tree_of_a_dump_is_what_was_dumped(value):
    assert read_tree(yaml.safe_dump(value)).value == value


@given(st.text(max_size=60))
def test_any_text_is_a_sweep_file_error_at_worst(text):
    with pytest.raises(SweepFileError):
        parse_sweep(text, "x.yaml", ".")


def places(value: object, at: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every place in a tree below its top."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, item in inner for place in [(*at, key), *places(item, (*at, key))]]


def planted(value: Any, at: tuple[str | int, ...], new: object) -> Any:
    """A tree with another value at one place."""
    if not at:
        return new
    changed_one = planted(value[at[0]], at[1:], new)
    if isinstance(value, list):
        return [changed_one if number == at[0] else item for number, item in enumerate(value)]
    return {**value, at[0]: changed_one}


def complaints(text: str) -> list[str]:
    try:
        parse_sweep(text, "x.yaml", ".")
    except SweepFileError as error:
        return str(error).splitlines()
    return []


RICH = changed(
    ("random", "{kind: tpe, group: false}"),
    ("keep_prob: shared", "keep_prob: {grouped: [[1, 2], [3]]}, start: [{ps: [0, 0.1, 0.1, 0.2], lambda: 1}]"),
)


@given(st.sampled_from(places(read_tree(RICH).value)), PLAIN)
def test_any_value_anywhere_is_read_or_refused_with_its_line(place, value):
    text = yaml.safe_dump(planted(read_tree(RICH).value, place, value), sort_keys=False)
    assert all(re.match(r"x\.yaml:\d+: .+\.$", line) for line in complaints(text)), complaints(text)
