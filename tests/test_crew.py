"""Several worker processes on one sweep: whoever joins, ends or is killed, each trial counts once and is the same."""

from __future__ import annotations

import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from sqlalchemy import select

from processes import Shell, Sweeper, shell
from small import TRIALS, Outcome, outcome, run_here, small_workload, write_sweep
from sweeper.cli.computing import Saved
from sweeper.cli.run import further_workers
from sweeper.crew import crew, devices
from sweeper.errors import EngineError
from sweeper.ledger.schema import AttemptRow, StudyRow, TrialRow, WorkerRow
from sweeper.ledger.store import Ledger, sqlite_url

RUN = ("run", "small.yaml", "--compile", "off", "--no-mlflow", "--slots", "2", "--threads", "1")
JOIN = ("worker", "--sweep", "small", "--slots", "2", "--threads", "1")
RESUME = ("resume", "small", "--no-mlflow", "--slots", "4", "--threads", "1", "-n", "1")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a folder with the sweep."""
    write_sweep(tmp_path)
    with shell(tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("undisturbed")
    return outcome(run_here(small_workload(folder), folder).ledger)


def rows(folder: Path, statement: str) -> list[tuple[int, ...]]:
    """What a reader of the running sweep's ledger sees."""
    path = folder / "sweeper-data" / "ledger.db"
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        try:
            return connection.execute(statement).fetchall()
        except sqlite3.OperationalError:
            return []  # its tables are not there yet


def has_claimed(folder: Path, worker: int) -> Callable[[], bool]:
    return lambda: bool(rows(folder, f"SELECT id FROM attempt WHERE worker_id = {worker} LIMIT 1"))


def process_of(folder: Path, worker: int) -> psutil.Process:
    ((pid,),) = rows(folder, f"SELECT pid FROM worker WHERE id = {worker}")
    return psutil.Process(pid)


def held_up(run: Shell, *argv: str) -> Sweeper:
    """A `run` that is stopped in mid-turn, its first trials under way, so that others have the time to join."""
    first = run.start(*argv)
    first.wait_until(has_claimed(run.folder, 1))
    first.send(signal.SIGSTOP)
    return first


def assert_each_trial_once(folder: Path, expected: Outcome) -> Counter[int]:
    """Nothing is lost, counted twice or left over; returns how many trials each worker finished."""
    ledger = Ledger(sqlite_url(folder / "sweeper-data"), create=False)
    assert outcome(ledger) == expected
    with ledger.read() as connection:
        attempts = connection.execute(select(AttemptRow.worker_id, AttemptRow.state)).all()
        assert set(connection.scalars(select(TrialRow.state))) == {"COMPLETE"}
        assert set(connection.scalars(select(StudyRow.proposer_id))) == {None}
        assert None not in set(connection.scalars(select(WorkerRow.ended_at)))
    finished = Counter(worker for worker, state in attempts if state == "COMPLETE")
    assert finished.total() == TRIALS
    return finished


def test_a_worker_joins_in_and_finds_the_same(run: Shell, undisturbed: Outcome):
    first = held_up(run, *RUN)
    second = run.start(*JOIN)
    second.wait_until(has_claimed(run.folder, 2))
    first.send(signal.SIGCONT)
    assert (first.wait().code, second.wait().code) == (0, 0), first.err + second.err
    finished = assert_each_trial_once(run.folder, undisturbed)
    assert min(finished[1], finished[2]) >= 2
    assert "small: done" in second.err
    assert "small: nothing to do" in run(*JOIN).err
    assert run("worker", "--until-done").err == "nothing is left to do\n"


@pytest.mark.parametrize("killed", [1, 2], ids=["who launched it", "who joined"])
def test_whoever_is_killed_the_other_finishes(run: Shell, undisturbed: Outcome, killed: int):
    first = held_up(run, *RUN)
    second = run.start(*JOIN)
    second.wait_until(has_claimed(run.folder, 2))
    victim, survivor = (first, second) if killed == 1 else (second, first)
    assert victim.kill().code == -signal.SIGKILL
    first.process.is_alive() and first.send(signal.SIGCONT)
    assert survivor.wait().code == 0, survivor.err
    assert_each_trial_once(run.folder, undisturbed)


@pytest.mark.slow
def test_processes_that_run_starts_end_with_it(run: Shell, undisturbed: Outcome):
    """It is killed; they finish their tick, give back what they have not finished, and are gone."""
    first = held_up(run, *RUN, "-n", "2")
    first.wait_until(has_claimed(run.folder, 2))
    mate = process_of(run.folder, 2)
    assert first.kill().code == -signal.SIGKILL
    mate.wait(60)
    assert "Fatal" not in (run.folder / "sweeper-data" / "worker-2.log").read_text()
    assert run(*RESUME).code == 0
    assert_each_trial_once(run.folder, undisturbed)


@pytest.mark.slow
def test_a_process_that_run_started_and_that_is_killed_loses_nothing(run: Shell, undisturbed: Outcome):
    first = held_up(run, *RUN, "-n", "2")
    first.wait_until(has_claimed(run.folder, 2))
    process_of(run.folder, 2).kill()
    first.send(signal.SIGCONT)
    assert first.wait().code == 0, first.err
    assert "2 processes with 2 fits at once each, eager, 1 thread" in first.err
    assert "note: a further worker ended (exit code -9" in first.err or "worker-2.log" in first.err
    assert_each_trial_once(run.folder, undisturbed)


def test_a_worker_of_a_sweep_that_is_stopped_or_unknown_says_what_to_do(run: Shell):
    first = held_up(run, *RUN)
    assert run("stop", "small").code == 0
    first.send(signal.SIGCONT)
    assert first.wait().code == 0
    refused = run(*JOIN)
    assert refused.code == 2
    assert "the sweep 'small' is stopped. Open it again with: sweeper resume small" in refused.err
    assert "there is no sweep named 'smal'. Did you mean 'small'?" in run("worker", "--sweep", "smal").err


def test_a_mate_that_cannot_work_says_why(tmp_path: Path):
    with crew([["worker", "--sweep", "x", "--home", str(tmp_path / "none")]], {}, 1, tmp_path) as (mate,):
        assert mate.process.wait(60) == 2
    assert mate.problem is not None
    assert mate.problem.startswith("a further worker ended (error: there is no ledger at")
    assert "see " in mate.problem


@pytest.mark.parametrize(
    ("wanted", "processes", "gpus", "expected"),
    [
        pytest.param("cpu", None, 0, (), id="on a CPU the calibration says how many"),
        pytest.param("cpu", 3, 4, (), id="and what was asked for reaches it by another way"),
        pytest.param("cuda", None, 1, ("cuda",), id="one GPU, one worker"),
        pytest.param("cuda", None, 3, ("cuda:0", "cuda:1", "cuda:2"), id="a worker for each GPU"),
        pytest.param("cuda", 2, 3, ("cuda:0", "cuda:1"), id="not more than were asked for"),
        pytest.param("cuda", 1, 3, ("cuda:0",), id="only one"),
        pytest.param("cuda:1", None, 3, ("cuda:1",), id="a GPU by its name"),
        pytest.param("cuda:1", 2, 3, ("cuda:1", "cuda:1"), id="which several share where that is said"),
    ],
)
def test_each_gpu_has_a_worker_of_its_own(wanted: str, processes: int | None, gpus: int, expected: tuple[str, ...]):
    assert devices(wanted, processes, gpus) == expected


@pytest.mark.parametrize(("gpus", "there"), [(1, "there is one GPU"), (2, "there are 2 GPUs")])
def test_more_workers_than_gpus_are_refused_with_the_ways_out(gpus: int, there: str):
    with pytest.raises(
        EngineError, match=rf"-n 4 asks for 4 workers.*{there}\. Pass -n {gpus}; .*--device cuda:0 -n 4"
    ):
        devices("cuda", 4, gpus)


def test_each_further_worker_is_told_of_its_own_gpu_and_shares_its_energy_with_nobody():
    at = SimpleNamespace(slots=8, device="cuda:0")
    setup: Any = SimpleNamespace(sharers=1, processes=3, engine=at, device=SimpleNamespace(threads=2))
    sweep: Any = SimpleNamespace(name="small")
    commands = further_workers(sweep, setup, devices("cuda", None, 3), ["models"], Saved(None, 60.0))
    told = [dict(zip(argv[1::2], argv[2::2], strict=True)) for argv in commands]
    assert [one["--device"] for one in told] == ["cuda:1", "cuda:2"]
    assert all(
        (one["--sweep"], one["--crew"], one["--slots"], one["--threads"]) == ("small", "1", "8", "2") for one in told
    )


def test_further_workers_on_a_cpu_share_it_with_all():
    at = SimpleNamespace(slots=8, device="cpu")
    setup: Any = SimpleNamespace(sharers=2, processes=2, engine=at, device=SimpleNamespace(threads=1))
    (argv,) = further_workers(SimpleNamespace(name="small"), setup, (), [], Saved(None, 60.0))
    assert (argv[argv.index("--device") + 1], argv[argv.index("--crew") + 1]) == ("cpu", "2")
