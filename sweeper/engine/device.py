"""What a device is, in words and numbers that a ledger can keep."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from sweeper.engine.energy import energy_note
from sweeper.errors import EngineError, OutOfMemoryError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 1 << 28
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def find_device(name: str) -> str:
    """A device that is really there: "auto" takes a GPU if PyTorch sees one.

    Raises:
        EngineError: the name is none that the engine can train on, or the device is not there.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise EngineError(f"device {name!r} is not known. Choose auto, cpu, cuda, or cuda:0, cuda:1, ...")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        seen = torch.cuda.device_count()
        raise EngineError(f"device {name!r} was asked for, but PyTorch sees {seen} CUDA devices. Pass --device cpu.")
    return name


def gpu_count() -> int:
    """How many GPUs PyTorch sees."""
    return torch.cuda.device_count()


def cpu_cores() -> int:
    """The cores that this process may use: those it is bound to, or a container's share of them."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    try:
        quota, period = CPU_QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no container, or one that may use all of them ("max")
        return cores


def use_threads(threads: int) -> None:
    """Let PyTorch use so many CPU threads."""
    torch.set_num_threads(threads)


def let_go_of_memory(device: str) -> None:
    """Give what nobody holds any more back to the device."""
    gc.collect()  # an engine's parts know each other
    if torch.device(device).type == "cuda":
        torch.cuda.empty_cache()


@contextmanager
def memory_errors(slots: int) -> Iterator[None]:
    """Turn the failure to get memory, on any device, into an OutOfMemoryError that says what to do."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; a CPU's allocator has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        reason = str(error).strip().splitlines()[0]
        raise OutOfMemoryError(
            f"{slots} fits at once don't fit the device's memory: {reason} Pass a smaller --slots."
        ) from error


def keep_freed_memory() -> None:
    """Tell glibc to keep freed memory for the next step instead of giving it back to the system.

    Every step frees and takes the same few megabytes; given back, each page costs a fault when it is touched again
    (measured: a tick of 44 ms takes 33). Other C libraries are left alone.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and platform.libc_ver()[0] == "glibc":
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            libc.mallopt(parameter, KEPT_BYTES)


@dataclass(frozen=True)
class DeviceFacts:
    """A device as results depend on it.

    Attributes:
        name: for people, e.g. "NVIDIA H200" or "x86_64, 2 threads".
        kind: "cpu" or "cuda".
        torch: PyTorch's version.
        threads: of PyTorch's operations on the CPU.
        energy: what measures its energy, or why nothing does; no result depends on it.
    """

    name: str
    kind: str
    torch: str
    threads: int
    energy: str


def device_facts(device: str) -> DeviceFacts:
    """Facts of a device by its PyTorch name."""
    kind, threads = torch.device(device).type, torch.get_num_threads()
    name = (
        torch.cuda.get_device_name(device)
        if kind == "cuda"
        else f"{platform.machine()}, {threads} thread{'s' * (threads > 1)}"
    )
    return DeviceFacts(name, kind, torch.__version__, threads, energy_note(device))
