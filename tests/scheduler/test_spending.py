"""What a worker does where it is not granted what it asks for: it waits, gives back, or learns that it is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ledger.makers import launched, plan, registered
from sweeper.errors import OutdatedError, StoreAwayError
from sweeper.ledger import budgets, sweeps, workers
from sweeper.ledger.rows import Meter, Sweep
from sweeper.ledger.store import Connection, Ledger, sqlite_url
from sweeper.scheduler import refusals, spending
from sweeper.scheduler.spending import Spending
from sweeper.timesheet import Timesheet

LIMIT_S = 10.0


@dataclass
class Books:
    """A worker's books, as far as spending goes."""

    sweep: Sweep
    worker: int
    times: Timesheet = field(default_factory=Timesheet)
    meter: Meter = field(default_factory=Meter)
    buried: int = 0

    def enter_times(self, connection: Connection) -> None:
        workers.set_times(connection, self.worker, self.sweep.id, self.times.totals())
        workers.set_meter(connection, self.worker, self.sweep.id, self.meter)

    def refuse_if_forgotten(self, connection: Connection) -> None:
        if sweeps.hold(connection, self.sweep.id) is None:
            raise refusals.forgotten(self.sweep.name)

    def bury_dead(self, connection: Connection) -> int:
        return workers.bury_dead(connection)

    def forget_handed_in(self) -> None:
        self.buried += 1


@dataclass
class Worker:
    """One that trains four fits at once, 2 s a tick."""

    ledger: Ledger
    sweep: Sweep

    def __post_init__(self) -> None:
        self.books: Any = Books(self.sweep, registered(self.ledger))
        engine: Any = SimpleNamespace(slots=4, free=0)
        self.spending = Spending(self.ledger, self.books, engine, 2.0)

    def ticks(self, most: int = 100) -> int:
        """Train for as long as what was granted lasts, or so many ticks; returns how many."""
        for done in range(most):
            if not self.spending.has_room(may_ask=True):
                return done
            self.books.times.add("train", 2.0)
            self.spending.enter_tick(4)
        return most

    def leave(self) -> None:
        with self.ledger.write() as connection:
            self.books.enter_times(connection)
            self.spending.settle_up(connection)
            workers.retire(connection, self.books.worker)


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(spending, "WAIT_S", 0.0)
    opened = Ledger(sqlite_url(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def sweep(ledger: Ledger) -> Sweep:
    whole = plan()
    config = {**whole.config, "data": {"source": "x"}, "model": {"kind": "mlp"}, "seed": 0}
    config["search"] = {"budget": {"device_seconds": LIMIT_S}, "sampler": {"kind": "random"}}
    return launched(ledger, replace(whole, config=config))


@pytest.fixture
def start(ledger: Ledger, sweep: Sweep) -> Callable[[], Worker]:
    return lambda: Worker(ledger, sweep)


def spent_s(ledger: Ledger, sweep: Sweep) -> float:
    with ledger.read() as connection:
        return budgets.spent(connection, sweep.id).device_s


def state(ledger: Ledger, sweep: Sweep) -> str | None:
    with ledger.read() as connection:
        return sweeps.state_of(connection, sweep.id)


def test_one_worker_spends_all_of_it_and_says_so_as_it_leaves(
    ledger: Ledger, sweep: Sweep, start: Callable[[], Worker]
):
    worker = start()
    assert worker.spending.may_begin()
    assert worker.ticks() == 5
    assert worker.spending.is_over
    assert not start().spending.may_begin()
    worker.leave()
    assert (spent_s(ledger, sweep), state(ledger, sweep)) == (LIMIT_S, sweeps.SPENT)


def test_who_has_nothing_to_train_gives_back_what_another_waits_for(start: Callable[[], Worker]):
    idle, waiting = start(), start()
    assert idle.ticks(1) == 1  # of two that it was granted
    assert waiting.ticks() == 3
    assert not waiting.spending.is_over
    idle.spending.give_back()
    assert waiting.ticks() == 1
    assert waiting.spending.is_over


def test_who_waits_buries_the_dead_and_takes_what_they_held(
    ledger: Ledger, sweep: Sweep, start: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
):
    with monkeypatch.context() as patch:
        patch.setattr(workers, "LEASE_S", -1.0)
        dead = start()
    assert dead.ticks(1) == 1  # and is killed before it entered that
    waiting = start()
    assert waiting.ticks() + waiting.ticks() == 5
    assert waiting.books.buried == 1
    waiting.leave()
    assert (spent_s(ledger, sweep), state(ledger, sweep)) == (LIMIT_S, sweeps.SPENT)


def test_a_sweep_is_over_only_when_nobody_holds_anything(ledger: Ledger, sweep: Sweep, start: Callable[[], Worker]):
    first, last = start(), start()
    assert last.ticks(1) == 1
    first.ticks()
    first.leave()
    assert state(ledger, sweep) == sweeps.OPEN
    last.ticks()
    last.leave()
    assert (spent_s(ledger, sweep), state(ledger, sweep)) == (LIMIT_S, sweeps.SPENT)


def test_where_the_store_is_away_a_worker_goes_on_with_what_it_was_granted_and_no_further(
    ledger: Ledger, start: Callable[[], Worker], monkeypatch: pytest.MonkeyPatch
):
    worker = start()
    assert worker.spending.may_begin()

    def away() -> AbstractContextManager[Connection]:
        raise StoreAwayError("the server is away")

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "at_once", away)
        assert 0 < worker.ticks() < 5
        assert not worker.spending.is_over
        worker.spending.give_back()
    worker.ticks()
    assert worker.spending.is_over


def test_while_another_transaction_is_under_way_nobody_asks(start: Callable[[], Worker]):
    worker = start()
    assert not worker.spending.has_room(may_ask=False)
    assert worker.spending.has_room(may_ask=True)
    assert worker.spending.has_room(may_ask=False)


def test_who_was_taken_for_dead_is_granted_nothing(ledger: Ledger, start: Callable[[], Worker]):
    worker = start()
    with ledger.write() as connection:
        workers.retire(connection, worker.books.worker)
    with pytest.raises(OutdatedError, match="took over the trials of this one"):
        worker.spending.may_begin()


def test_nobody_spends_anything_of_a_sweep_that_was_forgotten(ledger: Ledger, start: Callable[[], Worker]):
    worker = start()
    launched(ledger, fresh=True)
    with pytest.raises(OutdatedError, match="was forgotten"):
        worker.spending.may_begin()
