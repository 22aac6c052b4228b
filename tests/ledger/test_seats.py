"""Who serves which sweep: what workers that serve all of them choose by."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import update

from ledger.makers import launched, plan, registered, rows, settled, settlement, started
from sweeper import machine
from sweeper.ledger import seats, sweeps, workers
from sweeper.ledger.rows import Meter, Sweep
from sweeper.ledger.schema import LeaseRow, WorkerRow
from sweeper.ledger.seats import Demand
from sweeper.ledger.store import Ledger

Become = Callable[[int], None]


@pytest.fixture
def become(monkeypatch: pytest.MonkeyPatch) -> Become:
    """Go on as another process of this place, which lives."""
    monkeypatch.setattr(machine, "is_alive", lambda pid, started: pid < 9000)
    return lambda pid: monkeypatch.setattr(workers, "this_process", lambda: f"{machine.place()}/{pid}/12.5")


@pytest.fixture
def other(ledger: Ledger) -> Sweep:
    return launched(ledger, plan(name="other"))


def sit(ledger: Ledger, sweep: Sweep) -> None:
    with ledger.write() as connection:
        seats.one_by_one(connection)
        seats.sit(connection, sweep.id)


def demands(ledger: Ledger, *wanted: Sweep) -> list[Demand]:
    with ledger.read() as connection:
        return seats.demands(connection, [sweep.id for sweep in wanted])


def working(ledger: Ledger, sweep: Sweep, pid: int, place: str | None = None) -> int:
    """A worker of a process that chose nothing, such as `sweeper run`."""
    worker = registered(ledger)
    with ledger.write() as connection:
        workers.set_meter(connection, worker, sweep.id, Meter())
        values = {"pid": pid, "place": place or machine.place()}
        connection.execute(update(WorkerRow).where(WorkerRow.id == worker).values(**values))
    return worker


def test_a_seat_counts_for_everybody_but_its_own_process(ledger: Ledger, sweep: Sweep, other: Sweep, become: Become):
    become(100)
    sit(ledger, sweep)
    assert demands(ledger, sweep, other) == [Demand(sweep.id, 0, 0), Demand(other.id, 0, 0)]
    become(101)
    assert demands(ledger, sweep, other) == [Demand(sweep.id, 1, 0), Demand(other.id, 0, 0)]


def test_who_moves_has_one_seat_and_who_ends_has_none(ledger: Ledger, sweep: Sweep, other: Sweep, become: Become):
    become(100)
    sit(ledger, sweep)
    sit(ledger, other)
    become(101)
    assert [one.workers for one in demands(ledger, sweep, other)] == [0, 1]
    become(100)
    with ledger.write() as connection:
        seats.stand_up(connection)
    become(101)
    assert [one.workers for one in demands(ledger, sweep, other)] == [0, 0]


def test_a_worker_counts_once_whether_it_sits_or_works_and_where_it_is_going_to(
    ledger: Ledger, sweep: Sweep, other: Sweep, become: Become
):
    worker = working(ledger, sweep, pid=100)
    become(101)
    assert demands(ledger, sweep, other) == [Demand(sweep.id, 1, worker), Demand(other.id, 0, 0)]
    become(100)
    sit(ledger, sweep)
    become(101)
    assert [one.workers for one in demands(ledger, sweep, other)] == [1, 0]
    become(100)
    sit(ledger, other)  # it is saving what it has in hand
    become(101)
    assert [one.workers for one in demands(ledger, sweep, other)] == [0, 1]


@pytest.mark.parametrize(
    ("pid", "place", "lease_s", "counts"),
    [
        pytest.param(100, None, 60.0, True, id="alive here"),
        pytest.param(9999, None, 60.0, False, id="its process is gone"),
        pytest.param(9999, "elsewhere:1:2", 60.0, True, id="elsewhere its lease says so"),
        pytest.param(100, "elsewhere:1:2", -1.0, False, id="until it runs out"),
    ],
)
def test_the_dead_serve_nothing(
    ledger: Ledger, sweep: Sweep, become: Become, pid: int, place: str | None, lease_s: float, counts: bool
):
    worker = working(ledger, sweep, pid, place)
    with ledger.write() as connection:
        until = workers.clock(connection.dialect.name) + lease_s
        connection.execute(update(WorkerRow).where(WorkerRow.id == worker).values(lease_until=until))
    become(101)
    assert demands(ledger, sweep) == [Demand(sweep.id, int(counts), worker)]


def test_the_seat_of_a_process_that_was_killed_is_free(ledger: Ledger, sweep: Sweep, become: Become):
    become(9999)
    sit(ledger, sweep)
    become(101)
    assert demands(ledger, sweep) == [Demand(sweep.id, 0, 0)]


def test_a_seat_that_ran_out_says_nothing_and_is_cleared_away(
    ledger: Ledger, sweep: Sweep, become: Become, monkeypatch: pytest.MonkeyPatch
):
    become(100)
    with monkeypatch.context() as patched:
        patched.setattr(seats, "SEAT_S", -1.0)
        sit(ledger, sweep)
    become(101)
    assert demands(ledger, sweep) == [Demand(sweep.id, 0, 0)]
    sit(ledger, sweep)
    (left,) = rows(ledger, LeaseRow)
    assert left.name.endswith("/101")


def test_only_open_sweeps_are_planned_and_those_with_all_their_trials_are_done(ledger: Ledger, other: Sweep):
    small = launched(ledger, plan(("none",), trials=1, replicates=1, name="small"))
    stopped = launched(ledger, plan(name="stopped"))
    with ledger.write() as connection:
        sweeps.set_state(connection, stopped.id, sweeps.STOPPED)
    worker = registered(ledger)
    settled(ledger, small, worker, settlement(started(ledger, small, worker)[0]))
    with ledger.read() as connection:
        assert seats.planned(connection) == {other.id: 32, small.id: 1}
        assert [seats.is_done(connection, sweep.id) for sweep in (other, small)] == [False, True]


def test_the_first_who_chose_how_a_sweep_is_computed_chose_for_all(ledger: Ledger):
    first, second = {"compiled": True, "torch": "2.13"}, {"compiled": False, "torch": "2.13"}
    sweep = launched(ledger, plan(name="undecided", numerics={}))
    with ledger.write() as connection:
        assert sweeps.pin(connection, sweep.id, first) == first
        assert sweeps.pin(connection, sweep.id, second) == first
        assert sweeps.pin(connection, 999, second) == second  # forgotten: there is nothing to agree on
    with ledger.read() as connection:
        assert sweeps.find(connection, "undecided").numerics == first


def test_running_a_sweep_that_is_launched_leaves_its_choice_open_or_as_it_is(ledger: Ledger):
    sweep = launched(ledger, plan(numerics={}))
    assert launched(ledger, plan(trials=9)).numerics == {}
    with ledger.write() as connection:
        sweeps.pin(connection, sweep.id, {"compiled": True})
    assert launched(ledger, plan(trials=10, numerics={})).numerics == {"compiled": True}
