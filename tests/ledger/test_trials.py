"""The life of a trial: proposed, claimed by one worker, settled once, with all that belongs to it or nothing."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from ledger.makers import (
    claimed,
    cost,
    failure,
    fit_result,
    launched,
    new_trial,
    plan,
    proposed,
    registered,
    rows,
    settled,
    settlement,
    started,
    study_ids,
)
from sweeper.ledger import reads, trials, workers
from sweeper.ledger.rows import Claimed, Letter, PastTrial, SettledFit, Settlement, Sweep
from sweeper.ledger.schema import COST_COLUMNS, AttemptRow, FitRow, OutboxRow, StudyRow, TrialRow
from sweeper.ledger.store import Ledger
from sweeper.records import Cost, Score, Setting, TrialState

LOSSES = ("train_loss", "validation_loss", "validation_metric", "test_loss", "test_metric")


def bits(*values: float) -> list[bytes]:
    return [struct.pack("<d", value) for value in values]


def attempt_state(ledger: Ledger, one: Claimed) -> str:
    return str(rows(ledger, AttemptRow, id=one.attempt_id)[0].state)


# proposed -------------------------------------------------------------------------------------------------------------


def test_a_proposed_trial_comes_back_as_it_was(ledger: Ledger, sweep: Sweep) -> None:
    study = study_ids(ledger, sweep)["shared", 1]
    made = proposed(ledger, study, 3)
    with ledger.read() as connection:
        past = trials.past(connection, [study])
    waiting = [
        PastTrial(study, trial.number, TrialState.WAITING, trial.params, None, trial.running, trial.origin)
        for trial in made
    ]
    assert past == waiting
    assert [type(value) for value in past[0].params.values()] == [float, bool, float, int, str]
    assert [row.told for row in rows(ledger, TrialRow)] == [0, 1, 2]


def test_past_trials_are_those_of_the_asked_studies_in_order(ledger: Ledger, sweep: Sweep) -> None:
    ids = study_ids(ledger, sweep)
    for number in (1, 0):
        for study in ids.values():
            proposed(ledger, study, 1, first=number)
    asked = [ids["shared", 1], ids["none", 0]]
    with ledger.read() as connection:
        found = [(past.study_id, past.number) for past in trials.past(connection, asked)]
    assert found == [(study, number) for study in sorted(asked) for number in (0, 1)]


def test_only_what_is_asked_for_is_read_of_many_trials(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    ids = study_ids(ledger, sweep)
    study, empty = ids["none", 0], ids["shared", 1]
    over, _ = started(ledger, sweep, worker, 2)
    proposed(ledger, study, 1, first=2)
    settled(ledger, sweep, worker, settlement(over))
    with ledger.read() as connection:
        assert trials.asked(connection, [study, empty]) == {study: 3, empty: 0}
        unfinished = trials.past(connection, [study, empty], unfinished=True)
        ended = trials.ended(connection, {study: [0, 1, 7], empty: [0]})
        assert trials.ended(connection, {study: range(5000)}) == ended
    assert [past.number for past in unfinished] == [1, 2]
    assert [(past.number, past.state, past.validation_loss) for past in ended] == [(0, TrialState.COMPLETE, 0.2)]


def test_a_number_is_given_once_in_a_study(ledger: Ledger, sweep: Sweep) -> None:
    ids = study_ids(ledger, sweep)
    proposed(ledger, ids["none", 0], 2)
    proposed(ledger, ids["none", 1], 2)
    with pytest.raises(IntegrityError, match=r"(?i)unique"):
        proposed(ledger, ids["none", 0], 2, first=1)
    assert [row.number for row in rows(ledger, TrialRow, study_id=ids["none", 0])] == [0, 1]


def test_proposing_nothing_is_nothing(ledger: Ledger, sweep: Sweep) -> None:
    with ledger.write() as connection:
        trials.propose(connection, [])
    assert rows(ledger, TrialRow) == []


# claimed --------------------------------------------------------------------------------------------------------------


def test_a_claimed_trial_is_what_was_proposed_bit_for_bit(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    study = study_ids(ledger, sweep)["none", 0]
    odd = Setting((1.0, 0.1 + 0.2, 5e-324), (1e-3 / 3, 1.7976931348623157e308, 0.0))
    made = new_trial(study, 5, setting=odd, params={"keep_prob_1": 0.1 + 0.2, "lambda_1": 1e-3 / 3})
    with ledger.write() as connection:
        trials.propose(connection, [made])
    before = datetime.now(UTC)
    (one,) = claimed(ledger, sweep, worker)
    assert bits(*one.setting.keep_prob, *one.setting.lambda_) == bits(*odd.keep_prob, *odd.lambda_)
    assert bits(*one.params.values(), one.suggest_s) == bits(*made.params.values(), made.suggest_s)
    assert list(one.params) == list(made.params)
    assert (one.study_id, one.number, one.attempt) == (study, 5, 1)
    assert before <= one.started_at <= datetime.now(UTC)


def test_lowest_numbers_are_claimed_first_and_then_by_turn(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    with ledger.read() as connection:
        in_turn = [study.id for study in connection.execute(StudyRow.__table__.select().order_by(StudyRow.turn))]
    for study in sorted(in_turn):
        proposed(ledger, study, 2)
    found = [(one.number, one.study_id) for one in claimed(ledger, sweep, worker, 3)]
    found += [(one.number, one.study_id) for one in claimed(ledger, sweep, worker, 99)]
    assert found == [(number, study) for number in (0, 1) for study in in_turn]


@pytest.mark.parametrize(("limit", "taken"), [(0, 0), (1, 1), (4, 4), (9, 5)])
def test_no_more_are_claimed_than_asked_for_or_there(
    ledger: Ledger, sweep: Sweep, worker: int, limit: int, taken: int
) -> None:
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 5)
    assert len(claimed(ledger, sweep, worker, limit)) == taken
    states = [row.state for row in rows(ledger, TrialRow)]
    assert states == ["RUNNING"] * taken + ["WAITING"] * (5 - taken)


def test_trials_of_another_sweep_are_not_claimed(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    other = launched(ledger, plan(name="lecture"))
    proposed(ledger, study_ids(ledger, other)["none", 0], 2)
    assert claimed(ledger, sweep, worker, 9) == []


def test_no_trial_is_claimed_twice_by_workers_at_once(ledger: Ledger, sweep: Sweep) -> None:
    for study in study_ids(ledger, sweep).values():
        proposed(ledger, study, 6)
    ids = [registered(ledger) for _ in range(4)]
    taken: dict[int, list[int]] = {id_: [] for id_ in ids}
    together = threading.Barrier(len(ids))

    def take_all(worker: int) -> None:
        own = Ledger(ledger.url)
        together.wait()
        while one := claimed(own, sweep, worker, 2):
            taken[worker] += [trial.trial_id for trial in one]
        own.close()

    threads = [threading.Thread(target=take_all, args=(id_,)) for id_ in ids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(trial for got in taken.values() for trial in got) == [row.id for row in rows(ledger, TrialRow)]
    assert {row.trial_id: row.worker_id for row in rows(ledger, AttemptRow)} == {
        trial: worker for worker, got in taken.items() for trial in got
    }


def test_attempts_count_and_the_first_alone_pays_for_the_suggestion(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (first,) = started(ledger, sweep, worker)
    with ledger.write() as connection:
        trials.release(connection, worker, {first: cost()})
    (second,) = claimed(ledger, sweep, worker)
    assert (first.trial_id, first.attempt, second.attempt) == (second.trial_id, 1, 2)
    assert second.attempt_id != first.attempt_id
    assert [row.suggest_s for row in rows(ledger, AttemptRow)] == [0.125, 0.0]
    assert rows(ledger, TrialRow)[0].attempt == 2


# settled --------------------------------------------------------------------------------------------------------------


def test_a_settled_trial_is_kept_with_every_field(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    end = settlement(one, ended_at=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC))
    assert settled(ledger, sweep, worker, end) == [end]
    with ledger.read() as connection:
        (trial,) = reads.trials(connection, sweep.id)
    assert (trial.space, trial.replicate, trial.number, trial.attempts) == ("none", 0, 0, 1)
    assert (trial.state, trial.error, trial.origin) == (TrialState.COMPLETE, None, "sampled")
    assert (trial.params, trial.setting) == (one.params, one.setting)
    assert end.means is not None
    assert {name: getattr(trial, name) for name in vars(end.means)} == vars(end.means)
    assert (trial.started_at, trial.ended_at) == (one.started_at, end.ended_at)
    assert trial.cost == replace(end.cost, suggest_s=one.suggest_s)


def test_a_fit_is_kept_with_its_curves_and_norms(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    fits = tuple(SettledFit(fold, 2**63 - 1 - fold, fit_result(epochs=2 + fold)) for fold in range(2))
    settled(ledger, sweep, worker, settlement(one, fits=fits))
    kept = rows(ledger, FitRow)
    assert [(row.attempt_id, row.fold, row.seed) for row in kept] == [
        (one.attempt_id, fit.fold, fit.seed) for fit in fits
    ]
    for row, fit in zip(kept, fits, strict=True):
        result = fit.result
        assert bits(*(getattr(row, name) for name in LOSSES)) == bits(*(getattr(result, name) for name in LOSSES))
        assert (row.outcome, row.best_epoch) == (result.outcome.value, result.best_epoch)
        assert bits(*row.squared_norms) == bits(*result.squared_norms)
        assert row.curves == {name: [getattr(score, name) for score in result.scores] for name in Score.__slots__}
        assert Cost(*(getattr(row, name) for name in COST_COLUMNS)) == result.cost


def test_numbers_that_are_not_finite_are_null(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    nan = float("nan")
    broken = fit_result(
        train_loss=nan,
        test_loss=float("inf"),
        squared_norms=(nan, 1.0, float("-inf")),
        scores=(Score(1, nan, 0.5, float("inf"), 0.0, nan, 3),),
    )
    end = failure(one, fits=(SettledFit(0, 1, broken),))
    settled(ledger, sweep, worker, end)
    (fit,), (trial,) = rows(ledger, FitRow), rows(ledger, TrialRow)
    assert (fit.train_loss, fit.validation_loss, fit.test_loss) == (None, 0.2, None)
    assert fit.squared_norms == [None, 1.0, None]
    assert list(fit.curves.values()) == [[1], [None], [0.5], [None], [0.0], [None], [3]]
    assert (trial.state, trial.error, trial.validation_loss) == ("FAIL", "fold 0 diverged", None)


def test_a_mean_that_is_not_finite_is_null(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    settled(ledger, sweep, worker, settlement(one, float("inf")))
    (trial,) = rows(ledger, TrialRow)
    assert (trial.validation_loss, trial.test_loss, trial.train_loss) == (None, None, 0.05)


def test_a_fit_without_an_epoch_has_empty_curves(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    settled(ledger, sweep, worker, settlement(one, fits=(SettledFit(0, 1, fit_result(epochs=0)),)))
    assert rows(ledger, FitRow)[0].curves == {name: [] for name in Score.__slots__}


def test_many_trials_are_settled_at_once_each_with_its_own(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    taken = started(ledger, sweep, worker, 4)
    good, bad = [settlement(one, loss=one.number / 7) for one in taken[:3]], failure(taken[3])
    assert settled(ledger, sweep, worker, *good, bad) == [*good, bad]
    kept = [(row.state, row.validation_loss, row.error) for row in rows(ledger, TrialRow)]
    assert kept == [("COMPLETE", n / 7, None) for n in range(3)] + [("FAIL", None, "fold 0 diverged")]
    assert [row.state for row in rows(ledger, AttemptRow)] == ["COMPLETE"] * 3 + ["FAIL"]
    assert [row.attempt_id for row in rows(ledger, FitRow)] == [one.attempt_id for one in taken]
    assert [row.uid for row in rows(ledger, OutboxRow)] == [end.letters[0].uid for end in (*good, bad)]


def test_settling_nothing_is_nothing(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    assert settled(ledger, sweep, worker) == []


def test_a_failed_trial_without_fits_is_kept(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    settled(ledger, sweep, worker, failure(one, fits=()))
    assert (rows(ledger, TrialRow)[0].state, rows(ledger, FitRow)) == ("FAIL", [])


def test_a_worker_that_lost_its_trial_changes_only_its_attempt(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (late,) = started(ledger, sweep, worker)
    with ledger.write() as connection:
        workers.give_back(connection, worker, workers.LOST)
    other = registered(ledger)
    (now,) = claimed(ledger, sweep, other)
    tables = (TrialRow, FitRow, OutboxRow)
    before = [rows(ledger, table) for table in tables], rows(ledger, AttemptRow, id=now.attempt_id)
    assert settled(ledger, sweep, worker, settlement(late, cost=cost(train_s=3.0))) == []
    assert ([rows(ledger, table) for table in tables], rows(ledger, AttemptRow, id=now.attempt_id)) == before
    (kept,) = rows(ledger, AttemptRow, id=late.attempt_id)
    assert (kept.state, kept.train_s, kept.suggest_s) == (trials.SUPERSEDED, 3.0, late.suggest_s)
    assert settled(ledger, sweep, other, settlement(now)) != []
    assert (rows(ledger, TrialRow)[0].state, rows(ledger, TrialRow)[0].worker_id) == ("COMPLETE", other)


def test_a_result_of_an_earlier_attempt_does_not_count_even_for_the_same_worker(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    (first,) = started(ledger, sweep, worker)
    with ledger.write() as connection:
        workers.give_back(connection, worker, workers.LOST)
    (second,) = claimed(ledger, sweep, worker)
    assert settled(ledger, sweep, worker, settlement(first)) == []
    assert (rows(ledger, TrialRow)[0].state, attempt_state(ledger, second)) == ("RUNNING", "RUNNING")


def test_a_result_of_a_worker_that_does_not_have_the_trial_does_not_count(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    (one,) = started(ledger, sweep, worker)
    assert settled(ledger, sweep, registered(ledger), settlement(one)) == []
    assert rows(ledger, TrialRow)[0].state == "RUNNING"


def test_a_late_result_among_good_ones_is_left_out_alone(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (late,) = started(ledger, sweep, worker)
    with ledger.write() as connection:
        workers.give_back(connection, worker, workers.LOST)
    (now,) = claimed(ledger, sweep, registered(ledger))
    proposed(ledger, now.study_id, 1, first=1)
    (good,) = claimed(ledger, sweep, worker)
    right = settlement(good)
    assert settled(ledger, sweep, worker, settlement(late), right) == [right]
    assert [row.state for row in rows(ledger, AttemptRow)] == ["SUPERSEDED", "RUNNING", "COMPLETE"]


def test_settling_twice_changes_nothing(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    settled(ledger, sweep, worker, settlement(one))
    tables = (TrialRow, AttemptRow, FitRow, OutboxRow)
    before = [rows(ledger, table) for table in tables]
    assert settled(ledger, sweep, worker, settlement(one, loss=9.0)) == []
    assert [rows(ledger, table) for table in tables] == before


# all or nothing -------------------------------------------------------------------------------------------------------


def twice_the_same_fold(end: Settlement) -> Settlement:
    return replace(end, fits=(*end.fits, *end.fits))


def a_run_without_text(end: Settlement) -> Settlement:
    return replace(end, letters=(Letter("uid", "FINISHED", None),))  # type: ignore[arg-type]


def a_cost_without_seconds(end: Settlement) -> Settlement:
    return replace(end, cost=replace(end.cost, train_s=None))  # type: ignore[arg-type]


@pytest.mark.parametrize("breaks", [twice_the_same_fold, a_run_without_text, a_cost_without_seconds])
def test_a_store_that_refuses_one_part_keeps_no_part(
    ledger: Ledger, sweep: Sweep, worker: int, breaks: Callable[[Settlement], Settlement]
) -> None:
    good, bad = started(ledger, sweep, worker, 2)
    tables = (TrialRow, AttemptRow, FitRow, OutboxRow)
    before = [rows(ledger, table) for table in tables]
    with pytest.raises(SQLAlchemyError):
        settled(ledger, sweep, worker, settlement(good), breaks(settlement(bad)))
    assert [rows(ledger, table) for table in tables] == before
    settled(ledger, sweep, worker, settlement(good), settlement(bad))
    assert [len(rows(ledger, table)) for table in tables] == [2, 2, 2, 2]


def test_a_worker_that_dies_before_its_commit_has_settled_proposed_and_claimed_nothing(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    (one,) = started(ledger, sweep, worker)
    tables = (TrialRow, AttemptRow, FitRow, OutboxRow)
    before = [rows(ledger, table) for table in tables]

    def die_at_the_end_of_a_turn() -> None:
        with ledger.write() as connection:
            trials.settle(connection, worker, sweep.id, [settlement(one)])
            trials.propose(connection, [new_trial(one.study_id, 1)])
            assert len(trials.claim(connection, sweep.id, worker, 9)) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        die_at_the_end_of_a_turn()
    assert [rows(ledger, table) for table in tables] == before


# released and charged -------------------------------------------------------------------------------------------------


def test_a_released_trial_waits_again_with_what_it_cost(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    kept, one = started(ledger, sweep, worker, 2)
    with ledger.write() as connection:
        trials.release(connection, worker, {one: cost(train_s=2.0)})
    (trial,), (attempt,) = rows(ledger, TrialRow, id=one.trial_id), rows(ledger, AttemptRow, id=one.attempt_id)
    assert (trial.state, trial.worker_id, trial.started_at, trial.attempt) == ("WAITING", None, None, 1)
    assert (attempt.state, attempt.train_s, attempt.suggest_s) == ("RELEASED", 2.0, one.suggest_s)
    assert attempt.ended_at is not None
    assert attempt_state(ledger, kept) == "RUNNING"


def test_a_late_release_leaves_the_trial_to_whoever_has_it(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (late,) = started(ledger, sweep, worker)
    with ledger.write() as connection:
        workers.give_back(connection, worker, workers.LOST)
    other = registered(ledger)
    (now,) = claimed(ledger, sweep, other)
    before = rows(ledger, TrialRow)
    with ledger.write() as connection:
        trials.release(connection, worker, {late: cost(train_s=2.0)})
    assert rows(ledger, TrialRow) == before
    assert (attempt_state(ledger, late), attempt_state(ledger, now)) == ("SUPERSEDED", "RUNNING")
    assert rows(ledger, AttemptRow, id=late.attempt_id)[0].train_s == 2.0


def test_releasing_a_settled_trial_changes_nothing(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    settled(ledger, sweep, worker, settlement(one))
    before = rows(ledger, TrialRow), rows(ledger, AttemptRow)
    with ledger.write() as connection:
        trials.release(connection, worker, {one: cost(train_s=99.0)})
    assert (rows(ledger, TrialRow), rows(ledger, AttemptRow)) == before


def test_storage_is_charged_on_top_of_what_an_attempt_has(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    one, other = started(ledger, sweep, worker, 2)
    settled(ledger, sweep, worker, settlement(one), settlement(other))
    with ledger.write() as connection:
        trials.charge_storage(connection, {one.attempt_id: 0.25})
        trials.charge_storage(connection, {one.attempt_id: 0.5, other.attempt_id: 0.125})
        trials.charge_storage(connection, {})
    assert [row.storage_s for row in rows(ledger, AttemptRow)] == [0.75, 0.125]


# moments --------------------------------------------------------------------------------------------------------------


def test_moments_are_aware_and_in_utc_wherever_they_were_taken(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    tokyo = datetime(2026, 5, 1, 9, 0, tzinfo=timezone(timedelta(hours=9)))
    settled(ledger, sweep, worker, settlement(one, ended_at=tokyo))
    with ledger.read() as connection:
        (trial,) = reads.trials(connection, sweep.id)
    assert trial.ended_at == tokyo
    assert trial.ended_at is not None
    assert trial.ended_at.isoformat() == "2026-05-01T00:00:00+00:00"
    for row in (*rows(ledger, TrialRow), *rows(ledger, AttemptRow), *rows(ledger, OutboxRow)):
        moments = [value for value in row if isinstance(value, datetime)]
        assert len(moments) >= 1
        assert all(moment.tzinfo is UTC for moment in moments)
