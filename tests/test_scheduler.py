"""The loop of a worker, on a tiny sweep: who is trained when, what is kept of it, and what it cost."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from small import FOLDS, START, TPE, TRIALS, Change, Outcome, Ran, outcome, run_here, small_workload
from sweeper.calibration import Wish, set_up
from sweeper.engine import Engine
from sweeper.ledger import reads, trials, workers
from sweeper.ledger.rows import Meter
from sweeper.ledger.schema import AttemptRow, OutboxRow, StudyRow, TrialRow
from sweeper.ledger.store import Ledger
from sweeper.records import Fold, TrialState
from sweeper.scheduler import Scheduler
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending
from sweeper.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")

STEEP: Change = ("learning_rate: 1.0e-2", "optimizer: sgd, learning_rate: 50.0")
"""Plain descent in steps so long that a strong L2 penalty throws the weights out of float32's range."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("undisturbed")
    return run_here(small_workload(folder), folder)


def rows(ran: Ran, *columns: Any) -> list[Any]:
    with ran.ledger.read() as connection:
        query = select(*columns).select_from(AttemptRow).join(TrialRow).join(StudyRow)
        return list(connection.execute(query.order_by(AttemptRow.id)))


def found(ran: Ran) -> list[Any]:
    with ran.ledger.read() as connection:
        return reads.trials(connection, ran.sweep.id)


# who is trained -------------------------------------------------------------------------------------------------------


def test_every_space_tries_all_its_trials_once(undisturbed: Ran):
    assert undisturbed.ending is Ending.DONE
    got = outcome(undisturbed.ledger)
    assert set(got) == {(s, r, n) for s in ("shared", "both") for r in range(2) for n in range(5)}
    assert {trial["state"] for trial in got.values()} == {TrialState.COMPLETE}
    assert {(trial.attempts, trial.cost.epochs) for trial in found(undisturbed)} == {(1, 4)}


def test_a_trial_has_one_seed_in_every_space(undisturbed: Ran):
    seeds = {place: trial["fits"][0]["seed"] for place, trial in outcome(undisturbed.ledger).items()}
    for replicate in range(2):
        for number in range(5):
            assert seeds["shared", replicate, number] == seeds["both", replicate, number]
    assert len(set(seeds.values())) == TRIALS // 2


def test_spaces_and_replicates_fill_the_slots_together(undisturbed: Ran):
    """Number by number, so that no study is ahead of another by more than one trial."""
    first = rows(undisturbed, TrialRow.number, StudyRow.turn)
    assert first == sorted(first, key=lambda row: row.number)
    assert [row.turn for row in first[:4]] == [0, 1, 2, 3]


@pytest.mark.parametrize("changes", [(), (TPE,)], ids=["random", "tpe"])
def test_the_number_of_slots_changes_nothing_in_the_results(tmp_path: Path, changes: tuple[Change, ...]):
    workload = small_workload(tmp_path, *changes)
    got = [outcome(run_here(workload, tmp_path / str(slots), slots=slots).ledger) for slots in (1, 2, 5)]
    assert got[0] == got[1] == got[2]
    assert len(got[0]) == TRIALS


def test_an_enqueued_start_comes_first_and_is_marked(tmp_path: Path, undisturbed: Ran):
    got = outcome(run_here(small_workload(tmp_path, START), tmp_path).ledger)
    for (space, _, number), trial in got.items():
        is_start = space == "shared" and number == 0
        assert trial["origin"] == ("start" if is_start else "sampled")
        assert (trial["params"] == {"keep_prob": 0.5}) == is_start
    assert len(got) == TRIALS
    assert {p: t for p, t in got.items() if p[0] == "both"} == {
        p: t for p, t in outcome(undisturbed.ledger).items() if p[0] == "both"
    }


# concurrency ----------------------------------------------------------------------------------------------------------


def test_a_sequential_study_knows_all_its_earlier_trials(tmp_path: Path):
    ran = run_here(small_workload(tmp_path, TPE), tmp_path, slots=8)
    assert {row.number - row.told for row in rows(ran, TrialRow.number, TrialRow.told)} == {0}
    in_order = Counter()
    for study, number in rows(ran, TrialRow.study_id, TrialRow.number):
        assert number == in_order[study]
        in_order[study] += 1


def test_a_study_never_has_more_trials_under_way_than_its_concurrency(tmp_path: Path):
    two = ("replicates: 2", "replicates: 2, concurrency: 2")
    ran = run_here(small_workload(tmp_path, TPE, two), tmp_path, slots=16)
    running = [len(row.running) for row in rows(ran, TrialRow.running)]
    assert max(running) == 1


def test_random_draws_fill_the_slots_whatever_the_concurrency(tmp_path: Path):
    ran = run_here(small_workload(tmp_path), tmp_path, slots=10)
    assert ran.scheduler.occupancy == 1.0  # 20 trials of equal length in 10 slots


@pytest.mark.parametrize(
    ("slots", "changes"), [(4, ()), (3, ()), (8, (TPE,)), (7, (FOLDS,))],
    ids=["four studies in four slots", "a last round with a slot empty", "four sequential studies in eight slots",
         "folds that never fill the slots"],
)  # fmt: skip
def test_occupancy_is_the_share_of_the_computed_slot_steps_that_had_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slots: int, changes: tuple[Change, ...]
):
    """Of the lanes that the engine computed: it closes ranks where nobody waits."""
    ticks, collect = [], Engine.collect
    monkeypatch.setattr(Engine, "collect", lambda self: ticks.append(collect(self)) or ticks[-1])
    ran = run_here(small_workload(tmp_path, *changes), tmp_path, slots=slots)
    steps = sum(fit["steps"] for trial in outcome(ran.ledger).values() for fit in trial["fits"])
    computed = sum(tick.steps * tick.slots for tick in ticks)
    assert ran.scheduler.meter == Meter(steps, computed, ran.scheduler.meter.joules)
    assert ran.scheduler.occupancy == steps / computed
    device_s = ran.times["train"] + ran.times["evaluate"] + ran.times["idle"]
    assert ran.times["idle"] / device_s == pytest.approx(1 - steps / computed, abs=0.1)
    with ran.ledger.read() as connection:
        assert reads.occupancy(connection, ran.sweep.id) == ran.scheduler.occupancy


# folds ----------------------------------------------------------------------------------------------------------------


def test_a_k_fold_trial_settles_as_one_with_means_over_its_folds(tmp_path: Path):
    got = outcome(run_here(small_workload(tmp_path, FOLDS), tmp_path, slots=4).ledger)
    assert len(got) == TRIALS
    for trial in got.values():
        assert [fit["fold"] for fit in trial["fits"]] == [0, 1, 2]
        assert len({fit["seed"] for fit in trial["fits"]}) == 3
        for name in ("validation_loss", "validation_metric", "test_loss", "test_metric", "train_loss", "best_epoch"):
            assert trial[name] == pytest.approx(np.mean([fit[name] for fit in trial["fits"]]), rel=1e-12)


def test_folds_that_end_at_different_epochs_still_settle_as_one(tmp_path: Path):
    patient = ("epochs: 4", "patience: 1, epochs: 12")
    got = outcome(run_here(small_workload(tmp_path, FOLDS, patient), tmp_path, slots=7).ledger)
    assert len(got) == TRIALS
    assert any(len({fit["epochs"] for fit in trial["fits"]}) > 1 for trial in got.values())
    assert {len(trial["fits"]) for trial in got.values()} == {3}


# divergence -----------------------------------------------------------------------------------------------------------


def test_a_setting_that_diverges_fails_with_its_epoch_and_the_others_go_on(tmp_path: Path):
    ran = run_here(small_workload(tmp_path, STEEP), tmp_path)
    got = outcome(ran.ledger)
    failed = [trial for trial in got.values() if trial["state"] == TrialState.FAIL]
    assert ran.ending is Ending.DONE
    assert 0 < len(failed) < TRIALS == len(got)
    for trial in failed:
        last = len(trial["fits"][0]["curves"]["epoch"])
        assert trial["error"] == f"fold 0 diverged: a loss is not a finite number (epoch {last})"
        assert trial["validation_loss"] is trial["test_loss"] is None
    assert all(np.isfinite(trial["test_loss"]) for trial in got.values() if trial not in failed)


def test_a_fold_that_diverges_ends_its_whole_trial(tmp_path: Path):
    ran = run_here(small_workload(tmp_path, FOLDS, STEEP), tmp_path, slots=6)
    got = outcome(ran.ledger)
    failed = [trial for trial in got.values() if trial["state"] == TrialState.FAIL]
    assert 0 < len(failed) < TRIALS == len(got)
    for trial in failed:
        first = next(fit for fit in trial["fits"] if "diverged" in fit["outcome"])
        assert trial["error"].startswith(f"fold {first['fold']} diverged")
        assert {fit["epochs"] for fit in trial["fits"]} == {first["epochs"]}  # the others were not trained on
    assert_costs_balance(ran)


def test_failed_trials_are_told_to_the_sampler_and_use_up_the_budget(tmp_path: Path):
    got = outcome(run_here(small_workload(tmp_path, TPE, STEEP), tmp_path).ledger)
    assert len(got) == TRIALS
    assert {trial["state"] for trial in got.values()} == {TrialState.COMPLETE, TrialState.FAIL}


# costs ----------------------------------------------------------------------------------------------------------------


def assert_costs_balance(ran: Ran) -> None:
    """What the attempts paid, what idle slots took and what nobody pays for make up the time that workers had."""
    with ran.ledger.read() as connection:
        cost, times = reads.total_cost(connection, ran.sweep.id), reads.worker_times(connection, ran.sweep.id)
    paid = cost.device_s + cost.suggest_s + cost.storage_s + cost.checkpoint_s
    unpaid = (times["suggest"] - cost.suggest_s) + (times["storage"] - cost.storage_s)
    rest = sum(times[kind] for kind in ("idle", "start", "prepare", "wait", "other"))
    assert paid + unpaid + rest == pytest.approx(sum(times.values()), rel=0.01)
    assert cost.device_s == pytest.approx(times["train"] + times["evaluate"], rel=1e-3)
    assert 0 < cost.suggest_s <= times["suggest"]
    assert 0 < cost.storage_s <= times["storage"]
    assert (
        min(row.storage_s for row in rows(ran, AttemptRow.storage_s, AttemptRow.state) if row.state == "COMPLETE") > 0
    )


@pytest.mark.parametrize(
    ("slots", "changes"),
    [(1, ()), (3, ()), (8, (TPE,)), (7, (FOLDS,))],
    ids=["one slot", "a last round with a slot empty", "half of the slots idle", "folds that never fill the slots"],
)
def test_costs_balance(tmp_path: Path, slots: int, changes: tuple[Change, ...], monkeypatch: pytest.MonkeyPatch):
    entered, set_times = [], workers.set_times
    monkeypatch.setattr(workers, "set_times", lambda *args: entered.append(time.perf_counter()) or set_times(*args))
    workload = small_workload(tmp_path, *changes)
    began = time.perf_counter()
    ran = run_here(workload, tmp_path, slots=slots)
    assert_costs_balance(ran)
    with ran.ledger.read() as connection:
        held_s = sum(reads.worker_times(connection, ran.sweep.id).values())
    assert held_s == pytest.approx(entered[-1] - began, rel=0.01)


def test_costs_balance_over_interruptions(tmp_path: Path):
    workload = small_workload(tmp_path)
    interrupted = [run_here(workload, tmp_path, slots=3, stop_after=turns) for turns in (1, 2, 5, 6)]
    assert {ran.ending for ran in interrupted} == {Ending.INTERRUPTED}
    ran = run_here(workload, tmp_path, slots=3)
    assert_costs_balance(ran)
    attempts = Counter(row.state for row in rows(ran, AttemptRow.state))
    assert attempts == {"COMPLETE": TRIALS, "RELEASED": sum(n - 1 for n in (t.attempts for t in found(ran)))}
    assert attempts["RELEASED"] > 0


def test_a_suggestion_is_paid_once_however_often_its_trial_starts(tmp_path: Path):
    workload = small_workload(tmp_path)
    run_here(workload, tmp_path, slots=3, stop_after=2)
    ran = run_here(workload, tmp_path, slots=3)
    paid = rows(ran, AttemptRow.attempt, AttemptRow.suggest_s, TrialRow.suggest_s.label("took"))
    assert {row.attempt for row in paid} == {1, 2}
    assert all(row.suggest_s == (row.took if row.attempt == 1 else 0.0) for row in paid)


# the sealed test set --------------------------------------------------------------------------------------------------


def with_other_test_rows(workload: Workload) -> Workload:
    """The same sweep, but other inputs and classes in the rows that only test."""

    def changed(fold: Fold) -> Fold:
        return replace(fold, x_test=fold.x_test[::-1] * 3, y_test=(fold.y_test + 1) % 3)

    return replace(workload, folds=tuple(tuple(changed(fold) for fold in folds) for folds in workload.folds))


def without_test(got: Outcome) -> Outcome:
    def sealed(values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if not name.startswith("test_")}

    return {p: sealed(trial) | {"fits": [sealed(fit) for fit in trial["fits"]]} for p, trial in got.items()}


@pytest.mark.parametrize("changes", [(), (TPE,), (TPE, FOLDS)], ids=["random", "tpe", "tpe with folds"])
def test_the_test_rows_decide_nothing(tmp_path: Path, changes: tuple[Change, ...]):
    patient = ("epochs: 4", "patience: 2, epochs: 8")
    workload = small_workload(tmp_path, patient, *changes)
    one = run_here(workload, tmp_path / "one")
    other = run_here(with_other_test_rows(workload), tmp_path / "other")
    a, b = outcome(one.ledger), outcome(other.ledger)
    assert without_test(a) == without_test(b)
    assert all(a[place]["test_loss"] != b[place]["test_loss"] for place in a)
    assert incumbents(one) == incumbents(other)


def incumbents(ran: Ran) -> dict[str, tuple[int, int]]:
    with ran.ledger.read() as connection:
        best = reads.best_trials(connection, ran.sweep.id)
    return {space: (trial.replicate, trial.number) for space, trial in best.items()}


# extending, taking over -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [(), (TPE,)], ids=["random", "tpe"])
def test_a_sweep_that_was_extended_is_one_that_was_longer_from_the_start(tmp_path: Path, changes: tuple[Change, ...]):
    more = ("trials: 5, replicates: 2", "trials: 8, replicates: 3")
    run_here(small_workload(tmp_path, *changes), tmp_path / "extended")
    workload = small_workload(tmp_path, *changes, more)
    extended, longer = (outcome(run_here(workload, tmp_path / home).ledger) for home in ("extended", "longer"))
    assert extended == longer
    assert len(extended) == 2 * 8 * 3


def closed_runs(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return list(connection.scalars(select(OutboxRow.uid).where(OutboxRow.status == "FINISHED")))


def test_every_trial_and_study_and_the_sweep_leave_a_finished_run_to_deliver(undisturbed: Ran):
    closed = closed_runs(undisturbed.ledger)
    assert len(closed) == len(set(closed)) == TRIALS + 4 + 1
    assert sum(uid.endswith(("r00", "r01")) for uid in closed) == 4
    assert closed.count(undisturbed.sweep.uid) == 1


def test_two_workers_share_the_trials_of_one_workers_studies(tmp_path: Path, undisturbed: Ran):
    """The one that proposes for a study learns of the other's results when it looks again, and closes the study."""
    workload = small_workload(tmp_path, ("replicates: 2", "replicates: 2, concurrency: 3"))
    first = run_here(workload, tmp_path, stop_after=0)
    pair = [colleague(first, workload) for _ in range(2)]
    for _ in range(200):
        for scheduler in pair:
            scheduler.open() if scheduler.is_idle else scheduler.turn()
        if all(scheduler.is_done() for scheduler in pair):
            break
    assert outcome(first.ledger) == outcome(undisturbed.ledger)
    settled_by = {
        row.worker_id for row in rows(first, AttemptRow.worker_id, AttemptRow.state) if row.state == "COMPLETE"
    }
    assert len(settled_by) == 2
    assert len(closed_runs(first.ledger)) == TRIALS + 4 + 1


def colleague(ran: Ran, workload: Workload) -> Scheduler:
    """Another worker on the same ledger, in this process."""
    setup = set_up(workload, Wish("cpu", slots=4, threads=1, processes=1, compiling=False))
    with ran.ledger.write() as connection:
        worker = workers.register(connection, "test", {})
    return Scheduler(
        ran.ledger, ran.sweep, workload, setup.engine,
        worker_id=worker, times=Timesheet(), identity={"worker": "test", "device": "test"},
    )  # fmt: skip


def test_what_was_committed_last_is_what_is_trained(tmp_path: Path):
    """A turn leaves nothing in the engine that the ledger does not show as running, and the other way round."""
    workload, shown = small_workload(tmp_path, FOLDS), []
    ran = run_here(workload, tmp_path, slots=6, stop_after=7)
    with ran.ledger.read() as connection:
        shown = connection.scalars(select(TrialRow.state)).all()
    assert TrialState.RUNNING not in shown
    assert TrialState.WAITING in shown
    assert ran.scheduler.is_idle
    assert ran.scheduler.engine.free == 6


def test_turns_cost_no_transaction_while_nothing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Bookkeeping is per trial, not per epoch: with all slots taken, a turn touches no SQL until a fit ends."""
    monkeypatch.setattr("sweeper.scheduler.loop.LOOK_S", float("inf"))  # it looks once a second all the same
    settled = []
    settle = trials.settle
    monkeypatch.setattr(trials, "settle", lambda *args: settled.append(args[3]) or settle(*args))
    ran = run_here(small_workload(tmp_path), tmp_path, slots=4)
    assert ran.turns - 1 == 5 * 4  # five rounds of four epochs
    assert [len(batch) for batch in settled] == [0, 4, 4, 4, 4, 4]
