"""What is going on now, as the ledger tells it: workers by their leases, rates of the last minute, MLflow's lag."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from ledger.makers import failure, launched, plan, registered, settled, settlement, started
from sweeper import machine
from sweeper.ledger import deliveries, fleet, workers
from sweeper.ledger.fleet import Delivery, Hand, Life
from sweeper.ledger.rows import Letter, Meter, Sweep
from sweeper.ledger.schema import AttemptRow, LeaseRow, OutboxRow, WorkerRow, clock
from sweeper.ledger.store import Ledger


def enter(ledger: Ledger, statement: Any, **values: Any) -> None:
    with ledger.write() as connection:
        connection.execute(statement.values(**values))


def at_work(ledger: Ledger, sweep: Sweep, *, lease_s: float = 110.0, age_s: float = 3600.0) -> int:
    """A worker on another machine that has something left of its lease, and began a while ago."""
    worker = registered(ledger)
    with ledger.write() as connection:
        workers.set_meter(connection, worker, sweep.id, Meter(30, 40))
        values = {"host": "far", "pid": 77, "place": "far:away", "lease_until": clock(ledger.dialect) + lease_s}
        values["started_at"] = datetime.now(UTC) - timedelta(seconds=age_s)
        connection.execute(update(WorkerRow).where(WorkerRow.id == worker).values(**values))
    return worker


def hands(ledger: Ledger, sweep: Sweep | None = None) -> list[Hand]:
    with ledger.read() as connection:
        return fleet.hands(connection, sweep.id if sweep else None)


def rate(ledger: Ledger, sweep: Sweep) -> float:
    with ledger.read() as connection:
        return fleet.trials_per_s(connection, sweep.id)


@pytest.mark.parametrize(
    ("lease_s", "life"),
    [
        pytest.param(110.0, Life.WORKS, id="it beat not long ago"),
        pytest.param(65.0, Life.WORKS, id="or a beat ago"),
        pytest.param(55.0, Life.SILENT, id="two beats are missing"),
        pytest.param(-3.0, Life.DEAD, id="its lease ran out"),
    ],
)
def test_a_lease_says_how_a_worker_is(ledger: Ledger, sweep: Sweep, lease_s: float, life: Life):
    worker = at_work(ledger, sweep, lease_s=lease_s)
    started(ledger, sweep, worker, 3)
    (hand,) = hands(ledger, sweep)
    assert (hand.name, hand.sweep, hand.device, hand.life, hand.running) == ("far:77", "digits", "cpu", life, 3)
    assert hand.lease_s == pytest.approx(lease_s, abs=2.0)
    assert hand.occupancy == 0.75
    assert hand.is_stale == (life is Life.DEAD)


def test_the_dead_that_hold_nothing_are_not_stale(ledger: Ledger, sweep: Sweep):
    at_work(ledger, sweep, lease_s=-3.0)
    (hand,) = hands(ledger, sweep)
    assert (hand.life, hand.is_stale) == (Life.DEAD, False)


def test_a_worker_whose_process_is_gone_from_here_is_dead_at_once(
    ledger: Ledger, sweep: Sweep, monkeypatch: pytest.MonkeyPatch
):
    worker = at_work(ledger, sweep)
    enter(ledger, update(WorkerRow).where(WorkerRow.id == worker), place=machine.place())
    monkeypatch.setattr(machine, "is_alive", lambda pid, started: False)
    assert [hand.life for hand in hands(ledger, sweep)] == [Life.DEAD]


def test_only_those_who_have_not_ended_are_told_of_each_with_its_sweep(ledger: Ledger, sweep: Sweep):
    other = launched(ledger, plan(name="other"))
    at_work(ledger, sweep)
    at_work(ledger, other)
    ended = at_work(ledger, sweep)
    registered(ledger)  # has not begun
    with ledger.write() as connection:
        workers.retire(connection, ended)
    assert [hand.sweep for hand in hands(ledger)] == ["digits", "other", None]
    assert [hand.sweep for hand in hands(ledger, other)] == ["other"]


def test_trials_of_the_last_minute_make_the_rate_however_they_ended(ledger: Ledger, sweep: Sweep):
    worker = at_work(ledger, sweep)
    tried = started(ledger, sweep, worker, 5)
    ends = [settlement(one) for one in tried[:3]]
    settled(ledger, sweep, worker, *ends, failure(tried[3]))
    assert rate(ledger, sweep) == pytest.approx(4 / 60)
    assert [hand.trials_per_s for hand in hands(ledger)] == [pytest.approx(4 / 60)]
    long_ago = datetime.now(UTC) - timedelta(seconds=61)
    enter(ledger, update(AttemptRow).where(AttemptRow.id == tried[0].attempt_id), ended_at=long_ago)
    assert rate(ledger, sweep) == pytest.approx(3 / 60)
    with ledger.write() as connection:
        workers.retire(connection, worker)
    assert rate(ledger, sweep) == pytest.approx(3 / 60)  # it is gone, and what it did counts


def test_what_was_given_back_is_no_trial_that_ended(ledger: Ledger, sweep: Sweep):
    worker = at_work(ledger, sweep)
    started(ledger, sweep, worker, 2)
    with ledger.write() as connection:
        workers.give_back(connection, worker, workers.LOST)
    assert rate(ledger, sweep) == 0.0


def test_a_sweep_that_has_just_begun_is_not_divided_by_a_whole_minute(ledger: Ledger, sweep: Sweep):
    worker = at_work(ledger, sweep, age_s=10.0)
    settled(ledger, sweep, worker, *(settlement(one) for one in started(ledger, sweep, worker, 5)))
    assert rate(ledger, sweep) == pytest.approx(0.5, rel=0.3)
    assert [hand.trials_per_s for hand in hands(ledger)] == [pytest.approx(0.5, rel=0.3)]
    assert rate(ledger, launched(ledger, plan(name="other"))) == 0.0


def lag(ledger: Ledger, sweep: Sweep) -> Delivery:
    with ledger.read() as connection:
        return fleet.delivery(connection, sweep.id)


def test_the_oldest_run_that_waits_tells_how_far_mlflow_is_behind(ledger: Ledger, sweep: Sweep):
    assert lag(ledger, sweep) == Delivery(None, None)
    with ledger.write() as connection:
        deliveries.post(connection, sweep.id, [Letter(uid, "FINISHED", "{}") for uid in ("a", "b", "c")])
    for uid, age_s in (("a", 300), ("b", 200), ("c", 100)):
        posted = datetime.now(UTC) - timedelta(seconds=age_s)
        enter(ledger, update(OutboxRow).where(OutboxRow.uid == uid), created_at=posted)
    assert lag(ledger, sweep).oldest_s == pytest.approx(300, abs=2)
    enter(ledger, update(OutboxRow).where(OutboxRow.uid == "a"), delivered_at=datetime.now(UTC))
    assert lag(ledger, sweep).oldest_s == pytest.approx(200, abs=2)
    enter(ledger, update(OutboxRow).where(OutboxRow.uid == "b"), refusals=deliveries.REFUSALS)
    assert lag(ledger, sweep).oldest_s == pytest.approx(100, abs=2)
    with ledger.write() as connection:
        deliveries.post(connection, sweep.id, [Letter(uid, "FINISHED", "{}") for uid in ("a", "c")])
    assert lag(ledger, sweep).oldest_s == pytest.approx(0, abs=2)  # posted again


@pytest.mark.parametrize(("left_s", "is_stale"), [(40.0, False), (-5.0, True)])
def test_a_lease_of_who_delivers_that_ran_out_is_stale_while_runs_wait(
    ledger: Ledger, sweep: Sweep, left_s: float, is_stale: bool
):
    with ledger.write() as connection:
        assert workers.take_lease(connection, f"{fleet.EXPORT}{sweep.id}", "far:away/7/1.0", left_s)
    assert not lag(ledger, sweep).is_stale
    with ledger.write() as connection:
        deliveries.post(connection, sweep.id, [Letter("a", "FINISHED", "{}")])
    told = lag(ledger, sweep)
    assert (told.lease_s, told.is_stale) == (pytest.approx(left_s, abs=2), is_stale)
    enter(ledger, update(LeaseRow), until=0.0)  # let go of
    assert lag(ledger, sweep).lease_s is None
