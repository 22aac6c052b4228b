"""Launch here, work there: sweeps that are handed to the workers of a store, extended, and watched."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from sqlalchemy import select, update
from typer.testing import CliRunner, Result

from processes import shell
from small import TRIALS, Change, Outcome, outcome, run_here, small_workload, write_sweep
from sweeper.cli import watch, work
from sweeper.cli.app import app
from sweeper.errors import SweeperError
from sweeper.ledger import deliveries, sweeps, workers
from sweeper.ledger.schema import AttemptRow, SweepRow, TrialRow, WorkerMeterRow, WorkerRow
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.records import TrialState

OTHER: tuple[Change, ...] = (("name: small", "name: other"), ("  shared: {", "  one: {"), ("  both: {", "  each: {"))
WORK = ("--compile", "off", "--threads", "1", "--slots", "4")

pytestmark = pytest.mark.usefixtures("one_thread")


class Here:
    """The command line in this process, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"

    def __call__(self, *argv: str) -> Result:
        done = self._invoked(*argv)
        assert done.exit_code == 0, (done.output, done.exception)
        return done

    def refusal(self, *argv: str) -> str:
        """What a command says that its user has to mend something for."""
        done = self._invoked(*argv)
        if isinstance(done.exception, SweeperError):  # `main` prints it, and exits with 2
            return str(done.exception)
        assert done.exit_code == 2, (done.output, done.exception)
        return done.output

    def _invoked(self, *argv: str) -> Result:
        return CliRunner().invoke(app, [*argv, "--home", str(self.home)])

    @property
    def ledger(self) -> Ledger:
        return Ledger(sqlite_url(self.home), create=False)

    def sweep(self, name: str = "small") -> Any:
        with self.ledger.read() as connection:
            return sweeps.find(connection, name)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    write_sweep(tmp_path)
    monkeypatch.chdir(tmp_path)
    return Here(tmp_path)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """What both sweeps find when each has a worker to itself."""
    found: Outcome = {}
    for changes in ((), OTHER):
        folder = tmp_path_factory.mktemp("undisturbed")
        found |= outcome(run_here(small_workload(folder, *changes), folder).ledger)
    return found


# launch ---------------------------------------------------------------------------------------------------------------


def test_launching_enters_the_sweep_and_trains_nothing(here: Here):
    assert "small is launched: 20 trials." in here("launch", "small.yaml").stdout
    sweep = here.sweep()
    assert (sweep.state, sweep.numerics, sweep.estimate) == (sweeps.OPEN, {}, None)
    with here.ledger.read() as connection:
        assert connection.scalars(select(WorkerRow.id)).all() == []
        assert deliveries.counts(connection, sweep.id)[1] == 5  # the sweep and its studies, opened
    shown = json.loads(here("status", "small", "--json").stdout)
    assert (shown["state"], shown["trials"]["planned"], shown["now"]["workers"]) == ("open", TRIALS, [])
    assert "nobody works on it. Start a worker: sweeper worker" in here("status").stdout


def test_launching_again_goes_on_extends_or_refuses_as_run_does(here: Here):
    here("launch", "small.yaml")
    first = here.sweep()
    shown = json.loads(here("launch", "small.yaml", "--json").stdout)
    assert shown["trials"] == {"finished": 0, "planned": TRIALS}
    write_sweep(here.folder, ("trials: 5", "trials: 7"))
    assert json.loads(here("launch", "small.yaml", "--json").stdout)["trials"]["planned"] == 28
    assert here.sweep().id == first.id
    write_sweep(here.folder, ("epochs: 4", "epochs: 3"))
    assert "train.epochs: 4 -> 3" in here.refusal("launch", "small.yaml")
    left = [here.home / kind / first.uid for kind in ("checkpoints", "unsettled")]
    for folder in left:
        folder.mkdir(parents=True)
    here("launch", "small.yaml", "--fresh")
    assert here.sweep().id != first.id
    assert not any(folder.exists() for folder in left)


def test_run_works_off_what_was_launched_and_says_how_for_all_that_come_later(here: Here, undisturbed: Outcome):
    here("launch", "small.yaml")
    here("run", "small.yaml", "--no-mlflow", "-n", "1", *WORK)
    assert here.sweep().numerics["compiled"] is False
    found = outcome(here.ledger)
    assert found.items() <= undisturbed.items()
    assert len(found) == TRIALS


# worker ---------------------------------------------------------------------------------------------------------------


def served(ledger: Ledger) -> list[int]:
    """The sweeps that workers served, visit by visit."""
    with ledger.read() as connection:
        return list(connection.scalars(select(WorkerMeterRow.sweep_id).order_by(WorkerMeterRow.worker_id)))


def test_one_worker_serves_two_sweeps_in_turns_and_leaves_in_good_order(tmp_path: Path, undisturbed: Outcome):
    """It waits for the first, takes turns between both, ends on SIGTERM; another finishes them, bit for bit."""
    write_sweep(tmp_path)
    write_sweep(tmp_path, *OTHER, file="other.yaml")
    with shell(tmp_path) as run:
        first = run.start("worker", "--quantum", "0.05", *WORK)
        first.wait_until(lambda: "waiting for sweeps at sqlite:///" in first.err)
        assert [run("launch", file).code for file in ("small.yaml", "other.yaml")] == [0, 0]
        ledger = Ledger(sqlite_url(tmp_path / "sweeper-data"), create=False)
        first.wait_until(lambda: len(served(ledger)) >= 5)
        asked = time.monotonic()
        first.send(signal.SIGTERM)
        assert first.wait().code == 0, first.err
        assert time.monotonic() - asked < 30
        with ledger.read() as connection:
            assert None not in connection.scalars(select(WorkerRow.ended_at)).all()
            assert TrialState.RUNNING not in connection.scalars(select(TrialRow.state)).all()
        visits = served(ledger)
        assert len(set(visits)) == 2
        assert sum(one != other for one, other in zip(visits[-4:], visits[-3:], strict=False)) == 3
        last = run("worker", "--until-done", *WORK)
        assert last.code == 0, last.err
    assert outcome(ledger) == undisturbed
    with ledger.read() as connection:
        states = list(connection.scalars(select(AttemptRow.state)))
    assert states.count(TrialState.COMPLETE) == 2 * TRIALS
    assert set(states) == {TrialState.COMPLETE, workers.RELEASED}
    assert first.err.count("measuring this machine") == 2  # coming back to a sweep takes no calibration


def test_data_that_are_not_those_of_the_launch_are_refused_by_a_worker(here: Here):
    here("launch", "small.yaml")
    with np.load(here.folder / "rows.npz") as rows:
        np.savez(here.folder / "rows.npz", x=rows["x"] + 1e-9, y=rows["y"])
    said = here.refusal("worker", "--until-done", *WORK)
    assert "small can't be served here: this worker does not find what 'small' was launched with:" in said
    assert "the data: the rows that the sweep was launched with are not the ones found now" in said
    assert "the rows that the sweep was launched with" in here.refusal("worker", "--sweep", "small", *WORK)
    with here.ledger.read() as connection:
        assert connection.scalars(select(WorkerRow.id)).all() == []


def test_the_worker_that_chose_later_does_as_the_first_one_chose(here: Here, monkeypatch: pytest.MonkeyPatch):
    """Between the choice of one and its entry another entered its own."""
    here("launch", "small.yaml")
    pin, pinned = sweeps.pin, {"compiled": False, "torch": "1.0", "device": "cpu", "precision": "float32"}

    def late(connection: Any, sweep_id: int, numerics: Any) -> Any:
        connection.execute(update(SweepRow).values(numerics=pinned))
        return pin(connection, sweep_id, numerics)

    monkeypatch.setattr(sweeps, "pin", late)
    said = here("worker", "--sweep", "small", *WORK).output
    assert said.count("measuring this machine") == 2
    assert "note: this sweep was launched with torch 1.0; results differ in their last bits" in said
    assert here.sweep().numerics == pinned


def test_a_worker_delivers_where_it_is_asked_to_and_waits_for_that_at_its_end(
    here: Here, monkeypatch: pytest.MonkeyPatch
):
    commands: list[list[str]] = []
    waited: list[float] = []

    @contextmanager
    def following(argv: list[str], environment: Any, log: Path) -> Iterator[Any]:
        commands.append(argv)
        yield SimpleNamespace(poll=lambda: None, wait=waited.append)

    monkeypatch.setattr(work, "following", following)
    here("launch", "small.yaml")
    here("worker", "--until-done", "--mlflow", *WORK)
    assert commands == [["mlflow", "sync", "small", "--follow"]]
    assert waited == [work.PATIENCE_S]


# more trials ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(here: Here) -> Here:
    """A sweep that is done, its file with a comment."""
    text = (here.folder / "small.yaml").read_text()
    (here.folder / "small.yaml").write_text(text.replace("replicates: 2}", "replicates: 2}  # more later"))
    here("run", "small.yaml", "--no-mlflow", "-n", "1", *WORK)
    return here


def test_resuming_with_more_trials_extends_every_study_and_the_recorded_file(finished: Here):
    before = outcome(finished.ledger)
    finished("resume", "small", "--trials", "+2", "--no-mlflow", "-n", "1", *WORK)
    after = outcome(finished.ledger)
    assert len(after) == 28
    assert before.items() <= after.items()
    sweep = finished.sweep()
    assert "trials: 7, replicates: 2}  # more later" in sweep.file_text
    assert sweep.config["search"]["trials"] == 7
    finished("resume", "small", "--trials", "7", "--no-mlflow", "-n", "1", *WORK)  # it has them already
    assert outcome(finished.ledger) == after


@pytest.mark.parametrize("trials", ["4", "-2", "many", "+", "2.5"])
def test_a_sweep_can_only_grow(here: Here, trials: str):
    here("launch", "small.yaml")
    said = here.refusal("resume", "small", f"--trials={trials}")
    assert f"--trials {trials}: each study of small has 5 trials, and a sweep can only be extended." in said
    assert here.sweep().config["search"]["trials"] == 5


# watching -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def changing(here: Here, monkeypatch: pytest.MonkeyPatch) -> Here:
    """A launched sweep that is stopped after two looks."""
    here("launch", "small.yaml")
    looks = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            here("stop", "small")

    monkeypatch.setattr(watch, "time", type("time", (), {"monotonic": time.monotonic, "sleep": sleep}))
    return here


def test_watching_ends_when_the_named_sweep_is_at_rest_and_prints_a_line_of_json_at_each_look(changing: Here):
    lines = changing("status", "small", "--watch", "--json").stdout.splitlines()
    told = [json.loads(line) for line in lines if line.startswith("[")]
    assert [one["state"] for (one,) in told] == ["open", "open", "stopped"]


def test_in_a_pipe_it_prints_a_block_at_each_look(changing: Here):
    shown = changing("status", "small", "--watch").stdout
    assert (shown.count("small: open, 0/20 trials"), shown.count("small: stopped, 0/20 trials")) == (2, 1)
    assert "\x1b" not in shown


@pytest.mark.parametrize("variable", [None, "NO_COLOR", "CI"])
def test_in_a_terminal_it_is_live_unless_that_is_not_wanted(
    changing: Here, variable: str | None, monkeypatch: pytest.MonkeyPatch
):
    for name in watch.PLAIN:
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "1")
    screen = StringIO()
    monkeypatch.setattr(watch, "output", Console(file=screen, force_terminal=True, width=100, legacy_windows=False))
    changing("status", "small", "--watch")
    assert ("\x1b[2K" in screen.getvalue()) == (variable is None)  # it writes over what it wrote
    assert "small: stopped, 0/20 trials" in screen.getvalue()


def test_ctrl_c_is_how_a_view_is_left(here: Here, monkeypatch: pytest.MonkeyPatch):
    here("launch", "small.yaml")

    def sleep(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "time", type("time", (), {"monotonic": time.monotonic, "sleep": sleep}))
    assert "small: open" in here("status", "--watch").stdout
