"""Every kind of network from its sweep file to the ledger: trained in slots, and the same whatever the slots."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from small import Change, Ran, outcome, run_here, write_sweep
from sweeper.blueprint import named_packages
from sweeper.config import read_sweep
from sweeper.construction import Access
from sweeper.launched import launched_blueprint, launched_shapes
from sweeper.worker import Ending
from sweeper.workload import Workload, workload_of

NETS = """\
from torch import nn


class Conv(nn.Module):
    def __init__(self, inputs, outputs, channels):
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 2)
        self.norm = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(channels, outputs)

    def forward(self, rows):
        maps = self.norm(self.conv1(rows.view(-1, 1, 2, 2))).relu()
        return self.fc(self.dropout((maps + self.conv2(maps)).flatten(1)))


def conv(inputs, outputs, channels=4):
    return Conv(inputs, outputs, channels)


def backbone(inputs):
    return nn.Sequential(nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 3, 2, padding=1), nn.ReLU())
"""
MLP = "{kind: mlp, hidden: [6, 5]}"
SPACES = "shared: {keep_prob: shared}\n  both:"
KINDS: dict[str, tuple[Change, ...]] = {
    "python": ((MLP, "{kind: python:b_kinds:conv, channels: 3, drop: channel}"),),
    "head": (
        (MLP, "{kind: head, backbone: python:b_kinds:backbone, weights: w.safetensors, xtra_fc: [5], ps: [0.2, 0.6]}"),
        (SPACES, "fastai: {}\n  both:"),
    ),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder with the code and the weights, which leave nothing in this process."""
    (tmp_path / "b_kinds.py").write_text(NETS)
    torch.manual_seed(0)
    save_file(nn.Sequential(nn.Identity(), nn.Conv2d(1, 3, 2)).state_dict(), tmp_path / "w.safetensors")
    path = list(sys.path)
    yield tmp_path
    sys.modules.pop("b_kinds", None)
    sys.path[:] = path


def workload(folder: Path, kind: str) -> Workload:
    file = read_sweep(write_sweep(folder, *KINDS[kind], ("replicates: 2", "replicates: 1")))
    return workload_of(file, Access(named_packages(file.sweep), folder / "kept"))


@pytest.mark.parametrize("kind", KINDS)
def test_a_sweep_of_any_kind_comes_out_the_same_whatever_the_slots(folder: Path, kind: str):
    made = workload(folder, kind)
    ran = [run_here(made, folder / str(slots), slots=slots) for slots in (4, 1)]
    found = outcome(ran[0].ledger)
    assert found == outcome(ran[1].ledger)
    assert [one.ending for one in ran] == [Ending.DONE] * 2
    assert {trial["state"] for trial in found.values()} == {"COMPLETE"}
    assert {len(trial["keep_prob"]) for trial in found.values()} == {made.layers}
    for trial in found.values():
        assert {len(fit["squared_norms"]) for fit in trial["fits"]} == {made.layers}
    check_what_is_kept(made, ran[0])


def check_what_is_kept(made: Workload, ran: Ran) -> None:
    """The ledger alone says what looking at the sweep needs, once the code is gone."""
    (made.file.folder / "b_kinds.py").write_text("raise AssertionError('imported')")
    del sys.modules["b_kinds"]
    assert launched_blueprint(ran.sweep) == made.blueprint
    assert launched_shapes(ran.sweep) == made.shapes()
    assert "b_kinds" not in sys.modules


def test_a_sweep_from_before_networks_were_recorded_still_shows_its_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # what a ledger names is read where this process may read
    made = workload_of(read_sweep(write_sweep(tmp_path)))
    ran = run_here(made, tmp_path, stop_after=0)
    old = replace(ran.sweep, config={key: value for key, value in ran.sweep.config.items() if key != "network"})
    assert launched_blueprint(old) == made.blueprint
    assert launched_shapes(old) == made.shapes()


def test_the_layers_of_a_network_of_ones_own_go_by_their_names(folder: Path):
    made = workload(folder, "python")
    assert made.blueprint.words == ("conv1 3 channels", "conv2 3 channels", "fc 3 outputs")
    assert made.per_channel
    assert len(made.notes) == 1
    assert "'dropout' was replaced" in made.notes[0]


def test_a_heads_fixed_keep_probs_are_trained_with(folder: Path):
    made = workload(folder, "head")
    ran = run_here(made, folder)
    kept = {tuple(trial["keep_prob"]) for place, trial in outcome(ran.ledger).items() if place[0] == "fastai"}
    assert kept == {(0.8, 0.4)}
