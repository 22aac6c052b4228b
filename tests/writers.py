"""Processes that compute activations: slowly, or until they are killed in mid-write."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from sweeper.networks import activations

X = np.arange(12, dtype=np.float32).reshape(4, 3)
_context = multiprocessing.get_context("forkserver")


def queue() -> Any:
    """Where processes tell what they did."""
    return _context.Queue()


def started(writer: Callable[..., None], *args: Any) -> BaseProcess:
    """A process of its own that runs one of the functions below."""
    process = _context.Process(target=writer, args=args)
    process.start()
    return process


def compute_slowly(folder: Path, results: Any) -> None:
    """Tell when the computation begins and when the activations are there."""

    def compute() -> Any:
        results.put("computed")
        time.sleep(0.3)
        return X

    activations.computed_once(folder, "k", len(X), compute)
    results.put("done")


def die_writing(folder: Path) -> None:
    """Leave half a file and be gone."""

    def save_half(_tensors: Any, path: Path, _metadata: Any) -> None:
        path.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    activations.save_file = save_half  # type: ignore[assignment]
    activations.computed_once(folder, "k", len(X), lambda: X)
