"""The store goes away: the engine trains on, nothing is lost, and nothing is trained twice that was trained before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from small import TRIALS, outcome, run_here, small_workload
from sweeper.errors import StoreAwayError
from sweeper.ledger.rows import Settlement
from sweeper.ledger.schema import AttemptRow, OutboxRow, TrialRow, WorkerRow
from sweeper.ledger.store import Connection, Ledger, sqlite_url
from sweeper.records import TrialState
from sweeper.scheduler import Saving
from sweeper.scheduler.spool import Left, Spool
from sweeper.worker import Ending
from sweeper.workload import Workload

pytestmark = pytest.mark.usefixtures("one_thread")


@dataclass
class Server:
    """Whether a worker's transactions reach the store."""

    is_away: bool = False
    refused: int = 0

    def stop(self, _: Ledger) -> None:
        self.is_away = True

    def start(self, _: Ledger) -> None:
        self.is_away = False


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server, at_once = Server(), Ledger.at_once

    @contextmanager
    def perhaps(self: Ledger) -> Iterator[Connection]:
        if server.is_away:
            server.refused += 1
            raise StoreAwayError("the store is away")
        with at_once(self) as connection:
            yield connection

    monkeypatch.setattr(Ledger, "at_once", perhaps)
    monkeypatch.setattr("sweeper.scheduler.sending.FIRST_S", 0.0)
    monkeypatch.setattr("sweeper.ledger.retries.PATIENCE_S", 30.0)
    return server


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    return small_workload(tmp_path)


def die(ledger: Ledger) -> None:
    """As by a signal: not even a goodbye reaches the store."""
    ledger.patience_s = 0.0
    raise SystemExit


def results(ledger: Ledger) -> list[tuple[int, str]]:
    with ledger.read() as connection:
        return [tuple(row) for row in connection.execute(select(AttemptRow.attempt, AttemptRow.state))]


def test_the_engine_trains_on_while_the_store_is_away_and_nothing_is_lost(
    workload: Workload, tmp_path: Path, server: Server
) -> None:
    undisturbed = run_here(workload, tmp_path / "undisturbed", slots=10)
    spool, left = Spool(tmp_path / "unsettled"), list[list[Left]]()

    def look(ledger: Ledger) -> None:
        left.append(list(spool.left(next((tmp_path / "unsettled").iterdir()).name)))
        server.start(ledger)

    turns = {3: server.stop, 8: look}  # ten trials of four epochs each: they all end meanwhile
    ran = run_here(workload, tmp_path / "away", slots=10, at_turn=turns, saving=Saving(None, spool=spool))
    assert server.refused > 1
    assert ran.ending is Ending.DONE
    assert outcome(ran.ledger) == outcome(undisturbed.ledger)
    assert results(ran.ledger) == [(1, "COMPLETE")] * TRIALS
    assert len(left[0]) == 10
    assert not list(spool.left(ran.sweep.uid))


def test_what_ended_while_the_store_was_away_outlives_the_worker(
    workload: Workload, tmp_path: Path, server: Server
) -> None:
    undisturbed = run_here(workload, tmp_path / "undisturbed", slots=10)
    spool, home = Spool(tmp_path / "unsettled"), tmp_path / "away"

    with pytest.raises(StoreAwayError):
        run_here(workload, home, slots=10, at_turn={3: server.stop, 8: die}, saving=Saving(None, spool=spool))
    server.is_away = False
    ledger = Ledger(sqlite_url(home))
    with ledger.write() as connection:
        assert set(connection.scalars(select(AttemptRow.state))) == {"RUNNING"}
        connection.execute(update(WorkerRow).values(process_started=0.0))  # this process, of which it was a part, lives
    ran = run_here(workload, home, slots=10, saving=Saving(None, spool=spool))
    assert outcome(ran.ledger) == outcome(undisturbed.ledger)
    assert results(ran.ledger) == [(1, "COMPLETE")] * TRIALS  # nothing was trained again
    assert not list(spool.left(ran.sweep.uid))
    with ran.ledger.read() as connection:
        assert len(connection.scalars(select(OutboxRow.uid).where(OutboxRow.uid.like("%/t0%"))).all()) == TRIALS


def test_a_result_that_comes_after_its_trial_was_given_to_another_does_not_count(
    workload: Workload, tmp_path: Path, server: Server
) -> None:
    spool, home = Spool(tmp_path / "unsettled"), tmp_path / "away"

    with pytest.raises(StoreAwayError):
        run_here(workload, home, slots=10, at_turn={3: server.stop, 8: die}, saving=Saving(None, spool=spool))
    server.is_away = False
    with Ledger(sqlite_url(home)).write() as connection:
        connection.execute(update(WorkerRow).values(process_started=0.0))
    ran = run_here(workload, home, slots=10)  # on another machine: it finds nothing, and trains them again
    with ran.ledger.read() as connection:
        finished = connection.execute(select(TrialRow.id, TrialRow.ended_at, TrialRow.attempt)).all()
    again = run_here(workload, home, slots=10, saving=Saving(None, spool=spool))
    with again.ledger.read() as connection:
        assert connection.execute(select(TrialRow.id, TrialRow.ended_at, TrialRow.attempt)).all() == finished
        assert {state for _, state in results(again.ledger)} == {"COMPLETE", "LOST", "SUPERSEDED"} - {"LOST"}
    assert not list(spool.left(ran.sweep.uid))


def test_what_is_read_back_is_what_was_written(workload: Workload, tmp_path: Path, server: Server) -> None:
    kept = list[Settlement]()

    class Listening(Spool):
        def keep(self, sweep: str, worker_id: int, settlements: object) -> None:
            kept.extend(settlements)  # type: ignore[arg-type]
            super().keep(sweep, worker_id, settlements)  # type: ignore[arg-type]

    spool = Listening(tmp_path / "unsettled")
    found = list[Left]()

    def look(ledger: Ledger) -> None:
        (sweep,) = (tmp_path / "unsettled").iterdir()
        (sweep / "torn.json").write_text('{"worker_id": 1, "settl')
        found.extend(spool.left(sweep.name))
        server.start(ledger)

    run_here(workload, tmp_path, slots=10, at_turn={3: server.stop, 8: look}, saving=Saving(None, spool=spool))
    by_attempt = {one.claimed.attempt_id: one for one in kept}
    assert len(found) == 10
    for left in found:
        assert left.settlement == by_attempt[left.settlement.claimed.attempt_id]
        assert left.settlement.state is TrialState.COMPLETE


def test_a_disk_that_takes_nothing_stops_nobody(workload: Workload, tmp_path: Path, server: Server) -> None:
    (tmp_path / "unsettled").write_text("no folder")
    spool = Spool(tmp_path / "unsettled")
    turns = {3: server.stop, 8: server.start}
    ran = run_here(workload, tmp_path, slots=10, at_turn=turns, saving=replace(Saving(None), spool=spool))
    assert results(ran.ledger) == [(1, "COMPLETE")] * TRIALS


def test_with_nothing_left_to_train_patience_runs_out(workload: Workload, tmp_path: Path, server: Server) -> None:
    with pytest.raises(StoreAwayError):
        run_here(
            workload,
            tmp_path,
            slots=10,
            at_turn={3: server.stop, 4: lambda ledger: vars(ledger).update(patience_s=0.5)},
        )
