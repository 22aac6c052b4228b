"""Every command that README.md shows is run here, in its order and in one folder, as a newcomer would."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)(?: (\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SHORT = {"lecture": 3, "diabetes": 3, "digits_tpe": 3, "digits_conv": 3, "digits_head": 3, "digits": 8}
"""Trials per study, in two replicates of a few epochs: each study as it ships but smaller, for CI's time."""
REPLICATES, EPOCHS = 2, 8
INSTALL = "python3 -m venv .venv && .venv/bin/pip install --quiet . && .venv/bin/"


def blocks(language: str, title: str | None = None) -> list[str]:
    found = BLOCK.findall((ROOT / "README.md").read_text())
    return [text for kind, name, text in found if kind == language and (title is None or name == title)]


def commands() -> list[str]:
    """All `sweeper` commands in order, the first one without its installation."""
    lines = [line for text in blocks("sh") for line in text.splitlines()]
    return [line.removeprefix(INSTALL) for line in lines if "pytest" not in line]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(ROOT / "studies", folder / "studies")
    for name, trials in SHORT.items():
        study = folder / "studies" / f"{name}.yaml"
        text = study.read_text()
        for key, number in {"trials": trials, "replicates": REPLICATES, "epochs": EPOCHS}.items():
            text, found = re.subn(rf"\b{key}: \d+", f"{key}: {number}", text)
            assert found == 1, f"{study.name}: {key}"
        study.write_text(text)
    return folder


def environment() -> dict[str, str]:
    unset = ("SWEEPER_HOME", "SWEEPER_STORE", "MLFLOW_TRACKING_URI", "PYTHONPATH")
    bin_folder = str(Path(sys.executable).parent)
    kept = {key: value for key, value in os.environ.items() if key not in unset}
    return kept | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}


def test_the_first_command_installs_and_runs_the_main_job() -> None:
    (first,) = blocks("sh", "first")
    assert first.strip() == f"{INSTALL}sweeper run studies/digits.yaml"


def test_the_second_command_passes_the_tests_and_is_what_ci_runs() -> None:
    (second,) = blocks("sh", "tests")
    assert second.startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert ".venv/bin/pytest" in second
    assert "sh tests" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.slow
def test_every_command_works(folder: Path) -> None:
    for command in commands():
        if command.startswith("sweeper dashboard"):
            check_dashboard(shlex.split(command), folder)
            continue
        done = subprocess.run(command, shell=True, cwd=folder, env=environment(), capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stderr, command
    assert (folder / "digits.svg").read_text().startswith("<svg")
    check_sql(folder)


def check_dashboard(command: list[str], folder: Path) -> None:
    process = subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, start_new_session=True)
    try:
        assert is_answering("http://127.0.0.1:5000/health", within_s=60)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)


def is_answering(url: str, within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            time.sleep(0.5)
    return False


def check_sql(folder: Path) -> None:
    (query,) = blocks("sql")
    store = sqlite3.connect(folder / "sweeper-data" / "ledger.db")
    rows = store.execute(query).fetchall()
    store.close()
    assert len(rows) == 8
    assert all(trials == SHORT["digits"] * REPLICATES and device_s > 0 for _, trials, device_s, *_ in rows)
