"""What a user is told of a sweep's budget: before it begins, when it is spent, and how to go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from small import ONE_STEP, TRIALS, Change, device_that_takes, write_sweep
from sweeper.cli.app import app
from sweeper.cli.budget import limit_words, spending_words

pytestmark = pytest.mark.usefixtures("one_thread")

HOW = ("--compile", "off", "--no-mlflow", "--threads", "1", "-n", "1", "--slots", "4")


def budget(seconds: float) -> Change:
    return "replicates: 2", f"replicates: 2, budget: {{device_seconds: {seconds}}}"


def sweeper(folder: Path, command: str, *argv: str) -> Result:
    return CliRunner().invoke(app, [command, *argv, "--home", str(folder / "home")], catch_exceptions=False)


def test_a_sweep_that_spends_its_budget_is_shown_as_far_as_it_came_and_goes_on_with_a_larger_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    device_that_takes(monkeypatch, train=100.0, evaluate=50.0, test=25.0)
    file = str(write_sweep(tmp_path, ONE_STEP, budget(1300)))
    ran = sweeper(tmp_path, "run", file, *HOW)
    assert ran.exit_code == 0, ran.stderr
    assert "budget: at most 1,300 device-seconds\n" in ran.stderr
    told = json.loads(sweeper(tmp_path, "status", "small", "--json").stdout)
    spent, finished = told["budget"]["device_seconds"]["spent"], told["trials"]["finished"]
    assert told["state"] == "budget spent"
    assert 1300 - 150 - 4 * 25 <= spent <= 1300 + 150
    assert 0 < finished < TRIALS
    assert (
        f"budget: {spent:,.0f} of 1,300 device-seconds spent, and no further tick fits into it: {finished} of 20 "
        "trials are finished. What was under way is kept; to go on, raise search.budget in the file and run it again.\n"
    ) in ran.stderr
    assert "best setting per space" in ran.stdout
    shown = sweeper(tmp_path, "status", "small").stdout
    assert f"small: budget spent, {finished}/20 trials" in shown
    assert f"  budget: {spent:,.0f} of 1,300 device-seconds spent\n" in shown
    for command in ("price", "best", "trials"):
        assert sweeper(tmp_path, command, "small").exit_code == 0
    waiting = sweeper(tmp_path, "worker", "--sweep", "small")
    assert (waiting.exit_code, waiting.stderr) == (0, "small: nothing to do (budget spent)\n")

    write_sweep(tmp_path, ONE_STEP, budget(9000))
    assert sweeper(tmp_path, "run", file, *HOW).exit_code == 0
    told = json.loads(sweeper(tmp_path, "status", "small", "--json").stdout)
    assert (told["state"], told["budget"]["device_seconds"]["limit"]) == ("done", 9000.0)
    assert told["budget"]["device_seconds"]["spent"] == pytest.approx(told["cost"]["device_s"])


def test_a_sweep_without_a_budget_says_nothing_of_it(tmp_path: Path):
    file = str(write_sweep(tmp_path, ONE_STEP, ("trials: 5, replicates: 2", "trials: 1, replicates: 1")))
    assert "budget" not in sweeper(tmp_path, "launch", file).stderr
    assert "budget" not in sweeper(tmp_path, "status", "small").stdout
    assert json.loads(sweeper(tmp_path, "status", "small", "--json").stdout)["budget"] is None


def test_budgets_in_words():
    assert limit_words({"device_seconds": None, "joules": None}) is None
    assert limit_words({"device_seconds": 90.0, "joules": None}) == "budget: at most 90 device-seconds"
    both = {"device_seconds": 7200.0, "joules": 1.5e6}
    assert limit_words(both) == "budget: at most 7,200 device-seconds and 1.5 MJ, whichever is spent first"
    told = {"device_seconds": {"limit": 7200.0, "spent": 12.345}, "joules": {"limit": 1.5e6, "spent": 3000.0}}
    assert spending_words(told) == "budget: 12.3 of 7,200 device-seconds and 3.0 kJ of 1.5 MJ spent"
