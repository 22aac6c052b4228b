"""`sweeper price`: its tables and numbers, the placebo of a real sweep, and accounts that balance."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from sqlalchemy import delete, func, select, update
from typer.testing import CliRunner, Result

from small import Change, Ran, outcome, run_here, small_workload
from sweeper.cli.app import app
from sweeper.cli.pricing import WIDTH, Priced, show_cells
from sweeper.errors import LedgerError
from sweeper.findings import Accounts, Decisive, gather
from sweeper.ledger import reads
from sweeper.ledger.schema import AttemptRow, WorkerRow
from sweeper.ledger.store import Ledger
from sweeper.price import CURRENCIES, Mode

PLACEBO: Change = ("spaces:", "spaces:\n  placebo: {keep_prob: shared, placebo: 3}")
SIZE: Change = ("trials: 5, replicates: 2", "trials: 16, replicates: 3")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A finished sweep of three spaces in the folder that its ledger lies in."""
    folder = tmp_path_factory.mktemp("priced")
    return run_here(small_workload(folder, PLACEBO, SIZE), folder / "home", slots=16)


def price(ran: Ran, *argv: str) -> Result:
    return CliRunner().invoke(app, ["price", "small", "--store", ran.ledger.url, *argv], catch_exceptions=False)


def column(ran: Ran, of: Any) -> list[Any]:
    with ran.ledger.read() as connection:
        return list(connection.scalars(select(of)))


def printed(ran: Ran, *argv: str) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(price(ran, *argv, "--json").stdout, parse_constant=refuse)


def test_a_placebo_finds_what_its_space_finds_bit_for_bit(ran: Ran):
    found = outcome(ran.ledger)
    pairs = [(found["shared", r, n], found["placebo", r, n]) for r in range(3) for n in range(16)]
    for shared, placebo in pairs:
        assert {f"placebo_{i}" for i in (1, 2, 3)} == placebo["params"].keys() - shared["params"].keys()
        for name in ("keep_prob", "lambda_", "validation_loss", "test_loss", "best_epoch"):
            assert shared[name] == placebo[name]


def test_its_price_is_one_and_it_buys_nothing(ran: Ran):
    edges = {tuple(edge["edge"]): edge for edge in printed(ran)["prices"]}
    placebo = edges["shared", "placebo"]
    assert (placebo["extra"], placebo["placebo"]) == (3, True)
    assert placebo["buys"] == {"value": 0, "lower": 0, "upper": 0}
    assert [at["trials"]["value"] for at in placebo["prices"]] == [1, 1, 1]
    assert [at["n0"] for at in placebo["prices"]] == [1, 2, 4]  # B = 8


def test_every_table_fits_a_hundred_columns_and_every_edge_has_its_sentence(ran: Ran):
    shown = price(ran, "--importance").stdout
    sentences = [edge["sentence"] for edge in printed(ran)["prices"]]
    lines = [line.rstrip() for line in shown.splitlines()]
    assert {"shared -> both", "shared -> placebo"} <= {line[:17].rstrip() for line in lines}
    assert all(sentence in lines for sentence in sentences)
    prose = ("On this workload", "joules: ", "device-seconds", "small, ")
    assert max(len(line) for line in lines if not line.startswith(prose)) <= WIDTH
    assert "measurement mode" in lines[0]
    assert "R = 3 replicates: no claim is supported; at least 10 are needed." in lines
    for column in ("p (Holm)", "break-even trials", "ERT ratio", "selection gap", "overtuning", "that matter"):
        assert column in shown


def test_the_json_says_all_that_the_tables_say(ran: Ran):
    shown = printed(ran)
    assert (shown["sweep"], shown["mode"], shown["supports_claim"]) == ("small", "measurement", False)
    assert [space["space"] for space in shown["spaces"]] == ["placebo", "shared", "both"]
    for edge in shown["prices"]:
        assert {"buys", "adjusted_p", "break_even", "running_times", "verdict", "sentence", "prices"} <= edge.keys()
        for at in edge["prices"]:
            assert {"device_s", "flops", "suggest_s"} <= at["costs"].keys() <= CURRENCIES.keys()


def test_money_is_device_time_at_its_price(ran: Ran):
    shown = printed(ran, "--device-hour", "7.2")
    for edge in shown["prices"]:
        for costs in (at["costs"] for at in edge["prices"]):
            assert costs["money"]["price"] == pytest.approx(costs["device_s"]["price"])
            assert costs["money"]["larger"] == pytest.approx(costs["device_s"]["larger"] * 7.2 / 3600)
    assert "money a trial" in price(ran, "--device-hour", "7.2").stdout
    assert "money" not in price(ran).stdout


def test_edges_are_those_that_were_asked_for(ran: Ran):
    shown = printed(ran, "--edges", "placebo:both")
    assert [edge["edge"] for edge in shown["prices"]] == [["placebo", "both"]]
    assert shown["comparisons"] == 1
    both = printed(ran, "--edges", "placebo:both", "--edges", "shared:both", "--edges", "shared:both")
    assert ([edge["edge"][0] for edge in both["prices"]], both["comparisons"]) == (["placebo", "shared"], 2)


@pytest.mark.parametrize("edge", ["shared", "shared:", "shared:shared", "a:b:c"])
def test_what_is_no_edge_is_refused(ran: Ran, edge: str):
    refused = price(ran, "--edges", edge)
    assert refused.exit_code == 2
    assert "names no edge" in refused.stderr


def test_the_largest_space_s_hyperparameters_are_ranked(ran: Ran):
    decisive = Decisive.of(ran.ledger, ran.sweep)
    assert decisive.space == "both"
    names = {"keep_prob_1", "keep_prob_2", "lambda_1", "lambda_2", "lambda_3"}
    assert {one.parameter for one in decisive.importances} == names
    shown = printed(ran, "--importance", "--edges", "shared:both")
    assert shown["importance"]["space"] == "both"


def test_columns_are_packed_without_losing_one(capsys: pytest.CaptureFixture[str]):
    columns = [f"column number {i} [x]" for i in range(12)]
    rows = [{"key": name, **{column: f"{name} {i} [0, 1]" for i, column in enumerate(columns)}} for name in "ab"]
    rows = [row | {"none": "not measured"} for row in rows]
    assert show_cells("title", rows, ("key",)) == ["none"]
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= WIDTH
    for column in columns:
        assert shown.count(column) == 1
    assert all(shown.count(f"{name} {i} [0, 1]") == 1 for name in "ab" for i in range(12))
    assert shown.count("title") == 1


def test_the_report_tells_what_price_tells(ran: Ran):
    facts = gather(ran.ledger, ran.sweep)
    printed_, counted = price(ran, "--importance").stdout, price(ran, "--costs").stdout
    assert facts.importance.caption in printed_
    assert [cell for row in facts.importance.rows for cell in row.values() if cell not in printed_] == []
    assert len(facts.importance.rows) == 5
    assert [sheet.caption for sheet in facts.accounts] == ["by space", "by how attempts ended", "by kind"]
    told = [cell for sheet in facts.accounts for row in sheet.rows for cell in row.values() if cell != "not measured"]
    assert [cell for cell in told if cell not in counted] == []
    assert facts.balance == counted.splitlines()[-1]


# accounts -------------------------------------------------------------------------------------------------------------

PRUNING: Change = ("trials: 5, replicates: 2", "trials: 12, replicates: 2, pruner: {kind: median, n_startup_trials: 2}")
SOME_DIVERGE: tuple[Change, ...] = (
    ("learning_rate: 1.0e-2", "optimizer: sgd, learning_rate: 1.0e-1"),
    ("epochs: 4", "epochs: 12"),
    ("lambda: [1.0e-3, 30.0]", "lambda: [1.0e-3, 1.0e+6]"),
)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, float]:
    """A sweep with failed, pruned and interrupted trials, and the seconds by this test's own clock that it took."""
    folder, began = tmp_path_factory.mktemp("troubled"), time.perf_counter()
    workload = small_workload(folder, PRUNING, *SOME_DIVERGE)
    run_here(workload, folder / "home", stop_after=5)
    ran = run_here(workload, folder / "home")
    return ran, time.perf_counter() - began


def test_the_accounts_of_a_troubled_sweep_balance(troubled: tuple[Ran, float]):
    ran, clock_s = troubled
    accounts = Accounts.of(ran.ledger, "small")
    assert {"COMPLETE", "FAIL", "PRUNED", "RELEASED"} <= accounts.by("state").keys()
    assert all(one.cost.device_s > 0 for rows in accounts.by("state").values() for one in rows)
    device_s = accounts.kinds["training"] + accounts.kinds["evaluation"]
    assert device_s == pytest.approx(accounts.worker_s["train"] + accounts.worker_s["evaluate"], rel=0.01)
    assert accounts.accounted_s == pytest.approx(accounts.held_s, rel=0.01)
    assert accounts.is_balanced
    assert 0 < accounts.held_s <= clock_s
    assert accounts.workers == 2
    assert min(accounts.unassigned.values()) >= 0  # on a CPU nothing hides behind the device


class CrashError(Exception):
    """Whatever may end a worker in the middle of a turn."""


@pytest.fixture(scope="module")
def unlucky(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A sweep whose first worker crashed, and whose second was taken for dead while another did its trials."""
    folder = tmp_path_factory.mktemp("unlucky")
    workload, home = small_workload(folder, ("epochs: 4", "epochs: 12")), folder / "home"

    def crash(ledger: Ledger) -> None:
        raise CrashError

    def sleep_too_long(ledger: Ledger) -> None:
        with ledger.write() as connection:
            connection.execute(update(WorkerRow).values(lease_until=0.0))
        run_here(workload, home, stop_after=20)

    with pytest.raises(CrashError):
        run_here(workload, home, at_turn={6: crash})
    with pytest.raises(LedgerError, match="longer than its lease"):
        run_here(workload, home, at_turn={12: sleep_too_long})  # before its first four trials end
    return run_here(workload, home)


def test_the_accounts_balance_where_workers_crash_and_are_taken_for_dead(unlucky: Ran):
    accounts = Accounts.of(unlucky.ledger, "small")
    assert {"COMPLETE", "LOST", "SUPERSEDED"} <= accounts.by("state").keys()
    assert all(one.cost.device_s > 0 for rows in accounts.by("state").values() for one in rows)
    device_s = accounts.kinds["training"] + accounts.kinds["evaluation"]
    assert device_s == pytest.approx(accounts.worker_s["train"] + accounts.worker_s["evaluate"], rel=0.01)
    assert accounts.is_balanced
    assert accounts.workers == 4


def test_what_fits_would_take_alone_stands_beside_what_they_took(ran: Ran):
    accounts = Accounts.of(ran.ledger, "small")
    [details] = column(ran, WorkerRow.details)
    alone = sum(one.solo_s or 0.0 for one in accounts.charged)
    steps = sum(one.cost.steps for one in accounts.charged)
    assert alone == pytest.approx(steps * details["solo_step_s"])
    assert alone > accounts.kinds["training"] + accounts.kinds["evaluation"]  # 16 at once are quicker
    told = accounts.as_json()
    assert sum(space["solo_s"] for space in told["spaces"].values()) == pytest.approx(alone)
    assert f"{told['spaces']['both']['solo_s']:.2f}" in price(ran, "--costs").stdout
    [edge] = [edge for edge in printed(ran)["prices"] if edge["edge"] == ["shared", "both"]]
    trials = [trial for studies in Priced.of(ran.ledger, "small").studies["both"].values() for trial in studies]
    larger = sum(trial.solo_s or 0.0 for trial in trials) / len(trials)
    assert edge["prices"][0]["costs"]["solo_s"]["larger"] == pytest.approx(larger)


def test_without_a_calibration_nothing_is_said_of_fits_alone(troubled: tuple[Ran, float]):
    ran, _ = troubled
    with ran.ledger.write() as connection:
        [(first, details), *_] = connection.execute(select(WorkerRow.id, WorkerRow.details).order_by(WorkerRow.id))
        changed = update(WorkerRow).where(WorkerRow.id == first)
        connection.execute(changed.values(details=details | {"solo_step_s": None}))
    assert any(one.solo_s is None for one in Accounts.of(ran.ledger, "small").charged)
    assert "not measured" in price(ran, "--costs").stdout
    with ran.ledger.write() as connection:
        connection.execute(changed.values(details=details))


def test_no_attempt_is_left_out(troubled: tuple[Ran, float]):
    ran, _ = troubled
    accounts = Accounts.of(ran.ledger, "small")
    with ran.ledger.read() as connection:
        total = reads.total_cost(connection, ran.sweep.id)
        attempts = connection.scalar(select(func.count()).select_from(AttemptRow))
    assert sum(one.attempts for one in accounts.charged) == attempts
    told = accounts.as_json()
    for kind in ("spaces", "attempts"):
        assert sum(row["attempts"] for row in told[kind].values()) == attempts
        assert sum(row["training"] for row in told[kind].values()) == pytest.approx(total.train_s)
        assert sum(row["cost"]["flops"] for row in told[kind].values()) == total.flops
    assert sum(told["kinds_s"].values()) == pytest.approx(told["balance"]["accounted_s"])


def test_the_balance_is_the_last_line(troubled: tuple[Ran, float]):
    ran, _ = troubled
    shown = price(ran, "--costs").stdout
    assert shown.splitlines()[-1].startswith("balanced: ")
    assert "small (product mode)" in shown
    assert max(len(line.rstrip()) for line in shown.splitlines()) <= WIDTH + 20
    assert printed(ran, "--costs")["balance"]["balanced"] is True


def test_a_forgotten_attempt_shows(troubled: tuple[Ran, float]):
    """Last, for it takes rows out of the ledger."""
    ran, _ = troubled
    with ran.ledger.write() as connection:
        connection.execute(delete(AttemptRow).where(AttemptRow.state.in_(["PRUNED", "FAIL", "RELEASED"])))
    accounts = Accounts.of(ran.ledger, "small")
    lost = accounts.worker_s["train"] - accounts.kinds["training"]
    assert lost > 0
    assert accounts.held_s - accounts.accounted_s >= lost


def test_in_product_mode_that_is_said_with_every_price(troubled: tuple[Ran, float]):
    ran, _ = troubled
    priced = Priced.of(ran.ledger, "small")
    assert priced.mode is Mode.PRODUCT
    shown = price(ran).stdout
    assert "product mode: trials depend on each other" in shown.splitlines()[0]
    assert all("(product mode)" in edge["sentence"] for edge in printed(ran)["prices"])
