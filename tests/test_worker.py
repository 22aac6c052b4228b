"""A worker process's life: how it chooses to compute, how it is told to stop, and what it leaves behind."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select, update

from small import FOLDS, TPE, TRIALS, Change, outcome, run_here, small_workload
from sweeper import worker
from sweeper.calibration import Wish, set_up
from sweeper.engine import Engine
from sweeper.errors import LedgerError, OutOfMemoryError
from sweeper.ledger import reads, sweeps, trials, workers
from sweeper.ledger.schema import AttemptRow, StudyRow, TrialRow, WorkerRow
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.records import TrialState
from sweeper.scheduler import Scheduler
from sweeper.scheduler.judge import Judge
from sweeper.timesheet import KINDS, Timesheet
from sweeper.worker import Ending, StopRequest, work
from sweeper.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")


def column(ledger: Ledger, of: Any) -> list[Any]:
    with ledger.read() as connection:
        return list(connection.scalars(select(of)))


def launched(workload: Workload, home: Path, slots: int = 4) -> tuple[Ledger, Callable[..., Ending]]:
    """A sweep nobody has worked on, and a worker for it."""
    ledger = Ledger(sqlite_url(home))
    setup = set_up(workload, Wish("cpu", slots=slots, threads=1, processes=1, compiling=False))
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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_with_nothing_in_hand_the_first_signal_ends_the_process(number: signal.Signals, code: int):
    with StopRequest().listening() as stop, pytest.raises(SystemExit) as ended, stop.obeyed_at_once():
        os.kill(os.getpid(), number)
    assert (ended.value.code, stop.exit_code, bool(stop)) == (code, code, True)


def test_what_was_asked_before_is_obeyed_before_anything_is_begun():
    stop = StopRequest()
    stop.set()
    with pytest.raises(SystemExit), stop.obeyed_at_once():
        pytest.fail("it began")


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


def test_a_worker_that_is_wanted_elsewhere_lets_go_after_a_turn_and_nothing_is_lost(tmp_path: Path):
    workload = small_workload(tmp_path)
    ledger, work_here = launched(workload, tmp_path)
    asked = itertools.count(1)
    assert work_here(is_wanted_elsewhere=lambda: next(asked) == 3) is Ending.MOVED
    assert next(asked) == 4
    assert_left_in_order(ledger)
    assert column(ledger, AttemptRow.state) == [workers.RELEASED] * 4
    assert run_here(workload, tmp_path).ending is Ending.DONE
    assert outcome(ledger) == outcome(run_here(workload, tmp_path / "undisturbed").ledger)


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
    workload, judge, ticks = small_workload(tmp_path), Judge.hopeless, itertools.count(1)

    def failing(self: Judge, trained: Any) -> Any:
        if next(ticks) == 7:
            raise RuntimeError("a mistake of ours")
        return judge(self, trained)

    with monkeypatch.context() as patched:
        patched.setattr(Judge, "hopeless", failing)
        with pytest.raises(RuntimeError, match="a mistake of ours"):
            run_here(workload, tmp_path)
    ledger = Ledger(sqlite_url(tmp_path))
    assert column(ledger, AttemptRow.state).count(workers.LOST) == 4
    ran = run_here(workload, tmp_path)
    assert_left_in_order(ran.ledger)
    undisturbed = run_here(workload, tmp_path / "undisturbed")
    assert outcome(ran.ledger) == outcome(undisturbed.ledger)


class Cramped:
    """Memory for so many slots: an engine with more fails as it launches its n-th tick, after half of its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, slots: int, tick: int) -> None:
        self.slots, self.tick, self.ticks = slots, tick, 0
        self.launch = Engine.launch
        monkeypatch.setattr(Engine, "launch", lambda engine: self.launch_or_fail(engine))

    def launch_or_fail(self, engine: Engine) -> None:
        self.ticks += 1
        if engine.slots > self.slots and self.ticks >= self.tick:
            self.ticks = 0
            with torch.no_grad():
                next(iter(engine.arena.weights.values())).fill_(torch.nan)
            raise OutOfMemoryError(f"{engine.slots} fits at once don't fit.")
        self.launch(engine)


@pytest.mark.parametrize("changes", [(), (TPE,), (FOLDS,)], ids=["random", "tpe", "folds"])
@pytest.mark.parametrize("tick", [1, 7], ids=["in the first tick", "in a later one"])
def test_a_worker_that_runs_out_of_memory_goes_on_with_half_its_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[Change, ...], tick: int
):
    workload, slots = small_workload(tmp_path, *changes), 12
    undisturbed = run_here(workload, tmp_path / "undisturbed", slots=slots)
    notes: list[str] = []
    with monkeypatch.context() as patched:
        Cramped(patched, slots=4, tick=tick)
        ledger, work_here = launched(workload, tmp_path, slots)
        assert work_here(on_note=notes.append) is Ending.DONE
    assert notes == [f"{n} fits at once don't fit. Going on with {n // 2} fits at once." for n in (12, 6)]
    assert_left_in_order(ledger)
    assert outcome(ledger) == outcome(undisturbed.ledger)
    states = column(ledger, AttemptRow.state)
    assert states.count(TrialState.COMPLETE) == TRIALS
    assert len(states) - TRIALS == states.count(workers.RELEASED) > 0
    assert [details["slots"] for details in column(ledger, WorkerRow.details)] == [12, 6, 3]
    with ledger.read() as connection:
        cost, times = reads.total_cost(connection, 1), reads.worker_times(connection, 1)
        meter = reads.meter(connection, 1)
    assert cost.device_s == pytest.approx(times["train"] + times["evaluate"], rel=1e-3)
    assert meter.busy_steps == cost.steps


def test_a_worker_without_memory_for_one_trial_gives_it_back_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    workload = small_workload(tmp_path, FOLDS)
    with monkeypatch.context() as patched:
        Cramped(patched, slots=0, tick=3)
        ledger, work_here = launched(workload, tmp_path, 6)
        with pytest.raises(
            OutOfMemoryError, match=r"the 3 folds of a single trial don't fit .* 3 fits at once don't fit"
        ):
            work_here()
    assert_left_in_order(ledger)
    assert set(column(ledger, AttemptRow.state)) == {workers.RELEASED}
    assert run_here(workload, tmp_path, slots=6).ending is Ending.DONE
    assert outcome(ledger) == outcome(run_here(workload, tmp_path / "undisturbed", slots=6).ledger)


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


def test_a_workers_lease_is_renewed_while_it_works_and_not_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(workers, "LEASE_S", 1.0)
    ledger, work_here = launched(small_workload(tmp_path), tmp_path)
    leases: list[float] = []

    def look(_: object) -> None:
        while not leases or leases[-1] == leases[0]:  # until it was renewed, while this thread does nothing for it
            leases.append(column(ledger, WorkerRow.lease_until)[0])
            time.sleep(0.01)

    assert work_here(on_turn=look) is Ending.DONE
    assert leases[-1] > leases[0]
    after = column(ledger, WorkerRow.lease_until)
    time.sleep(0.5)
    assert column(ledger, WorkerRow.lease_until) == after


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
    monkeypatch.setattr(trials, "claim", lambda *args, **kind: room.append(args[3]) or claim(*args, **kind))
    run_here(small_workload(tmp_path, FOLDS), tmp_path, slots=7)
    assert max(room) == 2
