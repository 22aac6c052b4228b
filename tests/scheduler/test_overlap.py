"""Where the device works by itself, the host's work hides behind it; what is found is the same.

The engine here is the real one on a CPU, told to say that it overlaps. It refuses whatever may not be done to it
between `launch` and `collect`, so that these tests show the order that a GPU needs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ledger.makers import rows
from small import FOLDS, ONE_STEP, TPE, TRIALS, Change, Ran, outcome, run_here, small_workload
from sweeper.engine import Engine
from sweeper.ledger import reads
from sweeper.ledger.schema import AttemptRow, OutboxRow, TrialRow
from sweeper.ledger.store import Ledger
from sweeper.records import TrialState
from sweeper.scheduler import Scheduler
from sweeper.scheduler.desks import Desks
from sweeper.worker import Ending

pytestmark = pytest.mark.usefixtures("one_thread")

PRUNED: tuple[Change, ...] = (
    ("epochs: 4", "epochs: 9, patience: 3"),
    ("replicates: 2", "replicates: 2, pruner: {kind: asha, reduction_factor: 2}"),
)
SWEEPS: dict[str, tuple[Change, ...]] = {
    "random": (),
    "tpe": (TPE,),
    "folds that stop early": (FOLDS, ("epochs: 4", "epochs: 9, patience: 1")),
    "pruned tpe with folds": (TPE, FOLDS, *PRUNED),
}


@pytest.fixture
def overlapping(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "overlaps", True)


@pytest.mark.parametrize("changes", SWEEPS.values(), ids=SWEEPS)
def test_both_orders_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[Change, ...]):
    workload = small_workload(tmp_path, ONE_STEP, *changes)
    one_after_the_other = run_here(workload, tmp_path / "one", slots=5)
    monkeypatch.setattr(Engine, "overlaps", True)
    at_once = run_here(workload, tmp_path / "other", slots=5)
    found = outcome(at_once.ledger)
    assert found == outcome(one_after_the_other.ledger)
    assert len(found) == TRIALS
    assert delivered(at_once) == delivered(one_after_the_other)
    assert {row.state for row in rows(at_once.ledger, AttemptRow)} <= {"COMPLETE", "PRUNED"}


def delivered(ran: Ran) -> set[tuple[str, str]]:
    return {(row.uid.replace(ran.sweep.token, ""), row.status) for row in rows(ran.ledger, OutboxRow)}


# what is hidden -------------------------------------------------------------------------------------------------------


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done, in order: the engine's verbs, transactions, and what the sampler was asked."""
    done: list[str] = []

    def noted(owner: Any, name: str) -> None:
        act: Callable[..., Any] = getattr(owner, name)

        def noting(*args: Any, **kwargs: Any) -> Any:
            done.append(name)
            return act(*args, **kwargs)

        monkeypatch.setattr(owner, name, noting)

    monkeypatch.setattr(
        Scheduler, "_is_worth_waiting_for", lambda self: not self._by_key and not self._entrance.waiting
    )
    for name in ("launch", "collect", "prepare", "admit", "prune", "evict"):
        noted(Engine, name)
    noted(Ledger, "at_once")
    noted(Desks, "ask")
    return done


def split_by_flight(done: list[str]) -> tuple[list[str], list[str]]:
    """What was done while the device worked, and between its ticks."""
    beside, between, flying = [], [], False
    for act in done:
        if act in ("launch", "collect"):
            flying = act == "launch"
        else:
            (beside if flying else between).append(act)
    return beside, between


@pytest.mark.usefixtures("overlapping")
def test_the_hosts_work_is_done_beside_the_device(tmp_path: Path, log: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sweeper.scheduler.loop.LOOK_S", float("inf"))
    run_here(small_workload(tmp_path, ONE_STEP, ("epochs: 4", "epochs: 9, patience: 3")), tmp_path, slots=3)
    first, last = log.index("launch"), len(log) - log[::-1].index("collect")
    beside, between = split_by_flight(log[first:last])
    assert beside.count("prepare") == TRIALS - log[:first].count("prepare")  # the first ones start before any tick
    assert set(beside) == {"at_once", "ask", "prepare"}
    assert set(between) == {"admit"}


@pytest.mark.usefixtures("overlapping")
def test_trials_are_judged_between_ticks_and_what_was_decided_is_kept_beside_the_next(tmp_path: Path, log: list[str]):
    run_here(
        small_workload(tmp_path, ONE_STEP, *PRUNED, ("replicates: 2", "replicates: 2, concurrency: 3")),
        tmp_path,
        slots=3,
    )
    first, last = log.index("launch"), len(log) - log[::-1].index("collect")
    beside, between = split_by_flight(log[first:last])
    assert set(beside) == {"at_once", "ask", "prepare"}
    assert set(between) == {"admit", "prune"}


def test_without_overlap_the_host_works_between_ticks(tmp_path: Path, log: list[str]):
    run_here(small_workload(tmp_path, ONE_STEP, *PRUNED), tmp_path, slots=3)
    beside, between = split_by_flight(log)
    assert beside == []
    assert between.count("prepare") == TRIALS


def test_the_device_waits_for_the_host_where_empty_slots_would_cost_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As many sequential studies as slots, and most trials end after an epoch: nobody is ever ready beforehand."""
    workload = small_workload(tmp_path, TPE, *PRUNED)
    worth, seconds = Scheduler._is_worth_waiting_for, {"tick": 0.0}

    def measured(self: Scheduler) -> bool:
        self._tick_s, self._keep_s = seconds["tick"], 0.01
        return worth(self)

    monkeypatch.setattr(Scheduler, "_is_worth_waiting_for", measured)
    full = run_here(workload, tmp_path / "full", slots=4)
    monkeypatch.setattr(Engine, "overlaps", True)
    beside = run_here(workload, tmp_path / "beside", slots=4)
    seconds["tick"] = 1.0
    waits = run_here(workload, tmp_path / "waits", slots=4)
    assert beside.scheduler.occupancy < waits.scheduler.occupancy
    assert beside.turns > waits.turns == full.turns
    assert outcome(beside.ledger) == outcome(full.ledger) == outcome(waits.ledger)


@pytest.mark.usefixtures("overlapping")
@pytest.mark.parametrize("slots", [3, 4, 7])
def test_no_slot_idles_while_trials_wait(tmp_path: Path, slots: int):
    """They are claimed and prepared before there is room, also where all end in the same tick."""
    ran = run_here(small_workload(tmp_path, ONE_STEP), tmp_path, slots=slots)
    rounds = -(-TRIALS // slots)
    assert ran.scheduler.meter.busy_steps == TRIALS * 4
    assert ran.scheduler.meter.slot_steps <= rounds * slots * 4


@pytest.mark.usefixtures("overlapping")
def test_no_more_trials_are_claimed_ahead_than_may_soon_be_needed(tmp_path: Path):
    """Else another worker would find nothing to do."""
    ran = run_here(small_workload(tmp_path, ONE_STEP, ("epochs: 4", "epochs: 40")), tmp_path, slots=2, stop_after=3)
    claimed = [row for row in rows(ran.ledger, TrialRow) if row.attempt]
    assert len(claimed) == 2 + 1


# stops ----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("overlapping")
@pytest.mark.parametrize("changes", [(), (TPE, *PRUNED)], ids=["random", "pruned tpe"])
def test_a_stop_settles_what_is_over_and_gives_back_what_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: tuple[Change, ...]
):
    workload = small_workload(tmp_path, ONE_STEP, *changes)
    stops = [run_here(workload, tmp_path / "stopped", slots=3, stop_after=turns) for turns in (0, 1, 4, 5, 6)]
    assert {stop.ending for stop in stops} == {Ending.INTERRUPTED}
    states = {row.state for row in rows(stops[-1].ledger, TrialRow)}
    assert TrialState.RUNNING not in states
    never_trained = [row for row in rows(stops[-1].ledger, AttemptRow) if row.state == "RELEASED" and not row.steps]
    assert never_trained
    assert {row.train_s for row in never_trained} == {0.0}
    ran = run_here(workload, tmp_path / "stopped", slots=3)
    monkeypatch.setattr(Engine, "overlaps", False)
    assert outcome(ran.ledger) == outcome(run_here(workload, tmp_path / "whole", slots=3).ledger)
    assert delivered(ran) == {(uid, status) for uid, status in delivered(ran) if status in ("RUNNING", "FINISHED")}
    closed = [row.uid for row in rows(ran.ledger, OutboxRow) if row.status == "FINISHED"]
    assert len(closed) == TRIALS + 4 + 1  # sweep and studies, too, though a stop settled the last


@pytest.mark.usefixtures("overlapping")
def test_a_trial_that_ended_in_the_last_tick_before_a_stop_is_kept(tmp_path: Path):
    ran = run_here(small_workload(tmp_path, ONE_STEP), tmp_path, slots=4, stop_after=4)
    assert [row.state for row in rows(ran.ledger, TrialRow)].count("COMPLETE") == 4


# times ----------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("overlapping")
def test_costs_balance_though_host_and_device_work_at_once(tmp_path: Path):
    ran = run_here(small_workload(tmp_path, ONE_STEP, *PRUNED), tmp_path, slots=3)
    with ran.ledger.read() as connection:
        cost, times = reads.total_cost(connection, ran.sweep.id), reads.worker_times(connection, ran.sweep.id)
    assert cost.device_s == pytest.approx(times["train"] + times["evaluate"], rel=1e-3)
    assert sum(times.values()) <= ran.times.held_s
    assert min(times.values()) >= 0.0
    assert cost.suggest_s > 0
    assert cost.storage_s > 0
