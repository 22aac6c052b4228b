"""A worker's lease lives as long as the worker gets on: not shorter, whatever keeps it busy, and not longer."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from select import select as select_

import psutil
import pytest
from sqlalchemy import select, text, update

from ledger.makers import registered, rows
from sweeper.ledger import heartbeat, workers
from sweeper.ledger.heartbeat import Heartbeat
from sweeper.ledger.schema import WorkerRow, clock
from sweeper.ledger.store import Ledger

LEASE_S = 1.2

WORK = """
import re, sys, time
from sweeper.ledger import heartbeat, workers
from sweeper.ledger.store import Ledger
workers.LEASE_S = float(sys.argv[2])
ledger = Ledger(sys.argv[1])
with ledger.write() as connection:
    worker = workers.register(connection, "cpu", {})
with heartbeat.Heartbeat(ledger, worker) as beating:
    beating()
    print(worker, beating._process.pid, flush=True)
    sys.stdin.readline()
    print("busy", flush=True)
    re.match("(a|aa)+$", "a" * 48 + "b")  # Python's lock is held all the while
    print("done", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def at_work(ledger: Ledger) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    """A process with a heartbeat, its id as a worker, and the pid of what beats for it."""
    command = [sys.executable, "-c", WORK, ledger.url, str(LEASE_S)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        worker, beating = map(int, process.stdout.readline().split())
        try:
            yield process, worker, beating
        finally:
            process.kill()


def lease_of(ledger: Ledger, worker: int) -> float:
    """Seconds that a worker's lease still has."""
    with ledger.read() as connection:
        left = select(WorkerRow.lease_until - clock(connection.dialect.name)).where(WorkerRow.id == worker)
        return float(connection.scalar(left) or 0.0)


def until(ledger: Ledger, worker: int) -> float:
    return float(rows(ledger, WorkerRow, id=worker)[0].lease_until)


def eventually(holds: Callable[[], bool], within_s: float = 30.0) -> bool:
    deadline = time.monotonic() + within_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.02)
    return holds()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease of which three quarters pass in a second."""
    monkeypatch.setattr(workers, "LEASE_S", LEASE_S)
    monkeypatch.setattr(heartbeat, "SAY_S", 0.0)


@pytest.mark.usefixtures("short")
def test_a_heartbeat_keeps_a_lease_alive_and_ends_with_its_block(ledger: Ledger) -> None:
    worker = registered(ledger)
    first = until(ledger, worker)
    with Heartbeat(ledger, worker) as beating:
        pid = beating._process.pid  # type: ignore[union-attr]
        assert eventually(lambda: until(ledger, worker) > first + LEASE_S)
        assert lease_of(ledger, worker) > 0.0
    assert not psutil.pid_exists(pid)
    last = until(ledger, worker)
    time.sleep(LEASE_S / 3)
    assert until(ledger, worker) == last


@pytest.mark.usefixtures("short")
def test_a_beat_that_failed_is_tried_again_soon(ledger: Ledger) -> None:
    worker = registered(ledger)
    with ledger.write() as connection:
        connection.execute(text("ALTER TABLE worker RENAME TO elsewhere"))
    with Heartbeat(ledger, worker):
        time.sleep(LEASE_S)
        with ledger.write() as connection:
            connection.execute(text("ALTER TABLE elsewhere RENAME TO worker"))
        assert lease_of(ledger, worker) < 0.2
        assert eventually(lambda: lease_of(ledger, worker) > LEASE_S / 2)


@pytest.mark.usefixtures("short")
def test_what_beats_is_started_again_when_it_was_killed(ledger: Ledger) -> None:
    worker = registered(ledger)
    with Heartbeat(ledger, worker) as beating:
        before = beating._process
        assert before is not None
        before.kill()
        before.wait()
        beating()
        assert beating._process is not before
        last = until(ledger, worker)
        assert eventually(lambda: until(ledger, worker) > last)


def test_a_process_that_holds_pythons_lock_for_long_keeps_its_lease(ledger: Ledger) -> None:
    with at_work(ledger) as (process, worker, _):
        process.stdin.write("go\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        assert process.stdout.readline() == "busy\n"  # type: ignore[union-attr]
        began, left = time.monotonic(), []
        while time.monotonic() - began < 2 * LEASE_S:
            left.append(lease_of(ledger, worker))
            time.sleep(0.05)
        assert select_([process.stdout], [], [], 0.0)[0] == []  # it held the lock to the end
        assert min(left) > 0.0


def test_a_stopped_worker_loses_its_lease_though_what_beats_lives_and_has_it_again_when_it_goes_on(
    ledger: Ledger,
) -> None:
    with at_work(ledger) as (process, worker, beating):
        process.send_signal(signal.SIGSTOP)
        assert eventually(lambda: lease_of(ledger, worker) < 0.0)
        time.sleep(LEASE_S / 2)
        assert lease_of(ledger, worker) < 0.0
        assert psutil.pid_exists(beating)
        process.send_signal(signal.SIGCONT)
        assert eventually(lambda: lease_of(ledger, worker) > 0.0)


def test_a_killed_worker_takes_what_beats_along(ledger: Ledger) -> None:
    with at_work(ledger) as (process, _, beating):
        process.kill()
        process.wait()
        assert eventually(lambda: not psutil.pid_exists(beating))


@pytest.mark.usefixtures("short")
def test_a_worker_that_gets_nowhere_for_long_loses_its_lease_until_it_gets_on(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "SILENCE_S", 0.1)
    worker = registered(ledger)
    with ledger.write() as connection:
        connection.execute(update(WorkerRow).values(lease_until=0.0))
    with Heartbeat(ledger, worker) as beating:
        time.sleep(LEASE_S)
        assert until(ledger, worker) == 0.0

        def beats() -> bool:
            beating()
            return until(ledger, worker) > 0.0

        assert eventually(beats)


def test_what_beats_shows_no_password_and_loads_nothing_large(ledger: Ledger) -> None:
    worker = registered(ledger)
    with Heartbeat(ledger, worker) as beating:
        process = psutil.Process(beating._process.pid)  # type: ignore[union-attr]
        assert "secret" not in " ".join(process.cmdline())
        assert "secret" not in str(process.environ())
    loaded = "import sys, sweeper.ledger.pulse; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "optuna", "mlflow", "sqlalchemy", "numpy", "typer"}.intersection(modules)
