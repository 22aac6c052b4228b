from __future__ import annotations

import math
from dataclasses import replace

import pytest

from sweeper.export import (
    StudyName,
    TrialReport,
    cost_metrics,
    from_json,
    setting_params,
    study_run,
    sweep_experiment,
    sweep_run,
    to_json,
    trial_run,
)
from sweeper.records import Cost, FitResult, Outcome, Score, Setting, Task, TrialState

STUDY = StudyName("digits", "1a2b3c4d", "per_layer", 3)
SETTING = Setting(keep_prob=(1.0, 0.8123456789012345), lambda_=(0.0, 0.1))
COST = Cost(steps=10, epochs=2, examples=300, flops=10**12, train_s=1.5, evaluate_s=0.5, suggest_s=0.1)


def fit(first: float, epochs: int, outcome: Outcome = Outcome.FINISHED) -> FitResult:
    scores = tuple(
        Score(e, first + e, first + 10 * e, first + 100 * e, 0.1 * e, 0.2 * e, int(1_000 * first) + e)
        for e in range(1, epochs + 1)
    )
    return FitResult("k", outcome, epochs, 0.5, first, 0.9, first + 1, 0.8, (first, 2.0), scores, COST)


def report(*fits: FitResult, state: TrialState = TrialState.COMPLETE) -> TrialReport:
    drawn = {"keep_prob_1": 0.8123456789012345, "drop_2": True, "lambda": 0.1}
    return TrialReport(12, state, SETTING, drawn, fits, COST, 5_000, 9_000, "host:1", "cpu", {"git": "abc"})


def test_params_show_the_whole_setting_layer_by_layer_and_the_samplers_other_names() -> None:
    assert setting_params(SETTING, {"keep_prob_1": 0.8123456789012345, "drop_2": True, "lambda": 0.1}) == {
        "keep_prob_0": "1.0",
        "keep_prob_1": "0.8123456789012345",
        "lambda_1": "0.0",
        "lambda_2": "0.1",
        "drop_2": "true",
        "lambda": "0.1",
    }


def test_a_trial_of_one_fold_shows_its_fits_own_numbers() -> None:
    run = trial_run(STUDY, report(fit(0.25, 3)), Task.MULTICLASS)
    assert run.uid == "digits-1a2b3c4d/per_layer/r03/t0012"
    assert run.parent == STUDY.uid == "digits-1a2b3c4d/per_layer/r03"
    assert run.experiment == sweep_experiment("digits")
    assert (run.status, run.start_ms, run.end_ms) == ("FINISHED", 5_000, 9_000)
    assert run.epoch_ms == (251, 252, 253)
    assert run.curves == {
        "train_loss": (10.25, 20.25, 30.25),
        "train_loss_dropped": (1.25, 2.25, 3.25),
        "validation_loss": (100.25, 200.25, 300.25),
        "train_accuracy": (0.1, 0.2, 0.1 * 3),
        "validation_accuracy": (0.2, 0.4, 0.2 * 3),
    }
    best = {key: value for key, value in run.metrics.items() if not key.startswith("cost.")}
    assert best == {
        "best.epoch": 3.0,
        "best.train_loss": 0.5,
        "best.validation_loss": 0.25,
        "best.validation_accuracy": 0.9,
        "best.test_loss": 1.25,
        "best.test_accuracy": 0.8,
        "squared_norm_1": 0.25,
        "squared_norm_2": 2.0,
    }


def test_curves_of_several_folds_are_means_while_all_folds_run() -> None:
    run = trial_run(STUDY, report(fit(1.0, 3), fit(2.0, 2)), Task.MULTICLASS)
    assert run.curves["validation_loss"] == (101.5, 201.5)
    assert run.epoch_ms == (2_001, 2_002)
    assert run.metrics["best.validation_loss"] == 1.5
    assert run.metrics["best.epoch"] == 2.5
    assert [run.metrics[f"fold_{i}.validation_loss"] for i in (0, 1)] == [1.0, 2.0]
    assert run.metrics["squared_norm_1"] == 1.5


def test_regression_speaks_of_rmse() -> None:
    run = trial_run(STUDY, report(fit(1.0, 1)), Task.REGRESSION)
    assert {"train_rmse", "validation_rmse"} <= run.curves.keys()
    assert "best.test_rmse" in run.metrics
    assert not any("accuracy" in key for key in (*run.curves, *run.metrics))


@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("task", Task)
def test_no_final_metric_shares_its_key_with_a_curve(folds: int, task: Task) -> None:
    run = trial_run(STUDY, report(*[fit(1.0, 2)] * folds), task)
    assert run.curves.keys().isdisjoint(run.metrics)


def test_costs_are_metrics_and_device_seconds_are_training_and_evaluation() -> None:
    metrics = cost_metrics(COST)
    assert metrics["cost.device_s"] == 2.0
    assert metrics["cost.flops"] == 1e12
    assert set(metrics) == {"cost.device_s"} | {f"cost.{name}" for name in Cost.__slots__ if name != "joules"}


@pytest.mark.parametrize("joules", [None, math.nan])
def test_energy_is_a_metric_where_it_was_measured_and_never_zero_for_want_of_it(joules: float | None) -> None:
    assert cost_metrics(replace(COST, joules=17.5))["cost.joules"] == 17.5
    assert cost_metrics(replace(COST, joules=0.0))["cost.joules"] == 0.0
    assert "cost.joules" not in cost_metrics(replace(COST, joules=joules))
    trial = trial_run(STUDY, replace(report(fit(0.25, 1)), cost=replace(COST, joules=17.5)), Task.MULTICLASS)
    assert trial.metrics["cost.joules"] == 17.5


def test_tags_say_where_a_trial_belongs_and_who_did_it() -> None:
    tags = trial_run(STUDY, report(fit(0.25, 3)), Task.MULTICLASS).tags
    note = tags.pop("mlflow.note.content")
    assert tags == {
        "git": "abc",
        "mlflow.source.name": "sweeper",
        "sweeper.kind": "trial",
        "sweeper.sweep": "digits",
        "sweeper.space": "per_layer",
        "sweeper.replicate": "3",
        "sweeper.trial": "12",
        "sweeper.state": "COMPLETE",
        "sweeper.outcome": Outcome.FINISHED.value,
        "sweeper.uid": "digits-1a2b3c4d/per_layer/r03/t0012",
        "sweeper.worker": "host:1",
        "sweeper.device": "cpu",
    }
    assert note == (
        "Validation loss 0.25 at epoch 3; there test loss 1.25, test accuracy 0.8. It took 2 device-seconds."
    )


@pytest.mark.parametrize(
    ("state", "status"),
    [(TrialState.COMPLETE, "FINISHED"), (TrialState.PRUNED, "FINISHED"), (TrialState.FAIL, "FAILED")],
)
def test_a_trials_state_becomes_mlflows_status_and_stays_a_tag(state: TrialState, status: str) -> None:
    run = trial_run(STUDY, report(fit(0.25, 1), state=state), Task.MULTICLASS)
    assert (run.status, run.tags["sweeper.state"]) == (status, state.value)


def test_a_pruned_trial_says_why_and_nothing_about_the_test_rows() -> None:
    early = replace(fit(0.25, 3), outcome=Outcome.STOPPED_EARLY)
    pruned = replace(fit(0.5, 4), outcome=Outcome.PRUNED, test_loss=math.nan, test_metric=math.nan)
    why = "pruned at epoch 4: 0.375 is not the best of 2 trials"
    trial = replace(report(early, pruned, state=TrialState.PRUNED), error=why)
    run = trial_run(STUDY, trial, Task.MULTICLASS)
    assert not [key for key in run.metrics if "test" in key]
    assert run.metrics["best.validation_loss"] == 0.375
    assert (run.status, run.tags["sweeper.outcome"]) == (
        "FINISHED",
        f"{Outcome.STOPPED_EARLY.value}; {Outcome.PRUNED.value}",
    )
    assert run.tags["mlflow.note.content"].startswith(f"P{why[1:]}. Its lowest validation loss so far came at epoch ")


def test_a_trial_that_failed_before_any_fit_ended_shows_its_setting_and_costs() -> None:
    run = trial_run(STUDY, report(state=TrialState.FAIL), Task.MULTICLASS)
    assert run.params["keep_prob_0"] == "1.0"
    assert (run.curves, run.epoch_ms) == ({}, ())
    assert set(run.metrics) == set(cost_metrics(COST))
    assert "before any fit did" in run.tags["mlflow.note.content"]


def test_a_diverged_fit_keeps_its_nan_and_says_how_it_ended() -> None:
    diverged = replace(fit(1.0, 2, Outcome.DIVERGED), validation_loss=math.nan)
    run = trial_run(STUDY, report(fit(1.0, 2), diverged), Task.MULTICLASS)
    assert math.isnan(run.metrics["best.validation_loss"])
    assert run.tags["sweeper.outcome"] == f"{Outcome.FINISHED.value}; {Outcome.DIVERGED.value}"


def test_a_study_runs_and_then_ends_under_one_uid() -> None:
    start = study_run(STUDY, start_ms=1, params={"sampler": "tpe", "trials": 32}, note="**Why**")
    end = study_run(STUDY, start_ms=1, end_ms=2, metrics={"best.validation_loss": 0.1})
    assert start.uid == end.uid == start.tags["sweeper.uid"]
    assert (start.status, start.end_ms) == ("RUNNING", None)
    assert (end.status, end.end_ms) == ("FINISHED", 2)
    assert start.params == {"sampler": "tpe", "trials": "32"}
    assert start.tags["mlflow.note.content"] == "**Why**"
    assert "mlflow.note.content" not in end.tags


def test_a_sweep_s_run_holds_its_studies_and_each_says_what_it_is() -> None:
    start = sweep_run("digits", "digits-1a2b3c4d", start_ms=1, params={"seed": 0})
    end = sweep_run("digits", "digits-1a2b3c4d", start_ms=1, end_ms=2, metrics={"trials": 3.0})
    study, trial = study_run(STUDY, start_ms=1), trial_run(STUDY, report(fit(0.1, 1)), Task.BINARY)
    assert (start.parent, study.parent, trial.parent) == (None, start.uid, study.uid)
    assert [run.tags["sweeper.kind"] for run in (start, end, study, trial)] == ["sweep", "sweep", "study", "trial"]
    spent = sweep_run("digits", "digits-1a2b3c4d", start_ms=1, end_ms=2, ended="budget spent")
    assert [run.tags["sweeper.state"] for run in (start, end, spent)] == ["running", "done", "budget spent"]
    assert (start.uid, start.name, start.tags["sweeper.uid"]) == ("digits-1a2b3c4d", "digits", "digits-1a2b3c4d")
    assert start.experiment == study.experiment == trial.experiment
    assert (start.status, start.params, end.status, end.end_ms) == ("RUNNING", {"seed": "0"}, "FINISHED", 2)


def test_what_is_built_survives_the_outbox() -> None:
    run = trial_run(STUDY, report(fit(1 / 3, 3), fit(2 / 3, 2)), Task.MULTICLASS)
    assert from_json(to_json(run)) == run
