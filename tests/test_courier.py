"""Runs on their way to MLflow: each comes to stand there exactly once, whoever is killed and whatever is down."""

from __future__ import annotations

import io
import math
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

import pyarrow.parquet
import pytest
import torch
from sqlalchemy import select, update

from processes import Crash, Shell, shell
from small import DIVERGING, TRIALS, device_that_takes, run_here, small_workload, write_sweep
from sweeper import courier
from sweeper.cli.places import Places
from sweeper.courier import LedgerOutbox, deliver
from sweeper.errors import DeliveryError, ReportError
from sweeper.export import configure_process, prepare
from sweeper.findings import write_report
from sweeper.ledger import deliveries, reads, sweeps
from sweeper.ledger.rows import Sweep, Trial
from sweeper.ledger.schema import FitRow, LeaseRow, OutboxRow
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.records import RunRecord

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"  # mlflow 3.17 on SQLAlchemy 2.1
)

STUDIES = 4
RUNS = TRIALS + STUDIES + 1  # and one for the sweep
TWICE = STUDIES + 1  # told at their start and at their end
SYNC = ("mlflow", "sync", "small")
KINDS = "sweep", "study", "trial"


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


class Drawn(list[int]):
    """How many trials each report told that was drawn in this process; drawing a real one takes seconds."""

    def write(self, ledger: Ledger, sweep: Sweep, folder: Path) -> None:
        with ledger.read() as connection:
            self.append(sum(space.finished for space in reads.progress(connection, sweep.id)))
        (folder / "report.html").write_text(f"{self[-1]} trials")


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Stands in for the report in this process, save for what the whole module shares."""
    stand_in = Drawn()
    monkeypatch.setattr(courier, "write_report", stand_in.write)
    return stand_in


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
    """As many runs as trials and studies and one for the sweep, nested, every curve whole, and the report."""
    found, trials = by_uid(folder), trials_of(folder)
    kinds = {kind: {uid for uid, run in found.items() if run.data.tags["sweeper.kind"] == kind} for kind in KINDS}
    [sweep_uid] = kinds["sweep"]
    assert (len(found), len(kinds["study"]), kinds["trial"]) == (RUNS, STUDIES, set(trials))
    assert "mlflow.parentRunId" not in found[sweep_uid].data.tags
    assert found[sweep_uid].data.tags["sweeper.report"] == str(TRIALS)
    for uid in kinds["study"]:
        assert found[uid].data.tags["mlflow.parentRunId"] == found[sweep_uid].info.run_id
    for uid, trial in trials.items():
        run = found[uid]
        assert run.data.tags["mlflow.parentRunId"] == found[uid.rpartition("/")[0]].info.run_id
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
    assert (progress.delivered, progress.undelivered, progress.problem) == (
        RUNS + TWICE,
        0,
        None,
    )  # sweep and studies twice
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
        if run.data.tags["sweeper.kind"] == "trial"
        for name in ("train_loss", "validation_loss", "train_loss_dropped")
    ]
    kept = [curve[name] for curve in curves for name in ("train_loss", "validation_loss", "train_loss_dropped")]
    assert sorted(shown) == sorted(kept)


def test_a_study_shows_its_sampler_and_its_best_trial(delivered: Path):
    trials = trials_of(delivered)
    studies = {uid: run for uid, run in by_uid(delivered).items() if run.data.tags["sweeper.kind"] == "study"}
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
    assert statuses == {"FAILED": 4, "FINISHED": 3}


def test_the_sweep_shows_its_totals(delivered: Path):
    trials = trials_of(delivered).values()
    [whole] = [run for run in by_uid(delivered).values() if run.data.tags["sweeper.kind"] == "sweep"]
    ledger, sweep = opened(delivered)
    with ledger.read() as connection:
        spent = reads.total_cost(connection, sweep.id)
    assert whole.info.run_name == "small"
    assert whole.data.tags["sweeper.uid"] == sweep.uid
    told = whole.data.metrics
    assert (told["trials"], told["trials_failed"], told["trials_pruned"]) == (float(TRIALS), 0.0, 0.0)
    assert told["cost.flops"] == sum(trial.cost.flops for trial in trials) == spent.flops
    assert told["cost.device_s"] == pytest.approx(spent.device_s)
    assert whole.data.params == {
        "data": "npz:rows.npz", "model": "mlp", "sampler": "random", "mode": "measurement", "seed": "0",
    }  # fmt: skip


# the report -----------------------------------------------------------------------------------------------------------


def artifacts(folder: Path) -> dict[str, bytes]:
    """The files that MLflow's own client finds at the sweep's run."""
    from mlflow.artifacts import download_artifacts

    _, sweep = opened(folder)
    run_id = by_uid(folder)[sweep.uid].info.run_id
    try:
        found = Path(download_artifacts(run_id=run_id, tracking_uri=store_of(folder)))
    except OSError:
        return {}
    return {str(path.relative_to(found)): path.read_bytes() for path in found.rglob("*") if path.is_file()}


def test_a_complete_sweep_has_its_report_at_its_run(delivered: Path, drawn: Drawn):
    found = artifacts(delivered)
    assert {name for name in found if "/" not in name} == {"report.html", "sweep.yaml"}
    assert f"{TRIALS} of {TRIALS} trials" in found["report.html"].decode()
    assert found["sweep.yaml"] == (delivered / "small.yaml").read_bytes()
    assert {"plots/curves.png", "plots/edges.png"} <= found.keys()
    assert found["plots/curves.png"].startswith(b"\x89PNG")
    assert {name for name in found if name.startswith("tables/")} == {"tables/trials.parquet", "tables/fits.parquet"}
    assert pyarrow.parquet.read_table(io.BytesIO(found["tables/trials.parquet"])).num_rows == TRIALS
    assert drawn == []  # it is a real one


def test_a_report_is_logged_once(folder: Path, drawn: Drawn):
    deliver_here(folder)
    deliver_here(folder)
    assert drawn == [TRIALS]
    assert artifacts(folder) == {"report.html": b"20 trials"}


def test_a_sweep_that_is_not_complete_has_no_report(tmp_path: Path, empty_store: Path, drawn: Drawn):
    ran = run_here(small_workload(tmp_path), tmp_path / "sweeper-data", stop_after=5)
    shutil.copyfile(empty_store, tmp_path / "sweeper-data" / "mlflow.db")
    deliver_here(tmp_path)
    whole = by_uid(tmp_path)[ran.sweep.uid]
    assert (whole.info.status, "sweeper.report" in whole.data.tags, drawn) == ("RUNNING", False, [])


def test_a_sweep_of_one_space_has_a_report_without_a_price(tmp_path: Path, empty_store: Path, monkeypatch: Any):
    monkeypatch.setattr(courier, "write_report", write_report)
    lone = ("  both: {keep_prob: per_layer, lambda: per_layer}\n", "")
    run_here(small_workload(tmp_path, lone), tmp_path / "sweeper-data")
    shutil.copyfile(empty_store, tmp_path / "sweeper-data" / "mlflow.db")
    deliver_here(tmp_path)
    assert b"No edge between two spaces has a price yet." in artifacts(tmp_path)["report.html"]


def test_an_extended_sweep_runs_again_and_gets_a_new_report(folder: Path, drawn: Drawn):
    deliver_here(folder)
    larger = small_workload(folder, ("trials: 5", "trials: 6"))
    run_here(larger, folder / "sweeper-data", stop_after=2)
    deliver_here(folder)
    _, sweep = opened(folder)
    assert by_uid(folder)[sweep.uid].info.status == "RUNNING"
    assert drawn == [TRIALS]
    run_here(larger, folder / "sweeper-data")
    deliver_here(folder)
    whole = by_uid(folder)[sweep.uid]
    assert (whole.info.status, whole.data.metrics["trials"]) == ("FINISHED", 24.0)
    assert (whole.data.tags["sweeper.report"], drawn) == ("24", [TRIALS, 24])
    assert artifacts(folder) == {"report.html": b"24 trials"}


def test_a_sweep_that_spent_its_budget_is_closed_with_a_report_and_runs_again_with_a_larger_one(
    tmp_path: Path, empty_store: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
):
    device_that_takes(monkeypatch, train=0.5, evaluate=0.25, test=0.25)

    def delivered(limit_s: float, stop_after: int | None = None) -> tuple[str, str]:
        limited = small_workload(tmp_path, ("trials: 5", f"trials: 5, budget: {{device_seconds: {limit_s}}}"))
        ran = run_here(limited, tmp_path / "sweeper-data", stop_after=stop_after)
        deliver_here(tmp_path)
        whole = by_uid(tmp_path)[ran.sweep.uid]
        return whole.info.status, whole.data.tags["sweeper.state"]

    (tmp_path / "sweeper-data").mkdir()
    shutil.copyfile(empty_store, tmp_path / "sweeper-data" / "mlflow.db")
    assert delivered(12) == ("FINISHED", "budget spent")
    assert len(drawn) == 1
    assert 0 < drawn[0] < TRIALS
    assert delivered(90, stop_after=1) == ("RUNNING", "running")
    assert delivered(90) == ("FINISHED", "done")
    assert drawn[1:] == [TRIALS]


def test_a_report_that_mlflow_does_not_take_is_told_and_made_up_for(folder: Path, drawn: Drawn):
    blocked = folder / "mlartifacts"
    blocked.write_text("a file where a folder is to be")
    with pytest.raises(ReportError, match=r"report of small is not in MLflow, .* Try again: sweeper mlflow sync small"):
        deliver_here(folder)
    ledger, sweep = opened(folder)
    with ledger.read() as connection:
        assert deliveries.counts(connection, sweep.id) == (RUNS, 0, 0)
    assert len(by_uid(folder)) == RUNS
    blocked.unlink()
    assert deliver_here(folder).delivered == 0
    assert_all_delivered(folder)
    assert artifacts(folder) == {"report.html": b"20 trials"}
    assert drawn == [TRIALS] * 2


def test_a_failed_report_fails_the_sync_of_that_sweep_alone(folder: Path):
    home = folder / "sweeper-data"
    other = small_workload(folder, ("name: small", "name: tiny"), ("trials: 5", "trials: 1"))
    run_here(other, home)
    (home / "mlartifacts" / "sweeper").mkdir(parents=True)
    (home / "mlartifacts" / "sweeper" / "small").write_text("a file where a folder is to be")
    with shell(folder) as run:
        synced = run("mlflow", "sync")
    assert (synced.code, "Traceback" in synced.err) == (2, False)
    assert f"small: MLflow has {RUNS} runs, 0 are waiting" in synced.err
    assert "tiny: MLflow has 9 runs, 0 are waiting" in synced.err
    assert "the report of small is not in MLflow" in synced.err
    assert "the report of tiny" not in synced.err


def test_a_report_that_another_process_is_drawing_is_waited_for_or_made_up_for(
    folder: Path, drawn: Drawn, monkeypatch: pytest.MonkeyPatch
):
    """Runs are there, the report is not, and the other process dies after a while: its lease runs out."""
    monkeypatch.setattr(courier, "RETRY_S", 0.1)
    deliver_here(folder)
    _, sweep = opened(folder)
    client(folder).delete_tag(by_uid(folder)[sweep.uid].info.run_id, "sweeper.report")
    with monkeypatch.context() as brief:
        brief.setattr(courier, "LEASE_S", 1.0)
        assert outboxes(folder)[1].take_lease()
    began = time.monotonic()
    deliver_here(folder)
    assert time.monotonic() - began >= 0.9
    assert drawn == [TRIALS] * 2
    assert_all_delivered(folder)


def test_the_report_of_a_run_that_was_deleted_is_not_missed(folder: Path, drawn: Drawn):
    deliver_here(folder)
    _, sweep = opened(folder)
    run_id = by_uid(folder)[sweep.uid].info.run_id
    client(folder).delete_tag(run_id, "sweeper.report")
    client(folder).delete_run(run_id)
    assert deliver_here(folder).problem is None
    assert drawn == [TRIALS]


# again and again ------------------------------------------------------------------------------------------------------


def test_delivering_everything_again_changes_nothing(delivered: Path, tmp_path: Path):
    folder = shutil.copytree(delivered, tmp_path / "work")
    before = {uid: (run.info.run_id, dict(run.data.metrics)) for uid, run in by_uid(folder).items()}
    ledger, _ = opened(folder)
    with ledger.write() as connection:
        connection.execute(update(OutboxRow).values(delivered_at=None))
    assert deliver_here(folder).delivered == RUNS + TWICE
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
        assert deliver_here(tmp_path).delivered == 2 * 3 + 2 * 2 + 2
        write_sweep(tmp_path)
        assert run(*argv).code == 0
    deliver_here(tmp_path)
    assert_all_delivered(tmp_path)


CRASHES = {
    "before its first run": Crash("sweeper.export.mlflow:MlflowSink._create"),
    "with a run that has no results yet": Crash("sweeper.export.mlflow:MlflowSink._create", 7, leaving=True),
    "with a run that is not ended yet": Crash("sweeper.export.mlflow:MlflowSink._log", 9, leaving=True),
    "before the ledger knows of the first batch": Crash("sweeper.ledger.deliveries:record_delivered"),
    "before the report is drawn": Crash("sweeper.courier:write_report"),
    "with a report that has no tag yet": Crash("mlflow.tracking:MlflowClient.log_artifacts", leaving=True),
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
    monkeypatch.setattr(courier, "RENEW_S", 0.05)
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


def test_a_courier_that_slept_too_long_looks_for_what_others_made_though_its_lease_is_free(
    folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(courier, "LEASE_S", 0.05)
    ours, other = outboxes(folder)
    ours.claim_deliveries(5)
    time.sleep(0.1)
    assert len(other.claim_deliveries(5)) == 5
    other.let_go()
    monkeypatch.setattr(courier, "LEASE_S", 60.0)
    ours._renewed = -math.inf
    assert not ours.is_lost()
    assert ours.has_lapsed
    ours.claim_deliveries(5)
    assert not ours.has_lapsed


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
    monkeypatch.setattr(courier, "RENEW_S", 0.0)  # before every run
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
    assert deliver_here(folder).delivered == RUNS + TWICE


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
        if f"MLflow has all {RUNS} runs and the report" not in resumed.err:
            assert_delivered_in_the_end(run)
            assert run("mlflow", "sync", "small").code == 0  # waits for the report that the first courier is at
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
