"""The commands as a user meets them: what they print, what they refuse, and how they end."""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from processes import ROOT, Shell, Sweeper, shell
from small import TPE, TRIALS, Change, outcome, write_sweep
from sweeper.ledger import reads, sweeps
from sweeper.ledger.store import Ledger, sqlite_url

COMMANDS = (
    "run",
    "launch",
    "resume",
    "worker",
    "stop",
    "check",
    "status",
    "trials",
    "best",
    "price",
    "report",
    "dashboard",
    "schema",
    "mlflow sync",
)
WITH_JSON = ("run", "launch", "resume", "check", "status", "trials", "best", "price", "mlflow sync")
RUN = ("run", "small.yaml", "--compile", "off", "--no-mlflow", "--threads", "1")
ESCAPE = "\x1b"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished sweep, MLflow included, as the real command leaves it."""
    folder = tmp_path_factory.mktemp("finished")
    write_sweep(folder)
    command = [sys.executable, "-m", "sweeper", "run", "small.yaml", "--compile", "off", "--threads", "1"]
    ran = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    (folder / "run.out").write_text(ran.stdout)
    (folder / "run.err").write_text(ran.stderr)
    assert ran.returncode == 0, ran.stderr
    return folder


def environment() -> dict[str, str]:
    """This process's, with nothing that leads a `sweeper` elsewhere."""
    ours = ("MLFLOW_TRACKING_URI", "SWEEPER_HOME", "SWEEPER_STORE", "FORCE_COLOR", "NO_COLOR")
    return {name: value for name, value in os.environ.items() if name not in ours} | {"PYTHONPATH": ROOT}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a folder with the sweep file and no ledger."""
    write_sweep(tmp_path)
    with shell(tmp_path) as opened:
        yield opened


@pytest.fixture
def after(finished: Path) -> Iterator[Shell]:
    """A shell in the finished sweep's folder, for commands that only look."""
    with shell(finished) as opened:
        yield opened


@pytest.fixture
def after_copy(finished: Path, tmp_path: Path) -> Iterator[Shell]:
    """A shell in a copy of the finished sweep's folder."""
    with shell(shutil.copytree(finished, tmp_path / "copy")) as opened:
        yield opened


def ledger_of(folder: Path) -> Ledger:
    return Ledger(sqlite_url(folder / "sweeper-data"), create=False)


def printed(sweeper: Sweeper) -> Any:
    assert sweeper.code == 0, sweeper.err
    return json.loads(sweeper.out)


def refusal(sweeper: Sweeper) -> str:
    """The message of a command that the user can mend."""
    assert sweeper.code == 2, (sweeper.code, sweeper.err)
    assert "Traceback" not in sweeper.err
    assert sweeper.out == ""
    return sweeper.err


# help -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(run: Shell, command: str):
    shown = run(*command.split(), "--help")
    assert shown.code == 0
    (example,) = re.findall(r"Example: sweeper (.*)", shown.out)
    assert example.startswith(command)
    for option in re.findall(r"--[a-z]+", example):
        assert option in shown.out.partition("Example:")[0]


@pytest.mark.parametrize("command", COMMANDS)
def test_what_prints_data_prints_json_too(run: Shell, command: str):
    assert ("--json" in run(*command.split(), "--help").out) == (command in WITH_JSON)


def test_without_a_command_the_commands_are_shown(run: Shell):
    shown = run("--help").out
    assert "Start here: sweeper run studies/digits.yaml" in shown
    assert all(re.search(rf"^ +{command.split()[0]} ", shown, re.MULTILINE) for command in COMMANDS)


# run ------------------------------------------------------------------------------------------------------------------


def test_run_says_what_it_will_search_and_shows_what_came_of_it(finished: Path):
    out, err = (finished / "run.out").read_text(), (finished / "run.err").read_text()
    assert "2 spaces x 2 replicates x 5 trials = 20 trials" in err
    assert "both: 5 hyperparameters: keep_prob_1, keep_prob_2, lambda_1, lambda_2, lambda_3" in err
    assert re.search(r"^4 fits at once, eager, 1 thread: [0-9.]+ [mu]s a step of one fit$", err, re.MULTILINE)
    assert re.search(r"^estimate: [0-9.]+ s for all 20 trials$", err, re.MULTILINE)
    assert "MLflow has all 25 runs and the report" in err
    assert "best setting per space" in out
    assert re.search(r"^shared +0\.\d+ .*input 1\.0 \| 6 units 0\.\d+", out, re.MULTILINE)
    assert re.search(r"^shared -> both +4 ", out, re.MULTILINE)
    assert out.endswith("go on with:\n  sweeper price small\n  sweeper dashboard\n")


def test_a_pipe_gets_no_escape_codes(finished: Path):
    assert ESCAPE not in (finished / "run.out").read_text() + (finished / "run.err").read_text()


def test_running_a_finished_sweep_again_adds_nothing_and_shows_the_same(after_copy: Shell):
    before = outcome(ledger_of(after_copy.folder))
    again = after_copy(*RUN)
    assert again.code == 0
    assert again.out == (after_copy.folder / "run.out").read_text()
    assert outcome(ledger_of(after_copy.folder)) == before


def test_run_prints_nothing_but_json_if_asked_to(after_copy: Shell):
    shown = printed(after_copy(*RUN, "--json"))
    assert (shown["sweep"], shown["mode"], set(shown["best"])) == ("small", "measurement", {"shared", "both"})
    assert shown["prices"][0]["edge"] == ["shared", "both"]


def test_a_home_elsewhere_is_repeated_in_what_to_do_next(run: Shell):
    ran = run(*RUN, "--home", "elsewhere")
    assert "sweeper price small --home elsewhere" in ran.out
    assert printed(run("status", "small", "--home", "elsewhere", "--json"))["trials"]["finished"] == TRIALS
    assert not (run.folder / "sweeper-data").exists()


@pytest.mark.parametrize("name", ["SWEEPER_HOME", "SWEEPER_STORE"])
def test_the_environment_says_where_things_are(run: Shell, name: str):
    run.environment[name] = {"SWEEPER_HOME": "there", "SWEEPER_STORE": f"sqlite:///{run.folder}/there/ledger.db"}[name]
    assert run(*RUN).code == 0
    assert printed(run("status", "--json"))[0]["trials"]["finished"] == TRIALS
    assert (run.folder / "there" / "ledger.db").exists()


def test_tpe_runs_in_product_mode_and_shows_no_prices(run: Shell):
    write_sweep(run.folder, TPE)
    ran = run(*RUN)
    assert ran.code == 0
    assert "prices are measured by random search without pruning" in ran.out
    assert "20 trials (product mode, sampler tpe)" in ran.err


# looking --------------------------------------------------------------------------------------------------------------


def test_status_tells_how_far_and_what_it_cost(after: Shell):
    shown = printed(after("status", "small", "--json"))
    assert (shown["sweep"], shown["state"]) == ("small", "done")
    assert shown["trials"] == {"finished": TRIALS, "planned": TRIALS, "failed": 0, "pruned": 0}
    assert [(space["space"], space["complete"]) for space in shown["spaces"]] == [("shared", 10), ("both", 10)]
    assert shown["mlflow"] == {"delivered": 25, "waiting": 0, "parked": 0}
    with ledger_of(after.folder).read() as connection:
        sweep = sweeps.find(connection, "small")
        assert shown["cost"]["device_s"] == reads.total_cost(connection, sweep.id).device_s
        assert shown["worker_s"] == reads.worker_times(connection, sweep.id)
    (again,) = printed(after("status", "--json"))
    assert {**again, "now": None} == {**shown, "now": None}
    assert (shown["now"]["workers"], shown["now"]["stale"], shown["now"]["eta_s"]) == ([], [], None)
    assert shown["now"]["best_validation_loss"] == min(space["best_validation_loss"] for space in shown["spaces"])
    words = after("status").out
    assert "small: done, 20/20 trials, MLflow has 25 runs" in words
    assert "both: 10/10 trials, best validation loss 0." in words
    assert "occupancy: 100.0% of all slot-steps had a fit, drain included" in words  # 20 trials in 4 slots, all as long
    assert re.search(r"energy: (not measured: |[0-9.]+ k?J )", words)


def test_trials_shows_the_best_first_and_all_of_them_as_json(after: Shell):
    expected = outcome(ledger_of(after.folder))
    shown = printed(after("trials", "small", "--json"))
    assert {(t["space"], t["replicate"], t["number"]) for t in shown} == set(expected)
    for trial in shown:
        kept = expected[trial["space"], trial["replicate"], trial["number"]]
        assert trial["validation_loss"] == kept["validation_loss"]
        assert (trial["params"], trial["setting"]["keep_prob"]) == (kept["params"], kept["keep_prob"])
    words = after("trials", "small", "--limit", "3").out
    losses = [float(loss) for loss in re.findall(r"COMPLETE +(\d\.\d+)", words)]
    assert losses == [round(t["validation_loss"], 4) for t in sorted(shown, key=lambda t: t["validation_loss"])[:3]]
    assert "... and 17 more; --limit shows more, --json all" in words


def test_trials_of_one_space(after: Shell):
    shown = printed(after("trials", "small", "--space", "both", "--json"))
    assert {trial["space"] for trial in shown} == {"both"}
    assert "no trials in a space 'bot'. Its spaces: shared, both." in refusal(
        after("trials", "small", "--space", "bot")
    )


def test_best_is_the_lowest_validation_loss_of_each_space(after: Shell):
    shown = printed(after("best", "small", "--json"))
    trials = outcome(ledger_of(after.folder))
    for space in ("shared", "both"):
        lowest = min(t["validation_loss"] for place, t in trials.items() if place[0] == space)
        assert shown[space]["validation_loss"] == lowest
    only = printed(after("best", "small", "--space", "both", "--json"))
    assert only == {"both": shown["both"]}
    assert "no finished trial in a space 'none'" in refusal(after("best", "small", "--space", "none"))


def test_price_is_a_table_a_sentence_and_json(after: Shell):
    (edge,) = printed(after("price", "small", "--json"))["prices"]
    assert (edge["edge"], edge["extra"]) == (["shared", "both"], 4)
    words = after("price", "small").out
    assert edge["sentence"] in words
    assert edge["sentence"] in (after.folder / "run.out").read_text()  # `run` ends with the short version


@pytest.mark.parametrize("suffix", ["svg", "html"])
def test_price_draws_the_curves(after: Shell, tmp_path: Path, suffix: str):
    path = tmp_path / f"curves.{suffix}"
    drawn = after("price", "small", "--plot", str(path))
    assert (drawn.code, f"drawn: {path}" in drawn.err) == (0, True)
    assert "<svg" in path.read_text() or "<html" in path.read_text()


def test_schema_is_what_editors_complete_with(run: Shell):
    schema = printed(run("schema"))
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"name", "data", "model", "train", "search", "spaces"} <= schema["properties"].keys()


def test_sync_tells_how_many_runs_mlflow_has(after_copy: Shell):
    shown = printed(after_copy("mlflow", "sync", "--json"))
    assert shown == {"small": {"delivered": 25, "waiting": 0, "parked": 0}}


# refusing -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(("{kind: mlp,", "{kind: mlp"), "small.yaml:3: not valid YAML", id="broken YAML"),
        pytest.param(("epochs: 4", "epocks: 4"), "small.yaml:4: ", id="an unknown key"),
        pytest.param(("epochs: 4", "epocks: 4"), "epochs", id="the nearest known key"),
        pytest.param(("epochs: 4", "epochs: four"), "small.yaml:4: ", id="a wrong type"),
        pytest.param(("[0.2, 1.0]", "[0.2, 1.5]"), "small.yaml:6: ", id="an impossible range"),
        pytest.param(("npz:rows.npz", "npz:raws.npz"), "Did you mean rows.npz?", id="data that are not there"),
    ],
)
def test_a_sweep_file_that_can_not_be_names_its_line(run: Shell, change: Change, says: str):
    write_sweep(run.folder, change)
    assert says in refusal(run(*RUN))


def test_a_missing_file_names_the_nearest(run: Shell):
    message = refusal(run("run", "smal.yaml"))
    assert message == "error: smal.yaml: there is no such file. Did you mean small.yaml?\n"


@pytest.mark.parametrize("command", ["resume", "stop", "status", "trials", "best", "price", "mlflow sync"])
def test_where_nothing_was_launched_yet_that_is_said(run: Shell, command: str):
    message = refusal(run(*command.split(), "small"))
    assert "there is no ledger at" in message
    assert "Launch a sweep first: sweeper run" in message
    assert not (run.folder / "sweeper-data").exists()


@pytest.mark.parametrize("command", ["resume", "stop", "status", "trials", "best", "price", "mlflow sync"])
def test_an_unknown_sweep_names_the_nearest(after: Shell, command: str):
    message = refusal(after(*command.split(), "smal"))
    assert "there is no sweep named 'smal'. Did you mean 'small'? Known sweeps: small." in message


def test_a_changed_sweep_says_what_changed_and_the_ways_out(after_copy: Shell):
    write_sweep(after_copy.folder, ("epochs: 4", "epochs: 3"), ("trials: 5", "trials: 4"))
    message = refusal(after_copy(*RUN))
    assert "train.epochs: 4 -> 3" in message
    assert "search.trials: 5 -> 4, but a sweep can only be extended" in message
    assert "another name, or pass --fresh" in message
    assert after_copy(*RUN, "--fresh").code == 0
    assert printed(after_copy("status", "small", "--json"))["trials"]["planned"] == 16


def test_changed_data_are_another_sweep(after_copy: Shell):
    with np.load(after_copy.folder / "rows.npz") as rows:
        np.savez(after_copy.folder / "rows.npz", x=rows["x"] + 1e-9, y=rows["y"])
    assert "the data: the rows that the sweep was launched with are not the ones found now" in refusal(after_copy(*RUN))


def test_an_extended_sweep_keeps_what_it_has(after_copy: Shell):
    before = outcome(ledger_of(after_copy.folder))
    write_sweep(after_copy.folder, ("trials: 5, replicates: 2", "trials: 6, replicates: 3"))
    assert after_copy(*RUN).code == 0
    extended = outcome(ledger_of(after_copy.folder))
    assert len(extended) == 2 * 6 * 3
    assert before.items() <= extended.items()


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        pytest.param((*RUN, "--device", "warp"), "warp", id="a device that is none"),
        pytest.param((*RUN, "--device", "cuda:7"), "cuda:7", id="a device that is not there"),
        pytest.param((*RUN, "--slots", "0"), "--slots", id="no slots"),
        pytest.param((*RUN, "--store", "warp://x"), "warp://x", id="a store that is none"),
        pytest.param((*RUN, "--home", "small.yaml"), "--home", id="a home that is a file"),
        pytest.param(("trials",), "Missing argument 'name'", id="no name"),
        pytest.param(("runn", "small.yaml"), "No such command 'runn'", id="an unknown command"),
        pytest.param((*RUN, "--frehs"), "--fresh", id="an unknown option"),
    ],
)
def test_a_slip_on_the_command_line_is_one_message(run: Shell, argv: tuple[str, ...], says: str):
    assert says in refusal(run(*argv))


def test_a_plot_of_an_unknown_kind_is_refused(after: Shell, tmp_path: Path):
    assert "can be written as svg, png, html, not as 'doc'" in refusal(
        after("price", "small", "--plot", str(tmp_path / "curves.doc"))
    )


# terminals ------------------------------------------------------------------------------------------------------------


class Terminal:
    """A terminal of 100 columns, and what was written on it."""

    def __init__(self) -> None:
        self._ours, self._theirs = pty.openpty()
        self.path = os.ttyname(self._theirs)
        self._read = bytearray()
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def _follow(self) -> None:
        try:
            while piece := os.read(self._ours, 4096):
                self._read += piece
        except OSError:  # how a terminal says that all have hung up
            return

    def text(self) -> str:
        """Everything, once nobody writes any more."""
        os.close(self._theirs)
        self._reader.join(10)
        os.close(self._ours)
        return self._read.decode()


def on_a_terminal(run: Shell, *argv: str, **environment: str) -> tuple[int | None, str]:
    run.environment.update({"TERM": "xterm-256color", "COLUMNS": "100", **environment})
    terminal = Terminal()
    code = run.start(*argv, terminal=terminal.path).wait().code
    return code, terminal.text()


COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")


def test_a_terminal_shows_progress_live_and_keeps_the_results(run: Shell):
    code, text = on_a_terminal(run, *RUN)
    assert code == 0
    assert re.search(r"small: \d+/20 trials, \d+\.\d trials/s", text)
    assert COLOUR.search(text)
    assert f"{ESCAPE}[?25h" in text  # the cursor is shown again
    assert "best setting per space" in text


def test_no_color_is_honoured(run: Shell):
    code, text = on_a_terminal(run, *RUN, NO_COLOR="1")
    assert code == 0
    assert "best setting per space" in text
    assert not COLOUR.search(text)


def test_an_error_on_a_terminal_is_one_plain_message(run: Shell):
    code, text = on_a_terminal(run, "run", "smal.yaml")
    assert (code, text) == (2, "error: smal.yaml: there is no such file. Did you mean small.yaml?\r\n")


# the dashboard --------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(port: int) -> bool:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_dashboard_serves_on_loopback_until_it_is_ended(after: Shell, number: signal.Signals):
    port = free_port()
    dashboard = after.start("dashboard", "--port", str(port))
    dashboard.wait_until(lambda: answers(port))
    family = psutil.Process(dashboard.pid).children(recursive=True)
    assert family
    dashboard.send(number)
    assert dashboard.wait().code == 0
    assert not answers(port)
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert dashboard.err.startswith(f"MLflow's pages are at http://127.0.0.1:{port} (Ctrl-C ends them)\n")
    assert "Traceback" not in dashboard.out + dashboard.err


def test_a_port_that_is_taken_is_refused_before_anything_starts(after: Shell):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"port {port} of this machine can't be used" in refusal(after("dashboard", "--port", str(port)))


def test_a_server_shows_its_own_dashboard(run: Shell):
    run.environment["MLFLOW_TRACKING_URI"] = "http://user:secret@127.0.0.1:1"
    message = refusal(run("dashboard"))
    assert "has a dashboard of its own" in message
    assert "secret" not in message
