"""Workers that share nothing but a PostgreSQL ledger: all trials once, whatever becomes of the server or a worker."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from postgres import Postgres
from processes import Shell, Sweeper, shell
from small import TRIALS, Outcome, outcome, run_here, small_workload, write_sweep
from sweeper.ledger import reads, sweeps
from sweeper.ledger.schema import AttemptRow, StudyRow, TrialRow, WorkerRow
from sweeper.ledger.store import Ledger
from sweeper.records import TrialState

MORE = ("epochs: 4", "epochs: 12")  # so that there is something to happen in the midst of
OPTIONS = ("--slots", "2", "--threads", "1", "--compile", "off")
RUN = ("run", "small.yaml", "--no-mlflow", *OPTIONS)
WORKER = ("worker", "--sweep", "small", *OPTIONS)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What one undisturbed worker finds on SQLite."""
    folder = tmp_path_factory.mktemp("alone")
    return outcome(run_here(small_workload(folder, MORE), folder, slots=2).ledger)


@pytest.fixture
def ledger(postgres: Postgres) -> Iterator[Ledger]:
    with postgres.database(migrated=True) as url:
        opened = Ledger(url)
        opened.patience_s = 30.0  # the test itself outlives the server's absence
        yield opened
        opened.close()


@pytest.fixture
def run(tmp_path: Path, ledger: Ledger) -> Iterator[Shell]:
    """A shell in a folder with the sweep, its store on the server."""
    write_sweep(tmp_path, MORE)
    with shell(tmp_path, SWEEPER_STORE=ledger.url) as opened:
        yield opened


def at_least(ledger: Ledger, trials: int) -> Callable[[], bool]:
    ended = select(TrialRow.id).where(TrialRow.ended_at.is_not(None))
    return lambda: len(ledger.ask(lambda connection: connection.execute(ended).all())) >= trials


def launch(run: Shell, ledger: Ledger, workers: int) -> list[Sweeper]:
    """A sweep and its workers; each computes on its own, none is another's child."""
    first = run.start(*RUN)
    first.wait_until(lambda: bool(ledger.ask(sweeps.every)))
    return [first, *(run.start(*WORKER) for _ in range(workers - 1))]


def column(ledger: Ledger, of: object) -> list[object]:
    with ledger.read() as connection:
        return list(connection.scalars(select(of)))  # type: ignore[call-overload]


def assert_whole(ledger: Ledger, expected: Outcome, lost: int = 0) -> None:
    """Every trial counts once and is what it would have been anyway; every second is on some attempt's account."""
    assert outcome(ledger) == expected
    states = column(ledger, AttemptRow.state)
    assert states.count(TrialState.COMPLETE) == TRIALS
    assert len(states) == TRIALS + lost
    assert set(column(ledger, StudyRow.proposer_id)) == {None}
    assert None not in column(ledger, WorkerRow.ended_at)
    with ledger.read() as connection:
        cost, times = reads.total_cost(connection, 1), reads.worker_times(connection, 1)
    assert cost.device_s == pytest.approx(times["train"] + times["evaluate"], rel=1e-3)


def test_four_workers_do_every_trial_once(run: Shell, ledger: Ledger, expected: Outcome):
    for worker in launch(run, ledger, 4):
        assert worker.wait().code == 0, worker.err
    assert_whole(ledger, expected)
    assert len(set(column(ledger, AttemptRow.worker_id))) > 1


def test_workers_outlive_a_restart_of_the_server(run: Shell, ledger: Ledger, postgres: Postgres, expected: Outcome):
    workers = launch(run, ledger, 2)
    workers[0].wait_until(at_least(ledger, 4))
    postgres.stop()
    time.sleep(1.0)
    assert [worker.code for worker in workers] == [None, None]
    postgres.start()
    for worker in workers:
        assert worker.wait().code == 0, worker.err
        assert "secret" not in worker.err + worker.out
    assert_whole(ledger, expected)


def test_a_worker_that_is_killed_leaves_its_trials_to_another(run: Shell, ledger: Ledger, expected: Outcome):
    first, second = launch(run, ledger, 2)
    first.wait_until(lambda: len(set(column(ledger, AttemptRow.worker_id))) == 2)
    second.send(signal.SIGKILL)
    assert first.wait().code == 0, first.err
    lost = len(column(ledger, AttemptRow.state)) - TRIALS
    assert 0 <= lost <= 2
    assert_whole(ledger, expected, lost)
