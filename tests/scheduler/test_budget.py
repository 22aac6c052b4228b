"""A sweep with a budget ends within a tick of it, however often it is interrupted, and goes on where it is extended.

The device is a stand-in: a tick takes 0.5 s of training and 0.25 s of evaluation, a fit's last look 0.25 s, and each of
the two 10 J.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from small import ONE_STEP, TPE, TRIALS, Change, Outcome, Ran, device_that_takes, outcome, run_here, small_workload
from sweeper.calibration import choice
from sweeper.checkpoints import Checkpoints
from sweeper.engine import Engine
from sweeper.engine.meter import Stopwatch
from sweeper.errors import EngineError
from sweeper.export import from_json
from sweeper.ledger import budgets, reads, sweeps
from sweeper.ledger.budgets import Amount
from sweeper.ledger.schema import AttemptRow, OutboxRow, TrialRow, WorkerMeterRow
from sweeper.records import TrialState
from sweeper.scheduler import Saving, spending
from sweeper.worker import Ending
from sweeper.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread", "device")

SEARCHES: dict[str, tuple[Change, ...]] = {"random": (), "tpe": (TPE,)}
TICK = Amount(0.75 + 4 * 0.25, 50.0)  # the dearest: four fits end in it
WHOLE = Amount(20 * 0.75 + TRIALS * 0.25, (20 + TRIALS) * 10.0)  # of a sweep whose four slots are always full


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    device_that_takes(monkeypatch, train=0.5, evaluate=0.25, test=0.25)
    monkeypatch.setattr(Stopwatch, "take_joules", lambda self: 10.0)
    monkeypatch.setattr(choice, "find_meter", lambda device: "a meter")
    monkeypatch.setattr(spending, "WAIT_S", 0.01)


def small(folder: Path, search: str = "random", limits: str = "") -> Workload:
    """The sweep, searched in one of these ways, with a budget."""
    budget = ("replicates: 2", f"replicates: 2, budget: {{{limits}}}")
    return small_workload(folder, ONE_STEP, *SEARCHES[search], budget)


def kept(folder: Path) -> Saving:
    return Saving(Checkpoints(str(folder / "kept")))


def spent(ran: Ran) -> Amount:
    with ran.ledger.read() as connection:
        return budgets.spent(connection, ran.sweep.id)


def state(ran: Ran) -> str | None:
    with ran.ledger.read() as connection:
        return sweeps.state_of(connection, ran.sweep.id)


def told(ran: Ran) -> str:
    """What MLflow is told last of the whole sweep's state."""
    query = select(OutboxRow.payload).where(OutboxRow.uid == ran.sweep.uid, OutboxRow.status == "FINISHED")
    with ran.ledger.read() as connection:
        return from_json(connection.scalars(query).one()).tags["sweeper.state"]


def attempts(ran: Ran) -> int:
    with ran.ledger.read() as connection:
        return len(connection.scalars(select(AttemptRow.id)).all())


def assert_spent(ran: Ran, limit: Amount, *, workers: int = 1) -> None:
    """It ended for its budget, and within a tick of it."""
    assert ran.ending is Ending.SPENT
    assert (state(ran), told(ran)) == (sweeps.SPENT, "budget spent")
    found = spent(ran)
    assert limit.device_s - TICK.device_s <= found.device_s <= limit.device_s + TICK.device_s * workers
    with ran.ledger.read() as connection:
        states = set(connection.scalars(select(TrialRow.state)))
        granted_s = sum(connection.scalars(select(WorkerMeterRow.granted_s)))
        charged = reads.total_cost(connection, ran.sweep.id)
    assert states == {TrialState.COMPLETE, TrialState.WAITING}
    assert charged.device_s == pytest.approx(found.device_s) == granted_s


def assert_undisturbed(ran: Ran, whole: Outcome) -> None:
    """The trials that finished are those of the sweep without a budget, bit for bit."""
    early = {key: trial for key, trial in outcome(ran.ledger).items() if trial["state"] == TrialState.COMPLETE}
    assert 0 < len(early) < TRIALS
    assert all(whole[key] == trial for key, trial in early.items())


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What comes of the sweep without a budget, by how it is searched; nobody could ask for one."""
    folders = {name: tmp_path_factory.mktemp(name) for name in SEARCHES}
    with pytest.MonkeyPatch.context() as patch:
        for function in (budgets.standing, budgets.set_grant, budgets.spent):
            patch.setattr(budgets, function.__name__, None)
        return {name: outcome(run_here(small(folder, name), folder).ledger) for name, folder in folders.items()}


@pytest.mark.parametrize(("search", "resumes"), [("random", 1), ("tpe", 2), ("random", 3)])
def test_a_budget_ends_a_sweep_however_often_it_was_resumed_and_a_larger_one_goes_on(
    tmp_path: Path, search: str, resumes: int, undisturbed: dict[str, Outcome]
):
    limited = small(tmp_path, search, "device_seconds: 12")
    for _ in range(resumes):
        ran = run_here(limited, tmp_path, stop_after=4, saving=kept(tmp_path))
        assert ran.ending is Ending.INTERRUPTED
    ran = run_here(limited, tmp_path, saving=kept(tmp_path))
    assert_spent(ran, Amount(12.0))
    assert_undisturbed(ran, undisturbed[search])

    extended = run_here(small(tmp_path, search, "device_seconds: 90"), tmp_path, saving=kept(tmp_path))
    assert (extended.ending, told(extended)) == (Ending.DONE, "done")
    assert outcome(extended.ledger) == undisturbed[search]


def test_nothing_is_claimed_where_nothing_is_left_and_nothing_is_saved_anew(tmp_path: Path):
    limited = small(tmp_path, limits="device_seconds: 12")
    first = run_here(limited, tmp_path, saving=kept(tmp_path))
    before = attempts(first), spent(first)
    again = run_here(limited, tmp_path, saving=kept(tmp_path))
    assert_spent(again, Amount(12.0))
    assert (attempts(again), spent(again)) == before


def test_a_budget_that_is_enough_changes_nothing(tmp_path: Path):
    ran = run_here(small(tmp_path, limits="device_seconds: 20"), tmp_path)
    assert (ran.ending, state(ran), told(ran)) == (Ending.DONE, sweeps.OPEN, "done")
    assert spent(ran) == WHOLE


def test_a_device_that_works_by_itself_keeps_to_it_too(
    tmp_path: Path, undisturbed: dict[str, Outcome], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Engine, "overlaps", True)
    ran = run_here(small(tmp_path, limits="device_seconds: 12"), tmp_path, saving=kept(tmp_path))
    assert_spent(ran, Amount(12.0))
    assert_undisturbed(ran, undisturbed["random"])


def test_two_workers_at_once_keep_to_one_budget_and_use_it(tmp_path: Path):
    limited = small(tmp_path, limits="device_seconds: 12")
    run_here(limited, tmp_path, stop_after=0)  # launched
    with ThreadPoolExecutor(2) as pool:
        pair = [pool.submit(run_here, limited, tmp_path, slots=2, saving=kept(tmp_path)) for _ in range(2)]
        assert [one.result().ending for one in pair] == [Ending.SPENT] * 2
    assert_spent(pair[0].result(), Amount(12.0), workers=2)


def test_without_a_budget_nobody_asks(undisturbed: dict[str, Outcome]):
    for found in undisturbed.values():
        assert {trial["state"] for trial in found.values()} == {TrialState.COMPLETE}


# energy ---------------------------------------------------------------------------------------------------------------


def test_a_budget_of_joules(tmp_path: Path):
    ran = run_here(small(tmp_path, limits="joules: 200, device_seconds: 1000"), tmp_path)
    assert ran.ending is Ending.SPENT
    assert 200.0 - TICK.joules <= spent(ran).joules <= 200.0 + TICK.joules


def test_a_budget_of_joules_needs_a_meter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(choice, "find_meter", lambda device: None)
    monkeypatch.setattr(choice, "energy_note", lambda device: "not measured: this machine shows no RAPL counters")
    with pytest.raises(EngineError) as caught:
        run_here(small(tmp_path, limits="joules: 200"), tmp_path)
    assert str(caught.value) == (
        f"{tmp_path / 'small.yaml'}:5: search.budget.joules = 200 can't be kept on this machine. The energy of its cpu "
        "is not measured: this machine shows no RAPL counters. Work where it is measured, or give a budget of "
        "device_seconds instead."
    )


def test_a_meter_that_fails_ends_its_worker_and_what_was_granted_counts_as_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    limited = small(tmp_path, limits="joules: 200")
    broken = {5: lambda ledger: monkeypatch.setattr(Stopwatch, "take_joules", lambda self: math.nan)}
    with pytest.raises(EngineError, match="energy of this worker's device can't be measured any more"):
        run_here(limited, tmp_path, at_turn=broken)
    monkeypatch.setattr(Stopwatch, "take_joules", lambda self: 10.0)
    ran = run_here(limited, tmp_path)
    assert ran.ending is Ending.SPENT
    with ran.ledger.read() as connection:
        query = select(WorkerMeterRow.joules, WorkerMeterRow.granted_joules).order_by(WorkerMeterRow.worker_id)
        first, second = connection.execute(query)
    assert first.joules is None
    assert first.granted_joules >= 4 * 10.0
    assert spent(ran).joules == pytest.approx(first.granted_joules + second.granted_joules)
    assert 200.0 - TICK.joules <= spent(ran).joules <= 200.0 + TICK.joules
