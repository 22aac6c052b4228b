"""A sweep file made concrete: its seeds, its studies' turns, its plan, and what may change about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from small import FOLDS, START, TPE, Change, small_workload, write_sweep
from sweeper.config import CmaEs, Gp, Grid, Qmc, Random, Tpe, read_sweep
from sweeper.construction import Access
from sweeper.errors import SweepFileError
from sweeper.records import Setting
from sweeper.search import KINDS, SamplerSpec
from sweeper.seeds import fit_seed, seed_of, study_seed
from sweeper.workload import differences, enqueued, workload_of

NORMALISED = """\
from torch import nn


def net(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, outputs))
"""
GRID: Change = ("sampler: random, trials: 5", "sampler: {kind: grid, points: 3}, trials: 500")


def refused(folder: Path, *changes: Change) -> str:
    with pytest.raises(SweepFileError) as caught:
        workload_of(read_sweep(write_sweep(folder, *changes)))
    return str(caught.value)


def changes_between(folder: Path, *changes: Change) -> list[str]:
    old, new = (small_workload(folder, *each).plan({}).config for each in ((), changes))
    return differences(old, new)


# seeds ----------------------------------------------------------------------------------------------------------------


def test_seeds_stay_what_they_were():
    """Written down once: another value would make finished sweeps irreproducible."""
    assert seed_of("a", 1) == 6_431_086_039_603_022_688
    assert fit_seed(0, 1, 2, 3) == 2_722_712_630_411_258_638
    assert study_seed(0, 1) == 8_888_804_895_262_825_512


def test_fits_of_a_sweep_have_seeds_of_their_own():
    places = [(s, r, n, f) for s in range(2) for r in range(3) for n in range(20) for f in range(3)]
    seeds = {fit_seed(*place) for place in places}
    assert len(seeds) == len(places)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_numbers_side_by_side_are_not_taken_for_each_other():
    assert fit_seed(1, 11, 1, 1) != fit_seed(1, 1, 11, 1) != fit_seed(11, 1, 1, 1)


# studies --------------------------------------------------------------------------------------------------------------


def test_every_space_has_a_study_in_every_replicate(tmp_path: Path):
    studies = small_workload(tmp_path).studies()
    assert {(study.space, study.replicate) for study in studies} == {(s, r) for s in ("shared", "both") for r in (0, 1)}
    assert {study.space: study.dimensions for study in studies} == {"shared": 1, "both": 5}
    assert {study.trials for study in studies} == {5}


def test_a_placebo_is_the_space_it_is_added_to_and_parameters_that_do_nothing(tmp_path: Path):
    both = ("spaces:", "spaces:\n  placebo: {keep_prob: shared, placebo: 3}")
    workload = small_workload(tmp_path, both)
    shared, placebo = workload.spaces["shared"], workload.spaces["placebo"]
    assert [one.name for one in placebo.parameters] == ["keep_prob", "placebo_1", "placebo_2", "placebo_3"]
    shapes = workload.shapes()
    assert shapes["placebo"].is_placebo_of(shapes["shared"])
    drawn = [workload.proposer(space.name, 5) for space in (shared, placebo)]
    for _ in range(4):
        settings = [space.setting(one.ask().params) for space, one in zip((shared, placebo), drawn, strict=True)]
        assert settings[0] == settings[1]


def test_spaces_of_one_replicate_share_the_seed_of_their_suggestions(tmp_path: Path):
    seeds = {(study.space, study.replicate): study.seed for study in small_workload(tmp_path).studies()}
    assert seeds["shared", 0] == seeds["both", 0] != seeds["shared", 1] == seeds["both", 1]


def test_turns_are_drawn_from_the_seed_so_that_spaces_interleave(tmp_path: Path):
    replicates = ("replicates: 2", "replicates: 12")
    studies = small_workload(tmp_path, replicates).studies()
    in_turn = [study.space for study in sorted(studies, key=lambda study: study.turn)]
    assert sorted(study.turn for study in studies) == list(range(24))
    assert 3 <= in_turn[:12].count("shared") <= 9
    again = small_workload(tmp_path, replicates).studies()
    other = small_workload(tmp_path, replicates, ("name: small", "name: small\nseed: 1")).studies()
    assert [study.turn for study in studies] == [study.turn for study in again]
    assert [study.turn for study in studies] != [study.turn for study in other]


def test_a_grids_budget_is_its_size(tmp_path: Path):
    trials = {study.space: study.trials for study in small_workload(tmp_path, GRID).studies()}
    assert trials == {"shared": 3, "both": 3**5}


def test_starts_come_on_top_of_a_grid(tmp_path: Path):
    studies = small_workload(tmp_path, GRID, START).studies()
    assert {study.trials for study in studies if study.space == "shared"} == {4}


def test_the_plan_keeps_the_file_the_data_and_every_argument_of_the_sampler(tmp_path: Path):
    workload = small_workload(tmp_path, TPE)
    plan = workload.plan({"compiled": False})
    assert (plan.name, plan.mode, plan.numerics) == ("small", "product", {"compiled": False})
    assert plan.file_text == (tmp_path / "small.yaml").read_text()
    assert plan.data_sha256 == workload.table.sha256
    arguments = plan.studies[0].sampler["arguments"]
    assert plan.studies[0].sampler["kind"] == "tpe"
    assert arguments["n_startup_trials"] == 2
    assert {"multivariate", "n_ei_candidates"} <= arguments.keys()  # left at their defaults, and still on record


# folds ----------------------------------------------------------------------------------------------------------------


def test_a_single_division_makes_one_fit_per_trial(tmp_path: Path):
    workload = small_workload(tmp_path)
    assert workload.folds_per_trial == 1
    assert [len(workload.folds[0][0].y_train), len(workload.folds[0][0].y_validation)] == [24, 18]


def test_k_folds_make_k_fits_per_trial_each_found_among_all_folds(tmp_path: Path):
    workload = small_workload(tmp_path, FOLDS)
    assert (workload.folds_per_trial, len(workload.engine_folds)) == (3, 6)
    for replicate, folds in enumerate(workload.folds):
        for number, fold in enumerate(folds):
            assert workload.engine_folds[workload.fold_index(replicate, number)] is fold


def test_replicates_divide_the_rows_differently(tmp_path: Path):
    first, second = (folds[0] for folds in small_workload(tmp_path).folds)
    assert not np.array_equal(first.x_train, second.x_train)


def test_the_network_has_the_datas_inputs_and_classes(tmp_path: Path):
    workload = small_workload(tmp_path)
    assert workload.blueprint.sizes == (4, 6, 5, 3)
    assert [tuple(weight.shape) for weight in workload.build().parameters() if weight.ndim == 2] == [
        (6, 4),
        (5, 6),
        (3, 5),
    ]


# starts ---------------------------------------------------------------------------------------------------------------


def test_starts_are_handed_out_in_their_order_and_then_the_sampler_draws(tmp_path: Path):
    two = ("start: [{keep_prob: 0.5}]", "start: [{keep_prob: 0.5}, {keep_prob: 0.25}]")
    workload = small_workload(tmp_path, START, two)
    handed = [enqueued(workload.spaces["shared"], workload.starts("shared"), number) for number in range(3)]
    assert handed == [{"keep_prob": 0.5}, {"keep_prob": 0.25}, None]
    assert workload.starts("both") == ()
    assert workload.starts("shared")[0] == Setting((1.0, 0.5, 0.5), (0.0, 0.0, 0.0))


# errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "line", "says"),
    [
        pytest.param(("npz:rows.npz", "npz:row.npz"), 2, "Did you mean rows.npz?", id="data that are not there"),
        pytest.param(("train: 24", "train: 60"), 2, "60 rows can't give", id="rows that are not there"),
        pytest.param(("train: 24", "columns: [x9], train: 24"), 2, "has no column 'x9'", id="a column that is not"),
    ],
)
def test_what_only_the_data_show_to_be_wrong_names_file_and_line(tmp_path: Path, change: Change, line: int, says: str):
    message = refused(tmp_path, change)
    assert message.startswith(f"{tmp_path / 'small.yaml'}:{line}: ")
    assert says in message


def test_a_start_that_its_space_cannot_reach_names_file_and_line(tmp_path: Path):
    message = refused(tmp_path, START, ("start: [{keep_prob: 0.5}]", "start: [{keep_prob: [1.0, 0.5, 0.9]}]"))
    assert message.startswith(f"{tmp_path / 'small.yaml'}:8: ")
    assert "shared" in message


def test_a_batch_of_a_single_row_is_refused_where_the_network_normalises_batches(tmp_path: Path):
    (tmp_path / "b_work.py").write_text(NORMALISED)
    change = ("{kind: mlp, hidden: [6, 5]}", "{kind: python:b_work:net}")
    file = read_sweep(write_sweep(tmp_path, change, ("batch_size: 8", "batch_size: 23")))
    with pytest.raises(SweepFileError) as caught:
        workload_of(file, Access(frozenset({"b_work"})))
    assert str(caught.value).startswith(
        f"{tmp_path / 'small.yaml'}:4: train.batch_size: 24 training rows in batches of 23"
    )


def test_spaces_are_judged_by_the_layers_that_the_built_network_has(tmp_path: Path):
    (tmp_path / "b_work.py").write_text(NORMALISED)
    change = ("{kind: mlp, hidden: [6, 5]}", "{kind: python:b_work:net}")
    grouped = ("shared: {keep_prob: shared}", "shared: {keep_prob: {grouped: [[1, 2]]}}")
    with pytest.raises(SweepFileError) as caught:
        workload_of(read_sweep(write_sweep(tmp_path, change, grouped)), Access(frozenset({"b_work"})))
    assert str(caught.value) == (
        f"{tmp_path / 'small.yaml'}:8: spaces.shared.keep_prob.grouped: there is no layer 2; this model's hidden "
        "layers are numbered 1 to 1, and each must stand in exactly one group."
    )


# changes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param([], id="nothing"),
        pytest.param([("trials: 5", "trials: 6")], id="more trials"),
        pytest.param([("replicates: 2", "replicates: 3")], id="more replicates"),
        pytest.param([("  both:", "  none: {}\n  both:")], id="another space"),
        pytest.param([("trials: 5", "trials: 5, budget: {}")], id="a budget that caps nothing"),
        pytest.param([("name: small", "# a comment\nname:   small")], id="only its looks"),
    ],
)
def test_a_sweep_may_be_extended(tmp_path: Path, changes: list[Change]):
    assert changes_between(tmp_path, *changes) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(
            ("trials: 5", "trials: 4"), "search.trials: 5 -> 4, but a sweep can only be extended", id="fewer trials"
        ),
        pytest.param(
            ("replicates: 2", "replicates: 1"),
            "search.replicates: 2 -> 1, but a sweep can only be extended",
            id="fewer replicates",
        ),
        pytest.param(("  shared: {keep_prob: shared}\n", ""), "spaces.shared was taken out", id="a space less"),
        pytest.param(("epochs: 4", "epochs: 9"), "train.epochs: 4 -> 9", id="a value"),
        pytest.param(("hidden: [6, 5]", "hidden: [6, 6]"), "model.hidden: [6, 5] -> [6, 6]", id="a list"),
        pytest.param(("name: small", "name: small\nseed: 3"), "seed: 0 -> 3", id="a default written over"),
        pytest.param(
            ("shared: {keep_prob: shared}", "shared: {keep_prob: masked}"),
            "spaces.shared.keep_prob: shared -> masked",
            id="a space's way",
        ),
        pytest.param(("sampler: random", "sampler: tpe"), "search.sampler.kind: random -> tpe", id="another sampler"),
    ],
)
def test_any_other_change_is_named(tmp_path: Path, change: Change, says: str):
    assert says in changes_between(tmp_path, change)


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        pytest.param("device_seconds: 9", "device_seconds: 9.5", [], id="more"),
        pytest.param("device_seconds: 9", "", [], id="none any more"),
        pytest.param(
            "device_seconds: 9, joules: 4",
            "device_seconds: 8, joules: 5",
            ["search.budget.device_seconds: 9.0 -> 8.0, but a sweep can only be extended"],
            id="less",
        ),
        pytest.param(
            "device_seconds: 9",
            "device_seconds: 9, joules: 5",
            ["search.budget.joules: None -> 5.0, but a sweep can only be extended"],
            id="another",
        ),
    ],
)
def test_a_budget_may_only_grow(tmp_path: Path, before: str, after: str, says: list[str]):
    old, new = (
        small_workload(tmp_path, ("trials: 5", f"trials: 5, budget: {{{limits}}}")).plan({}).config
        for limits in (before, after)
    )
    assert differences(old, new) == says


def test_a_sweep_that_was_launched_before_a_key_existed_goes_on(tmp_path: Path):
    """Its recorded config knows neither the key nor the network; both count as what they are by default."""
    new = small_workload(tmp_path).plan({}).config
    train = {key: value for key, value in new["train"].items() if key != "precision"}
    spaces = {name: {key: v for key, v in space.items() if key != "placebo"} for name, space in new["spaces"].items()}
    old = {key: value for key, value in new.items() if key != "network"} | {"train": train, "spaces": spaces}
    assert differences(old, new) == []
    added = small_workload(tmp_path, ("{keep_prob: shared}", "{keep_prob: shared, placebo: 1}")).plan({}).config
    assert differences(old, added) == ["spaces.shared.placebo: 0 -> 1"]
    bf16 = small_workload(tmp_path, ("epochs: 4", "epochs: 4, precision: bfloat16")).plan({}).config
    assert differences(old, bf16) == ["train.precision: float32 -> bfloat16"]


def network(**changes: Any) -> dict[str, Any]:
    layer = {"name": "conv1", "outputs": 8, "kind": "channels", "shape": [8, 1, 3, 3], "runs": 1}
    return {"task": "binary", "inputs": 4, "layers": [layer], "marks": {"code": "a", "weights": "b"}, **changes}


@pytest.mark.parametrize(
    ("other", "says"),
    [
        pytest.param({}, [], id="nothing"),
        pytest.param(
            {"marks": {"code": "c", "weights": "b"}},
            ["model: its code is not what the sweep was launched with"],
            id="code",
        ),
        pytest.param(
            {"marks": {"code": "a", "weights": "c"}},
            ["model.weights: the file's content is not what the sweep was launched with"],
            id="weights",
        ),
        pytest.param(
            {"inputs": 5}, ["model: 4 inputs | conv1 8 outputs -> 5 inputs | conv1 8 outputs"], id="the network's shape"
        ),
    ],
)
def test_what_the_file_only_names_may_not_change_either(other: dict[str, Any], says: list[str]):
    assert differences({"network": network()}, {"network": network(**other)}) == says


def test_differences_come_in_one_order_whatever_the_hashes():
    old = {"a": {"x": 1, "y": 2, "z": 3}, "b": 1}
    new = {"a": {"x": 2, "y": 3, "w": 3}, "b": 2}
    assert differences(old, new) == ["a.x: 1 -> 2", "a.y: 2 -> 3", "a.z was taken out", "a.w is new", "b: 1 -> 2"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_argument_that_a_sweep_file_takes_is_one_that_the_search_knows(kind: str) -> None:
    (section,) = [model for model in (CmaEs, Gp, Grid, Qmc, Random, Tpe) if model.__name__.lower() == kind]
    given = section(kind=kind).model_dump(exclude={"kind"}, exclude_none=True)
    assert dict(SamplerSpec(kind, given).arguments) == given


def test_only_layers_that_no_space_drops_need_no_masks(tmp_path: Path):
    assert small_workload(tmp_path).undropped == {0}
    none = ("  both: {keep_prob: per_layer, lambda: per_layer}", "  both: {lambda: per_layer}")
    assert small_workload(tmp_path, none).undropped == {0}
    nowhere = ("shared: {keep_prob: shared}", "shared: {}")
    assert small_workload(tmp_path, nowhere, none).undropped == {0, 1, 2}
    dropped_input = ("shared: {keep_prob: shared}", "shared: {keep_prob: shared, input_keep_prob: 0.9}")
    assert small_workload(tmp_path, dropped_input).undropped == frozenset()
