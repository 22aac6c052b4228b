"""`sweeper price --masks`, and `--replicate`: what a real sweep with a masked space shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from small import TPE, Change, Ran, outcome, run_here, small_workload
from sweeper.cli.app import app
from sweeper.cli.pricing import WIDTH
from sweeper.errors import PriceError

MASKED: Change = ("  both: {keep_prob: per_layer, lambda: per_layer}\n", "  masked: {keep_prob: masked}\n")
SIZE: Change = ("trials: 5, replicates: 2", "trials: 16, replicates: 3")
START: Change = ("{keep_prob: masked}", "{keep_prob: masked, start: [{keep_prob: 0.5}]}")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("masked")
    return run_here(small_workload(folder, MASKED, SIZE, START), folder / "home", slots=16)


def price(ran: Ran, *argv: str) -> Result:
    return CliRunner().invoke(app, ["price", "small", "--store", ran.ledger.url, *argv], catch_exceptions=False)


def test_masks_are_counted_as_they_were_drawn(ran: Ran):
    """The start is no draw; two hidden layers have four masks."""
    (told,) = json.loads(price(ran, "--json").stdout)["masks"]
    assert told["edge"] == ["shared", "masked"]
    trials = {key: row for key, row in outcome(ran.ledger).items() if key[0] == "masked" and row["origin"] == "sampled"}
    assert told["trials"] == len(trials) == 3 * 15
    drawn: dict[tuple[str, ...], int] = {}
    for row in trials.values():
        off = tuple(name for name in ("drop_1", "drop_2") if not row["params"][name])
        drawn[off] = drawn.get(off, 0) + 1
    assert {tuple(mask["off"]): mask["trials"] for mask in told["masks"]} == drawn
    assert [switch["switch"] for switch in told["switches"]] == ["drop_1", "drop_2"]
    assert told["sentence"].endswith("(R = 3).")


def test_the_tables_fit_and_say_what_the_json_says(ran: Ran):
    shown = price(ran, "--masks").stdout
    (told,) = json.loads(price(ran, "--masks", "--json").stdout)["masks"]
    assert told["sentence"] in shown.splitlines()
    lines = shown[shown.index("masks of masked") :].splitlines()
    assert max(len(line) for line in lines if line != told["sentence"]) <= WIDTH
    for words in ("nothing", "everything", "drop_1", "share with it off", "off minus on"):
        assert words in shown
    assert "masks of masked" not in price(ran).stdout


def test_a_mask_s_price_is_told_per_bit(ran: Ran):
    (edge,) = json.loads(price(ran, "--json").stdout)["prices"]
    assert (edge["extra"], edge["bits"]) == (2, 2)
    assert edge["prices"][0]["per_bit"] == edge["prices"][0]["per_hyperparameter"]
    assert edge["warm"]["first"] + edge["warm"]["rest"] == edge["budget"]
    shown = price(ran).stdout
    assert "per bit" in shown
    assert "warm buys" in shown


@pytest.mark.parametrize(
    ("changes", "why"),
    [((MASKED, TPE), "no random draws"), ((), "no priced edge to a masked space")],
    ids=["product", "unmasked"],
)
def test_without_masks_to_compare_that_is_said(tmp_path: Path, changes: tuple[Change, ...], why: str):
    one = run_here(small_workload(tmp_path, *changes), tmp_path / "home")
    with pytest.raises(PriceError, match=why):
        price(one, "--masks")
    assert json.loads(price(one, "--json").stdout)["masks"] == []


def test_one_replicate_is_drawn_alone_with_its_band(ran: Ran, tmp_path: Path):
    path = tmp_path / "one.svg"
    assert price(ran, "--plot", str(path), "--replicate", "1").exit_code == 0
    assert "LD band" in path.read_text(encoding="utf-8")
    price(ran, "--plot", str(path))
    assert "LD band" not in path.read_text(encoding="utf-8")
    with pytest.raises(PriceError, match="no study of replicate 7 with two finished trials"):
        price(ran, "--plot", str(path), "--replicate", "7")
    assert price(ran, "--replicate", "1").exit_code == 2
