"""Passwords in the URLs of the store, of MLflow and of the checkpoints are nowhere to be found after a sweep."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from postgres import Postgres
from processes import Shell, Sweeper, shell
from small import write_sweep
from sweeper.courier import deliver
from sweeper.ledger import sweeps
from sweeper.ledger.store import Ledger

pytestmark = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"  # mlflow 3.17 on SQLAlchemy 2.1
)

SECRETS = {"store": "sesame-Store-1", "mlflow": "sesame-Mlflow-2", "checkpoints": "sesame-Bucket-3"}
CLOSED = "127.0.0.1:9"  # where nothing answers
RUN = ("run", "small.yaml", "--compile", "off", "--threads", "1", "--slots", "2", "-n", "2", "--no-mlflow")
SAVING = ("--checkpoint-every", "0.01")


@pytest.fixture(scope="module")
def url(postgres: Postgres) -> Iterator[str]:
    """A store of a user with a password."""
    postgres.run(f"CREATE USER keeper PASSWORD '{SECRETS['store']}'", "CREATE DATABASE secrets OWNER keeper")
    yield postgres.url("secrets").replace("postgres:secret", f"keeper:{SECRETS['store']}")
    postgres.run("DROP DATABASE secrets WITH (FORCE)", "DROP ROLE keeper")


@pytest.fixture
def opened(url: str, tmp_path: Path) -> Iterator[Shell]:
    """A shell whose environment holds all three URLs."""
    write_sweep(tmp_path, ("trials: 5, replicates: 2", "trials: 3, replicates: 1"))
    places = {
        "SWEEPER_STORE": url,
        "MLFLOW_TRACKING_URI": f"http://me:{SECRETS['mlflow']}@{CLOSED}",
        "SWEEPER_CHECKPOINTS": f"ftp://me:{SECRETS['checkpoints']}@{CLOSED}/trials",
    }
    with shell(tmp_path, **places) as run:
        yield run


def seen_beside(sweeper: Sweeper) -> set[str]:
    """The command lines of all processes that a command starts, until it ends."""
    seen = set[str]()
    while sweeper.code is None:
        try:
            seen |= {" ".join(each.cmdline()) for each in psutil.Process(sweeper.pid).children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
        time.sleep(0.1)
    return seen


def stored(url: str) -> str:
    """Every row of every table of a database, as text."""
    with psycopg.connect(url.replace("+psycopg", "")) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
        rows = [connection.execute(f"SELECT t::text FROM {name} t".encode()).fetchall() for (name,) in names]
    return "\n".join(text for found in rows for (text,) in found)


def shown(folder: Path) -> str:
    """All that lies in a folder: logs, output, MLflow's store and its files."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return "\n".join(path.read_bytes().decode("latin-1") for path in files)


def hand_over(url: str, uri: str, folder: Path) -> None:
    """Deliver the runs to an MLflow store that takes them. (The report has its own tests, and takes seconds.)"""
    ledger = Ledger(url)
    with ledger.read() as connection:
        sweep = sweeps.find(connection, "small")
    assert deliver(ledger, sweep, uri, folder / "mlartifacts").undelivered == 0
    ledger.close()


def test_no_password_is_kept_shown_or_passed_on(
    opened: Shell, url: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sweeper.courier._log_report", lambda *_: None)
    ran = opened.start(*RUN, *SAVING)
    processes = seen_beside(ran)
    assert ran.code == 0, ran.err
    assert any("worker" in line for line in processes)
    examined, synced = opened("doctor"), opened("mlflow", "sync", "small")
    hand_over(url, uri, tmp_path)
    folder, rows = opened.folder, stored(url)
    texts = {"ledger": rows, "files": shown(folder), "command lines": "\n".join(processes)}
    found = [(secret, place) for secret in SECRETS.values() for place, text in texts.items() if secret in text]
    assert found == []
    assert "small" in rows
    assert {"mlflow.db", "worker-2.log"} <= {path.name for path in folder.rglob("*")}
    # each was spoken of, masked
    assert "checkpoints can't be kept at ftp://***@127.0.0.1:9/trials" in ran.err
    assert f"http://***@{CLOSED}" in synced.err
    assert f"http://***@{CLOSED}" in examined.out
    assert f"ftp://***@{CLOSED}" in examined.out
    assert "postgresql+psycopg://***@/secrets" in examined.out
