"""What PostgreSQL adds: transactions that run at once, sessions of other time zones, and a server that goes away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psycopg
import pytest
from sqlalchemy import Connection, create_engine, inspect, text
from sqlalchemy.exc import DBAPIError

from ledger.makers import claimed, launched, plan, proposed, registered, rows, settled, settlement, study_ids
from postgres import Postgres
from sweeper.errors import LedgerError, StoreAwayError
from sweeper.ledger import migrations, trials, workers
from sweeper.ledger.schema import AttemptRow, ReceiptRow, StudyRow, TrialRow, WorkerRow
from sweeper.ledger.store import Ledger

T = TypeVar("T")


@pytest.fixture
def ledger_url(postgres: Postgres) -> Iterator[str]:
    with postgres.database(migrated=True) as url:
        yield url


@pytest.fixture
def patient(ledger: Ledger) -> Ledger:
    """As workers have it."""
    ledger.patience_s = 30.0
    return ledger


@pytest.fixture
def no_return(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases run out though the server has just started."""
    monkeypatch.setattr(workers, "RETURN_S", -1e9)


def at_once(*acts: Callable[[], T]) -> list[T]:
    """What functions return that start at the same moment."""
    barrier = threading.Barrier(len(acts))

    def started(act: Callable[[], T]) -> T:
        barrier.wait()
        return act()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(started, acts))


def slowly(ledger: Ledger, act: Callable[[Connection], T]) -> Callable[[], T]:
    """A transaction that stays open for a while when its work is done, so that others meet it."""

    def kept() -> T:
        with ledger.write() as connection:
            done = act(connection)
            time.sleep(0.1)
            return done

    return kept


# at once --------------------------------------------------------------------------------------------------------------


def test_claims_at_once_pass_each_other_by(ledger: Ledger) -> None:
    sweep = launched(ledger)
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 8)
    at = [registered(ledger) for _ in range(4)]
    claims = [lambda c, w=worker: trials.claim(c, sweep.id, w, 3) for worker in at]
    began = time.monotonic()
    found = at_once(*(slowly(ledger, claim) for claim in claims))
    assert time.monotonic() - began < 0.35  # nobody waited for another's end
    ids = [one.trial_id for each in found for one in each]
    assert sorted(ids) == sorted(row.id for row in rows(ledger, TrialRow))
    assert [row.attempt for row in rows(ledger, AttemptRow)] == [1] * 8


def test_studies_that_are_shared_out_at_once_have_one_proposer_each(ledger: Ledger) -> None:
    sweep = launched(ledger, plan(("none",), replicates=9))
    at = [registered(ledger) for _ in range(3)]
    for worker in at:
        with ledger.write() as connection:
            workers.set_times(connection, worker, sweep.id, {"train": 0.0})
    for _ in range(3):
        shares = at_once(*(slowly(ledger, lambda c, w=w: workers.share_studies(c, sweep.id, w)) for w in at))
        taken = [study for share in shares for study in share.studies]
        assert len(taken) == len(set(taken))
        proposers = {row.id: row.proposer_id for row in rows(ledger, StudyRow)}
        assert {study: at[i] for i, share in enumerate(shares) for study in share.studies}.items() <= proposers.items()


@pytest.mark.usefixtures("no_return")
def test_the_dead_are_buried_once_by_many_at_once(ledger: Ledger) -> None:
    sweep = launched(ledger)
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 8)
    dead = [registered(ledger) for _ in range(2)]
    for worker in dead:
        claimed(ledger, sweep, worker, 4)
    with ledger.write() as connection:
        connection.execute(text("UPDATE worker SET place = 'elsewhere', lease_until = 0"))
    requeued = at_once(*(slowly(ledger, workers.bury_dead) for _ in range(3)))
    assert sorted(requeued) == [0, 0, 8]
    assert [row.state for row in rows(ledger, AttemptRow)] == [workers.LOST] * 8


@pytest.mark.usefixtures("no_return")
def test_a_worker_in_mid_transaction_is_not_buried_and_a_buried_one_learns_of_it(ledger: Ledger) -> None:
    sweep = launched(ledger)
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 2)
    late = registered(ledger)
    (one,) = claimed(ledger, sweep, late)
    with ledger.write() as connection:
        connection.execute(text("UPDATE worker SET place = 'elsewhere', lease_until = 0"))
    with ledger.write() as mine:
        assert not workers.has_ended(mine, late)
        with ledger.write() as other:
            assert workers.bury_dead(other) == 0
        assert trials.settle(mine, late, sweep.id, [settlement(one)]) != []
    with ledger.write() as other:
        workers.bury_dead(other)
    with ledger.write() as mine:
        assert workers.has_ended(mine, late)
    assert rows(ledger, AttemptRow)[0].state == "COMPLETE"


def test_a_late_result_that_meets_its_burial_waits_for_it_and_does_not_count(ledger: Ledger) -> None:
    sweep = launched(ledger)
    proposed(ledger, study_ids(ledger, sweep)["none", 0], 1)
    late = registered(ledger)
    (one,) = claimed(ledger, sweep, late)
    with ThreadPoolExecutor(1) as pool:
        with ledger.write() as connection:
            workers.give_back(connection, late, workers.LOST)
            settling = pool.submit(settled, ledger, sweep, late, settlement(one))
            time.sleep(0.2)
            assert not settling.done()
        assert settling.result() == []
    assert [row.state for row in rows(ledger, TrialRow)] == ["WAITING"]
    assert [row.state for row in rows(ledger, AttemptRow)] == ["SUPERSEDED"]


def test_one_of_many_takes_a_named_lease(ledger: Ledger) -> None:
    owners = [f"elsewhere/{number}/1.0" for number in range(4)]
    takes = [slowly(ledger, lambda c, o=owner: workers.take_lease(c, "export:1", o, 60.0)) for owner in owners]
    assert sorted(at_once(*takes)) == [False, False, False, True]
    with ledger.write() as connection:
        connection.execute(text("UPDATE lease SET until = 0"))
    assert sorted(at_once(*takes)) == [False, False, False, True]


# clocks ---------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_return")
def test_sessions_of_any_time_zone_agree_on_leases_and_moments(ledger: Ledger) -> None:
    for zone in ("Asia/Tokyo", "America/Los_Angeles"):
        abroad = Ledger(f"{ledger.url}&options=-cTimeZone%3D{zone}")
        with abroad.read() as connection:
            assert connection.scalar(text("SHOW TimeZone")) == zone
        worker = registered(abroad)
        (here,), (there,) = rows(ledger, WorkerRow, id=worker), rows(abroad, WorkerRow, id=worker)
        assert here == there
        with ledger.write() as connection:
            assert workers.bury_dead(connection) == 0
            connection.execute(text("UPDATE worker SET place = 'elsewhere'"))
        with abroad.write() as connection:
            assert workers.bury_dead(connection) == 0
            workers.beat(connection, worker)
        (row,) = rows(ledger, WorkerRow, id=worker)
        assert row.lease_until == pytest.approx(time.time() + workers.LEASE_S, abs=20.0)
        assert row.ended_at is None
        abroad.close()


def test_nobody_dies_of_an_outage_before_there_was_time_to_beat_again(
    ledger: Ledger, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = registered(ledger)
    with ledger.write() as connection:
        connection.execute(text("UPDATE worker SET place = 'elsewhere', lease_until = 0"))
    postgres.stop()
    postgres.start()
    with ledger.write() as connection:
        workers.bury_dead(connection)
    assert rows(ledger, WorkerRow, id=worker)[0].ended_at is None
    monkeypatch.setattr(workers, "RETURN_S", 0.5)
    time.sleep(1.0)
    with ledger.write() as connection:
        workers.bury_dead(connection)
    assert rows(ledger, WorkerRow, id=worker)[0].ended_at is not None


# a server that goes away ----------------------------------------------------------------------------------------------


def beat(connection: Connection, worker: int) -> int:
    """Something that must not happen twice."""
    connection.execute(text("UPDATE worker SET pid = pid + 1 WHERE id = :id"), {"id": worker})
    return worker


def break_off(connection: Connection, postgres: Postgres) -> None:
    """The server ends a session from its side."""
    pid = connection.scalar(text("SELECT pg_backend_pid()"))
    postgres.run(f"SELECT pg_terminate_backend({pid}, 5000)")


def test_what_was_broken_off_is_done_again(patient: Ledger, postgres: Postgres) -> None:
    worker, runs = registered(patient), []
    before = rows(patient, WorkerRow)[0].pid

    def act(connection: Connection) -> int:
        done = beat(connection, worker)
        runs.append(done)
        if len(runs) < 3:
            break_off(connection, postgres)
        connection.execute(text("SELECT 1"))
        return done

    assert patient.keep(act) == worker
    assert len(runs) == 3
    assert rows(patient, WorkerRow)[0].pid == before + 1


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "not kept"])
def test_what_was_not_answered_happens_once(patient: Ledger, monkeypatch: pytest.MonkeyPatch, is_kept: bool) -> None:
    worker, answers = registered(patient), []
    before, commit = rows(patient, WorkerRow)[0].pid, patient._engine.dialect.do_commit

    def unanswered(raw: Any) -> None:
        if is_kept:
            commit(raw)
        raw.dbapi_connection.close()
        monkeypatch.undo()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    def act(connection: Connection) -> int:
        answers.append(beat(connection, worker))
        return len(answers)

    monkeypatch.setattr(patient._engine.dialect, "do_commit", unanswered)
    assert patient.keep(act) == (1 if is_kept else 2)  # the answer of the run that was kept
    assert rows(patient, WorkerRow)[0].pid == before + 1
    assert patient.keep(act) == len(answers)
    assert len(rows(patient, ReceiptRow)) == 1


def test_the_victim_of_a_deadlock_is_run_again(patient: Ledger) -> None:
    first, second = registered(patient), registered(patient)
    barrier = threading.Barrier(2, timeout=10)

    def crossing(one: int, other: int) -> Callable[[], int]:
        runs: list[int] = []

        def act(connection: Connection) -> int:
            runs.append(beat(connection, one))
            if len(runs) == 1:
                barrier.wait()
            return beat(connection, other)

        return lambda: (patient.keep(act), len(runs))[1]

    assert sorted(at_once(crossing(first, second), crossing(second, first))) == [1, 2]


def test_a_server_that_comes_back_is_waited_for_also_by_a_session_that_stood_open(
    patient: Ledger, postgres: Postgres
) -> None:
    worker = registered(patient)
    postgres.stop()
    with ThreadPoolExecutor(2) as pool:
        written = pool.submit(patient.keep, lambda connection: beat(connection, worker))
        read = pool.submit(patient.ask, lambda connection: connection.scalar(text("SELECT count(*) FROM worker")))
        time.sleep(0.5)
        assert not written.done()
        postgres.start()
        assert (written.result(20), read.result(20)) == (worker, 1)


def test_who_opens_a_store_may_come_before_its_server(ledger: Ledger, postgres: Postgres) -> None:
    postgres.stop()
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(Ledger, ledger.url, patience_s=20.0)
        time.sleep(0.3)
        assert not opened.done()
        postgres.start()
        opened.result(20).close()


def test_without_patience_an_absent_server_is_an_error_that_shows_no_password(
    ledger: Ledger, postgres: Postgres
) -> None:
    postgres.stop()
    try:
        began = time.monotonic()
        with pytest.raises(StoreAwayError, match=r"fails: .*sweeper resume") as caught:
            ledger.keep(lambda connection: None)
        assert time.monotonic() - began < 5.0
        assert "secret" not in str(caught.value)
        assert "***@" in str(caught.value)
        with pytest.raises(LedgerError, match=r"fails|can't be opened") as caught_again:
            Ledger(ledger.url)
        assert "secret" not in str(caught_again.value)
    finally:
        postgres.start()


def test_a_hurried_worker_waits_no_longer_than_a_few_seconds(
    patient: Ledger, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sweeper.ledger.retries.HURRY_S", 0.3)
    patient.is_hurried = lambda: True
    postgres.stop()
    try:
        began = time.monotonic()
        with pytest.raises(StoreAwayError):
            patient.keep(lambda connection: None)
        assert time.monotonic() - began < 5.0
    finally:
        postgres.start()


@pytest.mark.parametrize(
    ("statement", "value", "message"),
    [("SELECT 1 / :value", 0, "division by zero"), ("SELECT :value", object(), "cannot adapt")],
    ids=["that the server finds", "that the driver finds"],
)
def test_a_mistake_in_a_statement_is_not_tried_again(
    patient: Ledger, statement: str, value: object, message: str
) -> None:
    runs = []

    def act(connection: Connection) -> None:
        runs.append(connection.execute(text("SELECT 1")))
        connection.execute(text(statement), {"value": value})

    with pytest.raises(DBAPIError, match=message):
        patient.keep(act)
    assert len(runs) == 1


def test_passwords_in_any_part_of_a_url_are_masked(ledger: Ledger) -> None:
    again = Ledger(ledger.url.replace(":secret@", "@") + "&password=secret")
    assert "secret" not in again.masked_url
    assert "secret" in ledger.url
    again.close()


def test_a_bare_postgresql_url_will_do(ledger: Ledger) -> None:
    bare = Ledger(ledger.url.replace("+psycopg", ""))
    assert launched(bare).name == "digits"
    bare.close()


def test_a_failed_migration_leaves_nothing_behind(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_late(connection: Connection) -> None:
        migrations.upgrade(connection)
        raise RuntimeError("killed")

    with postgres.database() as url:
        with monkeypatch.context() as patched:
            patched.setattr("sweeper.ledger.store.upgrade", fail_late)
            with pytest.raises(RuntimeError, match="killed"):
                Ledger(url)
        engine = create_engine(url)
        with engine.connect() as connection:
            assert inspect(connection).get_table_names() == []
        engine.dispose()
        Ledger(url).close()


@pytest.mark.parametrize("url", ["mysql://me:secret@host/db", "postgresql+psycopg2://me:secret@host/db"])
def test_a_ledger_on_another_database_is_refused(url: str) -> None:
    with pytest.raises(LedgerError) as caught:
        Ledger(url)
    assert "postgresql+psycopg://" in str(caught.value)
    assert "secret" not in str(caught.value)
