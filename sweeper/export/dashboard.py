"""MLflow's own pages, on this machine's loopback."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from sweeper.errors import DeliveryError
from sweeper.export.mlflow import is_server
from sweeper.urls import masked


@dataclass(frozen=True, slots=True)
class Dashboard:
    """How to start MLflow's UI.

    Attributes:
        argv: the command line.
        environment: what to add to the environment; may hold the store's credentials, so don't show it.
        url: where people find it.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    url: str


def dashboard_command(backend_uri: str, port: int, artifact_root: str | None = None) -> Dashboard:
    """Say how to start MLflow's UI on this machine's loopback, light enough to run beside training.

    One worker and no job execution: 0.5 GiB instead of 2.6. Requests that name another host get 403, so that
    no web page can reach it by rebinding a name. The store's URI rides in the environment, because
    a command line is for all to see.

    Args:
        backend_uri: SQL tracking store to show, e.g. `sqlite:///sweeper-data/mlflow.db`.
        port: TCP port.
        artifact_root: where the server keeps the artifacts that clients upload through it.

    Raises:
        DeliveryError: the store is itself a server, which shows its own UI.
    """
    if is_server(backend_uri):
        raise DeliveryError(
            f"MLflow's runs are kept by the server {masked(backend_uri)}, which has a dashboard of its own: "
            f"open that address in a browser."
        )
    argv = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    argv += ["--allowed-hosts", f"127.0.0.1:{port},localhost:{port}"]
    argv += ["--artifacts-destination", artifact_root] if artifact_root else []
    environment = {
        "MLFLOW_BACKEND_STORE_URI": backend_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return Dashboard(tuple(argv), environment, f"http://127.0.0.1:{port}")
