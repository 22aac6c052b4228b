"""What this machine and this process have of memory and time, and how processes are told apart."""

from __future__ import annotations

import resource
import socket
import sys
from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def free_bytes(cgroup: Path = CGROUP) -> int:
    """Memory that this process may still take: what the machine has to spare, or a container's limit leaves."""
    free = int(psutil.virtual_memory().available)
    try:  # what a container may use at most; "max" where it has no limit
        limit = int((cgroup / "memory.max").read_text(encoding="ascii"))
        used = int((cgroup / "memory.current").read_text(encoding="ascii"))
        evictable = dict(line.split() for line in (cgroup / "memory.stat").read_text(encoding="ascii").splitlines())
    except (OSError, ValueError):
        return free
    return min(free, max(0, limit - used + int(evictable.get("inactive_file", 0))))


def filesystem(path: Path) -> str:
    """The kind of file system that a path is on, e.g. "ext4" or "nfs4"; "" where the system does not tell."""
    there = path.absolute()
    mounts = [one for one in psutil.disk_partitions(all=True) if there.is_relative_to(one.mountpoint)]
    return str(max(mounts, key=lambda one: len(one.mountpoint)).fstype) if mounts else ""


def peak_bytes() -> int:
    """The most memory that this process has had at a time."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def place() -> str:
    """Where this process's pid means something: this host since it was booted, or one container on it.

    A host's name is not enough: two machines may have the same, and containers of one name have pids of their own.
    """
    return ":".join([socket.gethostname(), *(word for word in (_boot_id(), _pid_namespace()) if word)])


def since_boot(pid: int) -> float:
    """When a process was started, in seconds since this machine was: unlike a time of day, no clock's change moves it.

    Raises:
        psutil.NoSuchProcess: there is none with this pid.
    """
    booted = psutil.boot_time()  # a start is told by the same clock, as it stands now
    return float(psutil.Process(pid).create_time() - booted)


def is_alive(pid: int, started: float) -> bool:
    """Whether the process of this place that had this pid, and was started then (`since_boot`), still runs."""
    try:
        same = abs(since_boot(pid) - started) < 2.0  # a pid alone is used again
        return same and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal and waits for another to go on."""
    try:
        return bool(psutil.Process(pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP))
    except psutil.NoSuchProcess:
        return False


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:  # Linux alone has it
        return ""


def _pid_namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).partition("[")[2].rstrip("]")
    except OSError:
        return ""
