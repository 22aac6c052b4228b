"""A worker process's life: how it chooses to compute, how it is told to stop, and what it leaves behind."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select, update

from small import FOLDS, TPE, TRIALS, outcome, run_here, small_workload
from sweeper import worker
from sweeper.engine import Engine
from sweeper.errors import EngineError, LedgerError
from sweeper.ledger import reads, sweeps, trials, workers
from sweeper.ledger.heartbeat import Heartbeat
from sweeper.ledger.schema import AttemptRow, StudyRow, TrialRow, WorkerRow
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.records import TrialState
from sweeper.scheduler import Scheduler
from sweeper.timesheet import KINDS, Timesheet
from sweeper.worker import Ending, StopRequest, work
from sweeper.workload import Workload


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def column(ledger: Ledger, of: Any) -> list[Any]:
    with ledger.read() as connection:
        return list(connection.scalars(select(of)))


def launched(workload: Workload, home: Path, slots: int = 4) -> tuple[Ledger, Callable[..., Ending]]:
    """A sweep nobody has worked on, and a worker for it."""
    ledger = Ledger(sqlite_url(home))
    setup = set_up(workload, device="cpu", slots=slots, compiling=False, pinned=None)
    with ledger.write() as connection:
        sweep = sweeps.launch(connection, workload.plan({}), fresh=False, differences=lambda old, new: [])
    return ledger, partial(work, ledger, sweep, workload, setup, Timesheet(), stop=StopRequest())


def once_at(turn: int, act: Callable[[], object]) -> Callable[[object], None]:
    """Does something at the n-th turn of a worker."""
    turns = itertools.count(1)

    def on_turn(_: object) -> None:
        if next(turns) == turn:
            act()

    return on_turn


# how to compute -------------------------------------------------------------------------------------------------------


def chosen(folder: Path, *changes: tuple[str, str], **how: Any) -> Setup:
    given = {"device": "cpu", "slots": None, "compiling": False, "pinned": None}
    return set_up(small_workload(folder, *changes), **given | how)


@pytest.mark.parametrize(
    ("changes", "slots", "expected"),
    [
        pytest.param((), None, 4, id="a slot per study"),
        pytest.param((FOLDS,), None, 12, id="a slot per study and fold"),
        pytest.param((("replicates: 2", "replicates: 40"),), None, 64, id="64 at most"),
        pytest.param((), 7, 7, id="as asked for"),
        pytest.param((FOLDS,), 1, 3, id="room for a whole trial at least"),
    ],
)
def test_slots_follow_from_what_the_sweep_can_use(
    tmp_path: Path, changes: tuple[tuple[str, str], ...], slots: int | None, expected: int
):
    assert chosen(tmp_path, *changes, slots=slots).engine.slots == expected


def test_a_short_sweep_is_not_worth_compiling(tmp_path: Path):
    setup = chosen(tmp_path, compiling=None)
    least, most = setup.estimate_s(small_workload(tmp_path))
    assert not setup.numerics.compiled
    assert 0 < least == most < worker.COMPILE_ABOVE_S
    assert setup.tick_s > 0


def test_the_estimate_grows_with_the_work_and_allows_for_early_ends(tmp_path: Path):
    setup = chosen(tmp_path)
    most = setup.estimate_s(small_workload(tmp_path))[1]
    twice = small_workload(tmp_path, ("trials: 5", "trials: 10"), ("epochs: 4", "epochs: 4, patience: 1"))
    assert setup.estimate_s(twice) == (pytest.approx(most / 2), pytest.approx(2 * most))


@pytest.mark.parametrize("wish", [None, False, True])
def test_a_resumed_sweep_computes_as_it_was_launched(tmp_path: Path, wish: bool | None):
    pinned = {"compiled": False, "torch": torch.__version__, "device": "cpu"}
    assert not chosen(tmp_path, compiling=wish, pinned=pinned).numerics.compiled


def test_without_a_compiler_training_is_eager_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(worker, "can_compile", lambda device: False)
    setup = chosen(tmp_path, compiling=True)
    assert not setup.numerics.compiled
    assert "Install g++" in setup.notes[0]
    pinned = chosen(tmp_path, pinned={"compiled": True})
    assert not pinned.numerics.compiled
    assert "differ in their last bits" in pinned.notes[1]


def test_a_device_that_is_not_there_is_an_error_for_the_user(tmp_path: Path):
    with pytest.raises(EngineError, match="cuda:7"):
        chosen(tmp_path, device="cuda:7")


# being told to stop ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_asks(number: signal.Signals):
    before = signal.getsignal(number)
    with StopRequest().listening() as stop:
        assert not stop
        os.kill(os.getpid(), number)
        assert stop
    assert signal.getsignal(number) is before


def test_the_second_interrupt_is_obeyed_at_once():
    with StopRequest().listening() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # asks again, and nothing more
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop


def test_an_interrupted_worker_leaves_its_trials_waiting(tmp_path: Path):
    ran = run_here(small_workload(tmp_path), tmp_path, stop_after=6)
    assert ran.ending is Ending.INTERRUPTED
    assert_left_in_order(ran.ledger)
    assert 0 < column(ran.ledger, TrialRow.state).count(TrialState.COMPLETE) < TRIALS


def test_a_stopped_sweep_lets_its_worker_go_and_is_open_again_when_run(tmp_path: Path):
    workload = small_workload(tmp_path)
    ledger, work_here = launched(workload, tmp_path)

    def stop() -> None:
        with ledger.write() as connection:
            sweeps.set_state(connection, sweeps.find(connection, "small").id, sweeps.STOPPED)

    assert work_here(on_turn=once_at(3, stop)) is Ending.STOPPED
    assert_left_in_order(ledger)
    assert run_here(workload, tmp_path).ending is Ending.DONE
    assert column(ledger, TrialRow.state) == [TrialState.COMPLETE] * TRIALS


def test_a_sweep_that_was_forgotten_in_mid_run_lets_its_worker_go(tmp_path: Path):
    workload = small_workload(tmp_path)
    ledger, work_here = launched(workload, tmp_path)

    def forget() -> None:
        with ledger.write() as connection:
            sweeps.launch(connection, workload.plan({}), fresh=True, differences=lambda old, new: [])

    with pytest.raises(LedgerError, match=r"launched it with --fresh.*sweeper resume small"):
        work_here(on_turn=once_at(3, forget))
    assert run_here(workload, tmp_path).ending is Ending.DONE
    assert len(outcome(ledger)) == TRIALS


@pytest.mark.parametrize("turns", [1, 100], ids=["and leaves trials to others", "and does the rest itself"])
def test_a_sweep_that_was_extended_in_mid_run_lets_its_worker_go(
    tmp_path: Path, turns: int, monkeypatch: pytest.MonkeyPatch
):
    """A worker has no rows and no spaces for what its own sweep file did not name."""
    monkeypatch.setattr(worker, "IDLE_LOOK_S", 0.01)  # the second worker waits for the first one's trials
    more = ("trials: 5, replicates: 2", "trials: 6, replicates: 3")
    small, extended = small_workload(tmp_path), small_workload(tmp_path, more)
    ledger, work_here = launched(small, tmp_path)
    with pytest.raises(LedgerError, match=r"was extended by another command.*sweeper resume small"):
        work_here(on_turn=once_at(3, lambda: run_here(extended, tmp_path, stop_after=turns)))
    assert run_here(extended, tmp_path).ending is Ending.DONE
    assert_left_in_order(ledger)
    assert outcome(ledger) == outcome(run_here(extended, tmp_path / "longer").ledger)


def assert_left_in_order(ledger: Ledger) -> None:
    """Nothing looks as if it were under way."""
    assert TrialState.RUNNING not in column(ledger, TrialRow.state)
    assert set(column(ledger, StudyRow.proposer_id)) == {None}
    assert None not in column(ledger, WorkerRow.ended_at)
    assert None not in column(ledger, AttemptRow.ended_at)
    assert TrialState.RUNNING not in column(ledger, AttemptRow.state)


# failing --------------------------------------------------------------------------------------------------------------


def test_a_worker_that_fails_in_mid_turn_gives_its_trials_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workload, collect, ticks = small_workload(tmp_path), Engine.collect, itertools.count(1)

    def failing(engine: Engine) -> Any:
        if next(ticks) == 7:
            raise RuntimeError("out of memory")
        return collect(engine)

    with monkeypatch.context() as patched:
        patched.setattr(Engine, "collect", failing)
        with pytest.raises(RuntimeError, match="out of memory"):
            run_here(workload, tmp_path)
    ledger = Ledger(sqlite_url(tmp_path))
    assert column(ledger, AttemptRow.state).count(workers.LOST) == 4
    ran = run_here(workload, tmp_path)
    assert_left_in_order(ran.ledger)
    undisturbed = run_here(workload, tmp_path / "undisturbed")
    assert outcome(ran.ledger) == outcome(undisturbed.ledger)


def test_what_a_lost_attempt_cost_is_not_forgotten(tmp_path: Path):
    ledger, work_here = launched(small_workload(tmp_path), tmp_path)
    with pytest.raises(ZeroDivisionError):
        work_here(on_turn=once_at(7, lambda: 1 / 0))
    with ledger.read() as connection:
        cost, times = reads.total_cost(connection, 1), reads.worker_times(connection, 1)
        lost = connection.scalars(select(AttemptRow.train_s).where(AttemptRow.state == workers.LOST)).all()
    assert len(lost) == 4
    assert min(lost) == max(lost) > 0
    assert cost.device_s == pytest.approx(times["train"] + times["evaluate"], rel=1e-3)


def test_a_worker_that_was_taken_for_dead_says_so_and_nothing_counts_twice(tmp_path: Path):
    """Its trials were done by others in the meantime; what it brings is too late."""
    workload = small_workload(tmp_path)
    ledger, work_here = launched(workload, tmp_path)

    def sleep_too_long() -> None:
        with ledger.write() as connection:
            connection.execute(update(WorkerRow).values(lease_until=0.0))
        assert run_here(workload, tmp_path).ending is Ending.DONE

    with pytest.raises(LedgerError, match=r"longer than its lease of 120 s.*sweeper resume small"):
        work_here(on_turn=once_at(3, sleep_too_long))
    states = column(ledger, AttemptRow.state)
    assert (states.count("COMPLETE"), len(states)) == (TRIALS, TRIALS + 4)
    assert len(outcome(ledger)) == TRIALS
    undisturbed = run_here(workload, tmp_path / "undisturbed")
    assert outcome(ledger) == outcome(undisturbed.ledger)


def test_a_worker_that_was_taken_for_dead_suggests_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Even with a slot free and no result to bring; what it would suggest is drawn from a history that has moved on."""
    monkeypatch.setattr("sweeper.scheduler.loop.LOOK_S", 0.0)
    ledger, work_here = launched(small_workload(tmp_path, TPE), tmp_path, slots=5)
    seen = []

    def on_turn(scheduler: Scheduler) -> None:
        seen.append(scheduler)
        if len(seen) == 2:
            with ledger.write() as connection:
                connection.execute(update(WorkerRow).values(lease_until=0.0))
                assert workers.bury_dead(connection) == 4

    with pytest.raises(LedgerError, match="longer than its lease"):
        work_here(on_turn=on_turn)
    assert len(seen) == 2  # it learnt of it at its next look at the ledger
    assert column(ledger, TrialRow.number) == [0] * 4


def test_a_heartbeat_keeps_the_lease_from_running_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "LEASE_S", 0.04)
    beaten, beat = threading.Event(), workers.beat
    monkeypatch.setattr(workers, "beat", lambda *args: (beat(*args), beaten.set()))
    ledger = Ledger(sqlite_url(tmp_path))
    with ledger.write() as connection:
        id_ = workers.register(connection, "test", {})
    before = column(ledger, WorkerRow.lease_until)
    with Heartbeat(ledger, id_):
        assert beaten.wait(10)
    assert column(ledger, WorkerRow.lease_until) > before


# time -----------------------------------------------------------------------------------------------------------------


def test_a_timesheets_kinds_make_up_the_time_held():
    times = Timesheet()
    with times.on("storage"), times.on("suggest"):
        pass
    times.add("train", 2.0)
    assert set(times.totals()) == {*KINDS, "other"}
    assert times["train"] == 2.0
    assert times.totals()["other"] == 0.0  # more was entered than has passed


def test_a_timesheet_enters_the_time_of_what_fails():
    times = Timesheet()
    with pytest.raises(ZeroDivisionError), times.on("storage"):
        _ = 1 / 0
    assert times["storage"] > 0


def test_a_worker_claims_no_more_than_it_has_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    room, claim = [], trials.claim
    monkeypatch.setattr(trials, "claim", lambda *args: room.append(args[3]) or claim(*args))
    run_here(small_workload(tmp_path, FOLDS), tmp_path, slots=7)
    assert max(room) == 2
