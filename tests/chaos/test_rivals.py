"""Two who do the same: workers with one trial, proposers, couriers, migrators; and a worker that is told to end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import func, select

from chaos.faults import SHORT_LEASE_S, SHORT_LEASES
from chaos.kennel import KILLED, SLOTS
from chaos.stage import LONGER, Stage
from postgres import Postgres
from processes import Crash, shell
from small import TPE
from sweeper.ledger.migrations import HEAD, VERSION_TABLE
from sweeper.ledger.schema import AttemptRow, FitRow, StudyRow, TrialRow, WorkerRow
from sweeper.ledger.store import Ledger

SIGTERM_S = 30.0
WORKER = ("worker", "--sweep", "small", "--slots", str(SLOTS), "--threads", "1", "--compile", "off")


def test_a_worker_that_is_frozen_past_its_lease(stage: Callable[..., Stage]):
    """It has results in hand as it freezes; others train the same trials meanwhile; what it brings in the end is late.

    The process that beats for it lives on, and must not beat."""
    now = stage()
    frozen = now.worker(SHORT_LEASES, Crash("sweeper.scheduler.loop:settlement", 5, number=signal.SIGSTOP))
    frozen.wait_until(lambda: frozen.is_stopped)
    began, before = time.monotonic(), now.settled()
    now.finish(SHORT_LEASES)
    assert time.monotonic() - began > SHORT_LEASE_S / 2
    frozen.send(signal.SIGCONT)
    assert frozen.wait().code == 2
    assert "longer than its lease" in frozen.said
    found = now.check(f"a worker frozen past its lease of {SHORT_LEASE_S:.0f} s: after {before} trials")
    assert found.attempts["SUPERSEDED"] > 0
    assert found.attempts["SUPERSEDED"] + found.attempts["LOST"] == SLOTS


@pytest.mark.parametrize("leaving", [False, True], ids=["before it makes a run", "after it made a run"])
def test_a_courier_that_is_frozen_past_its_lease(stage: Callable[..., Stage], leaving: bool):
    """Another delivers everything meanwhile, that run among it, and is gone when the frozen one goes on."""
    now = stage()
    now.finish()
    made = Crash("sweeper.export.mlflow:MlflowSink._create", 7, leaving=leaving, number=signal.SIGSTOP)
    frozen = now.courier(SHORT_LEASES, made)
    frozen.wait_until(lambda: frozen.is_stopped)
    time.sleep(SHORT_LEASE_S)
    now.courier(SHORT_LEASES).wait_well()
    frozen.send(signal.SIGCONT)
    frozen.wait_well()
    point = "after it made a run" if leaving else "before it makes a run"
    now.check(f"a courier frozen past its lease of {SHORT_LEASE_S:.0f} s {point}")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_two_proposers(stage: Callable[..., Stage], sampler: str):
    """Both want all studies as they start; each study must have one sampler, or its suggestions are not those of one.

    One of them is killed with suggestions that it has drawn and not committed."""
    now = stage(*([TPE] if sampler == "tpe" else []))
    killed = now.worker(Crash("sweeper.scheduler.desks:Desks.ask", 3, leaving=True))
    others = [now.worker() for _ in range(2)]
    assert killed.wait().code == KILLED
    assert ["done" in other.wait_well().said for other in others] == [True, True]
    now.finish()
    now.check(f"two proposers ({sampler}): 3 workers, 1 killed as it proposed")


def test_two_couriers(stage: Callable[..., Stage]):
    """Three start at once while the sweep runs; the one that delivers is killed, and another goes on."""
    now = stage()
    followed = now.folder / "followed"
    couriers = [now.courier(follows=followed) for _ in range(3)]
    now.finish()
    couriers[0].wait_until(lambda: now.undelivered() < now.letters)
    owner = now.ledger.ask(lambda connection: connection.exec_driver_sql("SELECT owner FROM lease").scalar())
    [delivering] = [one for one in couriers if one.pid == int(str(owner).split("/")[-2])]
    delivering.kill()
    delivering.wait_until(now.is_delivered)
    followed.touch()
    killed = sum(one.wait().code == KILLED for one in couriers)
    assert killed == 1
    now.check("two exporters: 3 couriers at once, the one at work killed")


def test_two_migrators(postgres: Postgres, tmp_path: Path, record_property: Callable[[str, object], None]):
    """Four open an empty database at once; the one that migrates is killed before it commits, and another does it."""
    with postgres.database() as url, shell(tmp_path, SWEEPER_STORE=url) as run:
        killed = run.start("status", crash=Crash("sweeper.ledger.store:upgrade", leaving=True))
        frozen_out: list[str] = []

        def open_it() -> None:
            ledger = Ledger(url)
            with ledger.read() as connection:
                frozen_out.append(str(connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()))
                assert connection.scalar(select(func.count()).select_from(TrialRow)) == 0
            ledger.close()

        threads = [threading.Thread(target=open_it) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        killed.wait()
        assert frozen_out == [HEAD] * 3
        record_property("counted", f"two migrators: 4 at once, 1 killed in the midst, 3 found revision {HEAD}")


def test_sigterm(stage: Callable[..., Stage]):
    """`sweeper worker` claims nothing more, saves, lets go, and ends well; who goes on trains no epoch twice."""
    now = stage(*LONGER)
    with shell(now.folder, SWEEPER_STORE=now.ledger.url) as run:
        data = str(Path(now.sweep.file_path).parent)
        told = run.start(*WORKER, "--data-root", data, "--checkpoints", str(now.folder / "checkpoints"))
        told.wait_until(now.is_settled(4))
        time.sleep(0.2)  # into the epochs of the next ones
        began = time.monotonic()
        told.send(signal.SIGTERM)
        assert told.wait().code == 0, told.err
    took = time.monotonic() - began
    assert took < SIGTERM_S
    assert "interrupted" in told.err
    saved = len(list(now.folder.rglob("*.safetensors")))
    assert saved > 0
    assert now.count(AttemptRow.state == "RUNNING") == now.count(TrialRow.state == "RUNNING") == 0
    assert now.count(StudyRow.proposer_id.is_not(None)) == now.count(WorkerRow.ended_at.is_(None)) == 0
    now.finish(checkpoints=True)
    trained, needed = now.sum(AttemptRow.epochs), now.sum(FitRow.epochs)
    assert trained == needed
    found = now.check(f"SIGTERM: ended after {took:.1f} s, {saved} checkpoints, 0 of {needed} epochs twice")
    assert found.attempts["RELEASED"] == saved
