"""Whether MLflow answers, for `sweeper doctor`: nothing is made, where MLflow's own client would make its tables."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sweeper.errors import DeliveryError
from sweeper.export.mlflow import TIMEOUT_S, configure_process, is_server, prepare, sqlite_path
from sweeper.urls import masked


@dataclass(frozen=True)
class Answer:
    """MLflow answers.

    Attributes:
        took_s: for a question about experiments, loading MLflow's client not included.
        client: version of MLflow here.
        server: there, where that is a server that says so.
    """

    took_s: float
    client: str
    server: str | None


@dataclass(frozen=True)
class Unlooked:
    """A store that can't be looked at without making something."""

    why: str


def probe(tracking_uri: str) -> Answer | Unlooked:
    """Ask MLflow's store something harmless.

    Raises:
        DeliveryError: it does not answer, or refuses.
    """
    path = sqlite_path(tracking_uri)
    if path is not None and not path.exists():
        return Unlooked(f"MLflow's store {path} is not there yet; the first delivery makes it")
    if path is None and not is_server(tracking_uri):
        return Unlooked(f"{tracking_uri} is not looked at: MLflow would make its tables there")
    if path is not None and not _has_tables(path):
        return Unlooked(f"MLflow's store {path} has no tables yet; the first delivery makes them")
    configure_process()
    prepare(tracking_uri)  # loads MLflow
    began = time.perf_counter()
    prepare(tracking_uri)
    took = time.perf_counter() - began
    return Answer(took, version("mlflow"), _server(tracking_uri) if path is None else None)


def _has_tables(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
            return bool(connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone())
    except sqlite3.Error as error:
        raise DeliveryError(f"MLflow's store {path} can't be read: {error}.") from error


def _server(tracking_uri: str) -> str | None:
    """What a server says of its version; it may be behind something that does not let this through."""
    import requests

    try:
        answer = requests.get(f"{tracking_uri.rstrip('/')}/version", timeout=TIMEOUT_S)
    except requests.RequestException:
        return None
    return masked(answer.text.strip()[:40]) if answer.ok else None
