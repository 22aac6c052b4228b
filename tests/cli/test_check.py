"""`check` and the estimates: what a sweep will take, said before anything is launched, and compared afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from ledger.makers import claimed, cost, launched, plan, proposed, settled, settlement, study_ids
from processes import Shell, shell
from small import TRIALS, write_sweep
from sweeper.cli.look import status
from sweeper.ledger import reads, sweeps, workers
from sweeper.ledger.rows import Meter, Sweep
from sweeper.ledger.schema import WorkerRow
from sweeper.ledger.store import Ledger, sqlite_url

HOW = ("--compile", "off", "--no-mlflow", "--threads", "1", "-n", "1")
PATIENT = ("epochs: 4", "epochs: 40, patience: 3")
PRUNED = ("trials: 5, replicates: 2", "trials: 5, replicates: 2, pruner: {kind: asha, reduction_factor: 2}")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Shell]:
    write_sweep(tmp_path, PATIENT)
    with shell(tmp_path) as opened:
        yield opened


def test_check_says_what_a_sweep_would_take_and_launches_nothing(run: Shell):
    shown = run("check", "small.yaml", *HOW)
    assert shown.code == 0, shown.err
    lines = dict(line.split(": ", 1) for line in shown.out.splitlines() if not line.startswith("estimate"))
    assert lines["sweep"] == "20 trials, 20 fits of at most 40 epochs"
    assert re.fullmatch(r"ready after [0-9.]+ s", lines["machine"])
    assert re.fullmatch(
        r"a pilot of 4 fits: a fit trains [0-9.]+ to [0-9.]+ epochs \(95 % for the mean of random settings\)",
        lines["pilot"],
    )
    for pattern in (
        r"time: [0-9.]+ m?s to [0-9.]+ s, [0-9.]+ to [0-9.]+ trials/s",
        r"device time: [0-9.]+ s to [0-9.]+ s",
        r"energy: (not measured: .*|[0-9.]+ k?J.*)",
        r"peak memory: 0\.[0-9]+ GB in each process, [0-9.]+ GB are free",
    ):
        assert re.search(f"^estimate: {pattern}$", shown.out, re.MULTILINE), (pattern, shown.out)
    assert "2 spaces x 2 replicates x 5 trials = 20 trials" in shown.err
    assert "4 fits at once, eager, 1 thread" in shown.err
    assert not (run.folder / "sweeper-data").exists()


def test_check_tells_programs_the_same(run: Shell):
    write_sweep(run.folder, PATIENT, PRUNED)
    shown = run("check", "small.yaml", *HOW, "--slots", "6", "--json")
    assert shown.code == 0, shown.err
    told = json.loads(shown.out)
    assert (told["sweep"], list(told["checks"])) == ("small", ["sweep", "machine", "pilot", "estimate"])
    assert "from the first rung to no pruning at all" in told["checks"]["pilot"][0]
    assert "at most without any pruning" in told["checks"]["estimate"][0]
    expected = told["estimate"]
    assert (expected["trials"], expected["fits"], expected["epochs"][0]) == (20, 20, 1)
    assert expected["seconds"][0] < expected["seconds"][1]
    assert (expected["setup"]["slots"], expected["setup"]["compiled"]) == (6, False)


def test_what_is_wrong_with_the_file_is_said_before_anything_is_measured(run: Shell):
    write_sweep(run.folder, ("hidden: [6, 5]", "hiden: [6, 5]"))
    shown = run("check", "small.yaml", *HOW)
    assert (shown.code, shown.out) == (2, "")
    assert "hidden" in shown.err


def test_run_keeps_its_estimate_and_status_compares_it_with_what_came_of_it(run: Shell):
    ran = run("run", "small.yaml", *HOW)
    assert ran.code == 0, ran.err
    assert re.search(
        r"^estimate: .* to .* for all 20 trials; the least if every fit ends as early as early stopping allows, the "
        r"most if none does$",
        ran.err,
        re.MULTILINE,
    )
    told = json.loads(run("status", "small", "--json").out)
    assert (told["estimate"]["trials"], told["estimate"]["epochs"]) == (TRIALS, [4, 40])
    assert told["estimate"]["setup"]["slots"] == 4
    actual = told["actual"]
    assert actual["device_s"] == told["cost"]["device_s"]
    assert actual["trials_per_s"] == pytest.approx(TRIALS / actual["seconds"])
    assert actual["seconds"] == pytest.approx(sum(s for kind, s in told["worker_s"].items() if kind != "start"))
    assert re.search(r"^  trials/s: [0-9.]+, expected [0-9.]+ to [0-9.]+$", run("status").out, re.MULTILINE)
    write_sweep(run.folder, PATIENT, ("trials: 5", "trials: 6"))
    extended = run("run", "small.yaml", *HOW)
    assert re.search(r"^estimate: .* for the 4 trials that are left;", extended.err, re.MULTILINE), extended.err
    assert json.loads(run("status", "small", "--json").out)["estimate"]["trials"] == 24


# what status says of it -----------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(sqlite_url(tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], str]:
    def say() -> str:
        status("digits", home=tmp_path, store=None, json=False)
        return capsys.readouterr().out

    return say


def worked(ledger: Ledger, sweep: Sweep, trials: int, began_s: float, **seconds: float) -> None:
    """A worker that began at some second, settled trials of 3 device-seconds each, and took 100 J."""
    with ledger.write() as connection:
        worker = workers.register(connection, "cpu", {"energy": "measured by RAPL"})
        began = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=began_s)
        connection.execute(update(WorkerRow).where(WorkerRow.id == worker).values(started_at=began))
        workers.set_times(connection, worker, sweep.id, seconds)
        workers.set_meter(connection, worker, sweep.id, Meter(4, 4, 100.0))
    with ledger.read() as connection:
        before = len(reads.trials(connection, sweep.id))
    proposed(ledger, study_ids(ledger, sweep)["none", 0], trials, first=before)
    taken = claimed(ledger, sweep, worker, trials)
    settled(ledger, sweep, worker, *(settlement(one, cost=cost(2.0, 1.0, 5.0)) for one in taken))


def expect(ledger: Ledger, sweep: Sweep, **said: Any) -> None:
    known = {"trials": 8, "seconds": [20.0, 40.0], "device_s": [25.0, 50.0], "joules": [400.0, 900.0]}
    with ledger.write() as connection:
        sweeps.set_estimate(connection, sweep.id, known | said)


def test_the_clock_runs_while_anybody_works(ledger: Ledger):
    sweep = launched(ledger, plan(("none",), trials=8, replicates=1))
    worked(ledger, sweep, 2, 0.0, start=60.0, train=8.0, wait=2.0)
    worked(ledger, sweep, 2, 5.0, train=10.0)
    with ledger.read() as connection:
        assert reads.elapsed_s(connection, sweep.id) == pytest.approx(15.0)
    worked(ledger, sweep, 1, 1000.0, train=4.0, idle=1.0)
    with ledger.read() as connection:
        assert reads.elapsed_s(connection, sweep.id) == pytest.approx(20.0)


def test_status_compares_while_a_sweep_runs_and_when_it_is_done(ledger: Ledger, said: Callable[[], str]):
    sweep = launched(ledger, plan(("none",), trials=8, replicates=1))
    expect(ledger, sweep)
    assert "expected" not in said()  # nothing has come of it yet
    worked(ledger, sweep, 4, 0.0, train=12.0, evaluate=4.0)
    words = said()
    assert "  time: 16 s, expected 20 s to 40 s for all 8 trials\n" in words
    assert "  device time: 12 s, expected 25 s to 50 s for all 8 trials\n" in words
    assert "  energy with idle slots: 100 J, expected 400 J to 900 J for all 8 trials\n" in words
    assert "  trials/s: 0.25, expected 0.2 to 0.4\n" in words
    worked(ledger, sweep, 4, 16.0, train=12.0, evaluate=4.0)
    assert "  time: 32 s, expected 20 s to 40 s\n" in said()


def test_what_was_not_measured_is_not_compared(ledger: Ledger, said: Callable[[], str]):
    sweep = launched(ledger, plan(("none",), trials=8, replicates=1))
    worked(ledger, sweep, 4, 0.0, train=12.0)
    assert "expected" not in said()
    expect(ledger, sweep, joules=None)
    words = said()
    assert "expected 20 s to 40 s" in words
    assert "energy with idle slots" not in words
