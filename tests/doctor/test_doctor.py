"""`sweeper doctor` finds what is wrong, says how to mend it, and leaves everything as it was."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import NamedTuple

import fsspec
import pytest
from typer.testing import CliRunner

from sweeper.cli.app import app
from sweeper.doctor import CHECKS, Finding, Level, Place, disk, examine, machine, mlflow, trust
from sweeper.doctor import store as stores
from sweeper.ledger.migrations import HEAD
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.roots import Roots

CLOSED = "127.0.0.1:9"  # where nothing answers


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A home that was not made yet."""
    home = tmp_path / "home"
    mlflow_uri = f"sqlite:///{home / 'mlflow.db'}"
    return Place(home, sqlite_url(home), mlflow_uri, str(home / "checkpoints"), "cpu", Roots((tmp_path,)))


@pytest.fixture
def migrated(place: Place) -> Place:
    """One with a ledger."""
    Ledger(place.store).close()
    return place


@pytest.fixture
def environment() -> Iterator[None]:
    """MLflow's switches, which a doctor sets in its own process, are taken back."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def level_of(findings: Iterator[Finding], check: str) -> Level:
    return one(findings, check).level


def one(findings: Iterator[Finding], check: str) -> Finding:
    (found,) = [each for each in findings if each.check == check]
    return found


def revise(place: Place, revision: str) -> None:
    with closing(sqlite3.connect(place.home / "ledger.db")) as connection:
        connection.execute("UPDATE sweeper_alembic_version SET version_num = ?", (revision,))
        connection.commit()


def contents(folder: Path) -> dict[str, bytes]:
    """What a folder holds; SQLite's shared memory is no content."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(("-shm", "-wal")))
    return {str(path): path.read_bytes() for path in files}


# the store ------------------------------------------------------------------------------------------------------------


def test_a_store_that_is_not_there_is_no_problem_and_is_not_made(place: Place):
    found = one(stores.store(place), "store")
    assert found.level is Level.NOTE
    assert "`sweeper run FILE` makes it" in found.mend
    assert not place.home.exists()


def test_a_store_as_it_should_be(migrated: Place):
    found = list(stores.store(migrated))
    assert {each.level for each in found} == {Level.OK}
    assert [each.check for each in found] == ["permissions", "store", "migrations"]
    assert found[1].found.startswith(f"SQLite {sqlite3.sqlite_version} at ")


@pytest.mark.parametrize(
    ("revision", "level", "mend"),
    [("0001", Level.NOTE, "The next command brings them there"), ("9999", Level.PROBLEM, "Update sweeper")],
)
def test_a_store_of_another_revision_is_told_and_left_alone(migrated: Place, revision: str, level: Level, mend: str):
    revise(migrated, revision)
    before = contents(migrated.home)
    found = one(stores.store(migrated), "migrations")
    assert (found.level, found.found.startswith(f"the tables are at revision {revision}")) == (level, True)
    assert HEAD in found.found
    assert mend in found.mend
    assert contents(migrated.home) == before


def test_a_file_that_is_no_database_is_a_problem_and_left_alone(place: Place):
    place.home.mkdir()
    (place.home / "ledger.db").write_text("no database, but long enough to be read as the header of one" * 9)
    before = contents(place.home)
    found = one(stores.store(place), "store")
    assert found.level is Level.PROBLEM
    assert "not a database" in found.found
    assert contents(place.home) == before


def test_a_store_without_tables_is_left_without(place: Place):
    place.home.mkdir()
    (place.home / "ledger.db").touch()
    found = one(stores.store(place), "migrations")
    assert (found.level, found.found.partition(",")[0]) == (Level.NOTE, "there are no tables yet")
    assert (place.home / "ledger.db").stat().st_size == 0


@pytest.mark.parametrize("url", ["nonsense", "mysql://me:sesame@db/x", "postgresql://me:sesame@/x?host=/nowhere"])
def test_a_store_that_does_not_answer_is_a_problem_without_its_password(place: Place, url: str):
    found = one(stores.store(replace(place, store=url)), "store")
    assert found.level is Level.PROBLEM
    assert "sesame" not in found.found


def test_sqlite_on_a_network_file_system_is_a_problem(migrated: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stores, "filesystem", lambda _: "nfs4")
    first = next(stores.store(migrated))
    assert (first.level, "PostgreSQL" in first.mend) == (Level.PROBLEM, True)


def test_a_ledger_that_may_only_be_read_is_told(migrated: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)
    assert level_of(stores.store(migrated), "permissions") is Level.NOTE
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert level_of(stores.store(migrated), "permissions") is Level.PROBLEM


# MLflow ---------------------------------------------------------------------------------------------------------------


def test_an_mlflow_store_that_is_not_there_is_not_made(place: Place):
    assert level_of(mlflow.tracking(place), "mlflow") is Level.NOTE
    assert not place.home.exists()
    place.home.mkdir()
    (place.home / "mlflow.db").touch()
    assert "has no tables yet" in one(mlflow.tracking(place), "mlflow").found
    assert (place.home / "mlflow.db").stat().st_size == 0


def test_an_mlflow_store_whose_client_would_make_tables_is_not_looked_at(place: Place):
    found = one(mlflow.tracking(replace(place, tracking_uri="postgresql://me:sesame@db/mlflow")), "mlflow")
    assert (found.level, "would make its tables" in found.found) == (Level.NOTE, True)


@pytest.fixture
def server() -> Iterator[Callable[[int, str], str]]:
    """Gives the address of a server that answers everything with a status and a text."""
    started: list[HTTPServer] = []

    def start(status: int, said: str) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write((said if self.path.endswith("search") else "3.9.9").encode())

            do_POST = do_GET  # noqa: N815 - the name that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        started.append(HTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=started[-1].serve_forever, args=(0.01,), daemon=True).start()
        return f"http://me:sesame@127.0.0.1:{started[-1].server_port}"

    yield start
    for each in started:
        each.shutdown()
        each.server_close()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("status", "said", "level", "mend"),
    [
        (200, json.dumps({"experiments": []}), Level.OK, ""),
        (403, "Invalid Host header - possible DNS rebinding attack detected", Level.PROBLEM, "--allowed-hosts"),
        (401, "who are you?", Level.PROBLEM, "MLFLOW_TRACKING_TOKEN"),
        (503, "later", Level.PROBLEM, "sweeper mlflow sync"),
    ],
)
def test_what_a_server_answers(
    place: Place, server: Callable[[int, str], str], status: int, said: str, level: Level, mend: str
):
    found = one(mlflow.tracking(replace(place, tracking_uri=server(status, said))), "mlflow")
    assert found.level is level
    assert mend in found.mend
    assert level is Level.PROBLEM or "there 3.9.9" in found.found


# this machine ---------------------------------------------------------------------------------------------------------


def test_the_device_is_what_the_engine_says_of_it(place: Place):
    found = list(machine.device(place))
    assert [each.check for each in found] == ["device", "compiler", "energy"]
    assert "torch" in found[0].found
    assert found[2].found.startswith("measured" if found[2].level is Level.OK else "not measured: ")


def test_a_gpu_that_pytorch_does_not_see_is_told(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sweeper.engine.find_device", lambda _: "cpu")
    monkeypatch.setattr(machine, "NVIDIA", tmp_path)
    assert level_of(machine.device(replace(place, device="auto")), "device") is Level.NOTE
    assert level_of(machine.device(replace(place, device="cpu")), "device") is Level.OK


def test_without_a_compiler_sweeps_run_but_slower(place: Place, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sweeper.engine.can_compile", lambda _: False)
    found = one(machine.device(place), "compiler")
    assert (found.level, "g++" in found.mend) == (Level.NOTE, True)


class Clock(NamedTuple):
    monotonic: bool
    adjustable: bool
    resolution: float = 1e-9


@pytest.mark.parametrize(
    ("clock", "level"),
    [(Clock(True, False), Level.OK), (Clock(False, False), Level.PROBLEM), (Clock(True, True), Level.PROBLEM)],
)
def test_the_clock_of_costs_must_not_be_settable(
    place: Place, monkeypatch: pytest.MonkeyPatch, clock: Clock, level: Level
):
    monkeypatch.setattr("time.get_clock_info", lambda _: clock)
    assert level_of(machine.monotonic_clock(place), "clock") is level


def test_a_disk_is_written_to_and_left_as_it_was(place: Place):
    found = one(disk.home(place), "disk")
    assert found.level is Level.OK
    assert f"not made yet, in {place.home.parent}" in found.found
    assert list(place.home.parent.iterdir()) == []
    place.home.mkdir(mode=0o755)
    assert level_of(disk.home(place), "disk") is Level.OK
    assert list(place.home.iterdir()) == []


def test_a_folder_that_can_not_be_is_a_problem(place: Place):
    found = one(disk.home(replace(place, home=Path("/dev/null/home"))), "disk")
    assert (found.level, "--home" in found.mend) == (Level.PROBLEM, True)


@pytest.mark.parametrize(("free", "level"), [(1e12, Level.OK), (1e9, Level.NOTE), (1e8, Level.PROBLEM)])
def test_a_disk_without_room_is_told(place: Place, monkeypatch: pytest.MonkeyPatch, free: float, level: Level):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(2e12, 0, free))
    assert level_of(disk.home(place), "disk") is level
    assert level_of(disk.checkpoints(place), "checkpoints") is level


def test_a_home_that_anybody_may_write_to_is_a_problem(place: Place):
    place.home.mkdir()
    place.home.chmod(0o777)
    found = list(disk.home(place))
    assert [each.level for each in found] == [Level.OK, Level.PROBLEM]
    assert found[1].mend == f"chmod o-w {place.home}"


def test_a_bucket_is_written_to_read_and_left_empty(place: Place):
    url = f"memory://{place.home.parent.name}/checkpoints"
    assert level_of(disk.checkpoints(replace(place, checkpoints=url)), "checkpoints") is Level.OK
    assert fsspec.filesystem("memory").find(url) == []


@pytest.mark.parametrize("url", ["nonsense://me:sesame@x/y", f"ftp://me:sesame@{CLOSED}/x"])
def test_a_place_for_checkpoints_that_fails_is_a_problem(place: Place, url: str):
    found = one(disk.checkpoints(replace(place, checkpoints=url)), "checkpoints")
    assert (found.level, "sesame" in found.found) == (Level.PROBLEM, False)


# trust, and all of it -------------------------------------------------------------------------------------------------


def test_what_a_sweep_from_the_store_may_do_is_said(place: Place, tmp_path: Path):
    said = [each.found for each in trust.trust(place)]
    assert "may import no code of yours" in said[0]
    assert said[1] == f"a sweep from the store may read: {tmp_path}"
    asked = replace(place, allowed=("models",), roots=Roots((Path("/"), tmp_path / "gone")))
    found = list(trust.trust(asked))
    assert found[0].found.endswith("may import: models")
    assert [each.level for each in found[1:]] == [Level.NOTE, Level.NOTE, Level.OK]


@pytest.mark.parametrize(("store", "level"), [("sqlite:///x", Level.NOTE), ("postgresql://db/x", Level.PROBLEM)])
def test_a_driver_that_is_needed_and_missing_is_a_problem(
    place: Place, monkeypatch: pytest.MonkeyPatch, store: str, level: Level
):
    def missing(package: str) -> str:
        raise trust.PackageNotFoundError(package)

    monkeypatch.setattr(trust, "version", missing)
    found = {each.mend: each.level for each in trust.extras(replace(place, store=store))}
    assert found == {"pip install 'sweeper[postgres]'": level, "pip install 'sweeper[ray]'": Level.NOTE}


def test_a_check_that_breaks_is_a_problem_and_the_others_go_on(place: Place, monkeypatch: pytest.MonkeyPatch):
    def broken(_: Place) -> Iterator[Finding]:
        raise ImportError("libcuda of postgresql://me:sesame@db is gone")

    monkeypatch.setattr(machine, "device", broken)
    found = list(examine(place))
    (problem,) = [each for each in found if each.level is Level.PROBLEM]
    assert problem.check == "device"
    assert problem.found == "it could not be checked: ImportError: libcuda of postgresql://***@db is gone"
    assert len(found) > len(CHECKS)


@pytest.mark.parametrize(("device", "code"), [("cpu", 0), ("cuda:99", 1)])
def test_the_exit_code_tells_whether_there_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, code: int
):
    monkeypatch.chdir(tmp_path)
    for variable in ("MLFLOW_TRACKING_URI", "SWEEPER_STORE", "SWEEPER_HOME", "SWEEPER_CHECKPOINTS"):
        monkeypatch.delenv(variable, raising=False)
    shown = CliRunner().invoke(app, ["doctor", "--device", device, "--json"])
    assert shown.exit_code == code, shown.output
    told = json.loads(shown.stdout)
    assert told["problems"] == code
    assert {one["check"] for one in told["findings"]} >= {"store", "mlflow", "device", "disk", "data roots"}
    shown = CliRunner().invoke(app, ["doctor", "--device", device])
    assert (shown.exit_code, shown.stdout.count("problem")) == (code, code)
    assert list(tmp_path.iterdir()) == []


def test_the_roles_are_shown_as_they_are():
    shown = CliRunner().invoke(app, ["doctor", "--roles"])
    assert shown.exit_code == 0
    assert "CREATE ROLE sweeper_analyst NOLOGIN;" in shown.stdout
