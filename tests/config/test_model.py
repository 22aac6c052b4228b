"""What a valid sweep means: defaults, modes, starts, warnings; and what its sections refuse together."""

from __future__ import annotations

import inspect
from typing import get_args

import optuna
import pytest

from config.sweeps import changed, refused, space, sweep_with
from sweeper.config import Budget, CmaEs, Dimensions, Gp, Grid, Grouped, Mlp, Qmc, Random, Sweep, Tpe, parse_sweep
from sweeper.errors import SweepFileError
from sweeper.networks import ACTIVATIONS
from sweeper.records import Setting, Training

INPUT_RANGE = ("lambda: [1e-3, 30]", "lambda: [1e-3, 30]\n  input_keep_prob: [0.8, 1.0]")


def warned(*changes: tuple[str, str]) -> tuple[str, ...]:
    return parse_sweep(changed(*changes), "x.yaml", ".").warnings


def test_a_recorded_sweep_reads_back_as_itself():
    sweep = sweep_with(space("p: 0.3, start: [{ps: [0, 0.1, 0.2, 0.9], lambda: 2}]"), ("random", "tpe"))
    assert Sweep.model_validate(sweep.model_dump(by_alias=True)) == sweep
    assert Sweep.model_validate_json(sweep.model_dump_json(by_alias=True)) == sweep


def test_the_engine_is_told_how_to_train():
    sweep = sweep_with(("batch_size: 32", "optimizer: sgd\n  learning_rate: 1e-2\n  momentum: 0.9\n  patience: 3"))
    assert sweep.training == Training(40, 32, "sgd", 0.01, momentum=0.9, patience=3)


def test_adam_takes_no_momentum():
    assert refused(("batch_size: 32", "momentum: 0.9")) == (
        "x.yaml:8: train.momentum: adam has no momentum to set. Leave it out, or write optimizer: sgd."
    )


def test_every_activation_of_the_networks_can_be_asked_for():
    assert set(get_args(Mlp.model_fields["activation"].annotation)) == set(ACTIVATIONS)


# Samplers


@pytest.mark.parametrize(
    ("sampler", "optunas"),
    [
        (Tpe(kind="tpe", n_startup_trials=10), optuna.samplers.TPESampler),
        (Gp(kind="gp"), optuna.samplers.GPSampler),
        (CmaEs(kind="cmaes"), optuna.samplers.CmaEsSampler),
        (Qmc(kind="qmc"), optuna.samplers.QMCSampler),
    ],
)
def test_sampler_defaults_are_optunas(sampler, optunas):
    parameters = inspect.signature(optunas.__init__).parameters
    for name, value in sampler.model_dump(exclude={"kind"}).items():
        optunas_default = parameters[name].default
        if name == "multivariate":  # None means True for one objective
            assert optunas_default is None
            optunas_default = True
        if name == "scramble":  # Optuna's unscrambled points would be the same in every replicate
            assert optunas_default is False
            optunas_default = True
        assert value == optunas_default, name


def test_a_sampler_is_its_name_or_a_mapping_with_arguments():
    by_name, by_mapping = sweep_with(("random", "grid")), sweep_with(("random", "{kind: grid, points: 5}"))
    assert by_name == by_mapping
    assert by_name.search.sampler == Grid(kind="grid", points=5)
    assert sweep_with().search.sampler == Random(kind="random")


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        ("{kind: tpe, n_startup_trials: -1}", "search.sampler.n_startup_trials = -1 should be greater than or equal"),
        ("{kind: cmaes, popsize: 3}", "search.sampler.popsize = 3 should be greater than or equal to 4"),
        ("{kind: grid, points: 1}", "search.sampler.points = 1 should be greater than or equal to 2"),
        ("[tpe]", "search.sampler = ['tpe'] should be a name, or {kind: NAME, ...}"),
    ],
)
def test_samplers_refuse_what_optuna_would(sampler, message):
    assert message in refused(("random", sampler))


@pytest.mark.parametrize(("sampler", "mode"), [("random", "measurement"), ("tpe", "product"), ("qmc", "product")])
def test_only_independent_draws_measure(sampler, mode):
    assert sweep_with(("random", sampler)).mode == mode


def test_switches_that_cma_es_cannot_search_are_warned_of():
    assert warned(("random", "cmaes"), space("keep_prob: masked")) == (
        "x.yaml:18: spaces.shared: CMA-ES can't search on/off switches, so the 3 of this space are drawn at random. "
        "Use tpe, gp or random.",
    )
    assert warned(("random", "cmaes")) == ()


def test_grids_that_do_not_match_the_budget_are_warned_of():
    assert warned(("random", "{kind: grid, points: 2}")) == (
        "x.yaml:18: spaces.shared: its grid has 2 points, fewer than the 32 trials of search.trials. Add points.",
        "x.yaml:19: spaces.both: its grid has 128 points, of which 32 trials see a random few. Take fewer points.",
    )


# Budgets


def budget(text: str) -> tuple[str, str]:
    return ("trials: 32", f"trials: 32\n  budget: {text}")


def test_a_budget_caps_what_it_names_and_nothing_else():
    assert sweep_with().search.budget == Budget() == Budget(device_seconds=None, joules=None)
    assert sweep_with(budget("{device_seconds: 3600}")).search.budget == Budget(device_seconds=3600.0)
    assert sweep_with(budget("{joules: 1.0e+6, device_seconds: 0.5}")).search.budget == Budget(
        device_seconds=0.5, joules=1e6
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{device_seconds: 0}", "x.yaml:12: search.budget.device_seconds = 0 should be greater than 0 (seconds of"),
        ("{joules: -1.5}", "x.yaml:12: search.budget.joules = -1.5 should be greater than 0 (the same of"),
        ("{joules: true}", "x.yaml:12: search.budget.joules = true should be a number (the same of"),
        ("{device_seconds: .inf}", "x.yaml:12: search.budget.device_seconds = '.inf' should be a number (seconds"),
        ("{device_second: 3}", "unknown key 'device_second' in search.budget. Did you mean 'device_seconds'? Known"),
        ("3600", "x.yaml:12: search.budget = 3600 should be a mapping of keys to values"),
        ("null", "x.yaml:12: search.budget = null should be a mapping of keys to values"),
    ],
)
def test_a_budget_is_a_positive_number_of_what_is_measured(text, message):
    assert message in refused(budget(text))


# Spaces


@pytest.mark.parametrize(
    ("text", "numbers", "switches"),
    [
        ("keep_prob: 0.5, lambda: 1", 0, 0),
        ("keep_prob: shared", 1, 0),
        ("keep_prob: masked", 1, 3),
        ("keep_prob: per_layer", 3, 0),
        ("keep_prob: {grouped: [[1, 3], [2]]}", 2, 0),
        ("lambda: masked", 1, 4),
        ("lambda: per_layer", 4, 0),
        ("lambda: {grouped: [[1, 2, 3, 4]]}", 1, 0),
        ("keep_prob: masked, lambda: per_layer", 5, 3),
        ("keep_prob: shared, placebo: 3", 4, 0),
        ("placebo: 2", 2, 0),
    ],
)
def test_a_space_has_as_many_hyperparameters_as_it_says(text, numbers, switches):
    assert sweep_with(space(text)).dimensions("shared", 4) == Dimensions(numbers, switches)


@pytest.mark.parametrize(
    ("changes", "becomes"),
    [
        pytest.param([space("keep_prob: shared")], 1.0, id="fixed at 1.0 by default (R4)"),
        pytest.param([space("keep_prob: shared"), INPUT_RANGE], "searched", id="a range is searched"),
        pytest.param([space("keep_prob: 0.5"), INPUT_RANGE], 1.0, id="but not where no keep_prob is"),
        pytest.param([space("lambda: shared, input_keep_prob: searched"), INPUT_RANGE], "searched", id="unless asked"),
        pytest.param([space("keep_prob: shared, input_keep_prob: 0.9"), INPUT_RANGE], 0.9, id="a space fixes its own"),
    ],
)
def test_the_input_is_kept_as_the_space_or_the_ranges_say(changes, becomes):
    sweep = sweep_with(*changes)
    assert sweep.input_keep_prob("shared") == becomes
    assert sweep.dimensions("shared", 4).numbers == (sweep.spaces["shared"].keep_prob == "shared") + (
        becomes == "searched"
    ) + (sweep.spaces["shared"].lambda_ == "shared")


def test_a_searched_input_needs_a_range():
    assert refused(space("input_keep_prob: searched")) == (
        "x.yaml:18: spaces.shared.input_keep_prob: ranges.input_keep_prob fixes it at 1.0. "
        "Give a range there, e.g. [0.8, 1.0]."
    )


@pytest.mark.parametrize("text", ["input_keep_prob: [0.5, 1.0]", "input_keep_prob: 0.5"])
def test_an_input_that_is_hardly_kept_is_warned_of(text):
    """R4: 1.0 is most common, 0.9 sometimes, never near a half."""
    assert warned(("lambda: [1e-3, 30]", text)) == (
        "x.yaml:15: ranges.input_keep_prob: keeps as little as 0.5 of the input. 1.0 is usual for an input and 0.9 is "
        "seen; consider 0.8 or more.",
    )
    assert warned(INPUT_RANGE) == ()
    assert len(warned(space("input_keep_prob: 0.7"))) == 1


def test_groups_are_read():
    assert sweep_with(space("keep_prob: {grouped: [[1, 2], [3]]}")).spaces["shared"].keep_prob == Grouped(
        grouped=((1, 2), (3,))
    )


def test_lambda_has_one_layer_more_to_group_than_keep_prob():
    sweep_with(space("lambda: {grouped: [[1, 2], [3, 4]]}"))
    assert "there is no layer 5; this model's weight layers are numbered 1 to 4" in refused(
        space("lambda: {grouped: [[1, 2], [3, 4, 5]]}")
    )


def test_a_network_without_hidden_layers_has_only_its_input_to_drop():
    assert "spaces.both.keep_prob: this model has no hidden layer" in refused(("[64, 64, 64]", "[]"))


def test_a_sweep_needs_a_space():
    text = changed().partition("spaces:")[0] + "spaces: {}\n"
    with pytest.raises(SweepFileError, match=r"x\.yaml:16: spaces: name at least one space"):
        parse_sweep(text, "x.yaml", ".")


def test_p_is_the_complement_of_keep_prob_where_it_is_written():
    assert sweep_with(space("p: 0.9")).spaces["shared"].keep_prob == 0.1, "as one would write it, not 0.0999..."


# Starts


@pytest.mark.parametrize(
    ("start", "keep_prob"),
    [
        ("keep_prob: [0.9, 0.7, 0.5, 0.6]", (0.9, 0.7, 0.5, 0.6)),
        ("keep_prob: [0.9, 0.7, 0.5, 0.6, 1.0]", (0.9, 0.7, 0.5, 0.6)),
        ("ps: [0.1, 0.3, 0.5, 0.4]", (0.9, 0.7, 0.5, 0.6)),
        ("ps: [0.1, 0.3, 0.5, 0.4, 0]", (0.9, 0.7, 0.5, 0.6)),
        ("keep_prob: 0.5", (1.0, 0.5, 0.5, 0.5)),
        ("p: 0.2", (1.0, 0.8, 0.8, 0.8)),
    ],
)
def test_a_start_is_written_out_for_every_layer(start, keep_prob):
    sweep = sweep_with(space(f"keep_prob: per_layer, start: [{{{start}}}]"))
    assert sweep.starts("shared", 4) == (Setting(keep_prob, (0.0,) * 4),)


def test_a_start_takes_what_the_space_fixes():
    sweep = sweep_with(
        space("keep_prob: 0.5, lambda: shared, input_keep_prob: 0.9, start: [{lambda: 3}, {lambda: [1, 2, 3, 4]}]")
    )
    kept = (0.9, 0.5, 0.5, 0.5)
    assert sweep.starts("shared", 4) == (Setting(kept, (3.0,) * 4), Setting(kept, (1.0, 2.0, 3.0, 4.0)))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (
            "{ps: [0, 0.5]}",
            "keep_prob has 2 values, but this model takes 4 (the input and 3 hidden layers), or 5 with the output's "
            "1.0 at the end.",
        ),
        (
            "{keep_prob: [1, 1, 1, 1, 0.5]}",
            "keep_prob ends with 0.5 for the output, but the output is never dropped. Write 1.0 (p: 0) there, or leave "
            "it out.",
        ),
        ("{keep_prob: 1, lambda: [1, 2]}", "lambda has 2 values, but this model has 4 weight layers."),
        ("{}", "this space searches keep_prob, so each start must say what keep_prob it starts from."),
    ],
)
def test_a_start_that_does_not_fit_the_model_is_refused(start, message):
    found = refused(space(f"keep_prob: per_layer, start: [{{keep_prob: 0.5}}, {start}]"))
    assert found == f"x.yaml:18: spaces.shared.start[1]: {message}"


# Data


@pytest.mark.parametrize(
    ("text", "shares"),
    [
        ("", (0.6, 0.5, None)),
        (", train: 100", (100, 0.5, None)),
        (", folds: 5", (None, None, 0.2)),
        (", folds: 5, train: 0.5, test: 50", (0.5, None, 50)),
    ],
)
def test_default_shares_are_written_out(text, shares):
    data = sweep_with((", train: 300, validation: 0.5", text)).data
    assert (data.train, data.validation, data.test) == shares


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "folds: 5, validation: 0.5",
            "data.validation: with folds, each fold validates in turn. Leave validation out.",
        ),
        ("folds: 1", "data.folds = 1 should be greater than or equal to 2"),
        ("test: 0.2", "data.test: without folds, the test rows are those that train and validation leave."),
        ("train: null", "data.train: without folds, give the rows to train on."),
        ("columns: []", "data.columns = [] "),
        ("columns: [a, b, a]", "data.columns: named more than once: a. Name each column once."),
        ("target: a, columns: [a, b]", "data.columns: 'a' is the target and would give its own answer away."),
        ("task: guess", "data.task = 'guess' is not known. Known: auto, classification, regression."),
        ("train: 0", "data.train = 0 should be greater than or equal to 1"),
        ("train: true", "data.train = true should be a whole number of rows, or a fraction between 0 and 1"),
    ],
)
def test_a_division_that_makes_no_sense_is_refused(text, message):
    assert message in refused((", train: 300, validation: 0.5", f", {text}"))


@pytest.mark.parametrize("scheme", ["csv", "parquet"])
def test_files_need_a_target(scheme):
    assert refused(("sklearn:digits", f"{scheme}:rows.x")) == (
        f"x.yaml:2: data: {scheme}:rows.x needs a target: the name of the column to predict."
    )
    assert sweep_with(('sklearn:digits"', f'{scheme}:rows.x", target: y')).data.target == "y"
