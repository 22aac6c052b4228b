"""The one doorway to MLflow: runs in, through `MlflowClient` with explicit run ids and true times.

Three calls make a run: `create_run` with all tags, one `log_batch`, `set_terminated`. MLflow keeps them
apart and takes no run id of ours, so a delivery can die between any two. The tag `sweeper.uid` finds its run
again; a second `log_batch` of the same points adds nothing.

What MLflow can't hold:

- An infinity, which its SQL stores clamp to 1.798e308 (a flattened chart), is sent as NaN; NaN is kept.
- Params beyond 6,000 and tags beyond 8,000 characters are cut and end in "…".
- A run that a user deleted stays deleted: it counts as delivered and is left alone.

The report of a sweep goes to its run as artifacts, whole or again: see `MlflowSink.log_report`.

MLflow is imported when first needed, because that takes a second; `configure_process` must have run before.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from sweeper.errors import DeliveryError
from sweeper.export.outbox import RunRefusedError
from sweeper.records import RunRecord
from sweeper.urls import masked

PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
TIMEOUT_S = 10
HELD_UP_S = 30.0  # in one delivery: longer than MLflow's answers take, and shorter than an exporter's lease holds

_UID = "sweeper.uid"
_PARENT = "mlflow.parentRunId"
_PARENT_UID = "sweeper.parent"
_REPORT = "sweeper.report"  # which state of its sweep the artifacts of a run tell
_SQLITE = "sqlite:///"
_OPENS_ON_RUNS: Mapping[str, str] = {"mlflow.experimentKind": "custom_model_development"}  # not on GenAI traces
# Statuses of a server, or a proxy before it, that speak of no single run: who may enter, too much, not now.
_UNAVAILABLE = frozenset({401, 403, 408, 429, 502, 503, 504})


def configure_process(environ: MutableMapping[str, str] = os.environ) -> None:
    """Set MLflow's switches for an exporter process; call it before anything imports MLflow.

    An unreachable server costs seconds, not minutes, and a POST is never repeated blindly, which would make a
    second run (the outbox backs off instead). Telemetry, links on stdout and logs on stderr are off.
    """
    environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(TIMEOUT_S))
    environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    environ.setdefault("MLFLOW_LOGGING_LEVEL", "CRITICAL")


def is_server(tracking_uri: str) -> bool:
    """Whether a tracking store is a server, which keeps artifacts and has a dashboard of its own."""
    return tracking_uri.startswith(("http://", "https://", "databricks"))


def prepare(tracking_uri: str) -> None:
    """Make the tracking store ready to take runs; for a new SQLite file that takes seconds.

    A new SQLite file gets its whole schema, and write-ahead logging (so that the dashboard reads while runs
    arrive), before it appears under its name: it is complete or absent, whoever is killed and however many
    prepare it at once. An existing file is left as it is.

    Raises:
        DeliveryError: the store can't be reached or created.
    """
    path = sqlite_path(tracking_uri)
    if path is not None and not path.exists():
        with _reachable(tracking_uri):
            _create_sqlite(path)
    with _reachable(tracking_uri):
        _open(tracking_uri).search_experiments(max_results=1)


class MlflowSink:
    """Takes runs into an MLflow tracking store; a `sweeper.export.outbox.Sink`.

    Nothing is reached for before the first delivery, so a server may still be down when this is made. Two
    processes may deliver to one store, though not the same uid at one time.

    Args:
        tracking_uri: MLflow's, e.g. `sqlite:///sweeper-data/mlflow.db` or `http://127.0.0.1:5000`.
        artifact_root: folder or URI below which new experiments keep artifacts; None: the store's own, as always
            where that is a server.
    """

    def __init__(self, tracking_uri: str, artifact_root: str | None = None) -> None:
        self._uri = tracking_uri
        self._artifact_root = None if is_server(tracking_uri) else artifact_root
        self._experiments: dict[str, str] = {}
        self._began = 0.0  # the present delivery

    def deliver(self, run: RunRecord, *, parent: str | None, known: str | None, search: bool) -> str:
        """Make the store hold `run` exactly once, with the content given here; see `Sink.deliver`.

        Raises:
            RunRefusedError: MLflow works but refuses this run.
            DeliveryError: MLflow can't be reached, or works for no run at all.
        """
        if any(len(curve) != len(run.epoch_ms) for curve in run.curves.values()):
            raise RunRefusedError(f"run {run.uid}: each curve needs {len(run.epoch_ms)} points, one per epoch_ms.")
        self._began = time.monotonic()
        try:
            return self._deliver(run, _tags(run, parent), known, search)
        except DeliveryError:
            raise
        except Exception as error:
            self._experiments.pop(run.experiment, None)  # it may be gone: look again next time
            raise self._diagnosed(error, run) from None

    def wants_report(self, run_id: str, state: str) -> bool:
        """Whether a run has no report of this state of its sweep yet; one that a user deleted wants none.

        Args:
            run_id: of the sweep's run.
            state: what tells the sweep's states apart.

        Raises:
            DeliveryError: MLflow can't be reached.
        """
        try:
            run = self._client.get_run(run_id)
        except DeliveryError:
            raise
        except Exception as error:
            if getattr(error, "error_code", None) == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise DeliveryError(_no_report(self._uri, error)) from None
        return bool(run.info.lifecycle_stage != "deleted" and run.data.tags.get(_REPORT) != state)

    def log_report(self, run_id: str, folder: Path, state: str) -> None:
        """Log a folder's files as a run's artifacts, in place of those of the same names.

        The tag `sweeper.report` says which state they tell once all have arrived: who is interrupted before does it
        again, and nobody does it twice.

        Raises:
            DeliveryError: MLflow can't be reached, or its artifact store takes no files.
        """
        try:
            self._client.log_artifacts(run_id, str(folder))
            self._client.set_tag(run_id, _REPORT, state)
        except DeliveryError:
            raise
        except Exception as error:
            raise DeliveryError(_no_report(self._uri, error)) from None

    def _deliver(self, run: RunRecord, tags: dict[str, str], known: str | None, search: bool) -> str:
        found = self._find(run, known, search)
        if found is None:
            run_id = self._create(run, tags)
            if time.monotonic() - self._began > HELD_UP_S:
                run_id = self._only_one(run) or run_id
            self._log(run_id, run, {})
        elif found.info.lifecycle_stage == "deleted":
            return str(found.info.run_id)
        else:
            run_id = found.info.run_id
            self._log(run_id, run, tags)
        if run.status != "RUNNING":
            self._client.set_terminated(run_id, run.status, end_time=run.end_ms)
        elif found is not None and found.info.status != "RUNNING":
            self._client.update_run(run_id, status="RUNNING")  # a study that ended was extended
        return str(run_id)

    def _find(self, run: RunRecord, known: str | None, search: bool) -> Any | None:
        if known is not None:
            try:
                return self._client.get_run(known)
            except _mlflow_exception() as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
                search = True
        return self._search(run) if search else None

    def _search(self, run: RunRecord) -> Any | None:
        """Look for the run of this uid, one that still lives before one that was deleted."""
        return min(self._all(run), key=lambda one: (one.info.lifecycle_stage, one.info.run_id), default=None)

    def _all(self, run: RunRecord) -> list[Any]:
        """The runs of this uid, deleted ones among them."""
        from mlflow.entities import ViewType

        quote = '"' if "'" in run.uid else "'"
        found = self._client.search_runs(
            [self._experiment(run.experiment)],
            filter_string=f"tags.`{_UID}` = {quote}{run.uid}{quote}",
            run_view_type=ViewType.ALL,
        )
        return list(found)

    def _only_one(self, run: RunRecord) -> str | None:
        """Delete all runs of this uid but one: this process was held up, and another may have made its own meanwhile.

        The one that has ended stays; of two that have not, both processes choose the same.
        """
        living = [one.info for one in self._all(run) if one.info.lifecycle_stage == "active"]
        first, *others = sorted(living, key=lambda info: (info.status == "RUNNING", info.run_id)) or [None]
        for other in others:
            self._client.delete_run(other.run_id)
        return str(first.run_id) if first else None

    def _create(self, run: RunRecord, tags: Mapping[str, str]) -> str:
        experiment = self._experiment(run.experiment)
        made = self._client.create_run(experiment, start_time=run.start_ms, tags=tags, run_name=run.name)
        return str(made.info.run_id)

    def _log(self, run_id: str, run: RunRecord, tags: Mapping[str, str]) -> None:
        """Send params, metrics and tags; the client splits what exceeds a request (1,000 metrics)."""
        from mlflow.entities import Param, RunTag

        self._client.log_batch(
            run_id,
            metrics=list(_metrics(run)),
            params=[Param(key, _cut(value, PARAM_CHARACTERS)) for key, value in run.params.items()],
            tags=[RunTag(key, value) for key, value in tags.items()],
            synchronous=True,
        )

    def _experiment(self, name: str) -> str:
        """Give the id of the experiment, made if it is new; another exporter may do so at the same moment."""
        if name not in self._experiments:
            found = self._client.get_experiment_by_name(name) or self._create_experiment(name)
            if found.lifecycle_stage != "active":
                raise DeliveryError(_experiment_deleted(self._uri, name, found.experiment_id))
            self._experiments[name] = found.experiment_id
        return self._experiments[name]

    def _create_experiment(self, name: str) -> Any:
        root = self._artifact_root
        if ".." in name.split("/"):  # from a ledger that others may write to, and a folder is called after it
            raise RunRefusedError(f"{name!r} is no name of an experiment, since it leads out of MLflow's folder.")
        try:
            self._client.create_experiment(name, f"{root.rstrip('/')}/{name}" if root else None, tags=_OPENS_ON_RUNS)
        except _mlflow_exception() as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self._client.get_experiment_by_name(name)

    def _diagnosed(self, error: Exception, run: RunRecord) -> DeliveryError:
        """Tell a store that is not there from one that refuses this run."""
        reason = masked(f"{type(error).__name__}: {error}")
        if _is_unavailable(error) or (_status(error) >= 500 and not self._works()):
            return DeliveryError(_unreachable(self._uri, reason))
        return RunRefusedError(
            f"run {run.uid}: MLflow at {masked(self._uri)} refuses it: {reason}. The result is safe in the ledger."
        )

    def _works(self) -> bool:
        """Whether the store answers something harmless, so that an internal error was about one run."""
        try:
            self._client.search_experiments(max_results=1)
        except _mlflow_exception():
            return False
        return True

    @cached_property
    def _client(self) -> Any:
        with _reachable(self._uri):
            return _open(self._uri)


def _open(tracking_uri: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(tracking_uri, registry_uri=tracking_uri)


def _mlflow_exception() -> Any:
    from mlflow.exceptions import MlflowException

    return MlflowException


def _tags(run: RunRecord, parent: str | None) -> dict[str, str]:
    tags = {key: _cut(value, TAG_CHARACTERS) for key, value in run.tags.items()} | {_UID: run.uid}
    if run.parent is not None:
        tags[_PARENT_UID] = run.parent  # says where the run belongs even if the parent was refused
    if parent is not None:
        tags[_PARENT] = parent
    return tags


def _metrics(run: RunRecord) -> Iterator[Any]:
    """Yield curves (a step per epoch, from 1), then final values (step 0, at the run's end).

    Newest epoch first: MLflow keeps each key's latest point by rewriting it for every newer one that follows.
    """
    from mlflow.entities import Metric

    for key, curve in run.curves.items():
        for step in range(len(curve), 0, -1):
            yield Metric(key, _held(curve[step - 1]), run.epoch_ms[step - 1], step)
    at_ms = run.start_ms if run.end_ms is None else run.end_ms
    for key, value in run.metrics.items():
        yield Metric(key, _held(value), at_ms, 0)


def _held(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 1] + "…"


def _is_unavailable(error: Exception) -> bool:
    from requests.exceptions import RequestException, RetryError

    if isinstance(error.__context__, RequestException) and not isinstance(error.__context__, RetryError):
        return True  # no answer at all
    return getattr(error, "error_code", None) == "ENDPOINT_NOT_FOUND" or _status(error) in _UNAVAILABLE


def _status(error: Exception) -> int:
    """Give the HTTP status that an error stands for; 400 where it arose on this side."""
    if not isinstance(error, _mlflow_exception()):
        return 400
    # Where the client counts a status as worth a retry, and has none left, only its message says which.
    retried = re.search(r"too many (\d{3}) error responses", str(error))
    return int(retried[1]) if retried else int(error.get_http_status_code())


def _unreachable(uri: str, reason: str) -> str:
    return f"MLflow at {masked(uri)} can't take runs: {reason}. Nothing is lost: they wait in the ledger."


def _no_report(uri: str, error: Exception) -> str:
    return f"MLflow at {masked(uri)} takes no report: {masked(f'{type(error).__name__}: {error}')}"


def _experiment_deleted(uri: str, name: str, experiment_id: str) -> str:
    return (
        f"the MLflow experiment {name!r} at {masked(uri)} was deleted, so it takes no runs. Restore it with "
        f"`mlflow experiments restore -x {experiment_id}`, or run the sweep under another name."
    )


@contextmanager
def _reachable(uri: str) -> Iterator[None]:
    """Turn whatever opening a store raises (SQLAlchemy's, the disk's) into a `DeliveryError`."""
    try:
        yield
    except DeliveryError:
        raise
    except Exception as error:
        raise DeliveryError(_unreachable(uri, masked(f"{type(error).__name__}: {error}"))) from None


def sqlite_path(tracking_uri: str) -> Path | None:
    """The file of a tracking store that is one."""
    if not tracking_uri.startswith(_SQLITE):
        return None
    name = tracking_uri.removeprefix(_SQLITE).partition("?")[0]
    return Path(name) if name and name != ":memory:" else None


def _create_sqlite(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".mlflow-") as folder:
        schema, ready = Path(folder, "schema.db"), Path(folder, "ready.db")
        _open(f"{_SQLITE}{schema.absolute()}").search_experiments(max_results=1)
        shutil.copyfile(schema, ready)  # a file that no connection of MLflow's pool still holds
        with closing(sqlite3.connect(ready)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
        try:
            path.hardlink_to(ready)
        except OSError:  # another process was first, and its file is as good; or this disk knows no links
            if not path.exists():
                ready.replace(path)
