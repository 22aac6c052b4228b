"""What is free on a machine, and in a container that allows less."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from sweeper.engine import cpu_cores, device
from sweeper.machine import free_bytes, peak_bytes


def container(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / name.replace("_", ".", 1)).write_text(text, encoding="ascii")
    return folder


def test_without_a_container_the_machines_memory_counts(tmp_path: Path):
    assert free_bytes(tmp_path) == pytest.approx(psutil.virtual_memory().available, rel=0.2)


def test_a_containers_limit_counts_less_what_it_uses_and_cannot_drop(tmp_path: Path):
    stat = "anon 600\ninactive_file 250\nactive_file 50\n"
    held = container(tmp_path, memory_max="1000\n", memory_current="900\n", memory_stat=stat)
    assert free_bytes(held) == 350
    container(tmp_path, memory_current="2000\n")
    assert free_bytes(held) == 0


def test_a_container_without_a_limit_has_the_machines_memory(tmp_path: Path):
    held = container(tmp_path, memory_max="max\n", memory_current="900\n", memory_stat="inactive_file 0\n")
    assert free_bytes(held) > 1_000_000


def test_the_peak_remembers_what_was_given_back():
    before = peak_bytes()
    block = bytearray(before + 50_000_000)
    block[::4096] = b"x" * len(block[::4096])
    size = len(block)
    del block
    assert size <= peak_bytes() < 100 * size


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("150000 100000", 2), ("50000 100000", 1), ("max 100000", 8), ("6400000 100000", 8), (None, 8)],
)
def test_cores_are_those_that_a_container_may_keep_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str | None, cores: int
):
    monkeypatch.setattr(device.os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(device, "CPU_QUOTA", tmp_path / "cpu.max")
    if quota is not None:
        (tmp_path / "cpu.max").write_text(quota, encoding="ascii")
    assert cpu_cores() == cores
