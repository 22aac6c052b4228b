"""PostgreSQL restarted under load and out of room; MLflow down, busy, silent and out of room."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest
from sqlalchemy.engine import make_url

from chaos.faults import PlainReport
from chaos.kennel import SLOTS
from chaos.proxy import Way, proxy
from chaos.stage import Stage
from export.test_server import free_port
from postgres import Postgres
from processes import Crash


def test_postgresql_is_restarted_under_load(stage: Callable[..., Stage], postgres: Postgres):
    """As where its machine is reset: it recovers from its log."""
    now, moments = stage(), random.Random(1)
    keep_what_was_answered(now, postgres)
    followed = now.folder / "followed"
    workers, courier = [now.worker(), now.worker()], now.courier(follows=followed)
    restarts = 0
    for least in (1, 4, 8):
        workers[0].wait_until(now.is_settled(least))
        time.sleep(moments.uniform(0.0, 0.1))
        postgres.crash()
        time.sleep(moments.uniform(0.0, 0.3))
        postgres.start()
        restarts += 1
    assert ["done" in worker.wait_well().said for worker in workers] == [True, True]
    followed.touch()
    courier.wait()
    found = now.check(f"PostgreSQL restarted under load: {restarts} immediate shutdowns of it, 2 workers, 1 courier")
    assert found.attempts["LOST"] == found.attempts["SUPERSEDED"] == 0


def keep_what_was_answered(now: Stage, postgres: Postgres) -> None:
    """The tests' server answers before it has written its log; here, what it answered must be there again."""
    postgres.run(f"ALTER DATABASE {make_url(now.ledger.url).database} SET synchronous_commit = on")


@pytest.mark.parametrize("dies", [False, True], ids=["and comes back", "and the worker is killed meanwhile"])
def test_postgresql_is_away_while_a_worker_trains(stage: Callable[..., Stage], postgres: Postgres, dies: bool):
    """It trains on; what it can't tell waits on the local disk, for itself or for who comes after it."""
    now = stage()
    keep_what_was_answered(now, postgres)
    at_work = now.worker(Crash("sweeper.engine.engine:Engine.collect", 14, leaving=True, number=signal.SIGSTOP))
    at_work.wait_until(lambda: at_work.is_stopped)
    before = now.settled()
    postgres.crash()
    try:
        at_work.send(signal.SIGCONT)
        at_work.wait_until(lambda: len(list(now.folder.glob("spool/*/*.json"))) == SLOTS)
        if dies:
            at_work.kill()
    finally:
        postgres.start()
    if not dies:
        assert "done" in at_work.wait_well().said
    now.finish()
    assert not list(now.folder.glob("spool/**/*.json"))
    what = "the worker killed meanwhile" if dies else "the worker trained on"
    found = now.check(f"PostgreSQL away after {before} trials, {what}: {SLOTS} results kept on the local disk")
    assert found.attempts.total() == now.trials


FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF (SELECT count(*) FROM fit) > 4 THEN
    RAISE EXCEPTION 'could not extend file "base/1/2": No space left on device' USING ERRCODE = 'disk_full';
  END IF;
  RETURN NEW;
END $$
"""
FULL_TRIGGER = "CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON trial FOR EACH ROW EXECUTE FUNCTION full_disk()"


def test_postgresql_has_no_room_left(stage: Callable[..., Stage]):
    now = stage()
    run(now, FULL, FULL_TRIGGER)
    full = now.worker().wait()
    assert full.code == 2
    assert "No space left on device" in full.said
    assert "Nothing committed is lost" in full.said
    assert "Traceback" not in full.said
    before = now.settled()
    assert 0 < before < now.trials
    run(now, "DROP TRIGGER full_disk ON trial")
    now.finish()
    now.check(f"disk full (PostgreSQL): full after {before} trials")


def run(now: Stage, *statements: str) -> None:
    with now.ledger.write() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


# MLflow ---------------------------------------------------------------------------------------------------------------


def test_mlflow_is_down_while_the_sweep_runs(stage: Callable[..., Stage]):
    now, port = stage(), free_port()
    followed = now.folder / "followed"
    courier = now.courier(uri=f"http://127.0.0.1:{port}", follows=followed)
    now.finish()
    waiting = now.undelivered()
    assert waiting == now.letters
    with proxy(now.mlflow.port, lambda method, path: Way.PASSED, port):
        followed.touch()
        courier.wait_well()
    now.check(f"MLflow down: {waiting} runs waited until the sweep was done")


@pytest.mark.parametrize("way", [Way.BUSY, Way.DROPPED], ids=["answers 503", "drops replies"])
def test_mlflow_fails_now_and_then(stage: Callable[..., Stage], way: Way):
    """A third of all requests, drawn one by one, until every run is delivered."""
    now, chances, is_well = stage(), random.Random(way), threading.Event()
    followed = now.folder / "followed"

    def chosen(_method: str, _path: str) -> Way:
        return Way.PASSED if is_well.is_set() or chances.random() > 1 / 3 else way

    with proxy(now.mlflow.port, chosen) as between:
        courier = now.courier(uri=between.url, follows=followed)
        now.finish()
        courier.wait_until(now.is_delivered)
        is_well.set()
        followed.touch()
        courier.wait_well()
    assert between.counts[way] > 10
    now.check(f"MLflow {way}: {between.counts[way]} of {between.counts.total()} requests")


def test_mlflow_has_no_room_left_for_runs(stage: Callable[..., Stage]):
    now = stage()
    followed = now.folder / "followed"
    now.finish()
    with proxy(now.mlflow.port, lambda method, path: Way.PASSED) as between:
        with full_disk(now.mlflow.pid, 4096):
            courier = now.courier(uri=between.url, follows=followed)
            courier.wait_until(lambda: between.counts.total() > 10)
            assert now.undelivered() == now.letters
            refused = between.counts.total()
        courier.wait_until(now.is_delivered)
        followed.touch()
        courier.wait_well()
    now.check(f"disk full (MLflow's tables): {refused} requests in vain")


def test_mlflow_has_no_room_left_for_artifacts(stage: Callable[..., Stage]):
    now = stage()
    now.finish()
    room = now.mlflow.database.stat().st_size + 4_000_000
    with full_disk(now.mlflow.pid, room):
        refused = now.courier(PlainReport(room + 1)).wait()
    assert refused.code == 2
    assert "the report of small is not in MLflow, though all its runs are" in refused.said
    assert now.undelivered() == 0
    now.check("disk full (MLflow's artifacts)")


@contextmanager
def full_disk(leader: int, size: int) -> Iterator[None]:
    """No file of a server's processes may grow beyond so many bytes."""
    processes = [psutil.Process(leader), *psutil.Process(leader).children(recursive=True)]
    before = [one.rlimit(psutil.RLIMIT_FSIZE) for one in processes]
    for one in processes:
        one.rlimit(psutil.RLIMIT_FSIZE, (size, psutil.RLIM_INFINITY))
    try:
        yield
    finally:
        for one, limits in zip(processes, before, strict=True):
            one.rlimit(psutil.RLIMIT_FSIZE, limits)
