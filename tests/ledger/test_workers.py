"""Workers live by their leases and their processes; what the dead held goes to the living, what they spent is kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psutil
import pytest
from sqlalchemy import select, update

from ledger.makers import (
    claimed,
    cost,
    launched,
    plan,
    proposed,
    registered,
    rows,
    settled,
    settlement,
    started,
    study_ids,
)
from sweeper import machine
from sweeper.ledger import reads, trials, workers
from sweeper.ledger.rows import Meter, Sweep
from sweeper.ledger.schema import AttemptRow, StudyRow, TrialRow, WorkerRow, WorkerTimeRow, clock
from sweeper.ledger.store import Ledger
from sweeper.records import TrialState

WORK = """
import sys, time
from sweeper.ledger import trials, workers
from sweeper.ledger.store import Ledger
from sweeper.records import TrialState
ledger, sweep = Ledger(sys.argv[1]), int(sys.argv[2])
with ledger.write() as connection:
    worker = workers.register(connection, "cpu", {})
    workers.share_studies(connection, sweep, worker)
    trials.claim(connection, sweep, worker, 2)
print(worker, flush=True)
time.sleep(600)
"""

HOLD = """
import sys, time
from sweeper.ledger import workers
from sweeper.ledger.store import Ledger
from sweeper.records import TrialState
with Ledger(sys.argv[1]).write() as connection:
    assert workers.take_lease(connection, "export:1", workers.this_process(), 600.0)
print("held", flush=True)
time.sleep(600)
"""


@contextmanager
def running(script: str, *arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A Python process and the first line that it wrote."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline().strip()
        finally:
            process.kill()


def buried(ledger: Ledger) -> int:
    with ledger.write() as connection:
        return workers.bury_dead(connection)


def lost(ledger: Ledger, worker: int) -> int:
    with ledger.write() as connection:
        return workers.give_back(connection, worker, workers.LOST)


def taken(ledger: Ledger, sweep: Sweep, worker: int) -> list[int]:
    with ledger.write() as connection:
        return workers.share_studies(connection, sweep.id, worker).studies


def set_times(ledger: Ledger, worker: int, sweep: Sweep, **seconds: float) -> None:
    with ledger.write() as connection:
        workers.set_times(connection, worker, sweep.id, seconds)


def change(ledger: Ledger, worker: int, **values: Any) -> None:
    with ledger.write() as connection:
        connection.execute(update(WorkerRow).where(WorkerRow.id == worker).values(**values))


def expire(ledger: Ledger, worker: int) -> None:
    change(ledger, worker, lease_until=0.0)


def lease_of(ledger: Ledger, worker: int) -> float:
    """Seconds that a worker's lease still has, by the server's clock."""
    with ledger.read() as connection:
        left = select(WorkerRow.lease_until - clock(connection.dialect.name)).where(WorkerRow.id == worker)
        return float(connection.scalar(left) or 0.0)


def states(ledger: Ledger) -> list[str]:
    return [row.state for row in rows(ledger, TrialRow)]


# leases ---------------------------------------------------------------------------------------------------------------


def test_a_worker_is_entered_as_this_process_with_a_fresh_lease(ledger: Ledger, worker: int) -> None:
    (row,) = rows(ledger, WorkerRow)
    assert (row.id, row.pid, row.device, row.details) == (worker, os.getpid(), "cpu", {"slots": 4})
    assert row.process_started == pytest.approx(psutil.Process().create_time() - psutil.boot_time(), abs=0.01)
    assert (row.ended_at, row.started_at.tzinfo) == (None, UTC)
    assert lease_of(ledger, worker) == pytest.approx(workers.LEASE_S, abs=10.0)


def test_leases_go_by_the_servers_clock(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ahead(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.now(tz) + timedelta(hours=1)

    behind = time.time() - 3600
    with monkeypatch.context() as patched:
        patched.setattr(workers, "datetime", Ahead)
        patched.setattr(time, "time", lambda: behind)
        worker = registered(ledger)
    assert rows(ledger, WorkerRow)[0].started_at > datetime.now(UTC) + timedelta(minutes=50)
    assert lease_of(ledger, worker) == pytest.approx(workers.LEASE_S, abs=10.0)
    assert buried(ledger) == 0
    assert rows(ledger, WorkerRow)[0].ended_at is None


def test_the_servers_clock_is_finer_than_a_hundredth_of_a_second(ledger: Ledger) -> None:
    with ledger.read() as connection:
        before = connection.scalar(select(clock(connection.dialect.name)))
    time.sleep(0.02)
    with ledger.read() as connection:
        after = connection.scalar(select(clock(connection.dialect.name)))
    assert before is not None
    assert after is not None
    assert after - before > 0.01
    assert abs(after - time.time()) < 60.0


def test_a_beat_renews_one_lease(ledger: Ledger) -> None:
    beating, other = registered(ledger), registered(ledger)
    expire(ledger, beating)
    expire(ledger, other)
    with ledger.write() as connection:
        workers.beat(connection, beating)
    assert lease_of(ledger, beating) > workers.LEASE_S - 10.0
    assert lease_of(ledger, other) < 0.0


# death ----------------------------------------------------------------------------------------------------------------


def test_a_killed_process_is_buried_at_once_and_a_living_one_is_not(ledger: Ledger, sweep: Sweep) -> None:
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 3)
    with running(WORK, ledger.url, sweep.id) as (process, line):
        assert buried(ledger) == 0
        assert states(ledger) == ["RUNNING", "RUNNING", "WAITING"]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert buried(ledger) == 2
    assert states(ledger) == ["WAITING"] * 3
    assert [row.state for row in rows(ledger, AttemptRow)] == ["LOST", "LOST"]
    assert {row.proposer_id for row in rows(ledger, StudyRow)} == {None}
    assert rows(ledger, WorkerRow, id=int(line))[0].ended_at is not None
    assert buried(ledger) == 0


def test_a_killed_process_that_nobody_has_waited_for_is_dead(ledger: Ledger, sweep: Sweep) -> None:
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 2)
    with running(WORK, ledger.url, sweep.id) as (process, _):
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE
        assert buried(ledger) == 2


def test_a_stopped_process_keeps_its_trials_until_its_lease_runs_out(ledger: Ledger, sweep: Sweep) -> None:
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 2)
    with running(WORK, ledger.url, sweep.id) as (process, line):
        process.send_signal(signal.SIGSTOP)
        assert buried(ledger) == 0
        expire(ledger, int(line))
        assert buried(ledger) == 2


def test_a_pid_that_was_used_again_is_another_process(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    started(ledger, sweep, worker)
    change(ledger, worker, process_started=machine.since_boot(os.getpid()) - 60.0)
    assert buried(ledger) == 1


def test_a_worker_of_another_host_lives_by_its_lease_alone(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    started(ledger, sweep, worker)
    change(ledger, worker, place="elsewhere", pid=2**22 + 1)
    assert buried(ledger) == 0
    expire(ledger, worker)
    assert buried(ledger) == 1
    assert states(ledger) == ["WAITING"]


def test_only_the_dead_workers_trials_are_given_back(ledger: Ledger, sweep: Sweep) -> None:
    dead, living = registered(ledger), registered(ledger)
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 3)
    claimed(ledger, sweep, dead)
    (kept,) = claimed(ledger, sweep, living)
    expire(ledger, dead)
    assert buried(ledger) == 1
    assert {row.id: row.worker_id for row in rows(ledger, TrialRow, state="RUNNING")} == {kept.trial_id: living}


def test_a_requeued_trial_counts_an_attempt_when_it_is_claimed_again(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (first,) = started(ledger, sweep, worker)
    expire(ledger, worker)
    buried(ledger)
    (waiting,) = rows(ledger, TrialRow)
    assert (waiting.attempt, waiting.worker_id, waiting.started_at) == (1, None, None)
    (second,) = claimed(ledger, sweep, registered(ledger))
    assert (second.trial_id, second.number, second.attempt) == (first.trial_id, first.number, 2)
    assert (second.params, second.setting) == (first.params, first.setting)


def test_a_finished_trial_of_a_dead_worker_stays_finished(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    one, _ = started(ledger, sweep, worker, 2)
    settled(ledger, sweep, worker, settlement(one))
    before = rows(ledger, TrialRow, id=one.trial_id), rows(ledger, AttemptRow, id=one.attempt_id)
    expire(ledger, worker)
    assert buried(ledger) == 1
    assert (rows(ledger, TrialRow, id=one.trial_id), rows(ledger, AttemptRow, id=one.attempt_id)) == before


def test_a_retired_worker_is_not_buried(ledger: Ledger, worker: int) -> None:
    with ledger.write() as connection:
        workers.retire(connection, worker)
    (ended,) = rows(ledger, WorkerRow)
    assert ended.ended_at.tzinfo is UTC
    expire(ledger, worker)
    assert buried(ledger) == 0
    assert rows(ledger, WorkerRow)[0].ended_at == ended.ended_at


def test_a_worker_that_was_taken_for_dead_and_goes_on_is_buried_when_it_dies(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    expire(ledger, worker)
    buried(ledger)
    with ledger.write() as connection:
        workers.beat(connection, worker)
    assert taken(ledger, sweep, worker) != []
    started(ledger, sweep, worker)
    assert buried(ledger) == 0
    assert states(ledger) == ["RUNNING"]
    expire(ledger, worker)
    assert buried(ledger) == 1
    assert states(ledger) == ["WAITING"]
    assert {row.proposer_id for row in rows(ledger, StudyRow)} == {None}


# what the dead had spent ----------------------------------------------------------------------------------------------


def spent(ledger: Ledger, sweep: Sweep) -> tuple[float, float]:
    with ledger.read() as connection:
        total = reads.total_cost(connection, sweep.id)
    return total.train_s, total.evaluate_s


def test_lost_attempts_share_what_their_worker_had_not_settled(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    done, *open_ = started(ledger, sweep, worker, 4)
    settled(ledger, sweep, worker, settlement(done, cost=cost(2.0, 1.0)))
    set_times(ledger, worker, sweep, train=8.0, evaluate=1.75, idle=5.0, suggest=0.5)
    expire(ledger, worker)
    buried(ledger)
    shares = [rows(ledger, AttemptRow, id=one.attempt_id)[0] for one in open_]
    assert [(row.train_s, row.evaluate_s) for row in shares] == [(2.0, 0.25)] * 3
    assert spent(ledger, sweep) == (8.0, 1.75)


def test_each_sweep_pays_for_its_own_lost_attempts(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    other = launched(ledger, plan(name="lecture"))
    started(ledger, sweep, worker, 2)
    done, _ = started(ledger, other, worker, 2)
    settled(ledger, other, worker, settlement(done, cost=cost(2.0, 0.25)))
    set_times(ledger, worker, sweep, train=3.0, evaluate=1.0)
    set_times(ledger, worker, other, train=5.0, evaluate=0.5)
    assert lost(ledger, worker) == 3
    assert (spent(ledger, sweep), spent(ledger, other)) == ((3.0, 1.0), (5.0, 0.5))


def test_a_worker_lost_before_its_first_turn_has_spent_nothing(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    started(ledger, sweep, worker, 2)
    lost(ledger, worker)
    assert spent(ledger, sweep) == (0.0, 0.0)


def test_costs_balance_when_a_worker_that_was_taken_for_dead_comes_back(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    back, _ = started(ledger, sweep, worker, 2)
    set_times(ledger, worker, sweep, train=4.0, evaluate=2.0)
    expire(ledger, worker)
    buried(ledger)
    settled(ledger, sweep, worker, settlement(back, cost=cost(3.0, 1.5)))
    set_times(ledger, worker, sweep, train=9.0, evaluate=4.5)
    lost(ledger, worker)
    assert spent(ledger, sweep) == (9.0, 4.5)
    assert [(row.state, row.train_s) for row in rows(ledger, AttemptRow)] == [("SUPERSEDED", 3.0), ("LOST", 6.0)]


def test_a_released_trial_leaves_the_rest_to_the_lost_ones(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    released, _ = started(ledger, sweep, worker, 2)
    with ledger.write() as connection:
        trials.release(connection, worker, {released: cost(1.0, 0.5)})
    set_times(ledger, worker, sweep, train=4.0, evaluate=0.75)
    lost(ledger, worker)
    assert [(row.state, row.train_s, row.evaluate_s) for row in rows(ledger, AttemptRow)] == [
        ("RELEASED", 1.0, 0.5),
        ("LOST", 3.0, 0.25),
    ]


def test_lost_attempts_share_the_energy_that_busy_slots_took_and_nobody_settled(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    done, *open_ = started(ledger, sweep, worker, 3)
    settled(ledger, sweep, worker, settlement(done, cost=cost(joules=10.0)))
    set_times(ledger, worker, sweep, train=8.0)
    with ledger.write() as connection:
        workers.set_meter(connection, worker, sweep.id, Meter(busy_steps=300, slot_steps=400, joules=40.0))
    lost(ledger, worker)
    assert [rows(ledger, AttemptRow, id=one.attempt_id)[0].joules for one in open_] == [10.0, 10.0]
    with ledger.read() as connection:
        assert reads.total_cost(connection, sweep.id).joules == 30.0


@pytest.mark.parametrize("meter", [None, Meter(300, 400, None)], ids=["no meter", "energy not measured"])
def test_lost_attempts_of_a_worker_without_a_counter_have_no_energy(
    ledger: Ledger, sweep: Sweep, worker: int, meter: Meter | None
) -> None:
    started(ledger, sweep, worker, 2)
    set_times(ledger, worker, sweep, train=8.0)
    with ledger.write() as connection:
        if meter is not None:
            workers.set_meter(connection, worker, sweep.id, meter)
    lost(ledger, worker)
    assert [(row.train_s, row.joules) for row in rows(ledger, AttemptRow)] == [(4.0, None)] * 2


def test_a_workers_times_are_totals_that_replace_each_other(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    set_times(ledger, worker, sweep, train=1.0, idle=0.5)
    set_times(ledger, worker, sweep, train=2.5, wait=0.25)
    kept = {row.kind: row.seconds for row in rows(ledger, WorkerTimeRow)}
    assert kept == {"train": 2.5, "idle": 0.5, "wait": 0.25}


# studies --------------------------------------------------------------------------------------------------------------


def test_each_study_has_one_proposer(ledger: Ledger, sweep: Sweep) -> None:
    first, second = registered(ledger), registered(ledger)
    ids = set(study_ids(ledger, sweep).values())
    assert set(taken(ledger, sweep, first)) == ids
    assert taken(ledger, sweep, second) == []
    assert set(taken(ledger, sweep, first)) == ids


def test_a_retired_proposers_studies_go_to_the_next(ledger: Ledger, sweep: Sweep) -> None:
    first, second = registered(ledger), registered(ledger)
    mine = taken(ledger, sweep, first)
    with ledger.write() as connection:
        workers.retire(connection, first)
    assert taken(ledger, sweep, second) == mine


def test_studies_that_were_added_go_to_whoever_asks_first(ledger: Ledger, sweep: Sweep) -> None:
    first, second = registered(ledger), registered(ledger)
    before = set(taken(ledger, sweep, first))
    launched(ledger, plan(replicates=3))
    added = set(study_ids(ledger, sweep).values()) - before
    assert set(taken(ledger, sweep, second)) == added
    assert set(taken(ledger, sweep, first)) == before


def test_studies_of_another_sweep_are_left_alone(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    other = launched(ledger, plan(name="lecture"))
    taken(ledger, sweep, worker)
    assert {row.proposer_id for row in rows(ledger, StudyRow, sweep_id=other.id)} == {None}


# named leases ---------------------------------------------------------------------------------------------------------


def take(ledger: Ledger, owner: str, *, name: str = "export:1", seconds: float = 600.0) -> bool:
    with ledger.write() as connection:
        return workers.take_lease(connection, name, owner, seconds)


def test_a_named_lease_has_one_owner_who_may_renew_it(ledger: Ledger) -> None:
    mine, other = workers.this_process(), "elsewhere/7/1.0"
    assert take(ledger, mine)
    assert take(ledger, mine)
    assert not take(ledger, other)
    assert take(ledger, other, name="export:2")
    assert not take(ledger, mine, name="export:2")


def test_a_named_lease_that_ran_out_is_anybodys(ledger: Ledger) -> None:
    assert take(ledger, "elsewhere/7/1.0", seconds=-1.0)
    assert take(ledger, workers.this_process())
    assert not take(ledger, "elsewhere/7/1.0")


def test_a_dropped_lease_is_anybodys_and_only_its_owner_can_drop_it(ledger: Ledger) -> None:
    mine, other = workers.this_process(), "elsewhere/7/1.0"
    take(ledger, mine)
    with ledger.write() as connection:
        workers.drop_lease(connection, "export:1", other)
    assert not take(ledger, other)
    with ledger.write() as connection:
        workers.drop_lease(connection, "export:1", mine)
    assert take(ledger, other)


def test_a_killed_process_loses_its_named_lease_at_once(ledger: Ledger) -> None:
    with running(HOLD, ledger.url) as (process, line):
        assert line == "held"
        assert not take(ledger, workers.this_process())
        process.kill()
        process.wait()
        assert take(ledger, workers.this_process())


def test_a_trial_whose_workers_die_is_trained_alone_and_has_failed_for_good_in_the_end(ledger: Ledger) -> None:
    sweep = launched(ledger)
    study = next(iter(study_ids(ledger, sweep).values()))
    proposed(ledger, study, 2)
    for life in range(workers.LOSSES + 3):
        worker, is_suspect = registered(ledger), life >= workers.LOSSES
        with ledger.write() as connection:
            beside = trials.claim(connection, sweep.id, worker, 2, suspect=is_suspect)
            assert [one.number for one in beside] == ([0] if is_suspect else [0, 1])
            if life < workers.LOSSES:  # the other one is released in good order each time
                trials.release(connection, worker, {beside[1]: cost()})
        _bury(ledger, worker)
        victim, other = sorted(rows(ledger, TrialRow), key=lambda row: row.number)
        assert (victim.state, victim.losses) == (TrialState.WAITING, life + 1)
        assert victim.failures == max(0, life + 1 - workers.LOSSES)
        assert (other.state, other.losses, other.failures) == (TrialState.WAITING, 0, 0)


def _bury(ledger: Ledger, worker: int) -> None:
    """As if the process had been killed."""
    with ledger.write() as connection:
        connection.execute(update(WorkerRow).where(WorkerRow.id == worker).values(process_started=0.0))
        assert workers.bury_dead(connection) == 1


def test_workers_that_live_long_are_held_against_nobody(ledger: Ledger) -> None:
    sweep = launched(ledger)
    study = next(iter(study_ids(ledger, sweep).values()))
    proposed(ledger, study, 1)
    with ledger.write() as connection:
        connection.execute(update(TrialRow).values(losses=workers.LOSSES))
    worker = registered(ledger)
    with ledger.write() as connection:
        trials.claim(connection, sweep.id, worker, 1, suspect=True)
        connection.execute(update(AttemptRow).values(started_at=datetime.now(UTC) - 2 * workers.SOON))
    _bury(ledger, worker)
    assert [(row.losses, row.failures) for row in rows(ledger, TrialRow)] == [(workers.LOSSES + 1, 0)]
