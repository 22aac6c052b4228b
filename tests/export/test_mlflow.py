from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import DeliveryError
from sweeper.export import MlflowSink, RunRefusedError, configure_process, prepare
from sweeper.records import RunRecord

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"  # mlflow 3.17 on SQLAlchemy 2.1
)

START, END = 1_700_000_000_000, 1_700_000_009_999
PARENT = RunRecord("digits/none/r00", "sweeper/digits", None, "none r00", "RUNNING", START, None)
TRIAL = RunRecord(
    uid="digits/none/r00/t0000",
    experiment="sweeper/digits",
    parent=PARENT.uid,
    name="none r00 t0000",
    status="FINISHED",
    start_ms=START,
    end_ms=END,
    params={"keep_prob_0": "1.0", "lambda_1": "0.1"},
    tags={"sweeper.space": "none", "mlflow.note.content": "in *words*"},
    metrics={"best.test_loss": 0.1 + 0.2, "cost.flops": 1e12},
    curves={"train_loss": (3.0, 1.0, 2.0), "validation_loss": (0.3, 0.2, 0.1)},
    epoch_ms=(START + 10, START + 20, START + 30),
)
CALLS = ("create_run", "log_batch", "set_terminated")


@pytest.fixture
def sink(uri: str) -> MlflowSink:
    return MlflowSink(uri)


def open_client(uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def deliver(sink: MlflowSink, run: RunRecord, **how: Any) -> str:
    return sink.deliver(run, **{"parent": None, "known": None, "search": False} | how)


def runs(uri: str, experiment: str = TRIAL.experiment) -> list[Any]:
    client = open_client(uri)
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def history(uri: str, run_id: str, key: str) -> list[tuple[int, int, float]]:
    points = open_client(uri).get_metric_history(run_id, key)
    return sorted((point.step, point.timestamp, point.value) for point in points)


def assert_shows_trial(uri: str, run_id: str) -> None:
    run = open_client(uri).get_run(run_id)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", START, END)
    assert run.info.run_name == TRIAL.name
    assert run.data.params == TRIAL.params
    assert run.data.tags == TRIAL.tags | {
        "sweeper.uid": TRIAL.uid,
        "sweeper.parent": PARENT.uid,
        "mlflow.runName": TRIAL.name,
    }
    assert run.data.metrics == TRIAL.metrics | {"train_loss": 2.0, "validation_loss": 0.1}
    assert history(uri, run_id, "train_loss") == [
        (1, START + 10, 3.0),
        (2, START + 20, 1.0),
        (3, START + 30, 2.0),
    ]
    assert history(uri, run_id, "best.test_loss") == [(0, END, 0.1 + 0.2)]


def test_a_run_arrives_with_its_params_curves_and_true_times(uri: str, sink: MlflowSink) -> None:
    run_id = deliver(sink, TRIAL)
    assert len(runs(uri)) == 1
    assert_shows_trial(uri, run_id)


def test_a_child_hangs_below_its_parent(uri: str, sink: MlflowSink) -> None:
    parent = deliver(sink, PARENT)
    child = deliver(sink, TRIAL, parent=parent)
    tags = open_client(uri).get_run(child).data.tags
    assert tags["mlflow.parentRunId"] == parent


def test_a_study_that_ends_updates_the_run_of_its_start_and_may_be_extended(uri: str, sink: MlflowSink) -> None:
    run_id = deliver(sink, PARENT)
    assert open_client(uri).get_run(run_id).info.status == "RUNNING"
    end = replace(PARENT, status="FINISHED", end_ms=END, metrics={"m": 1.0}, tags={"t": "new"})
    assert deliver(sink, end, known=run_id) == run_id
    ended = open_client(uri).get_run(run_id)
    assert (ended.info.status, ended.info.end_time, ended.data.metrics) == ("FINISHED", END, {"m": 1.0})
    assert ended.data.tags["t"] == "new"
    assert deliver(sink, PARENT, known=run_id) == run_id
    assert open_client(uri).get_run(run_id).info.status == "RUNNING"
    assert len(runs(uri)) == 1


def test_delivering_again_changes_nothing(uri: str, sink: MlflowSink) -> None:
    run_id = deliver(sink, TRIAL)
    assert deliver(sink, TRIAL, search=True) == run_id
    assert deliver(MlflowSink(uri), TRIAL, known=run_id) == run_id
    assert len(runs(uri)) == 1
    assert_shows_trial(uri, run_id)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_an_interrupted_delivery_is_completed_without_a_second_run(
    uri: str, call: str, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    whole = getattr(MlflowClient, call)

    def killed(*args: Any, **kwargs: Any) -> None:
        if after:
            whole(*args, **kwargs)
        raise KeyboardInterrupt  # as a kill does, it passes every handler

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, killed)
        with pytest.raises(KeyboardInterrupt):
            deliver(MlflowSink(uri), TRIAL)
    run_id = deliver(MlflowSink(uri), TRIAL, search=True)
    assert len(runs(uri)) == 1
    assert_shows_trial(uri, run_id)


@pytest.mark.parametrize("part", ["_log_params", "_log_metrics"])
def test_a_log_batch_that_died_half_way_is_completed(uri: str, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    def killed(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SqlAlchemyStore, part, killed)
        with pytest.raises(KeyboardInterrupt):
            deliver(MlflowSink(uri), TRIAL)
    run_id = deliver(MlflowSink(uri), TRIAL, search=True)
    assert len(runs(uri)) == 1
    assert_shows_trial(uri, run_id)


def test_more_metrics_than_a_request_holds_all_arrive(uri: str, sink: MlflowSink) -> None:
    epochs = 1001
    run = replace(
        TRIAL,
        curves={"a": tuple(map(float, range(epochs))), "b": (0.5,) * epochs},
        epoch_ms=tuple(range(START, START + epochs)),
    )
    run_id = deliver(sink, run)
    # 1000 is the client's own page of a history, so that this also reads beyond it
    assert history(uri, run_id, "a") == [(i + 1, START + i, float(i)) for i in range(epochs)]
    latest = open_client(uri).get_run(run_id).data.metrics
    assert (latest["a"], latest["b"], latest["cost.flops"]) == (1000.0, 0.5, 1e12)


def test_long_params_and_tags_are_cut_visibly_and_the_same_way_each_time(uri: str, sink: MlflowSink) -> None:
    run = replace(TRIAL, params={"p": "x" * 6001, "q": "y" * 6000}, tags={"t": "z" * 9000})
    run_id = deliver(sink, run)
    assert deliver(sink, run, search=True) == run_id
    data = open_client(uri).get_run(run_id).data
    assert data.params == {"p": "x" * 5999 + "…", "q": "y" * 6000}
    assert data.tags["t"] == "z" * 7999 + "…"


def test_nan_stays_nan_and_infinity_becomes_nan(uri: str, sink: MlflowSink) -> None:
    run = replace(
        TRIAL,
        curves={"c": (1.0, math.inf, math.nan)},
        metrics={"inf": math.inf, "minus": -math.inf, "nan": math.nan, "max": 1.7976931348623157e308},
    )
    run_id = deliver(sink, run)
    assert deliver(sink, run, search=True) == run_id
    metrics = open_client(uri).get_run(run_id).data.metrics
    assert all(math.isnan(metrics[key]) for key in ("inf", "minus", "nan", "c"))
    assert metrics["max"] == 1.7976931348623157e308
    values = [value for _, _, value in history(uri, run_id, "c")]
    assert values[0] == 1.0
    assert all(map(math.isnan, values[1:]))
    assert len(values) == 3


def test_a_deleted_run_stays_deleted(uri: str, sink: MlflowSink) -> None:
    run_id = deliver(sink, TRIAL)
    open_client(uri).delete_run(run_id)
    assert deliver(sink, TRIAL, search=True) == run_id
    assert deliver(sink, replace(TRIAL, metrics={"new": 1.0}), known=run_id) == run_id
    assert runs(uri) == []
    assert "new" not in open_client(uri).get_run(run_id).data.metrics


def test_a_known_run_that_the_store_no_longer_holds_is_made_again(uri: str, sink: MlflowSink) -> None:
    run_id = deliver(sink, TRIAL, known="0" * 32)
    assert_shows_trial(uri, run_id)


def test_a_uid_with_a_quote_is_found_again(uri: str, sink: MlflowSink) -> None:
    run = replace(TRIAL, uid="o'brien/none/r00/t0000")
    assert deliver(sink, run) == deliver(sink, run, search=True)


@pytest.mark.parametrize(
    "bad",
    [
        replace(TRIAL, metrics={"no\nnewlines": 1.0}),
        replace(TRIAL, curves={"c": (1.0,)}),
        replace(TRIAL, status="PURPLE"),
        replace(TRIAL, params={"p": 7}),  # type: ignore[dict-item]
    ],
    ids=["key", "lengths", "status", "type"],
)
def test_a_run_that_mlflow_cannot_hold_is_refused_and_named(sink: MlflowSink, bad: RunRecord) -> None:
    with pytest.raises(RunRefusedError, match=TRIAL.uid):
        deliver(sink, bad)


def test_a_changed_param_is_refused_rather_than_lost(sink: MlflowSink) -> None:
    deliver(sink, TRIAL)
    with pytest.raises(RunRefusedError, match="Changing param values is not allowed"):
        deliver(sink, replace(TRIAL, params={"keep_prob_0": "0.5"}), search=True)


def test_a_locked_database_is_waited_for_and_no_run_is_blamed(
    sink: MlflowSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
    from mlflow.tracking import MlflowClient

    def locked(*args: Any, **kwargs: Any) -> None:
        raise MlflowException("database is locked", error_code=TEMPORARILY_UNAVAILABLE)

    monkeypatch.setattr(MlflowClient, "create_run", locked)
    with pytest.raises(DeliveryError, match="Nothing is lost") as caught:
        deliver(sink, TRIAL)
    assert not isinstance(caught.value, RunRefusedError)


@pytest.mark.parametrize(("works", "expected"), [(True, RunRefusedError), (False, DeliveryError)])
def test_an_internal_error_is_the_runs_fault_only_if_the_store_works_otherwise(
    sink: MlflowSink, works: bool, expected: type[DeliveryError], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    def broken(*args: Any, **kwargs: Any) -> None:
        raise MlflowException("something broke")

    monkeypatch.setattr(MlflowClient, "create_run", broken)
    if not works:
        monkeypatch.setattr(MlflowClient, "search_experiments", broken)
    with pytest.raises(DeliveryError) as caught:
        deliver(sink, TRIAL)
    assert type(caught.value) is expected


def test_two_exporters_that_meet_a_new_experiment_share_it(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    find = MlflowClient.get_experiment_by_name
    missed: list[str] = []

    def miss_once(self: Any, name: str) -> Any:
        if not missed:
            missed.append(name)
            open_client(uri).create_experiment(name)  # the other exporter, at the worst moment
            return None
        return find(self, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", miss_once)
    deliver(MlflowSink(uri), TRIAL)
    assert len(runs(uri)) == 1


def test_a_deleted_experiment_blames_no_run_and_says_how_to_restore_it(uri: str, sink: MlflowSink) -> None:
    deliver(sink, TRIAL)
    client = open_client(uri)
    client.delete_experiment(client.get_experiment_by_name(TRIAL.experiment).experiment_id)
    with pytest.raises(DeliveryError, match="mlflow experiments restore -x 1") as caught:
        deliver(MlflowSink(uri), replace(TRIAL, uid="other"))
    assert not isinstance(caught.value, RunRefusedError)


def test_artifacts_of_new_experiments_lie_below_the_root(uri: str, tmp_path: Path) -> None:
    run_id = deliver(MlflowSink(uri, artifact_root=str(tmp_path / "artifacts")), TRIAL)
    assert open_client(uri).get_run(run_id).info.artifact_uri.startswith(str(tmp_path / "artifacts"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A report's files."""
    folder = tmp_path / "report"
    (folder / "plots").mkdir(parents=True)
    (folder / "report.html").write_text("<html>")
    (folder / "plots" / "curves.png").write_bytes(b"png")
    return folder


def test_a_report_is_wanted_until_one_of_that_state_was_logged(uri: str, tmp_path: Path, folder: Path) -> None:
    sink = MlflowSink(uri, artifact_root=f"{tmp_path}/artifacts")
    run_id = deliver(sink, PARENT)
    assert sink.wants_report(run_id, "20")
    sink.log_report(run_id, folder, "20")
    assert not sink.wants_report(run_id, "20")
    assert sink.wants_report(run_id, "24")
    logged = tmp_path / "artifacts" / "sweeper" / "digits" / run_id / "artifacts"
    assert (logged / "report.html").read_text() == "<html>"
    assert (logged / "plots" / "curves.png").read_bytes() == b"png"
    (folder / "report.html").write_text("<html>2")
    sink.log_report(run_id, folder, "24")
    assert (logged / "report.html").read_text() == "<html>2"


def test_a_report_that_was_interrupted_is_still_wanted(
    uri: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    def refuse(*args: Any) -> None:
        raise OSError("no space left")

    sink = MlflowSink(uri, artifact_root=f"{tmp_path}/artifacts")
    run_id = deliver(sink, PARENT)
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "log_artifacts", refuse)
        with pytest.raises(DeliveryError, match="takes no report: OSError: no space left"):
            sink.log_report(run_id, folder, "20")
    assert sink.wants_report(run_id, "20")


def test_a_run_that_is_gone_wants_no_report(uri: str, sink: MlflowSink) -> None:
    run_id = deliver(sink, PARENT)
    open_client(uri).delete_run(run_id)
    assert not sink.wants_report(run_id, "20")
    assert not sink.wants_report("0" * 32, "20")


def test_a_prepared_store_logs_ahead_and_leaves_no_litter(prepared: Path) -> None:
    connection = sqlite3.connect(prepared)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()
    assert {path.name.removesuffix("-wal").removesuffix("-shm") for path in prepared.parent.iterdir()} == {"mlflow.db"}


def test_preparing_again_keeps_what_is_there(uri: str, sink: MlflowSink) -> None:
    run_id = deliver(sink, TRIAL)
    prepare(uri)
    assert_shows_trial(uri, run_id)


def test_preparing_leaves_other_peoples_journal_mode_alone(uri: str) -> None:
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    prepare(uri)
    connection = sqlite3.connect(uri.removeprefix("sqlite:///"))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


@pytest.mark.slow
def test_processes_that_prepare_one_store_at_once_all_find_it_ready(tmp_path: Path) -> None:
    code = "import sys, sweeper.export as e; e.configure_process(); e.prepare(sys.argv[1])"
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    both = [subprocess.Popen([sys.executable, "-c", code, uri]) for _ in range(2)]
    assert [one.wait(120) for one in both] == [0, 0]
    deliver(MlflowSink(uri), TRIAL)


def test_a_store_that_cannot_be_made_is_an_error_without_a_long_wait() -> None:
    with pytest.raises(DeliveryError, match="/dev/null"):
        prepare("sqlite:////dev/null/mlflow.db")


def test_a_sink_is_a_stranger_to_the_network_until_it_delivers() -> None:
    assert MlflowSink("http://127.0.0.1:9")


def test_the_room_is_imported_without_mlflow() -> None:
    code = "import sys, sweeper.export; print('mlflow' in sys.modules, 'sqlalchemy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["False", "False"]


def test_a_process_is_configured_to_fail_fast_and_quietly() -> None:
    environ = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "7", "MLFLOW_HTTP_REQUEST_TIMEOUT": "3"}
    configure_process(environ)
    assert environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"  # a retried POST can make a second run
    assert environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "3"  # a user's own
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_run_whose_experiment_is_called_like_a_path_upwards_is_refused(uri: str, tmp_path: Path) -> None:
    sink = MlflowSink(uri, artifact_root=str(tmp_path / "home" / "mlartifacts"))
    with pytest.raises(RunRefusedError, match="leads out of MLflow's folder"):
        deliver(sink, replace(TRIAL, experiment="sweeper/../../planted"))


def test_an_unreachable_server_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    configured: dict[str, str] = {}
    configure_process(configured)
    for name, value in configured.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(DeliveryError) as caught:
        deliver(MlflowSink("http://me:secret@127.0.0.1:9"), TRIAL)
    assert not isinstance(caught.value, RunRefusedError)
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
