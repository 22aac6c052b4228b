"""Over HTTP, against the real server that `sweeper dashboard` starts."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from sweeper.errors import DeliveryError
from sweeper.export import Dashboard, Delivery, MlflowSink, RunRefusedError, dashboard_command, drain
from sweeper.records import RunRecord

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings(
        "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"  # mlflow on SQLAlchemy
    ),
]

START, END = 1_700_000_000_000, 1_700_000_009_999
RUN = RunRecord(
    uid="digits/none/r00/t0000",
    experiment="sweeper/digits",
    parent=None,
    name="none r00 t0000",
    status="FINISHED",
    start_ms=START,
    end_ms=END,
    params={"keep_prob_0": "1.0"},
    tags={"sweeper.space": "none"},
    metrics={"best.test_loss": 0.1 + 0.2, "bad": float("inf")},
    curves={"train_loss": tuple(1 / i for i in range(1, 1002))},
    epoch_ms=tuple(range(START, START + 1001)),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def status(port: int, path: str = "/health", host: str | None = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path, headers={"Host": host} if host else {})
        return connection.getresponse().status
    finally:
        connection.close()


def wait_until_up(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if status(port) == 200:
                return
        except OSError:
            time.sleep(0.2)
    raise TimeoutError(f"no dashboard on port {port}; its process ended with {server.poll()}")


@contextmanager
def running(dashboard: Dashboard, port: int, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = os.environ | dashboard.environment
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            dashboard.argv, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
        try:
            wait_until_up(port, server)
            yield server
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


class OneRow:
    """An outbox with one row."""

    def __init__(self, run: RunRecord) -> None:
        self.run = run
        self.ref: str | None = None
        self.errors: list[str] = []

    def claim_deliveries(self, limit: int) -> list[Delivery]:
        return [Delivery(1, 1, self.run)] if self.ref is None else []

    def delivered(self, refs: Any) -> None:
        self.ref = refs[1]

    def failed(self, item_id: int, error: str) -> None:
        self.errors.append(error)

    def run_ids(self, uids: Any) -> dict[str, str]:
        return {}

    def undelivered(self) -> int:
        return int(self.ref is None)


@dataclass(frozen=True)
class Missed:
    """What happened before the dashboard was there.

    Attributes:
        folder: of its store and artifacts.
        dashboard: how it will be started.
        reported: the run whose report was logged straight to its store.
        outbox: what could not be delivered to it, by `sink`.
        problems: what the tries said, which took `took_s`.
    """

    folder: Path
    dashboard: Dashboard
    reported: str
    outbox: OneRow
    sink: MlflowSink
    problems: list[str]
    took_s: float


@pytest.fixture(scope="module")
def missed(prepared: Path, tmp_path_factory: pytest.TempPathFactory, port: int, exporter_environment: None) -> Missed:
    folder = tmp_path_factory.mktemp("server")
    (folder / "mlflow.db").write_bytes(prepared.read_bytes())
    uri, root = f"sqlite:///{folder}/mlflow.db", str(folder / "artifacts")
    (folder / "report").mkdir()
    (folder / "report" / "report.html").write_text("<p>logged before</p>")
    store = MlflowSink(uri, artifact_root=root)
    reported = store.deliver(replace(RUN, uid="before"), parent=None, known=None, search=False)
    store.log_report(reported, folder / "report", "20")

    dashboard = dashboard_command(uri, port, root)
    outbox, sink, problems = OneRow(replace(RUN, uid="waits")), MlflowSink(dashboard.url), list[str]()
    began = time.monotonic()
    drain(
        outbox,
        sink,
        should_stop=lambda: len(problems) > 1,
        on_progress=lambda p: problems.append(str(p.problem)),
    )
    return Missed(folder, dashboard, reported, outbox, sink, problems, time.monotonic() - began)


@pytest.fixture(scope="module")
def server(missed: Missed, port: int) -> Iterator[subprocess.Popen[bytes]]:
    with running(missed.dashboard, port, missed.folder) as server:
        yield server


@pytest.fixture(scope="module")
def served(server: subprocess.Popen[bytes], port: int) -> str:
    return f"http://127.0.0.1:{port}"


def test_the_dashboard_shows_its_page_on_loopback(served: str, port: int) -> None:
    assert dashboard_command("sqlite:///mlflow.db", port).url == served
    assert status(port, "/") == 200
    assert status(port, "/", host=f"localhost:{port}") == 200


@pytest.mark.parametrize("host", ["evil.example", "192.168.1.7:5000", "127.0.0.1:1"])
def test_the_dashboard_refuses_requests_that_name_another_host(served: str, port: int, host: str) -> None:
    assert status(port, "/api/2.0/mlflow/experiments/get?experiment_id=0", host=host) == 403


def test_the_dashboard_runs_one_worker_and_no_jobs(server: subprocess.Popen[bytes]) -> None:
    command = ["ps", "-ww", "-o", "args=", "--sid", str(server.pid)]
    processes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert [process.split()[2] for process in processes] == ["mlflow", "uvicorn"]  # 4 workers, jobs: 8 more


def test_a_command_line_holds_no_credentials() -> None:
    dashboard = dashboard_command("postgresql://me:secret@db/mlflow", 5000)
    assert "secret" not in " ".join(dashboard.argv)
    assert dashboard.environment["MLFLOW_BACKEND_STORE_URI"] == "postgresql://me:secret@db/mlflow"


def test_a_store_that_is_a_server_has_its_own_dashboard() -> None:
    with pytest.raises(DeliveryError, match=r"http://\*\*\*@host:5000, which has a dashboard of its own"):
        dashboard_command("http://me:secret@host:5000", 5001)


def test_a_run_arrives_over_http_as_it_does_in_sqlite(served: str) -> None:
    from mlflow.tracking import MlflowClient

    sink, client = MlflowSink(served), MlflowClient(served)
    run_id = sink.deliver(RUN, parent=None, known=None, search=False)
    assert sink.deliver(RUN, parent=None, known=None, search=True) == run_id
    run = client.get_run(run_id)
    assert (run.info.status, run.info.start_time, run.info.end_time) == ("FINISHED", START, END)
    assert run.data.params == RUN.params
    assert run.data.metrics["best.test_loss"] == 0.1 + 0.2
    assert run.data.metrics["bad"] != run.data.metrics["bad"]
    points = client.get_metric_history(run_id, "train_loss")
    assert sorted((p.step, p.timestamp, p.value) for p in points) == [(i, START + i - 1, 1 / i) for i in range(1, 1002)]


def test_a_report_arrives_over_http_and_the_dashboard_shows_it(served: str, port: int, tmp_path: Path) -> None:
    """The server keeps it: what this side says of places for artifacts is of no use to a server elsewhere."""
    files = tmp_path / "report"
    (files / "plots").mkdir(parents=True)
    (files / "report.html").write_text("<p>the report</p>")
    (files / "plots" / "curves.png").write_bytes(b"png")
    sink = MlflowSink(served, artifact_root=str(tmp_path / "here"))
    run_id = sink.deliver(replace(RUN, uid="whole", experiment="sweeper/new"), parent=None, known=None, search=False)
    assert sink.wants_report(run_id, "20")
    sink.log_report(run_id, files, "20")
    assert not sink.wants_report(run_id, "20")
    assert not (tmp_path / "here").exists()
    assert shown(port, run_id, "report.html") == b"<p>the report</p>"
    assert shown(port, run_id, "plots/curves.png") == b"png"


def test_a_report_that_was_logged_without_the_dashboard_is_shown_by_it(missed: Missed, served: str, port: int) -> None:
    assert shown(port, missed.reported, "report.html") == b"<p>logged before</p>"


def shown(port: int, run_id: str, path: str) -> bytes:
    """A run's artifact as MLflow's pages fetch it."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", f"/get-artifact?path={path}&run_id={run_id}")
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_server_refuses_a_bad_run_and_takes_the_next(served: str) -> None:
    sink = MlflowSink(served)
    with pytest.raises(RunRefusedError, match="refuses it"):
        sink.deliver(replace(RUN, uid="bad", metrics={"a\nb": 1.0}), parent=None, known=None, search=False)
    assert sink.deliver(replace(RUN, uid="good"), parent=None, known=None, search=False)


def test_something_that_is_no_mlflow_blames_no_run(served: str) -> None:
    with pytest.raises(DeliveryError) as caught:
        MlflowSink(f"{served}/elsewhere").deliver(RUN, parent=None, known=None, search=False)
    assert not isinstance(caught.value, RunRefusedError)


def test_a_row_waits_for_a_server_that_is_down_and_arrives_once_it_is_up(missed: Missed, served: str) -> None:
    from mlflow.tracking import MlflowClient

    assert missed.took_s < 10  # seconds, not MLflow's own minutes
    assert missed.problems
    assert all("Nothing is lost" in problem for problem in missed.problems)
    outbox = missed.outbox
    assert (outbox.ref, outbox.errors) == (None, [])
    assert drain(outbox, missed.sink).delivered == 1
    assert outbox.ref is not None
    assert MlflowClient(served).get_run(outbox.ref).info.end_time == END
