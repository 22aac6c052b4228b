"""What people and reports are told: progress, trials, prices and costs, in Python and in plain SQL."""

from __future__ import annotations

import math
import sqlite3
from datetime import UTC
from pathlib import Path

import pytest
from sqlalchemy import text

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
from sweeper.ledger.rows import Meter, SettledFit, SpaceProgress, Sweep, Trial
from sweeper.ledger.schema import AttemptRow, FitRow
from sweeper.ledger.store import Ledger
from sweeper.records import Cost, PricedTrial, TrialState


def all_trials(ledger: Ledger, sweep: Sweep) -> list[Trial]:
    with ledger.read() as connection:
        return reads.trials(connection, sweep.id)


@pytest.fixture
def worked(ledger: Ledger, sweep: Sweep, worker: int) -> Sweep:
    """A sweep with trials in every state.

    none, replicate 0: complete (its first attempt released), failed, running, waiting; replicate 1: complete.
    shared: nothing yet. Beside it a sweep that must not show.
    """
    ids = study_ids(ledger, sweep)
    proposed(ledger, ids["none", 0], 4)
    (released,) = claimed(ledger, sweep, worker)
    with ledger.write() as connection:
        trials.release(connection, worker, {released: cost(0.5, 0.125)})
    good, bad, _ = claimed(ledger, sweep, worker, 3)
    settled(ledger, sweep, worker, settlement(good, 0.25, cost=cost(2.0, 1.0)), failure(bad, cost=cost(4.0, 0.0)))
    with ledger.write() as connection:
        trials.propose(connection, [new_trial(ids["none", 1], 0, origin="start")])
        (start,) = trials.claim(connection, sweep.id, worker, 1)
        trials.settle(connection, worker, sweep.id, [settlement(start, 0.125, cost=cost(8.0, 4.0))])
        trials.charge_storage(connection, {start.attempt_id: 0.0625})
    other = launched(ledger, plan(name="lecture"))
    settled(ledger, other, worker, *(settlement(one) for one in started(ledger, other, worker, 2)))
    return sweep


# progress -------------------------------------------------------------------------------------------------------------


def test_progress_counts_every_state_and_shows_spaces_without_trials(ledger: Ledger, worked: Sweep) -> None:
    with ledger.read() as connection:
        assert reads.progress(connection, worked.id) == [
            SpaceProgress("none", planned=16, complete=2, failed=1, pruned=0, running=1, best_validation_loss=0.125),
            SpaceProgress("shared", planned=16, complete=0, failed=0, pruned=0, running=0, best_validation_loss=None),
        ]


def test_spaces_come_in_the_order_in_which_they_were_launched(ledger: Ledger) -> None:
    launched(ledger, plan(("zeta", "alpha")))
    sweep = launched(ledger, plan(("zeta", "alpha", "beta")))
    with ledger.read() as connection:
        assert [space.space for space in reads.progress(connection, sweep.id)] == ["zeta", "alpha", "beta"]


def test_failed_and_pruned_trials_are_finished(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    pruned, failed, _ = started(ledger, sweep, worker, 3)
    settled(ledger, sweep, worker, settlement(pruned, state=TrialState.PRUNED), failure(failed))
    with ledger.read() as connection:
        none, _ = reads.progress(connection, sweep.id)
    assert (none.failed, none.pruned, none.running, none.finished) == (1, 1, 1, 2)
    assert none.best_validation_loss is None  # what a pruned trial had reached is nobody's best


# trials ---------------------------------------------------------------------------------------------------------------


def test_trials_come_by_space_replicate_and_number_whatever_their_state(ledger: Ledger, worked: Sweep) -> None:
    found = [(one.space, one.replicate, one.number, one.state.value) for one in all_trials(ledger, worked)]
    assert found == [
        ("none", 0, 0, "COMPLETE"),
        ("none", 0, 1, "FAIL"),
        ("none", 0, 2, "RUNNING"),
        ("none", 0, 3, "WAITING"),
        ("none", 1, 0, "COMPLETE"),
    ]


def test_a_trial_carries_the_costs_of_all_its_attempts(ledger: Ledger, worked: Sweep) -> None:
    retried = all_trials(ledger, worked)[0]
    assert retried.attempts == 2
    assert retried.cost == Cost(800, 80, 24_000, 2 * (2**53 + 1), 2.5, 1.125, 0.125, 0.0, 0.125)


def test_moments_of_trials_are_aware_and_in_utc(ledger: Ledger, worked: Sweep) -> None:
    complete, _, running, *_ = all_trials(ledger, worked)
    assert complete.started_at is not None
    assert complete.ended_at is not None
    assert (complete.started_at.tzinfo, complete.ended_at.tzinfo) == (UTC, UTC)
    assert running.started_at is not None
    assert running.ended_at is None


# price ----------------------------------------------------------------------------------------------------------------


def test_the_price_sees_finished_trials_with_infinite_losses_where_they_failed(ledger: Ledger, worked: Sweep) -> None:
    flops = 2**53 + 1
    with ledger.read() as connection:
        assert reads.priced(connection, worked.id) == {
            "none": {
                0: [
                    PricedTrial(0, 0.25, 0.35, True, 3.625, 2 * flops, suggest_s=0.125),
                    PricedTrial(1, math.inf, math.inf, True, 4.0, flops, suggest_s=1.125),
                ],
                1: [PricedTrial(0, 0.125, 0.225, False, 12.0, flops, suggest_s=0.125)],
            }
        }


def test_a_pruned_trial_and_one_without_a_finite_loss_count_as_failed(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    pruned, endless = started(ledger, sweep, worker, 2)
    settled(ledger, sweep, worker, settlement(pruned, state=TrialState.PRUNED), settlement(endless, loss=math.nan))
    with ledger.read() as connection:
        found = reads.priced(connection, sweep.id)["none"][0]
    assert [(one.validation_loss, one.test_loss) for one in found] == [(math.inf, math.inf)] * 2


def test_what_a_space_drew_is_read_apart_and_without_its_starts(ledger: Ledger, worked: Sweep) -> None:
    with ledger.read() as connection:
        found = reads.drawn_params(connection, worked.id, "none")
        assert reads.drawn_params(connection, worked.id, "shared") == {}
    params = {(one.replicate, one.number): one.params for one in all_trials(ledger, worked)}
    assert found == {0: {number: params[0, number] for number in range(4)}}  # the only trial of 1 is a start


def test_a_trial_that_was_given_back_has_no_price_yet(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    with ledger.write() as connection:
        trials.release(connection, worker, {one: cost()})
        assert reads.priced(connection, sweep.id) == {}


# costs ----------------------------------------------------------------------------------------------------------------


def test_the_total_cost_is_the_sum_over_trials_and_over_attempts(ledger: Ledger, worked: Sweep) -> None:
    with ledger.read() as connection:
        total = reads.total_cost(connection, worked.id)
    assert total == sum((trial.cost for trial in all_trials(ledger, worked)), Cost())
    assert (total.train_s, total.evaluate_s, total.storage_s) == (14.5, 5.125, 0.0625)
    ended = [row for row in rows(ledger, AttemptRow) if row.ended_at is not None]
    assert total.flops == (len(ended) - 2) * (2**53 + 1)  # two belong to the other sweep


def test_a_sweep_without_trials_has_cost_nothing(ledger: Ledger, sweep: Sweep) -> None:
    with ledger.read() as connection:
        assert reads.total_cost(connection, sweep.id) == Cost()
        assert reads.worker_times(connection, sweep.id) == {}
        assert reads.best_trials(connection, sweep.id) == {}
        assert reads.priced(connection, sweep.id) == {}


def test_a_superseded_attempt_is_still_paid_for(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (late,) = started(ledger, sweep, worker)
    with ledger.write() as connection:
        workers.give_back(connection, worker, workers.LOST)
    other = registered(ledger)
    (now,) = claimed(ledger, sweep, other)
    settled(ledger, sweep, worker, settlement(late, cost=cost(2.0, 1.0)))
    settled(ledger, sweep, other, settlement(now, cost=cost(4.0, 0.5)))
    (trial,) = all_trials(ledger, sweep)
    assert (trial.attempts, trial.cost.train_s, trial.cost.evaluate_s) == (2, 6.0, 1.5)


def test_energy_is_told_where_every_attempt_that_used_a_device_was_measured(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    one, other, unmeasured, _ = started(ledger, sweep, worker, 4)  # the last one goes on: it has used nothing yet
    with ledger.write() as connection:
        trials.release(connection, worker, {one: cost(joules=2.0)})
    (again,) = claimed(ledger, sweep, worker)
    fit = SettledFit(0, 1, fit_result(cost=cost(joules=0.25)))
    settled(ledger, sweep, worker, settlement(again, cost=cost(joules=0.5), fits=(fit,)))
    settled(ledger, sweep, worker, settlement(other, cost=Cost()))  # has not used the device
    assert joules(ledger, sweep) == ([2.5, None, None, None], 2.5)
    assert [row.joules for row in rows(ledger, FitRow)] == [0.25, None]
    settled(ledger, sweep, worker, settlement(unmeasured))
    assert joules(ledger, sweep) == ([2.5, None, None, None], None)
    with ledger.read() as connection:
        assert connection.scalars(text("SELECT joules FROM trial_costs ORDER BY number")).all() == [2.5, *[None] * 3]
        assert connection.scalars(text("SELECT joules FROM space_costs")).all() == [None]


def test_the_energy_of_a_space_is_the_sum_over_its_trials(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    taken = started(ledger, sweep, worker, 3)
    settled(ledger, sweep, worker, *(settlement(one, cost=cost(joules=2.0**one.number)) for one in taken))
    with ledger.read() as connection:
        assert connection.scalars(text("SELECT joules FROM space_costs")).all() == [7.0]
    assert joules(ledger, sweep) == ([1.0, 2.0, 4.0], 7.0)
    with ledger.read() as connection:
        assert [trial.joules for trial in reads.priced(connection, sweep.id)["none"][0]] == [1.0, 2.0, 4.0]


def test_energy_that_could_not_be_read_is_not_measured(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    settled(ledger, sweep, worker, settlement(one, cost=cost(joules=math.nan)))
    assert joules(ledger, sweep) == ([None], None)


def joules(ledger: Ledger, sweep: Sweep) -> tuple[list[float | None], float | None]:
    with ledger.read() as connection:
        total = reads.total_cost(connection, sweep.id).joules
    return [trial.cost.joules for trial in all_trials(ledger, sweep)], total


def test_occupancy_is_over_all_workers_of_one_sweep(ledger: Ledger, sweep: Sweep) -> None:
    first, second, other = registered(ledger), registered(ledger), launched(ledger, plan(name="lecture"))
    with ledger.write() as connection:
        assert reads.occupancy(connection, sweep.id) is None
        workers.set_meter(connection, first, sweep.id, Meter(1, 2**40, 5.0))
        workers.set_meter(connection, first, sweep.id, Meter(30, 40, 6.0))  # totals replace each other
        workers.set_meter(connection, second, sweep.id, Meter(10, 60, 1.5))
        workers.set_meter(connection, second, other.id, Meter(2**62, 2**62, None))
        assert reads.occupancy(connection, sweep.id) == 0.4
        assert reads.meter(connection, sweep.id) == Meter(40, 100, 7.5)
        assert reads.meter(connection, other.id) == Meter(2**62, 2**62, None)


@pytest.mark.parametrize("unmeasured", [None, math.nan])
def test_meters_add_up_and_what_was_not_measured_stays_so(unmeasured: float | None) -> None:
    one, two, neither = Meter(3, 4, 1.5), Meter(2, 4, 0.25), Meter(1, 4, unmeasured)
    assert Meter() + one + two == Meter(5, 8, 1.75)
    assert Meter() + neither + one == Meter() + one + neither == Meter(4, 8, None)
    assert Meter() + Meter() == Meter()


def test_the_energy_of_workers_is_told_where_each_that_worked_measured_it(ledger: Ledger, sweep: Sweep) -> None:
    first, second = registered(ledger), registered(ledger)
    with ledger.write() as connection:
        workers.set_meter(connection, first, sweep.id, Meter(30, 40, 6.0))
        workers.set_meter(connection, second, sweep.id, Meter())  # it came to late to work
        assert reads.meter(connection, sweep.id).joules == 6.0
        workers.set_meter(connection, second, sweep.id, Meter(1, 1))
        assert reads.meter(connection, sweep.id).joules is None


def test_worker_times_are_summed_over_workers_of_one_sweep(ledger: Ledger, sweep: Sweep) -> None:
    first, second, other = registered(ledger), registered(ledger), launched(ledger, plan(name="lecture"))
    with ledger.write() as connection:
        workers.set_times(connection, first, sweep.id, {"train": 1.0, "idle": 0.5})
        workers.set_times(connection, second, sweep.id, {"train": 2.0})
        workers.set_times(connection, second, other.id, {"train": 64.0})
        assert reads.worker_times(connection, sweep.id) == {"train": 3.0, "idle": 0.5}


# best -----------------------------------------------------------------------------------------------------------------


def test_the_best_trial_of_a_space_has_its_lowest_validation_loss(ledger: Ledger, worked: Sweep) -> None:
    with ledger.read() as connection:
        best = reads.best_trials(connection, worked.id)
    assert {space: (one.replicate, one.number, one.validation_loss) for space, one in best.items()} == {
        "none": (1, 0, 0.125)
    }


def test_among_equals_the_lowest_number_is_best_whatever_its_replicate(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    ids = study_ids(ledger, sweep)
    proposed(ledger, ids["none", 0], 3)
    proposed(ledger, ids["none", 1], 2)
    loss = {(ids["none", 0], 2): 0.0, (ids["none", 1], 1): 0.0}
    ends = [settlement(one, loss.get((one.study_id, one.number), 0.5)) for one in claimed(ledger, sweep, worker, 9)]
    settled(ledger, sweep, worker, *ends)
    with ledger.read() as connection:
        best = reads.best_trials(connection, sweep.id)["none"]
    assert (best.replicate, best.number) == (1, 1)


def test_a_pruned_trial_is_never_the_best(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    pruned, complete = started(ledger, sweep, worker, 2)
    settled(ledger, sweep, worker, settlement(pruned, 0.1, state=TrialState.PRUNED), settlement(complete, 0.9))
    with ledger.read() as connection:
        assert reads.best_trials(connection, sweep.id)["none"].number == complete.number


# views ----------------------------------------------------------------------------------------------------------------


def test_trial_costs_tells_in_sql_what_reads_tell(ledger: Ledger, worked: Sweep) -> None:
    with ledger.read() as connection:
        query = text("SELECT * FROM trial_costs WHERE sweep = :name ORDER BY space, replicate, number")
        found = connection.execute(query, {"name": worked.name}).mappings().all()
    started_ = [trial for trial in all_trials(ledger, worked) if trial.attempts]
    assert len(found) == len(started_)
    for row, trial in zip(found, started_, strict=True):
        for name in ("space", "replicate", "number", "state", "validation_loss", "test_loss", "attempts"):
            assert row[name] == getattr(trial, name), name
        for name in (
            "steps",
            "epochs",
            "examples",
            "flops",
            "train_s",
            "evaluate_s",
            "device_s",
            "suggest_s",
            "storage_s",
            "joules",
        ):
            assert row[name] == getattr(trial.cost, name), name


def test_space_costs_tells_in_sql_what_reads_tell(ledger: Ledger, worked: Sweep) -> None:
    with ledger.read() as connection:
        query = text("SELECT * FROM space_costs WHERE sweep = :name")
        (row,) = connection.execute(query, {"name": worked.name}).mappings().all()
        total, none = reads.total_cost(connection, worked.id), reads.progress(connection, worked.id)[0]
    assert (row["space"], row["studies"], row["trials"], row["attempts"]) == (
        "none",
        2,
        4,
        5,
    )  # trials that were started
    assert (row["complete"], row["pruned"]) == (none.complete, none.pruned)
    assert row["best_validation_loss"] == none.best_validation_loss
    for name in ("epochs", "flops", "device_s", "suggest_s", "storage_s", "joules"):
        assert row[name] == getattr(total, name), name


def test_what_a_pruned_trial_had_reached_is_no_space_s_best_in_sql_either(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    pruned, complete = started(ledger, sweep, worker, 2)
    settled(ledger, sweep, worker, settlement(pruned, 0.1, state=TrialState.PRUNED), settlement(complete, 0.9))
    with ledger.read() as connection:
        query = text("SELECT trials, complete, pruned, best_validation_loss FROM space_costs")
        assert connection.execute(query).all() == [(2, 1, 1, 0.9)]


def test_the_views_are_open_to_plain_sqlite3_while_a_worker_writes(
    sqlite_file: Path, ledger: Ledger, worked: Sweep, worker: int
) -> None:
    plain = sqlite3.connect(f"file:{sqlite_file}?mode=ro", uri=True)
    with ledger.write() as connection:
        workers.beat(connection, worker)
        query = "SELECT space, trials, complete, device_s FROM space_costs WHERE sweep = ?"
        assert plain.execute(query, (worked.name,)).fetchall() == [("none", 4, 2, 19.625)]
        assert len(plain.execute("SELECT * FROM trial_costs").fetchall()) == 6
    plain.close()
