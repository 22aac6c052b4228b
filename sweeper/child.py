"""Processes of our own, started by another of our own and gone when it is.

A child's standard input is a pipe from its parent. The pipe closes when the parent says so and when it was killed; then
the child finishes what it has in hand, and ends. It is in a session of its own, so that Ctrl-C in the terminal reaches
the parent alone, which tells its children.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import IO


def start(
    argv: Sequence[str],
    environment: Mapping[str, str],
    threads: int,
    errors: IO[bytes] | int,
    *,
    module: str = "sweeper",
) -> subprocess.Popen[bytes]:
    """Run `python -m MODULE ARGV`.

    Args:
        argv: the command, which ends when its standard input does.
        environment: what to add to this process's own; a command line is for all to see, so URLs travel here.
        threads: of its arithmetic.
        errors: where its errors go: a file, or subprocess.DEVNULL.
        module: the command line, or a smaller program of ours.
    """
    return subprocess.Popen(
        [sys.executable, "-m", module, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=errors,
        start_new_session=True,
        env={**os.environ, **environment, "OMP_NUM_THREADS": str(threads)},
    )


def part(process: subprocess.Popen[bytes]) -> None:
    """Close a child's standard input."""
    assert process.stdin is not None
    process.stdin.close()


def on_closed_input(act: Callable[[], None]) -> None:
    """In a child: do something once the parent has closed the pipe, or is gone."""

    def watch() -> None:
        while os.read(0, 1024):  # not through sys.stdin, whose lock a daemon thread must not hold as Python ends
            continue
        act()

    threading.Thread(target=watch, name="parent", daemon=True).start()
