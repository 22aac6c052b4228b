"""What `run --on` shows of what workers on a cluster say, and hands to them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.main import get_command

from sweeper.cli.app import app
from sweeper.cli.computing import Compile, Saved
from sweeper.cli.live import HEADLINE
from sweeper.cli.places import Places
from sweeper.cli.placing import Placing, Wanted
from sweeper.cluster import Said

STORE = "postgresql+psycopg://me:secret@db/sweeper"


@pytest.fixture
def placing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Placing:
    monkeypatch.chdir(tmp_path)
    wanted = Wanted(None, "auto", 8, None, Compile.OFF, ["models"], [tmp_path / "studies"])
    ledger: Any = None
    return Placing(ledger, Places.of(Path("home"), STORE), wanted, Saved(None, 60.0), [].append, set())


def test_what_all_workers_say_is_shown_once_and_what_happens_to_them_each_time(
    placing: Placing, capsys: pytest.CaptureFixture[str]
):
    headline = "digits: 3/2560 trials, 0.1 trials/s, ETA 2 h, slots 100% busy, 4 runs on their way to MLflow"
    assert HEADLINE.match(headline)
    logged: list[str] = []
    placing.log = logged.append
    says = [Said("worker 1", "measuring", True), Said("worker 1", headline, True), Said("worker 1", "placed", False)]
    placing._show(says)
    placing._show([Said("worker 2", one.text, one.is_own) for one in says])
    assert capsys.readouterr().err.splitlines() == [
        "worker 1: measuring",
        "worker 1: placed",
        "worker 2: placed",
    ]
    assert len(logged) == 6


def test_workers_are_told_what_the_user_asked_for_in_words_that_they_know(placing: Placing):
    sweep: Any = SimpleNamespace(name="digits")
    program, *words = placing._argv(sweep, 1, 2)
    assert program == "worker"
    parsed = get_command(app).get_command(None, "worker").make_context("worker", words).params  # type: ignore
    told = {name: parsed[name] for name in ("name", "device", "slots", "threads", "allow", "crew", "checkpoint_every")}
    assert told == {
        "name": "digits", "device": "cuda", "slots": 8, "threads": 2, "allow": ["models"], "crew": 1,
        "checkpoint_every": 60.0,
    }  # fmt: skip
    assert "secret" not in " ".join(words)


def test_every_node_finds_the_same_places(placing: Placing, tmp_path: Path):
    assert placing._environment == {
        "SWEEPER_STORE": STORE,
        "SWEEPER_HOME": str(tmp_path / "home"),
        "SWEEPER_CHECKPOINTS": str(tmp_path / "home" / "checkpoints"),
        "SWEEPER_DATA_ROOTS": str(tmp_path / "studies"),
    }
