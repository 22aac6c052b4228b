"""Checkpoints: whole or not there, the one before where the latest is torn, and bit for bit what was saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
import torch

from engine.test_promise import WORKLOADS, same
from engine.workloads import run_alone
from sweeper.checkpoints import Checkpoints
from sweeper.engine import Snapshot
from sweeper.errors import CheckpointError
from sweeper.records import Cost, FitResult

TRIAL = "small-1a2b/both/r01/t0003"
LECTURE = WORKLOADS["lecture"]


@pytest.fixture(scope="module")
def taken(one_thread: None) -> list[Snapshot]:
    """One fit after one, two and three epochs."""
    engine = LECTURE.engine(2, compiled=False)
    engine.admit([LECTURE.fit(0)])
    found = []
    for _ in range(3):
        engine.train()
        found += engine.snapshots().values()
    return found


@pytest.fixture(scope="module")
def result(one_thread: None) -> FitResult:
    return run_alone(LECTURE.engine(2, compiled=False), LECTURE.fit(1))


@pytest.fixture(params=["file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Checkpoints:
    return Checkpoints({"file": str(tmp_path / "kept"), "memory": f"memory://{tmp_path.name}"}[request.param])


def files(place: Checkpoints) -> list[str]:
    system, root = fsspec.core.url_to_fs(place.url)
    return sorted(system.find(root))


def is_same(left: object, right: Snapshot) -> bool:
    assert isinstance(left, Snapshot)
    equal = all(torch.equal(left.tensors[name], value) for name, value in right.tensors.items())
    return (
        equal and left.tensors.keys() == right.tensors.keys() and (left.scores, left.cost) == (right.scores, right.cost)
    )


def test_what_is_loaded_is_what_was_saved(place: Checkpoints, taken: list[Snapshot], result: FitResult):
    assert place.load(TRIAL) == {}
    place.save(TRIAL, {0: taken[0], 1: result})
    found = place.load(TRIAL)
    assert found.keys() == {0, 1}
    assert is_same(found[0], taken[0])
    assert isinstance(found[1], FitResult)
    assert same(found[1], replace(result, cost=Cost(), before=result.cost))  # it was charged where it ended
    assert (found[1].cost, found[1].before) == (Cost(), result.cost)
    assert place.load(TRIAL + "0") == {}


@pytest.mark.parametrize("trial", ["../other", "a/../../other", "/other", "", "a//b", "a\n", ".", "..", "a/.b"])
def test_a_name_that_leads_elsewhere_has_no_checkpoint_and_removes_nothing(tmp_path: Path, trial: str):
    """Trials are called after what the ledger holds, and others may write to that."""
    kept = tmp_path / "other"
    kept.mkdir()
    (kept / "mine.txt").touch()
    place = Checkpoints(str(tmp_path / "kept"))
    place.forget(trial)
    with pytest.raises(CheckpointError, match="is no name of a trial"):
        place.save(trial, {})
    with pytest.raises(CheckpointError, match="is no name of a trial"):
        place.load(trial)
    assert (kept / "mine.txt").exists()
    assert not (tmp_path / "kept").exists()


def test_losses_that_are_no_numbers_survive(place: Checkpoints, result: FitResult):
    sick = replace(result, test_loss=float("nan"), train_loss=float("inf"))
    place.save(TRIAL, {0: sick})
    [found] = place.load(TRIAL).values()
    assert isinstance(found, FitResult)
    assert same(found, sick)


def test_the_latest_counts_and_two_are_kept(place: Checkpoints, taken: list[Snapshot]):
    for one in taken:
        place.save(TRIAL, {0: one})
    assert len(files(place)) == 2
    assert is_same(place.load(TRIAL)[0], taken[2])


@pytest.mark.parametrize("damage", [lambda content: content[:-3], lambda content: content[:-1] + b"\1", lambda _: b""])
def test_a_torn_one_is_ignored_and_the_one_before_is_used(place: Checkpoints, taken: list[Snapshot], damage):
    for one in taken:
        place.save(TRIAL, {0: one})
    system, _ = fsspec.core.url_to_fs(place.url)
    latest = files(place)[-1]
    system.pipe_file(latest, damage(system.cat_file(latest)))
    assert is_same(place.load(TRIAL)[0], taken[1])
    before = files(place)[0]
    system.pipe_file(before, damage(system.cat_file(before)))
    assert place.load(TRIAL) == {}


def test_a_writer_that_was_killed_leaves_nothing_that_counts(tmp_path: Path, taken: list[Snapshot], monkeypatch):
    place = Checkpoints(str(tmp_path))
    place.save(TRIAL, {0: taken[0]})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        place.save(TRIAL, {0: taken[1]})
    assert is_same(place.load(TRIAL)[0], taken[0])


def test_what_is_forgotten_is_gone(place: Checkpoints, taken: list[Snapshot]):
    place.forget(TRIAL)  # nothing there yet
    place.save(TRIAL, {0: taken[0]})
    place.forget(TRIAL)
    assert place.load(TRIAL) == {}
    assert files(place) == []


def test_a_place_that_can_t_be_written_to_is_named(tmp_path: Path, taken: list[Snapshot]):
    (tmp_path / "file").write_text("in the way")
    place = Checkpoints(str(tmp_path / "file"))
    with pytest.raises(CheckpointError, match=r"can't be kept at .*file: .*name another place with --checkpoints"):
        place.save(TRIAL, {0: taken[0]})


def test_content_of_another_meaning_is_not_used(place: Checkpoints, taken: list[Snapshot], monkeypatch):
    monkeypatch.setattr("sweeper.checkpoints._MEANING", "0")
    place.save(TRIAL, {0: taken[0]})
    monkeypatch.undo()
    assert place.load(TRIAL) == {}
