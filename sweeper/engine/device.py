"""What a device is, in words and numbers that a ledger can keep."""

from __future__ import annotations

import ctypes
import os
import platform
from dataclasses import dataclass

import torch

from sweeper.errors import EngineError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT_BYTES = 1 << 28


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


def use_threads(threads: int | None, spared: int) -> int:
    """Let PyTorch use so many CPU threads; returns how many.

    A step ends when its slowest thread does, so that a thread that shares its core with another process holds up all of
    them: measured on two cores beside an exporter, one thread trains faster than two.

    Args:
        threads: how many; None for the cores that this process may use, less those spared.
        spared: cores that other processes of ours keep busy.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    torch.set_num_threads(threads or max(1, cores - spared))
    return torch.get_num_threads()


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
    """

    name: str
    kind: str
    torch: str
    threads: int


def device_facts(device: str) -> DeviceFacts:
    """Facts of a device by its PyTorch name."""
    kind, threads = torch.device(device).type, torch.get_num_threads()
    name = (
        torch.cuda.get_device_name(device)
        if kind == "cuda"
        else f"{platform.machine()}, {threads} thread{'s' * (threads > 1)}"
    )
    return DeviceFacts(name, kind, torch.__version__, threads)
