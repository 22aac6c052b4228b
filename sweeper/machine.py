"""What this machine and this process have of memory and time."""

from __future__ import annotations

import resource
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


def peak_bytes() -> int:
    """The most memory that this process has had at a time."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
