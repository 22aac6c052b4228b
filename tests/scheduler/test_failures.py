"""Trials that fail: tried again, alone in the end, and failed for good the third time; nobody else is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from sqlalchemy import select, update

from small import TRIALS, Ran, outcome, run_here, small_workload
from sweeper.engine import Engine
from sweeper.errors import TrainingError
from sweeper.ledger.schema import AttemptRow, OutboxRow, StudyRow, TrialRow
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.records import Fit, TrialState
from sweeper.seeds import fit_seed
from sweeper.worker import Ending
from sweeper.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")

CULPRIT = 3  # the keep_prob of this number in `shared/0` makes training fail


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    return small_workload(tmp_path)


def poison(monkeypatch: pytest.MonkeyPatch, workload: Workload, times: int = 99) -> list[int]:
    """Let training fail, so many times, where a trial is in the engine; returns how many trained beside it."""
    launch, admit = Engine.launch, Engine.admit
    beside, culprits = list[int](), set[str]()
    seed = fit_seed(workload.sweep.seed, 0, CULPRIT, 0)

    def seated(self: Engine, fits: Sequence[Fit]) -> None:
        culprits.update(one.fit.key for one in fits if one.fit.seed == seed)
        admit(self, fits)

    def failing(self: Engine) -> None:
        keys = {seat.fit.key for seat in self.seats if seat is not None}
        if keys & culprits and len(beside) < times:
            beside.append(len(keys) - 1)
            raise ZeroDivisionError("no such device")
        launch(self)

    monkeypatch.setattr(Engine, "admit", seated)
    monkeypatch.setattr(Engine, "launch", failing)
    return beside


def attempts(ran: Ran) -> dict[tuple[str, int, int], list[tuple[str, str | None]]]:
    """By trial: how its attempts ended, and with what error."""
    found: dict[tuple[str, int, int], list[tuple[str, str | None]]] = {}
    with ran.ledger.read() as connection:
        columns = StudyRow.space, StudyRow.replicate, TrialRow.number, AttemptRow.state, AttemptRow.error
        query = select(*columns).select_from(AttemptRow).join(TrialRow).join(StudyRow).order_by(AttemptRow.id)
        for *place, state, error in connection.execute(query):
            found.setdefault(tuple(place), []).append((state, error))
    return found


def test_a_trial_that_fails_three_times_has_failed_for_good_and_takes_nobody_along(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = outcome(run_here(workload, tmp_path / "undisturbed", slots=4).ledger)
    beside = poison(monkeypatch, workload)
    ran = run_here(workload, tmp_path / "poisoned", slots=4)
    assert ran.ending is Ending.DONE
    got = outcome(ran.ledger)
    failed = {place for place, trial in got.items() if trial["state"] == TrialState.FAIL}
    assert failed == {("shared", 0, CULPRIT), ("both", 0, CULPRIT)}  # both have the seed
    for place in failed:
        assert "failed 3 times, the last time by itself: training failed: ZeroDivisionError" in got[place]["error"]
        assert len(attempts(ran)[place]) == 3
    assert beside[-1] == 0
    assert {p: t for p, t in got.items() if p not in failed} == {
        p: t for p, t in undisturbed.items() if p not in failed
    }
    with ran.ledger.read() as connection:
        statuses = connection.execute(select(OutboxRow.status).where(OutboxRow.uid.like("%/t0003"))).scalars().all()
    assert statuses.count("FAILED") == 2


def test_an_error_that_passes_costs_an_attempt_and_is_kept_with_it(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = outcome(run_here(workload, tmp_path / "undisturbed", slots=4).ledger)
    poison(monkeypatch, workload, times=1)
    ran = run_here(workload, tmp_path / "once", slots=4)
    assert outcome(ran.ledger) == undisturbed
    ended = attempts(ran)
    errors = [error for one in ended.values() for state, error in one if state == "ERROR"]
    assert len(errors) == 4  # whoever was in the engine
    assert set(errors) == {"training failed: ZeroDivisionError: no such device."}
    assert sum(len(one) for one in ended.values()) == TRIALS + 4


def test_a_device_that_fails_without_a_trial_as_well_is_no_trials_fault(
    workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, workload)

    def broken(self: Engine, within_s: float = 0.0) -> float:
        raise RuntimeError("the device fell off the bus")

    home = tmp_path / "broken"
    with pytest.raises(TrainingError, match="Training nothing fails as well: see to the device"):
        run_here(workload, home, at_turn={1: lambda _: monkeypatch.setattr(Engine, "rehearse", broken)})
    with Ledger(sqlite_url(home)).read() as connection:
        assert {tuple(row) for row in connection.execute(select(TrialRow.state, TrialRow.failures))} == {
            ("WAITING", 0),
            ("COMPLETE", 0),
        }
        assert set(connection.scalars(select(AttemptRow.state))) == {"RELEASED", "COMPLETE"}


def test_a_trial_that_killed_its_workers_once_too_often_is_not_trained_again(
    workload: Workload, tmp_path: Path
) -> None:
    ran = run_here(workload, tmp_path, stop_after=0)
    with ran.ledger.write() as connection:
        connection.execute(update(TrialRow).where(TrialRow.number == 0).values(losses=8, failures=3))
    ran = run_here(workload, tmp_path)
    assert ran.ending is Ending.DONE
    got = outcome(ran.ledger)
    failed = {place: trial for place, trial in got.items() if trial["state"] == TrialState.FAIL}
    assert {number for _, _, number in failed} == {0}
    assert {trial["error"] for trial in failed.values()} == {
        "the workers that trained it by itself died, 3 times in all"
    }
    assert all(not trial["fits"] for trial in failed.values())
    assert len(got) == TRIALS
