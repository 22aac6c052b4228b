"""Activations on disk: computed once, whoever is killed and however many ask, and never handed out damaged."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeper.errors import DataError
from sweeper.networks.activations import computed_once, kept, key_of
from writers import X, compute_slowly, die_writing, queue, started

ROWS = len(X)


def computed(folder: Path, key: str = "k") -> tuple[Any, int]:
    """What is handed out, and how often it was computed for that."""
    calls = []

    def compute() -> Any:
        calls.append(1)
        return X

    return computed_once(folder, key, ROWS, compute), len(calls)


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("*.safetensors")
    return path


def test_they_are_computed_once_and_come_back_bit_by_bit(tmp_path: Path) -> None:
    for times in (1, 0, 0):
        found, computations = computed(tmp_path / "new" / "folder")
        assert computations == times
        assert found.dtype == np.float32
        assert np.array_equal(found, X)


def test_another_content_has_another_name() -> None:
    one = key_of(data="a", weights="b", arguments={"x": 1, "y": [2]})
    assert one == key_of(weights="b", data="a", arguments={"y": [2], "x": 1})
    others = [key_of(data="b", weights="a", arguments={"x": 1, "y": [2]}), key_of(data="a", weights="b", arguments={})]
    assert len({one, *others}) == 3


@pytest.mark.parametrize("place", [0, 3, 20, -1, -5])
def test_a_flipped_byte_is_noticed_and_computed_anew(tmp_path: Path, place: int) -> None:
    computed(tmp_path)
    path = the_file(tmp_path)
    content = bytearray(path.read_bytes())
    content[place] ^= 0x10
    path.write_bytes(content)
    assert kept(tmp_path, "k", ROWS) is None
    found, computations = computed(tmp_path)
    assert (computations, np.array_equal(found, X)) == (1, True)
    assert computed(tmp_path)[1] == 0


@pytest.mark.parametrize("length", [0, 7, 60, -1])
def test_a_file_that_was_cut_off_is_computed_anew(tmp_path: Path, length: int) -> None:
    computed(tmp_path)
    path = the_file(tmp_path)
    path.write_bytes(path.read_bytes()[:length])
    assert computed(tmp_path)[1] == 1


def test_a_file_for_other_rows_is_not_taken(tmp_path: Path) -> None:
    computed(tmp_path)
    assert kept(tmp_path, "k", ROWS + 1) is None
    assert kept(tmp_path, "other", ROWS) is None


def test_a_key_leads_nowhere_else(tmp_path: Path) -> None:
    computed(tmp_path)
    assert kept(tmp_path / "deeper", "../k", ROWS) is None


def test_a_computation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Any:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        computed_once(tmp_path, "k", ROWS, fail)
    assert list(tmp_path.glob("*.safetensors")) == []
    assert computed(tmp_path)[1] == 1


def test_a_folder_that_can_not_be_written_to_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="activations can't be kept in"):
        computed(tmp_path / "file" / "folder")


def test_two_processes_compute_once(tmp_path: Path) -> None:
    results = queue()
    pair = [started(compute_slowly, tmp_path, results) for _ in range(2)]
    said = sorted(results.get(timeout=60) for _ in range(3))
    for process in pair:
        process.join()
    assert said == ["computed", "done", "done"]


def test_whoever_is_killed_in_mid_write_leaves_neither_a_lock_nor_half_a_file(tmp_path: Path) -> None:
    killed = started(die_writing, tmp_path)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*.part"))) == 1
    assert computed(tmp_path)[1] == 1
    assert list(tmp_path.glob("*.part")) == []
