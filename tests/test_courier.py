"""Runs on their way to MLflow: each comes to stand there exactly once, whoever is killed and whatever is down."""

from __future__ import annotations

import io
import os
import random
import shutil
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select, update

from processes import Crash, Shell, shell
from small import DIVERGING, TRIALS, run_here, small_workload, write_sweep
from sweeper import courier
from sweeper.cli.places import Places
from sweeper.courier import LedgerOutbox, deliver
from sweeper.errors import DeliveryError
from sweeper.export import configure_process, prepare
from sweeper.ledger import deliveries, reads, sweeps
from sweeper.ledger.rows import Sweep, Trial
from sweeper.ledger.schema import FitRow, LeaseRow, OutboxRow
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.records import RunRecord

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"  # mlflow 3.17 on SQLAlchemy 2.1
)

STUDIES = 4
RUNS = TRIALS + STUDIES
SYNC = ("mlflow", "sync", "small")


@pytest.fixture(autouse=True, scope="module")
def environment() -> Iterator[None]:
    """MLflow's switches as in a courier, taken back when these tests end."""
    before, threads = dict(os.environ), torch.get_num_threads()
    configure_process()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs; making its tables takes seconds, so that tests copy it."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    prepare(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, empty_store: Path) -> Path:
    """A folder with a finished sweep that MLflow has not been told of."""
    folder = tmp_path_factory.mktemp("done")
    home = folder / "sweeper-data"
    ran = run_here(small_workload(folder), home)
    ran.ledger.close()
    shutil.copyfile(empty_store, home / "mlflow.db")
    return folder


@pytest.fixture
def folder(done: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return shutil.copytree(done, tmp_path / "work")


def opened(folder: Path) -> tuple[Ledger, Sweep]:
    ledger = Ledger(sqlite_url(folder / "sweeper-data"), create=False)
    with ledger.read() as connection:
        return ledger, sweeps.find(connection, "small")


def store_of(folder: Path) -> str:
    return f"sqlite:///{folder / 'sweeper-data' / 'mlflow.db'}"


def deliver_here(folder: Path, uri: str | None = None, **how: Any) -> courier.Progress:
    ledger, sweep = opened(folder)
    return deliver(ledger, sweep, uri or store_of(folder), folder / "mlartifacts", **how)


def client(folder: Path) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(store_of(folder))


def runs(folder: Path) -> list[Any]:
    found = client(folder)
    experiment = found.get_experiment_by_name("sweeper/small")
    return list(found.search_runs([experiment.experiment_id], max_results=1000)) if experiment else []


def by_uid(folder: Path) -> dict[str, Any]:
    """Each run by its uid; two of one uid are a failure."""
    found = runs(folder)
    times = Counter(run.data.tags["sweeper.uid"] for run in found)
    assert set(times.values()) <= {1}, {uid: n for uid, n in times.items() if n > 1}
    return {run.data.tags["sweeper.uid"]: run for run in found}


def trials_of(folder: Path) -> Mapping[str, Trial]:
    ledger, sweep = opened(folder)
    with ledger.read() as connection:
        found = reads.trials(connection, sweep.id)
    return {f"small-{sweep.token}/{t.space}/r{t.replicate:02d}/t{t.number:04d}": t for t in found}


def assert_all_delivered(folder: Path) -> None:
    """As many runs as trials and studies, parents nested, and every curve whole."""
    found, trials = by_uid(folder), trials_of(folder)
    parents = {uid: run for uid, run in found.items() if "mlflow.parentRunId" not in run.data.tags}
    assert len(found) == RUNS
    assert set(found) - set(parents) == set(trials)
    for uid, trial in trials.items():
        run = found[uid]
        assert run.data.tags["mlflow.parentRunId"] == parents[uid.rpartition("/")[0]].info.run_id
        assert run.data.metrics["best.validation_loss"] == trial.validation_loss
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    ledger, sweep = opened(folder)
    with ledger.read() as connection:
        assert deliveries.counts(connection, sweep.id) == (RUNS, 0, 0)


# what MLflow shows ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def delivered(done: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = shutil.copytree(done, tmp_path_factory.mktemp("delivered") / "work")
    progress = deliver_here(folder)
    assert (progress.delivered, progress.undelivered, progress.problem) == (RUNS + STUDIES, 0, None)  # each study twice
    return folder


def test_every_trial_and_every_study_has_a_run(delivered: Path):
    assert_all_delivered(delivered)


def test_a_run_shows_its_trials_setting_results_costs_and_true_times(delivered: Path):
    found = by_uid(delivered)
    for uid, trial in trials_of(delivered).items():
        run = found[uid]
        for layer in range(3):
            assert run.data.params[f"keep_prob_{layer}"] == repr(trial.setting.keep_prob[layer])
            assert run.data.params[f"lambda_{layer + 1}"] == repr(trial.setting.lambda_[layer])
        assert run.data.metrics["best.test_loss"] == trial.test_loss
        assert run.data.metrics["best.test_accuracy"] == trial.test_metric
        assert run.data.metrics["cost.flops"] == trial.cost.flops
        assert run.data.metrics["cost.device_s"] == pytest.approx(trial.cost.device_s)
        assert trial.started_at is not None
        assert trial.ended_at is not None
        assert abs(run.info.start_time - trial.started_at.timestamp() * 1000) <= 1
        assert abs(run.info.end_time - trial.ended_at.timestamp() * 1000) <= 1


def test_a_runs_curves_are_the_ledgers(delivered: Path):
    ledger, _ = opened(delivered)
    with ledger.read() as connection:
        curves = connection.scalars(select(FitRow.curves)).all()
    found = client(delivered)
    shown = [
        [point.value for point in sorted(found.get_metric_history(run.info.run_id, name), key=lambda p: p.step)]
        for run in by_uid(delivered).values()
        if "mlflow.parentRunId" in run.data.tags
        for name in ("train_loss", "validation_loss", "train_loss_dropped")
    ]
    kept = [curve[name] for curve in curves for name in ("train_loss", "validation_loss", "train_loss_dropped")]
    assert sorted(shown) == sorted(kept)


def test_a_study_shows_its_sampler_and_its_best_trial(delivered: Path):
    trials = trials_of(delivered)
    studies = {uid: run for uid, run in by_uid(delivered).items() if uid not in trials}
    assert len(studies) == STUDIES
    for uid, run in studies.items():
        own = [trial for name, trial in trials.items() if name.startswith(f"{uid}/")]
        assert run.data.params["sampler"] == "random"
        assert run.data.metrics["best.validation_loss"] == min(trial.validation_loss for trial in own)
        assert (run.data.metrics["trials"], run.data.metrics["trials_failed"]) == (5.0, 0.0)


def test_a_trial_that_diverged_is_shown_as_failed(tmp_path: Path, empty_store: Path):
    small = ("trials: 5, replicates: 2", "trials: 2, replicates: 1")
    run_here(small_workload(tmp_path, DIVERGING, ("1.0e+2", "1.0e+30"), small), tmp_path / "sweeper-data")
    shutil.copyfile(empty_store, tmp_path / "sweeper-data" / "mlflow.db")
    deliver_here(tmp_path)
    statuses = Counter(run.info.status for run in by_uid(tmp_path).values())
    assert statuses == {"FAILED": 4, "FINISHED": 2}


# again and again ------------------------------------------------------------------------------------------------------


def test_delivering_everything_again_changes_nothing(delivered: Path, tmp_path: Path):
    folder = shutil.copytree(delivered, tmp_path / "work")
    before = {uid: (run.info.run_id, dict(run.data.metrics)) for uid, run in by_uid(folder).items()}
    ledger, _ = opened(folder)
    with ledger.write() as connection:
        connection.execute(update(OutboxRow).values(delivered_at=None))
    assert deliver_here(folder).delivered == RUNS + STUDIES
    assert before == {uid: (run.info.run_id, dict(run.data.metrics)) for uid, run in by_uid(folder).items()}
    assert_all_delivered(folder)


def test_an_extended_sweep_opens_its_studies_again_and_nests_the_new_trials(tmp_path: Path, empty_store: Path):
    home = tmp_path / "sweeper-data"
    home.mkdir()
    shutil.copyfile(empty_store, home / "mlflow.db")
    argv = ("run", "small.yaml", "--compile", "off", "--no-mlflow", "--threads", "1")
    write_sweep(tmp_path, ("trials: 5, replicates: 2", "trials: 3, replicates: 1"))
    with shell(tmp_path) as run:
        assert run(*argv).code == 0
        assert deliver_here(tmp_path).delivered == 2 * 3 + 2 * 2
        write_sweep(tmp_path)
        assert run(*argv).code == 0
    deliver_here(tmp_path)
    assert_all_delivered(tmp_path)


CRASHES = {
    "before its first run": Crash("sweeper.export.mlflow:MlflowSink._create"),
    "with a run that has no results yet": Crash("sweeper.export.mlflow:MlflowSink._create", 7, leaving=True),
    "with a run that is not ended yet": Crash("sweeper.export.mlflow:MlflowSink._log", 9, leaving=True),
    "before the ledger knows of the first batch": Crash("sweeper.ledger.deliveries:record_delivered"),
    "when all is delivered": Crash("sweeper.ledger.workers:drop_lease"),
}


@pytest.mark.parametrize("crash", CRASHES.values(), ids=CRASHES)
def test_a_courier_that_was_killed_leaves_no_run_twice(folder: Path, crash: Crash):
    with shell(folder) as run:
        assert run(*SYNC, crash=crash).code == -signal.SIGKILL
    deliver_here(folder)  # at once: a dead process's lease holds nobody up
    assert_all_delivered(folder)


@pytest.mark.slow
def test_couriers_killed_at_random_moments_leave_no_run_twice(folder: Path):
    moments = random.Random(0)
    with shell(folder) as run:
        for _ in range(6):
            before = claims(folder)
            sync = run.start(*SYNC)
            sync.wait_until(lambda before=before: claims(folder) > before)
            time.sleep(moments.uniform(0.0, 0.1))
            if sync.kill().code == 0:
                break
    deliver_here(folder)
    assert_all_delivered(folder)
    assert [sync.code for sync in run.started[:2]] == [-signal.SIGKILL] * 2


def claims(folder: Path) -> int:
    """How often couriers have taken a run in hand."""
    with closing(sqlite3.connect(folder / "sweeper-data" / "ledger.db", timeout=10)) as connection:
        return int(connection.execute("SELECT sum(attempts) FROM outbox").fetchone()[0])


def test_two_couriers_at_once_make_no_run_twice(folder: Path):
    with shell(folder) as run:
        pair = [run.start(*SYNC) for _ in range(2)]
        assert [sync.wait().code for sync in pair] == [0, 0], "".join(sync.err for sync in pair)
    assert_all_delivered(folder)


# the lease ------------------------------------------------------------------------------------------------------------


def outboxes(folder: Path) -> tuple[LedgerOutbox, LedgerOutbox]:
    """Ours, and that of another process that lives."""
    ledger, sweep = opened(folder)
    ours, other = LedgerOutbox(ledger, sweep), LedgerOutbox(ledger, sweep)
    other._owner = "elsewhere/1/1.0"
    return ours, other


def test_only_one_process_delivers_at_a_time(folder: Path):
    ours, other = outboxes(folder)
    assert len(ours.claim_deliveries(5)) == 5
    assert other.claim_deliveries(5) == []
    ours.let_go()
    assert len(other.claim_deliveries(5)) == 5


def test_a_courier_that_waits_for_mlflow_keeps_its_lease(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Another that took the same runs over would deliver them a second time when MLflow is back."""
    monkeypatch.setattr(courier, "LEASE_S", 0.2)
    ours, other = outboxes(folder)
    ours.claim_deliveries(5)
    for _ in range(20):
        time.sleep(0.02)
        assert not ours.is_lost()
    assert other.claim_deliveries(5) == []


def test_a_courier_that_slept_too_long_stops_delivering(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(courier, "LEASE_S", 0.05)
    ours, other = outboxes(folder)
    ours.claim_deliveries(5)
    time.sleep(0.1)
    monkeypatch.setattr(courier, "LEASE_S", 60.0)
    assert len(other.claim_deliveries(5)) == 5
    ours._renewed = 0.0
    assert ours.is_lost()


def test_a_courier_that_lost_its_lease_in_mid_batch_leaves_the_rest_to_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    class Sink:
        """Takes runs; at the third, another process takes the lease over."""

        def __init__(self, uri: str, artifact_root: str) -> None:
            pass

        def deliver(self, run: RunRecord, **how: Any) -> str:
            taken.append(run.uid)
            if len(taken) == 3:
                with ledger.write() as connection:
                    connection.execute(update(LeaseRow).values(owner="elsewhere/1/1.0", until=1e12))
            return str(len(taken))

    (ledger, _), taken = opened(folder), []
    monkeypatch.setattr(courier, "LEASE_S", 0.0)  # renewed before every run
    monkeypatch.setattr(courier, "MlflowSink", Sink)
    assert deliver_here(folder).problem == "another process is delivering them"
    assert len(taken) == 3


def test_what_another_process_delivers_is_not_a_failure_and_said(folder: Path):
    _ours, other = outboxes(folder)
    other.claim_deliveries(5)
    progress = deliver_here(folder)
    assert (progress.delivered, progress.undelivered) == (0, RUNS)
    assert progress.problem == "another process is delivering them"


# MLflow is down -------------------------------------------------------------------------------------------------------


def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_an_unreachable_mlflow_is_an_error_that_says_what_waits(folder: Path):
    with pytest.raises(DeliveryError, match="Nothing is lost: they wait in the ledger"):
        deliver_here(folder, closed_port())
    assert deliver_here(folder).delivered == RUNS + STUDIES


def test_while_more_is_to_come_an_unreachable_mlflow_is_tried_again(folder: Path, monkeypatch: pytest.MonkeyPatch):
    tried, uri = [], closed_port()

    def back_at_the_third_try(tracking_uri: str) -> None:
        tried.append(tracking_uri)
        prepare(tracking_uri if len(tried) < 3 else store_of(folder))

    monkeypatch.setattr(courier, "RETRY_S", 0.01)
    monkeypatch.setattr(courier, "prepare", back_at_the_third_try)
    with pytest.raises(DeliveryError):  # prepared at last, but this sink's server stays away
        deliver_here(folder, uri, more_to_come=lambda: len(tried) < 3)
    assert len(tried) == 3


@pytest.mark.slow
def test_a_sweep_runs_on_without_mlflow_and_is_delivered_later(tmp_path: Path, empty_store: Path):
    write_sweep(tmp_path)
    with shell(tmp_path, MLFLOW_TRACKING_URI=closed_port()) as run:
        ran = run("run", "small.yaml", "--compile", "off", "--threads", "1")
        assert ran.code == 0
        assert "best setting per space" in ran.out
        assert f"MLflow has 0 runs; {RUNS} are still to be delivered" in ran.err
        assert "Deliver them with: sweeper mlflow sync small\n" in ran.err
        assert "can't take runs" in (tmp_path / "sweeper-data" / "mlflow-export.log").read_text()
        failed = run(*SYNC)
        assert (failed.code, "Traceback" in failed.err) == (2, False)
        assert "Nothing is lost: they wait in the ledger" in failed.err
    shutil.copyfile(empty_store, tmp_path / "sweeper-data" / "mlflow.db")
    with shell(tmp_path) as run:
        synced = run(*SYNC)
        assert synced.code == 0
        assert synced.err == f"small: MLflow has {RUNS} runs, 0 are waiting, 0 were refused\n"
    assert_all_delivered(tmp_path)


@pytest.mark.slow
def test_killed_with_its_courier_at_work_and_resumed(tmp_path: Path, empty_store: Path):
    """The first courier outlives its parent and delivers what there is; the second one delivers the rest."""
    (tmp_path / "sweeper-data").mkdir()
    shutil.copyfile(empty_store, tmp_path / "sweeper-data" / "mlflow.db")
    write_sweep(tmp_path)
    with shell(tmp_path) as run:
        killed = run.start("run", "small.yaml", "--compile", "off", "--threads", "1")
        killed.wait_until(lambda: "trials/s" in killed.err)
        time.sleep(0.1)
        killed.kill()
        resumed = run("resume", "small", "--threads", "1")
        assert resumed.code == 0
        if f"MLflow has all {RUNS} runs" not in resumed.err:
            assert_delivered_in_the_end(run)
    assert_all_delivered(tmp_path)


def assert_delivered_in_the_end(run: Shell) -> None:
    deadline = time.monotonic() + 30
    while '"waiting": 0' not in run("status", "small", "--json").out:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_the_stores_url_is_not_on_a_command_line_for_all_to_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started: dict[str, Any] = {}

    class Recorded:
        stdin = io.BytesIO()

        def __init__(self, argv: list[str], **options: Any):
            started.update(options, argv=argv)

    monkeypatch.setattr(courier.subprocess, "Popen", Recorded)
    places = Places.of(tmp_path, "postgresql+psycopg://me:secret@host/sweeps")
    with courier.following(["mlflow", "sync", "small", "--follow"], places.environment, places.log):
        pass
    assert "secret" not in " ".join(started["argv"])
    assert started["env"]["SWEEPER_STORE"] == places.store
