"""What is free on a machine, and in a container that allows less; and which of its processes is which."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from sweeper import machine
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


def test_a_process_is_told_from_others_of_its_pid_by_when_it_began():
    began = machine.since_boot(os.getpid())
    assert machine.is_alive(os.getpid(), began)
    assert not machine.is_alive(os.getpid(), began - 60.0)
    assert not machine.is_alive(2**22 + 1, began)


def test_a_clock_that_is_put_forward_makes_nobody_another(monkeypatch: pytest.MonkeyPatch):
    """The system derives the time of day at which a process began, and at which it was booted, from the clock."""
    began, created, booted = machine.since_boot(os.getpid()), psutil.Process.create_time, psutil.boot_time
    monkeypatch.setattr(psutil.Process, "create_time", lambda process: created(process) + 3600.0)
    monkeypatch.setattr(psutil, "boot_time", lambda: booted() + 3600.0)
    assert machine.is_alive(os.getpid(), began)


def test_a_stopped_process_lives_and_is_stopped():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        began = machine.since_boot(process.pid)
        assert not machine.is_stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert machine.is_stopped(process.pid)
        assert machine.is_alive(process.pid, began)
        process.kill()
        process.wait()
        assert not machine.is_stopped(process.pid)
        assert not machine.is_alive(process.pid, began)


def test_a_place_is_one_host_since_it_was_booted_and_one_container_on_it(monkeypatch: pytest.MonkeyPatch):
    here = machine.place()
    assert here == machine.place()
    assert len(here) < 200
    child = subprocess.run(
        [sys.executable, "-c", "from sweeper import machine; print(machine.place())"], capture_output=True, text=True
    )
    assert child.stdout.strip() == here
    monkeypatch.setattr(machine, "_boot_id", lambda: "another")
    assert machine.place() != here
    monkeypatch.undo()
    monkeypatch.setattr(machine, "_pid_namespace", lambda: "4026539999")
    assert machine.place() != here
