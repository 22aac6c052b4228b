"""Whose code runs when: naming a file vouches for its code; whatever is read back from a ledger runs none unasked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import nn

from processes import Shell, shell
from small import Change, outcome, write_sweep
from sweeper.ledger.store import Ledger, sqlite_url

NET = """\
from torch import nn


def net(inputs, outputs, width=6):
    layers = {"first": nn.Linear(inputs, width), "act": nn.ReLU(), "drop": nn.Dropout(0.3)}
    last = nn.Linear(width, outputs)
    return nn.Sequential(*layers.values(), last)


def backbone(inputs):
    return nn.Sequential(nn.Linear(inputs, 6))
"""
POISON = "raise SystemExit('this code was run')\n"
MODEL: Change = ("{kind: mlp, hidden: [6, 5]}", "{kind: python:b_mine:net, width: 7}")
RUN = ("run", "small.yaml", "--compile", "off", "--no-mlflow", "--threads", "1", "--slots", "4")
RESUME = ("resume", "small", "--no-mlflow", "--threads", "1", "--slots", "4")


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A finished sweep of a network of the user's own."""
    folder = tmp_path_factory.mktemp("launched")
    (folder / "b_mine.py").write_text(NET)
    write_sweep(folder, MODEL)
    with shell(folder) as opened:
        ran = opened(*RUN)
        assert ran.code == 0, ran.err
        yield opened


@pytest.fixture
def poisoned(launched: Shell) -> Iterator[Shell]:
    """The same, and its code would end whichever process imports it."""
    (launched.folder / "b_mine.py").write_text(POISON)
    yield launched
    (launched.folder / "b_mine.py").write_text(NET)


def test_naming_a_file_vouches_for_its_code_and_shows_its_layers_and_replaced_dropouts(launched: Shell):
    first = launched.started[0]
    assert "own dropout '2' was replaced" in first.err
    assert "small: 4 inputs | 0 7 units | 3 3 outputs on npz:rows.npz" in first.err
    assert "both: 3 hyperparameters: keep_prob_1, lambda_1, lambda_2" in first.err
    assert "| 0 7 units 0." in first.out


@pytest.mark.parametrize("command", ["status", "trials", "best", "price", "stop"])
def test_commands_that_look_run_no_code(poisoned: Shell, command: str):
    shown = poisoned(command, "small")
    assert shown.code == 0, shown.err
    if command in ("trials", "best"):
        assert "| 0 7 units 0." in shown.out
        assert "3 3 outputs" in shown.out


def test_resuming_runs_no_code_unasked_and_says_what_to_type(poisoned: Shell):
    refused = poisoned(*RESUME)
    assert refused.code == 2, refused.err
    assert "small.yaml:3: model.kind: python:b_mine:net would import the package 'b_mine'" in refused.err
    assert "add --allow-import b_mine, or set SWEEPER_ALLOW_IMPORT=b_mine" in refused.err
    assert "this code was run" not in refused.err


@pytest.mark.parametrize("asked", ["option", "variable"])
def test_resuming_goes_on_once_it_is_allowed(launched: Shell, asked: str):
    before = outcome(Ledger(sqlite_url(launched.folder / "sweeper-data"), create=False))
    if asked == "option":
        resumed = launched(*RESUME, "--allow-import", "other", "--allow-import", "b_mine")
    else:
        launched.environment["SWEEPER_ALLOW_IMPORT"] = "other,b_mine"
        resumed = launched(*RESUME)
        del launched.environment["SWEEPER_ALLOW_IMPORT"]
    assert resumed.code == 0, resumed.err
    assert outcome(Ledger(sqlite_url(launched.folder / "sweeper-data"), create=False)) == before


def test_changed_code_is_another_sweep(launched: Shell):
    (launched.folder / "b_mine.py").write_text(NET.replace("nn.ReLU()", "nn.Tanh()"))
    refused = launched(*RUN)
    (launched.folder / "b_mine.py").write_text(f"# a comment more\n{NET}")
    allowed = launched(*RUN)
    assert refused.code == 2
    assert "model: its code is not what the sweep was launched with" in refused.err
    assert allowed.code == 0, allowed.err


def test_a_misspelt_argument_names_its_line(launched: Shell, tmp_path: Path):
    (tmp_path / "b_mine.py").write_text(NET)
    write_sweep(tmp_path, (MODEL[0], "{kind: python:b_mine:net, widht: 7}"))
    with shell(tmp_path) as run:
        refused = run(*RUN)
    assert refused.code == 2
    assert "small.yaml:3: model.widht: net: it has no argument 'widht'. Did you mean 'width'?" in refused.err
    assert not (tmp_path / "sweeper-data" / "activations").exists()


def test_a_head_goes_on_from_kept_activations_without_any_code(tmp_path: Path):
    """Computed once, with progress; then neither the code nor the weights are needed."""
    (tmp_path / "b_mine.py").write_text(NET)
    save_file(nn.Sequential(nn.Linear(4, 6)).state_dict(), tmp_path / "w.safetensors")
    model = "{kind: head, backbone: python:b_mine:backbone, weights: w.safetensors, xtra_fc: [5]}"
    write_sweep(tmp_path, (MODEL[0], model))
    with shell(tmp_path) as run:
        first, again = run(*RUN), run(*RUN)
        (tmp_path / "b_mine.py").write_text(POISON)
        (tmp_path / "w.safetensors").unlink()
        resumed = run(*RESUME)
    assert [one.code for one in (first, again, resumed)] == [0, 0, 0], first.err + again.err + resumed.err
    assert "computing small's activations: 60 rows\n" in first.err
    assert "computing small's activations" not in again.err + resumed.err
    assert "small: 6-5-3 on npz:rows.npz" in resumed.err
    assert resumed.out == again.out


def test_json_for_programs_needs_no_code_either(poisoned: Shell):
    shown = poisoned("best", "small", "--json")
    assert len(json.loads(shown.out)["both"]["setting"]["keep_prob"]) == 2
