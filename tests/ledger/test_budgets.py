"""What a sweep has spent, and what is left for a worker that asks, on every database."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ledger.makers import launched, plan, registered, rows
from sweeper.ledger import budgets, sweeps, workers
from sweeper.ledger.budgets import UNLIMITED, Amount, Standing
from sweeper.ledger.rows import Meter, Sweep
from sweeper.ledger.schema import WorkerMeterRow
from sweeper.ledger.store import Ledger
from sweeper.scheduler.purse import Verdict, share
from sweeper.timesheet import Timesheet


def with_budget(ledger: Ledger, **limits: float) -> Sweep:
    plan_ = plan()
    return launched(ledger, replace(plan_, config=plan_.config | {"search": {"budget": limits}}))


def entered(ledger: Ledger, sweep: Sweep, worker: int, seconds: float, joules: float | None = None) -> None:
    """A worker whose slots had a fit for half of their time."""
    with ledger.write() as connection:
        kinds = {"train": seconds - 1.0, "evaluate": 1.0, "idle": seconds, "start": 7.0}
        workers.set_times(connection, worker, sweep.id, kinds)
        workers.set_meter(connection, worker, sweep.id, Meter(500, 900, None if joules is None else 2 * joules))


def granted(ledger: Ledger, sweep: Sweep, worker: int, device_s: float, joules: float = 0.0) -> None:
    with ledger.write() as connection:
        budgets.set_grant(connection, worker, sweep.id, Amount(device_s, joules))


def retired(ledger: Ledger, worker: int) -> None:
    with ledger.write() as connection:
        workers.retire(connection, worker)


def standing(ledger: Ledger, sweep: Sweep, worker: int) -> Standing:
    with ledger.write() as connection:
        sweeps.lock(connection, sweep.id)
        return budgets.standing(connection, sweep.id, worker)


def spent(ledger: Ledger, sweep: Sweep) -> Amount:
    with ledger.read() as connection:
        return budgets.spent(connection, sweep.id)


def test_a_budget_is_what_the_file_says(ledger: Ledger, worker: int):
    both = with_budget(ledger, device_seconds=3600, joules=1.5e6)
    assert budgets.limit_of(both.config) == standing(ledger, both, worker).limit == Amount(3600.0, 1.5e6)
    assert budgets.limit_of({"search": {"budget": {"device_seconds": None, "joules": 2}}}) == Amount(math.inf, 2.0)
    assert budgets.limit_of({"search": {"trials": 3}}) == UNLIMITED  # launched before there were budgets


def test_a_sweep_that_nobody_worked_on_has_spent_nothing(ledger: Ledger, sweep: Sweep, worker: int):
    assert spent(ledger, sweep) == Amount()
    assert standing(ledger, sweep, worker) == Standing(UNLIMITED, Amount(), Amount(), 0)


def test_slots_without_a_fit_and_all_that_is_not_training_cost_nothing(ledger: Ledger, sweep: Sweep, worker: int):
    entered(ledger, sweep, worker, 10.0, joules=300.0)
    other = launched(ledger, plan(name="other"))
    entered(ledger, other, worker, 99.0, joules=9.0)
    entered(ledger, sweep, registered(ledger), 5.0, joules=0.5)
    assert spent(ledger, sweep) == Amount(15.0, 300.5)
    assert spent(ledger, other) == Amount(99.0, 9.0)


def test_a_worker_counts_what_it_has_spent_as_the_ledger_does(ledger: Ledger, sweep: Sweep, worker: int):
    times, meter = Timesheet(), Meter(3, 4, 500.0)
    assert budgets.spent_by(times, Meter()) == Amount()
    for kind, seconds in {"train": 5.0, "evaluate": 3.0, "idle": 2.0, "storage": 1.0}.items():
        times.add(kind, seconds)
    with ledger.write() as connection:
        workers.set_times(connection, worker, sweep.id, times.totals())
        workers.set_meter(connection, worker, sweep.id, meter)
    assert budgets.spent_by(times, meter) == spent(ledger, sweep) == Amount(8.0, 400.0)


def test_the_living_hold_what_they_were_granted_and_the_ended_what_they_spent(
    ledger: Ledger, sweep: Sweep, worker: int
):
    entered(ledger, sweep, worker, 1000.0, joules=1000.0)  # who asks says by itself what it has spent
    granted(ledger, sweep, worker, 5000.0, 5000.0)
    for ended, seconds, until in ((False, 10.0, 13.0), (False, 20.0, 19.0), (True, 40.0, 44.0), (True, 80.0, 70.0)):
        other = registered(ledger)
        entered(ledger, sweep, other, seconds, joules=seconds * 2)
        granted(ledger, sweep, other, until, until * 2)
        if ended:
            retired(ledger, other)
    held = 13.0 + 20.0 + 40.0 + 80.0
    assert standing(ledger, sweep, worker) == Standing(UNLIMITED, Amount(held, 2 * held), Amount(3.0, 6.0), 2)


def test_energy_that_was_not_measured_counts_as_what_was_granted(ledger: Ledger, sweep: Sweep, worker: int):
    unmeasured = registered(ledger)
    entered(ledger, sweep, unmeasured, 10.0)
    granted(ledger, sweep, unmeasured, 12.0, 70.0)
    retired(ledger, unmeasured)
    assert spent(ledger, sweep) == standing(ledger, sweep, worker).held == Amount(10.0, 70.0)


def test_a_grant_outlives_what_the_worker_enters_later(ledger: Ledger, sweep: Sweep, worker: int):
    entered(ledger, sweep, worker, 1.0)
    granted(ledger, sweep, worker, 4.0, 8.0)
    entered(ledger, sweep, worker, 2.0)
    (row,) = rows(ledger, WorkerMeterRow)
    assert (row.granted_s, row.granted_joules) == (4.0, 8.0)


def test_the_grant_of_a_dead_worker_returns_once_it_is_buried(
    ledger: Ledger, sweep: Sweep, worker: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(workers, "LEASE_S", -1.0)
    dead = registered(ledger)
    entered(ledger, sweep, dead, 2.0)
    granted(ledger, sweep, dead, 5.0)
    assert standing(ledger, sweep, worker).unused == Amount(3.0)
    with ledger.write() as connection:
        workers.bury_dead(connection)
    assert standing(ledger, sweep, worker) == Standing(UNLIMITED, Amount(2.0), Amount(), 0)


def test_workers_that_ask_at_once_are_never_given_the_same(ledger: Ledger):
    """Four threads, as four processes would, each ticking for 1 s until there is no more to be had."""
    sweep = with_budget(ledger, device_seconds=30)
    crew = [registered(ledger) for _ in range(4)]

    def work(worker: int) -> float:
        done, until = Amount(), Amount()
        while True:
            if done.device_s + 1.0 > until.device_s:
                with ledger.write() as connection:
                    sweeps.lock(connection, sweep.id)
                    workers.set_times(connection, worker, sweep.id, {"train": done.device_s})
                    workers.set_meter(connection, worker, sweep.id, Meter())
                    now = budgets.standing(connection, sweep.id, worker)
                    answer = share(now, done, Amount(1.0), Amount(3.0))
                    budgets.set_grant(connection, worker, sweep.id, answer.until)
                if answer.verdict is Verdict.SPENT:
                    return done.device_s
                until = answer.until
            if done.device_s + 1.0 <= until.device_s:
                done = done + Amount(1.0)

    with ThreadPoolExecutor(len(crew)) as pool:
        total = sum(pool.map(work, crew))
    assert total == spent(ledger, sweep).device_s
    assert 29.0 <= total <= 30.0
