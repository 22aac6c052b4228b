"""A worker that serves every sweep: where it goes, when it moves, what it leaves alone, and when it ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ledger.makers import launched, plan, registered, rows
from sweeper import service
from sweeper.errors import CodeError, LedgerError, OutdatedError, SweepChangedError
from sweeper.ledger import workers
from sweeper.ledger.rows import Meter, Sweep
from sweeper.ledger.schema import LeaseRow
from sweeper.ledger.seats import Demand
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.service import Memory, Service, choose
from sweeper.timesheet import Timesheet
from sweeper.worker import Ending, StopRequest

A, B, C = 1, 2, 3


def wanted(*workers_: int, served: tuple[int, ...] = ()) -> list[Demand]:
    """Sweeps A, B, ... with so many other workers, and when they were served last."""
    served = served or (0,) * len(workers_)
    return [Demand(number, *counts) for number, counts in enumerate(zip(workers_, served, strict=True), start=1)]


# where to go ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("demands", "here", "expected"),
    [
        pytest.param([], None, None, id="nothing to do"),
        pytest.param(wanted(2, 1, 3), None, B, id="the fewest workers"),
        pytest.param(wanted(0, 0, 0, served=(5, 2, 3)), None, B, id="of equals the one served least recently"),
        pytest.param(wanted(0, 0), None, A, id="of equals that nobody served the oldest"),
        pytest.param(wanted(0), A, A, id="there is no other"),
        pytest.param(wanted(0, 0), A, B, id="one worker takes turns"),
        pytest.param(wanted(0, 1), A, A, id="two have one each"),
        pytest.param(wanted(1, 1), A, B, id="three for two take turns"),
        pytest.param(wanted(1, 2), A, A, id="but nobody goes where there are as many"),
        pytest.param(wanted(0, 0, 0, served=(9, 4, 7)), A, B, id="round and round"),
        pytest.param(wanted(1, 1), C, A, id="its own is done"),
        pytest.param([], C, None, id="its own is done, and all others too"),
    ],
)
def test_a_worker_goes_where_the_fewest_are_and_stays_unless_it_is_needed_more_elsewhere(
    demands: list[Demand], here: int | None, expected: int | None
):
    assert choose(demands, here) == expected


@pytest.mark.parametrize(("workers_", "count"), [(1, 2), (1, 5), (2, 2), (3, 2), (4, 3), (7, 3), (2, 5)])
def test_every_sweep_gets_its_share_of_the_workers(workers_: int, count: int):
    """Workers look one after another, in a random order, once in a quantum."""
    order, at, served, began = random.Random(0), {}, Counter[int](), 0
    spent, moves, rounds = Counter[int](), 0, 300
    for _ in range(rounds):
        for worker in order.sample(range(workers_), workers_):
            here = at.pop(worker, None)
            others = Counter(at.values())
            target = choose([Demand(one, others[one], served[one]) for one in range(1, count + 1)], here)
            if target != here:
                began, moves = began + 1, moves + 1
                served[target] = began
            at[worker] = target
            spent[target] += 1
    fair = rounds * workers_ / count
    assert max(abs(spent[one] - fair) for one in range(1, count + 1)) < 0.05 * fair + 2
    if workers_ % count == 0:
        assert moves <= 2 * workers_  # everybody found its place, and nobody left it


# the rounds -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(sqlite_url(tmp_path))
    yield opened
    opened.close()


@dataclass
class Post:
    """Stands in for what makes sweeps ready and works on them: each visit finishes some trials, or ends as told."""

    ledger: Ledger
    visits: int = 2
    quantum_s: float = 0.0
    until_done: bool = True
    bound: str | None = None
    failures: dict[str, list[Exception]] = field(default_factory=dict)
    outdated: set[str] = field(default_factory=set)
    ready: list[str] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    stop: StopRequest = field(default_factory=StopRequest)

    @property
    def service(self) -> Service:
        return Service(
            self.ledger,
            self.prepare,
            self.work,
            self.said.append,
            self.stop,
            bound=self.bound,
            until_done=self.until_done,
            quantum_s=self.quantum_s,
        )

    def prepare(self, sweep: Sweep, times: Timesheet) -> Any:
        problems = self.failures.get(sweep.name, [])
        if problems:
            raise problems.pop(0)
        self.ready.append(sweep.name)
        return SimpleNamespace(device=SimpleNamespace(kind="cpu", threads=1), engine=SimpleNamespace(device="cpu"))

    def work(self, sweep: Sweep, setup: Any, times: Timesheet, is_wanted_elsewhere: Callable[[], bool]) -> Ending:
        self.served.append(sweep.name)
        with self.ledger.write() as connection:
            worker = workers.register(connection, "cpu", {})
            workers.set_meter(connection, worker, sweep.id, Meter())
        try:
            if sweep.name in self.outdated:
                self.outdated.remove(sweep.name)
                raise OutdatedError("the sweep was extended by another command. Nothing is lost.")
            if self.served.count(sweep.name) >= self.visits:
                finish(self.ledger, sweep)
                return Ending.DONE
            is_wanted_elsewhere()  # something is trained between two looks
            return Ending.MOVED if is_wanted_elsewhere() else Ending.STOPPED
        finally:
            with self.ledger.write() as connection:
                workers.retire(connection, worker)


def finish(ledger: Ledger, sweep: Sweep) -> None:
    """All its trials are finished, however that came to be."""
    with ledger.write() as connection:
        connection.exec_driver_sql(f"UPDATE study SET trials = 0 WHERE sweep_id = {sweep.id}")


def sweep(ledger: Ledger, name: str) -> Sweep:
    return launched(ledger, plan(name=name))


def test_one_worker_takes_turns_and_makes_each_sweep_ready_once(ledger: Ledger):
    for name in ("one", "two", "three"):
        sweep(ledger, name)
    post = Post(ledger, visits=3)
    assert post.service.serve() is Ending.DONE
    assert post.served == ["one", "two", "three"] * 3
    assert post.ready == ["one", "two", "three"]
    assert rows(ledger, LeaseRow) == []


def test_it_stays_for_a_quantum_give_or_take_a_tenth(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    one, two = sweep(ledger, "one"), sweep(ledger, "two")
    clock, stays = [0.0], []
    monkeypatch.setattr(service, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    for _ in range(20):
        running, clock[0] = Post(ledger, quantum_s=60.0).service, 1000.0
        is_wanted_elsewhere = running._turn(one)
        while not is_wanted_elsewhere():
            clock[0] += 0.5
        stays.append(clock[0] - 1000.0)
        assert running._next == two.id
    assert 54 <= min(stays) < 58
    assert 62 < max(stays) <= 66.5


def test_it_does_not_move_where_another_worker_is(ledger: Ledger):
    one, two = sweep(ledger, "one"), sweep(ledger, "two")
    there = registered(ledger)
    with ledger.write() as connection:
        workers.set_meter(connection, there, two.id, Meter())
        connection.exec_driver_sql(f"UPDATE worker SET place = 'elsewhere', lease_until = 1e12 WHERE id = {there}")
    service_ = Post(ledger).service
    with ledger.write() as connection:
        assert service_._sit(connection, None) == one.id
        assert service_._sit(connection, one.id) == one.id
        workers.retire(connection, there)
        assert service_._sit(connection, one.id) == two.id


def test_a_sweep_that_cannot_be_served_is_told_of_once_and_the_others_are_served(ledger: Ledger):
    sweep(ledger, "bad")
    sweep(ledger, "good")
    post = Post(ledger, failures={"bad": [CodeError("models may not be imported.")] * 9})
    running = post.service
    assert running.serve() is Ending.DONE
    assert set(post.served) == {"good"}
    assert post.said == [
        "bad can't be served here: models may not be imported.\n"
        "It is let alone until its file changes, or for 10 minutes.",
        "nothing is left to do here",
    ]
    assert list(running.problems.values()) == ["models may not be imported."]


@pytest.mark.parametrize("how", ["its file changes", "ten minutes pass"])
def test_it_is_tried_again_when(ledger: Ledger, how: str):
    bad = sweep(ledger, "bad")
    post = Post(ledger, failures={"bad": [SweepChangedError("other rows")]}, visits=1)
    running = post.service
    assert running.serve() is Ending.DONE
    assert post.served == []
    if how == "ten minutes pass":
        running._rests = {id_: replace(rest, until=0.0) for id_, rest in running._rests.items()}
    else:
        with ledger.write() as connection:
            connection.exec_driver_sql(f"UPDATE sweep SET file_text = 'name: bad # mended' WHERE id = {bad.id}")
    assert running.serve() is Ending.DONE
    assert (post.served, len(post.said)) == (["bad"], 3)  # what is wrong, and twice that nothing is left


def test_a_sweep_that_was_extended_under_it_is_loaded_anew(ledger: Ledger):
    sweep(ledger, "one")
    post = Post(ledger, visits=2, outdated={"one"})
    assert post.service.serve() is Ending.DONE
    assert post.ready == ["one", "one"]
    assert post.said == [
        "one: the sweep was extended by another command. This worker goes on with what the store has now.",
        "nothing is left to do",
    ]


def test_so_is_the_only_one_that_it_serves(ledger: Ledger):
    sweep(ledger, "one")
    sweep(ledger, "two")
    post = Post(ledger, visits=2, bound="two", outdated={"two"})
    assert post.service.serve() is Ending.DONE
    assert post.served == ["two", "two"]
    assert rows(ledger, LeaseRow) == []


def test_what_is_wrong_with_the_only_sweep_is_an_error(ledger: Ledger):
    sweep(ledger, "bad")
    with pytest.raises(CodeError, match="not be imported"):
        Post(ledger, bound="bad", failures={"bad": [CodeError("models may not be imported.")]}).service.serve()
    assert rows(ledger, LeaseRow) == []


def test_what_is_wrong_with_the_store_is_an_error(ledger: Ledger):
    sweep(ledger, "one")
    with pytest.raises(LedgerError, match="no room"):
        Post(ledger, failures={"one": [LedgerError("no room")]}).service.serve()


def test_it_waits_for_sweeps_and_says_so_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch):
    post = Post(ledger, visits=1, until_done=False)
    looks: list[float] = []

    def wait(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            sweep(ledger, "late")
        if post.served:
            post.stop.set()

    monkeypatch.setattr(post.stop, "wait", wait)
    assert post.service.serve() is Ending.INTERRUPTED
    assert post.served == ["late"]
    assert len(post.said) == 2  # before it came, and after
    assert post.said[0].startswith("waiting for sweeps at sqlite:///")
    assert looks == [service.LOOK_S] * 4


def test_what_was_asked_to_end_serves_nothing_more(ledger: Ledger):
    sweep(ledger, "one")
    post = Post(ledger)
    post.stop.set()
    assert post.service.serve() is Ending.INTERRUPTED
    assert post.served == []


# memory ---------------------------------------------------------------------------------------------------------------


def ready(kind: str, threads: int = 1) -> Any:
    return SimpleNamespace(device=SimpleNamespace(kind=kind, threads=threads), engine=SimpleNamespace(device=kind))


@pytest.mark.parametrize(("kind", "most"), [("cpu", 4), ("cuda", 1)])
def test_a_few_engines_stay_ready_and_those_used_longest_ago_go(
    ledger: Ledger, kind: str, most: int, monkeypatch: pytest.MonkeyPatch
):
    freed: list[str] = []
    monkeypatch.setattr(service, "let_go_of_memory", freed.append)
    monkeypatch.setattr(service, "use_threads", lambda threads: None)
    memory, made = Memory(), [sweep(ledger, f"s{number}") for number in range(most + 1)]
    for one in made[:most]:
        memory.make_room()
        memory.keep(one, ready(kind))
    assert freed == []
    memory.recall(made[0])
    memory.make_room()
    memory.keep(made[-1], ready(kind))
    gone = made[1] if most > 1 else made[0]
    assert [one for one in made if memory.recall(one) is None] == [gone]
    assert freed == [kind]


def test_an_engine_comes_back_with_its_threads_and_not_for_another_file(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
):
    used: list[int] = []
    monkeypatch.setattr(service, "use_threads", used.append)
    one, memory = sweep(ledger, "one"), Memory()
    memory.keep(one, ready("cpu", threads=3))
    assert memory.recall(replace(one, file_text="name: one # extended")) is None
    assert memory.recall(one) is not None
    assert used == [3]
    memory.forget(one)
    assert memory.recall(one) is None
