"""Whoever is killed, whenever: `sweeper resume` ends with what an undisturbed run would have found, bit for bit."""

from __future__ import annotations

import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import select

from processes import Crash, Shell, Sweeper, shell
from small import ONE_STEP, TPE, TRIALS, Change, Outcome, outcome, write_sweep
from sweeper.ledger import reads, sweeps
from sweeper.ledger.schema import AttemptRow, StudyRow, TrialRow, WorkerRow
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.records import TrialState

SEARCHES: dict[str, tuple[Change, ...]] = {"random": (), "tpe": (TPE,)}
RUN = ("run", "small.yaml", "--compile", "off", "--no-mlflow", "--slots", "3", "--threads", "1")
RESUME = ("resume", "small", "--no-mlflow", "--slots", "3", "--threads", "1")

LOOP = "sweeper.scheduler.loop:Scheduler"
CRASHES = {
    "before anything is proposed": Crash(f"{LOOP}.open"),
    "before the first suggestions are committed": Crash("sweeper.ledger.trials:claim", leaving=True),
    "before the first trials are trained": Crash(f"{LOOP}._admit"),
    "in the first epoch": Crash("sweeper.engine.engine:Engine.collect"),
    "in a later epoch": Crash("sweeper.engine.engine:Engine.collect", 7),
    "after results were told to the sampler": Crash("sweeper.scheduler.desks:Desks.tell", 3, leaving=True),
    "before results are committed": Crash("sweeper.ledger.workers:set_times", 3, leaving=True),
    "after results were committed": Crash("sweeper.scheduler.saving:Saver.forget", 3),
    "as a study is closed": Crash("sweeper.scheduler.books:closings", leaving=True),
    "after the last trial": Crash(f"{LOOP}.close"),
    "as the worker retires": Crash("sweeper.ledger.workers:retire", leaving=True),
}


@pytest.fixture(params=SEARCHES)
def search(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """What each search finds when nothing happens."""
    found = {}
    for name, changes in SEARCHES.items():
        folder = tmp_path_factory.mktemp(name)
        write_sweep(folder, *changes)
        with shell(folder) as run:
            assert run(*RUN).code == 0
        found[name] = outcome(ledger_of(folder))
        assert len(found[name]) == TRIALS
    return found


@pytest.fixture
def run(tmp_path: Path, search: str) -> Iterator[Shell]:
    """A shell in a folder with the sweep."""
    write_sweep(tmp_path, *SEARCHES[search])
    with shell(tmp_path) as opened:
        yield opened


def ledger_of(folder: Path) -> Ledger:
    return Ledger(sqlite_url(folder / "sweeper-data"), create=False)


def finished(folder: Path) -> int:
    """Trials that are finished by now, as a reader of the running sweep's ledger sees it."""
    path = folder / "sweeper-data" / "ledger.db"
    if not path.exists():
        return 0
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        try:
            return int(connection.execute("SELECT count(*) FROM trial WHERE ended_at IS NOT NULL").fetchone()[0])
        except sqlite3.OperationalError:
            return 0  # its tables are not there yet


def at_least(folder: Path, trials: int) -> Callable[[], bool]:
    return lambda: finished(folder) >= trials


def assert_left_in_order(ledger: Ledger) -> None:
    """Nothing looks as if it were under way, and every second that was trained is on some attempt's account."""
    with ledger.read() as connection:
        trials = list(connection.scalars(select(TrialRow.state)))
        attempts = list(connection.scalars(select(AttemptRow.state)))
        proposers = set(connection.scalars(select(StudyRow.proposer_id)))
        ends = list(connection.scalars(select(WorkerRow.ended_at)))
        sweep = sweeps.find(connection, "small")
        cost, times = reads.total_cost(connection, sweep.id), reads.worker_times(connection, sweep.id)
    assert TrialState.RUNNING not in (*trials, *attempts)
    assert proposers == {None}
    assert None not in ends
    assert cost.device_s == pytest.approx(times["train"] + times["evaluate"], rel=1e-3)


def assert_same(run: Shell, expected: Outcome) -> None:
    ledger = ledger_of(run.folder)
    assert outcome(ledger) == expected
    assert_left_in_order(ledger)


# SIGKILL at named points ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES)
def test_a_sweep_that_was_killed_goes_on_as_if_it_had_not_been(
    run: Shell, search: str, undisturbed: dict[str, Outcome], crash: Crash
):
    assert run(*RUN, crash=crash).code == -signal.SIGKILL
    resumed = run(*RESUME)
    assert resumed.code == 0, resumed.err
    assert_same(run, undisturbed[search])


PRUNING: tuple[Change, ...] = (
    TPE,
    ONE_STEP,
    ("epochs: 4", "epochs: 9"),
    ("replicates: 2", "replicates: 2, pruner: {kind: asha, reduction_factor: 2}"),
)


@pytest.fixture(scope="module")
def undisturbed_pruning(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("pruning")
    write_sweep(folder, *PRUNING)
    with shell(folder) as run:
        assert run(*RUN).code == 0
    return outcome(ledger_of(folder))


@pytest.mark.parametrize(
    "crash",
    [
        Crash("sweeper.engine.engine:Engine.collect", 4),
        Crash("sweeper.engine.engine:Engine.prune", 2, leaving=True),
        Crash("sweeper.ledger.rungs:enter", 4),
        Crash("sweeper.ledger.trials:settle", 5, leaving=True),
        Crash("sweeper.scheduler.saving:Saver.forget", 6),
    ],
    ids=["in an epoch", "before what was decided is kept", "with rung scores", "with results", "after they are kept"],
)
def test_a_sweep_that_prunes_decides_the_same_after_a_kill(tmp_path: Path, undisturbed_pruning: Outcome, crash: Crash):
    write_sweep(tmp_path, *PRUNING)
    with shell(tmp_path) as run:
        assert run(*RUN, crash=crash).code == -signal.SIGKILL
        resumed = run(*RESUME)
        assert resumed.code == 0, resumed.err
        assert_same(run, undisturbed_pruning)
    assert {trial["state"] for trial in undisturbed_pruning.values()} == {TrialState.COMPLETE, TrialState.PRUNED}


def test_killed_again_in_every_resume(run: Shell, search: str, undisturbed: dict[str, Outcome]):
    assert run(*RUN, crash=CRASHES["in a later epoch"]).code == -signal.SIGKILL
    for again in ("before the first trials are trained", "before results are committed", "in a later epoch"):
        assert run(*RESUME, crash=CRASHES[again]).code == -signal.SIGKILL
    assert run(*RESUME).code == 0
    assert_same(run, undisturbed[search])


@pytest.mark.parametrize(
    "crash",
    [Crash("sweeper.ledger.store:upgrade", leaving=True), Crash("sweeper.ledger.sweeps:launch", leaving=True)],
    ids=["as the ledger is made", "as the sweep is launched"],
)
def test_killed_before_there_is_a_sweep_one_runs_the_file_again(
    run: Shell, search: str, undisturbed: dict[str, Outcome], crash: Crash
):
    assert run(*RUN, crash=crash).code == -signal.SIGKILL
    resumed = run(*RESUME)
    assert resumed.code == 2
    assert "there is no sweep named 'small'" in resumed.err
    assert run(*RUN).code == 0
    assert_same(run, undisturbed[search])


# SIGKILL at any moment ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("draw", range(3))
def test_killed_at_random_moments(run: Shell, search: str, undisturbed: dict[str, Outcome], draw: int):
    moments = random.Random(f"{search}/{draw}")
    for _ in range(4):
        sweeper = run.start(*RUN)
        sweeper.wait_until(at_least(run.folder, 0 if draw == 0 else finished(run.folder) + 1))
        time.sleep(moments.uniform(0.0, 0.3))
        sweeper.kill()
        if finished(run.folder) == TRIALS:
            break
    assert run(*RUN).code == 0
    assert_same(run, undisturbed[search])


# two at once ----------------------------------------------------------------------------------------------------------


def test_two_processes_at_once_do_each_trial_once(run: Shell, search: str, undisturbed: dict[str, Outcome]):
    pair = [run.start(*RUN) for _ in range(2)]
    assert [sweeper.wait().code for sweeper in pair] == [0, 0], "".join(sweeper.err for sweeper in pair)
    assert_same(run, undisturbed[search])


def test_one_of_two_is_killed_and_the_other_does_its_work(run: Shell, search: str, undisturbed: dict[str, Outcome]):
    first = run.start(*RUN)
    first.wait_until(at_least(run.folder, 1))
    second = run.start(*RESUME)
    first.kill()
    assert second.wait().code == 0, second.err
    assert_same(run, undisturbed[search])


def test_studies_of_one_process_are_trained_by_two(tmp_path: Path, undisturbed: dict[str, Outcome]):
    """Suggestions that don't depend on results wait in the ledger for whoever has room."""
    write_sweep(tmp_path, ("replicates: 2", "replicates: 2, concurrency: 5"))
    with shell(tmp_path) as run:
        pair = [run.start(*RUN) for _ in range(2)]
        assert [sweeper.wait().code for sweeper in pair] == [0, 0], "".join(sweeper.err for sweeper in pair)
        assert_same(run, undisturbed["random"])


# asked to stop --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_an_interrupted_sweep_says_how_to_go_on(
    run: Shell, search: str, undisturbed: dict[str, Outcome], number: signal.Signals, code: int
):
    """SIGTERM is how a machine is taken back, and a worker that leaves in good order has not failed."""
    sweeper = run.start(*RUN)
    sweeper.wait_until(at_least(run.folder, 1))
    asked = time.monotonic()
    sweeper.send(number)
    assert_asked_to_stop(run, sweeper.wait(), code)
    assert time.monotonic() - asked < 30
    assert run(*RESUME).code == 0
    assert_same(run, undisturbed[search])


def test_an_impatient_interrupt_loses_nothing_either(run: Shell, search: str, undisturbed: dict[str, Outcome]):
    sweeper = run.start(*RUN)
    sweeper.wait_until(at_least(run.folder, 1))
    for _ in range(2):
        sweeper.send(signal.SIGINT)
    assert sweeper.wait().code == 130, sweeper.err
    assert "Traceback" not in sweeper.err
    assert_left_in_order(ledger_of(run.folder))
    assert run(*RESUME).code == 0
    assert_same(run, undisturbed[search])


def test_stop_from_another_process(run: Shell, search: str, undisturbed: dict[str, Outcome]):
    sweeper = run.start(*RUN)
    sweeper.wait_until(at_least(run.folder, 1))
    stopped = run("stop", "small")
    assert (stopped.code, "sweeper resume small" in stopped.out) == (0, True)
    assert_asked_to_stop(run, sweeper.wait(), 0)
    assert '"state": "stopped"' in run("status", "small", "--json").out
    assert run(*RESUME).code == 0
    assert_same(run, undisturbed[search])


def assert_asked_to_stop(run: Shell, sweeper: Sweeper, code: int) -> None:
    assert sweeper.code == code, sweeper.err
    assert "Every finished trial is kept; go on with: sweeper resume small\n" in sweeper.err
    assert "Traceback" not in sweeper.err
    ledger = ledger_of(run.folder)
    assert_left_in_order(ledger)
    assert 0 < finished(run.folder) < TRIALS
