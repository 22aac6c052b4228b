"""Hopeless trials are ended by the rules and by nothing else, whoever works on them and however often they stop."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner
from sqlalchemy import select

from ledger.makers import registered, rows
from small import FOLDS, ONE_STEP, TPE, Change, Outcome, Ran, outcome, run_here, small_workload
from sweeper.calibration import Wish, set_up
from sweeper.export import from_json
from sweeper.ledger import reads, sweeps, workers
from sweeper.ledger import trials as ledger_trials
from sweeper.ledger.schema import AttemptRow, OutboxRow, RungRow, StudyRow, TrialRow
from sweeper.ledger.store import Ledger
from sweeper.records import Outcome as FitOutcome
from sweeper.records import TrialState
from sweeper.scheduler import Scheduler
from sweeper.search import Proposer
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending
from sweeper.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")

EPOCHS: Change = ("epochs: 4", "epochs: 10")
TRIALS: Change = ("trials: 5, replicates: 2", "trials: 8, replicates: 1")
PATIENT: Change = ("epochs: 4", "epochs: 10, patience: 2")


def pruning(rule: str, *changes: Change) -> tuple[Change, ...]:
    epochs = () if PATIENT in changes else (EPOCHS,)
    return (TRIALS, ONE_STEP, *epochs, *changes, ("replicates: 1", f"replicates: 1, pruner: {rule}"))


ASHA = "{kind: asha, reduction_factor: 2}"  # rungs after 1, 2, 4 and 8 epochs
MEDIAN = "{kind: median, n_startup_trials: 2, n_warmup_steps: 1, interval_steps: 3}"
HYPERBAND = "{kind: hyperband, reduction_factor: 2}"


@pytest.fixture(scope="module")
def asha(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("asha")
    return run_here(small_workload(folder, *pruning(ASHA)), folder)


def states(got: Outcome) -> set[str]:
    return {trial["state"] for trial in got.values()}


def pruned(got: Outcome) -> dict[tuple[str, int, int], dict[str, Any]]:
    return {place: trial for place, trial in got.items() if trial["state"] == TrialState.PRUNED}


def pruned_at(trial: dict[str, Any]) -> int:
    return int(re.match(r"pruned at epoch (\d+): ", trial["error"]).group(1))


def score_curve(trial: dict[str, Any]) -> list[float]:
    """The trial's rung score at each epoch: mean over folds of the lowest validation loss so far."""
    curves = [list(np.minimum.accumulate(fit["curves"]["validation_loss"])) for fit in trial["fits"]]
    longest = max(map(len, curves))
    padded = [curve + curve[-1:] * (longest - len(curve)) for curve in curves]
    return [sum(at) / len(at) for at in zip(*padded, strict=True)]


# what is decided ------------------------------------------------------------------------------------------------------


def decided_by(pruner: BasePruner, study: str, trials: Sequence[dict[str, Any]], epochs: int) -> list[int | None]:
    """At which epoch Optuna's pruner ends each of these trials, one after another; None where it does not."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    theirs, ends = optuna.create_study(study_name=study, pruner=pruner), []
    for recorded in trials:
        trial, end = theirs.ask(), None
        curve, is_complete = score_curve(recorded), recorded["state"] == TrialState.COMPLETE
        for epoch, score in enumerate(curve, start=1):
            trial.report(score, epoch)
            is_hopeless = epoch < epochs and trial.should_prune()
            if is_hopeless and not (is_complete and epoch == len(curve)):  # it ends by itself just then
                end = epoch
                break
        theirs.tell(trial, None if end else curve[-1], state=optuna.trial.TrialState["PRUNED" if end else "COMPLETE"])
        ends.append(end)
    return ends


OPTUNAS = {
    ASHA: SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    MEDIAN: MedianPruner(n_startup_trials=2, n_warmup_steps=1, interval_steps=3),
    HYPERBAND: HyperbandPruner(min_resource=1, max_resource=10, reduction_factor=2),
}


@pytest.mark.parametrize(
    ("rule", "changes"),
    [(ASHA, ()), (MEDIAN, ()), (HYPERBAND, ()), (ASHA, (TPE, FOLDS, PATIENT)), (MEDIAN, (FOLDS, PATIENT))],
    ids=["asha", "median", "hyperband", "asha with folds and patience", "median with folds and patience"],
)
def test_optunas_pruner_ends_the_same_trials_at_the_same_epochs_on_the_recorded_curves(
    tmp_path: Path, rule: str, changes: tuple[Change, ...]
):
    ran = run_here(small_workload(tmp_path, *pruning(rule, *changes)), tmp_path, slots=7)
    got = outcome(ran.ledger)
    assert states(got) == {TrialState.COMPLETE, TrialState.PRUNED}
    for study in rows(ran.ledger, StudyRow):
        trials = [got[study.space, 0, number] for number in range(8)]
        ours = [pruned_at(trial) if trial["error"] else None for trial in trials]
        assert ours == decided_by(OPTUNAS[rule], str(study.seed), trials, 10)
        for trial, end in zip(trials, ours, strict=True):
            assert end is None or len(score_curve(trial)) == end


def test_a_pruned_trial_keeps_its_curves_and_cost_and_what_it_had_reached_and_never_sees_the_test_rows(asha: Ran):
    got = outcome(asha.ledger)
    with asha.ledger.read() as connection:
        costs = {(t.space, t.replicate, t.number): t.cost for t in reads.trials(connection, asha.sweep.id)}
    assert pruned(got)
    for place, trial in pruned(got).items():
        (fit,) = trial["fits"]
        end = pruned_at(trial)
        assert re.fullmatch(r"pruned at epoch \d+: [\d.]+ is not among the best 1/2 of \d+ trials", trial["error"])
        assert fit["outcome"] == FitOutcome.PRUNED.value
        assert (fit["epochs"], len(fit["curves"]["validation_loss"])) == (end, end)
        assert trial["validation_loss"] == min(fit["curves"]["validation_loss"])
        assert trial["best_epoch"] == 1 + np.argmin(fit["curves"]["validation_loss"])
        assert None not in (trial["validation_metric"], trial["train_loss"], *fit["squared_norms"])
        assert trial["test_loss"] is trial["test_metric"] is fit["test_loss"] is fit["test_metric"] is None
        assert (costs[place].epochs, costs[place].steps) == (end, end)
        assert costs[place].device_s > 0


def test_a_pruned_trial_is_finished_and_never_the_incumbent(asha: Ran):
    got = outcome(asha.ledger)
    assert asha.ending is Ending.DONE
    with asha.ledger.read() as connection:
        spaces = reads.progress(connection, asha.sweep.id)
        best = reads.best_trials(connection, asha.sweep.id)
        assert {row.attempt for row in rows(asha.ledger, TrialRow)} == {1}
    for space in spaces:
        complete = [t["validation_loss"] for p, t in got.items() if p[0] == space.space and t["error"] is None]
        assert (space.complete, space.pruned, space.failed) == (len(complete), 8 - len(complete), 0)
        assert space.best_validation_loss == best[space.space].validation_loss == min(complete)


def test_folds_are_judged_and_pruned_together_and_one_that_stopped_early_counts_with_its_lowest(tmp_path: Path):
    got = outcome(run_here(small_workload(tmp_path, *pruning(ASHA, FOLDS, PATIENT)), tmp_path, slots=6).ledger)
    mixed = 0
    for trial in pruned(got).values():
        end, epochs = pruned_at(trial), [fit["epochs"] for fit in trial["fits"]]
        assert max(epochs) == end
        assert FitOutcome.PRUNED.value in {fit["outcome"] for fit in trial["fits"]}
        for fit in trial["fits"]:
            assert fit["epochs"] == end or fit["outcome"] == FitOutcome.STOPPED_EARLY.value
            assert fit["test_loss"] is None
        lowest = [min(fit["curves"]["validation_loss"]) for fit in trial["fits"]]
        assert trial["validation_loss"] == sum(lowest) / 3
        assert f": {trial['validation_loss']:.4g} is not" in trial["error"]
        mixed += len(set(epochs)) > 1
    assert mixed > 0  # else nothing was shown about folds that stop early


def test_a_trial_that_diverges_fails_whatever_the_pruner_thinks_of_it(tmp_path: Path):
    steep = ("learning_rate: 3.0e-1", "optimizer: sgd, learning_rate: 1000.0")
    got = outcome(run_here(small_workload(tmp_path, *pruning(ASHA, steep)), tmp_path).ledger)
    failed = [trial for trial in got.values() if trial["state"] == TrialState.FAIL]
    assert failed
    assert pruned(got)
    for trial in failed:
        assert trial["error"].startswith("fold 0 diverged")
        assert trial["validation_loss"] is None


# what is kept when ----------------------------------------------------------------------------------------------------


def rung_rows(ledger: Ledger) -> dict[tuple[int, int], dict[int, float]]:
    with ledger.read() as connection:
        query = select(StudyRow.id, TrialRow.number, RungRow.epoch, RungRow.score).select_from(RungRow)
        found: dict[tuple[int, int], dict[int, float]] = {}
        for study, number, epoch, score in connection.execute(query.join(TrialRow).join(StudyRow)):
            found.setdefault((study, number), {})[epoch] = score
        return found


@pytest.mark.parametrize(("rule", "rungs"), [(ASHA, {1, 2, 4, 8}), (MEDIAN, {1, 4, 7})], ids=["asha", "median"])
def test_the_ledger_has_every_trials_score_at_every_rung_that_it_reached(tmp_path: Path, rule: str, rungs: set[int]):
    ran = run_here(small_workload(tmp_path, *pruning(rule)), tmp_path)
    got, kept = outcome(ran.ledger), rung_rows(ran.ledger)
    for study in rows(ran.ledger, StudyRow):
        for number in range(8):
            curve = score_curve(got[study.space, 0, number])
            assert kept[study.id, number] == {e: s for e, s in enumerate(curve, start=1) if e in rungs}


def test_nothing_is_written_while_nothing_ends_and_no_rung_is_reached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """With one study in one slot: a transaction per rung and per end, one more at the start and at the close."""
    monkeypatch.setattr("sweeper.scheduler.loop.LOOK_S", float("inf"))
    wrote, write = [], Ledger.at_once
    monkeypatch.setattr(Ledger, "at_once", lambda self: wrote.append(1) or write(self))
    one_space = ("  both: {keep_prob: per_layer, lambda: per_layer}\n", "")
    workload = small_workload(tmp_path, *pruning(ASHA, one_space))
    before = run_here(workload, tmp_path, slots=1, stop_after=0)
    launching = len(wrote)
    wrote.clear()
    ran = run_here(workload, tmp_path, slots=1)
    got, kept = outcome(ran.ledger), rung_rows(ran.ledger)
    events = {(n, e) for (_, n), scores in kept.items() for e in scores} | {
        (n, len(trial["fits"][0]["curves"]["epoch"])) for (_, _, n), trial in got.items()
    }
    assert ran.turns - 1 == sum(trial["fits"][0]["epochs"] for trial in got.values()) > len(events)
    assert len(wrote) == launching - 1 + len(events)  # the first run gave up its trial
    assert before.ending is Ending.INTERRUPTED


def test_of_the_median_nothing_is_written_before_a_trial_is_over(tmp_path: Path):
    ran = run_here(small_workload(tmp_path, *pruning(MEDIAN)), tmp_path, stop_after=9)
    running = [row.number for row in rows(ran.ledger, TrialRow) if row.ended_at is None and row.attempt]
    assert running
    assert not {number for _, number in rung_rows(ran.ledger)} & set(running)


def test_mlflow_is_told_why_a_trial_was_pruned_and_nothing_about_test_rows(asha: Ran):
    records = [from_json(row.payload) for row in rows(asha.ledger, OutboxRow)]
    reasons = [trial["error"] for trial in pruned(outcome(asha.ledger)).values()]
    told = [record for record in records if record.tags.get("sweeper.state") == "PRUNED"]
    assert len(told) == len(reasons)
    for record in told:
        note = record.tags["mlflow.note.content"]
        assert any(note.startswith("P" + reason[1:]) for reason in reasons)
        assert record.status == "FINISHED"
        assert not [key for key in record.metrics if "test" in key]
        assert "best.validation_loss" in record.metrics
    ended = [record for record in records if record.status == "FINISHED"]
    [whole] = [record for record in ended if record.tags["sweeper.kind"] == "sweep"]
    parents = [record for record in ended if record.tags["sweeper.kind"] == "study"]
    assert whole.metrics["trials_pruned"] == len(reasons)
    assert sum(record.metrics["trials_pruned"] for record in parents) == len(reasons)
    assert {record.metrics["trials_failed"] for record in parents} == {0.0}
    complete = [t for t in outcome(asha.ledger).values() if t["error"] is None]
    assert {record.metrics["best.validation_loss"] for record in parents} <= {t["validation_loss"] for t in complete}


# what the sampler is told ---------------------------------------------------------------------------------------------


def test_the_sampler_is_told_the_last_rung_score_and_its_epoch_at_once_and_when_it_is_rebuilt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told, tell = [], Proposer.tell
    monkeypatch.setattr(Proposer, "tell", lambda self, *args: told.append(args) or tell(self, *args))
    ran = run_here(small_workload(tmp_path, *pruning(ASHA, TPE, FOLDS)), tmp_path)
    got = pruned(outcome(ran.ledger))
    expected = sorted((place[2], trial["validation_loss"], pruned_at(trial)) for place, trial in got.items())
    live = sorted((n, value, step) for n, state, value, step in told if state is TrialState.PRUNED)
    assert live == expected != []
    with ran.ledger.read() as connection:
        studies = [study.id for study in sweeps.studies(connection, ran.sweep.id)]
        past = [one for one in ledger_trials.past(connection, studies) if one.state is TrialState.PRUNED]
    assert sorted((one.number, one.validation_loss, one.step) for one in past) == expected


# stops, slots, workers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "changes"),
    [(ASHA, (TPE,)), (HYPERBAND, ()), (MEDIAN, (FOLDS, PATIENT))],
    ids=["asha", "hyperband", "median with folds"],
)
def test_a_sweep_that_was_stopped_again_and_again_decides_as_one_that_was_not(
    tmp_path: Path, rule: str, changes: tuple[Change, ...]
):
    workload = small_workload(tmp_path, *pruning(rule, *changes))
    whole = outcome(run_here(workload, tmp_path / "whole", slots=6).ledger)
    for turns in (1, 4, 6):
        run_here(workload, tmp_path / "stopped", slots=6, stop_after=turns)
    ran = run_here(workload, tmp_path / "stopped", slots=6)
    assert sum(row.state == "RELEASED" for row in rows(ran.ledger, AttemptRow)) >= 4
    assert outcome(ran.ledger) == whole
    assert pruned(whole)


def test_the_number_of_slots_decides_nothing(tmp_path: Path, asha: Ran):
    workload = small_workload(tmp_path, *pruning(ASHA))
    for slots in (1, 9):
        assert outcome(run_here(workload, tmp_path / str(slots), slots=slots).ledger) == outcome(asha.ledger)


def colleague(ran: Ran, workload: Workload, slots: int = 1) -> Scheduler:
    setup = set_up(workload, Wish("cpu", slots=slots, threads=1, processes=1, compiling=False))
    return Scheduler(
        ran.ledger, ran.sweep, workload, setup.engine, worker_id=registered(ran.ledger), times=Timesheet(),
        identity={"worker": "test", "device": "test"},
    )  # fmt: skip


def test_two_workers_at_concurrency_one_decide_as_one_does(tmp_path: Path, asha: Ran):
    """A study's next trial is judged by all before it, though another worker trained those, which then went away."""
    workload = small_workload(tmp_path, *pruning(ASHA))
    ran = run_here(workload, tmp_path, stop_after=0)
    first, second = colleague(ran, workload), colleague(ran, workload)
    for turn in range(400):
        for scheduler in (first, second) if turn < 12 else (second,):
            scheduler.open() if scheduler.is_idle else scheduler.turn()
        if turn == 11:
            first.give_up()
            first.close()
        if second.is_done():
            break
    assert outcome(ran.ledger) == outcome(asha.ledger)
    settled = [row for row in rows(ran.ledger, AttemptRow) if row.state in ("COMPLETE", "PRUNED")]
    study_of = {row.id: row.study_id for row in rows(ran.ledger, TrialRow)}
    trained_by = {(study_of[row.trial_id], row.worker_id) for row in settled}
    assert len(trained_by) > len(set(study_of.values()))  # some study's trials were trained by both


def test_a_trial_is_judged_by_what_other_workers_running_trials_have_reached(tmp_path: Path):
    one_space = ("  both: {keep_prob: per_layer, lambda: per_layer}\n", "")
    eight = (ASHA[:-1] + ", min_resource: 1}").replace("reduction_factor: 2", "reduction_factor: 9")  # one rung
    workload = small_workload(tmp_path, *pruning(eight, one_space, ("replicates: 1", "replicates: 1, concurrency: 8")))
    ran = run_here(workload, tmp_path, stop_after=0)
    first, second = colleague(ran, workload, slots=3), colleague(ran, workload, slots=2)
    first.open()
    second.open()
    first.turn()
    judged = {row.number for row in rows(ran.ledger, TrialRow) if row.state != "WAITING"}
    assert judged >= {0, 1, 2, 3, 4}
    assert {number for _, number in rung_rows(ran.ledger)} == {0, 1, 2}
    second.turn()
    reasons = [row.error for row in rows(ran.ledger, TrialRow) if row.number in (3, 4) and row.error]
    assert all("the best of 5 trials" in reason for reason in reasons)
    scores = {number: scores[1] for (_, number), scores in rung_rows(ran.ledger).items()}
    survivors = [row.number for row in rows(ran.ledger, TrialRow) if row.number in (3, 4) and row.state == "RUNNING"]
    assert survivors == [number for number in (3, 4) if scores[number] == min(scores.values())]
    for scheduler in (first, second):
        scheduler.give_up()
        scheduler.close()


def test_company_is_whoever_else_trains_a_trial_of_the_sweep(tmp_path: Path):
    ran = run_here(small_workload(tmp_path), tmp_path, stop_after=0)
    first, second = (colleague(ran, small_workload(tmp_path)) for _ in range(2))
    first.open()
    with ran.ledger.read() as connection:
        ids = [row.worker_id for row in rows(ran.ledger, TrialRow) if row.worker_id]
        assert not workers.has_company(connection, ran.sweep.id, ids[0])
        assert workers.has_company(connection, ran.sweep.id, ids[0] + 1)
        assert not workers.has_company(connection, ran.sweep.id + 1, ids[0] + 1)
    first.give_up()
    for scheduler in (first, second):
        scheduler.close()
