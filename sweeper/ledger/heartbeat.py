"""Keeps a worker's lease alive while the worker trains, from a process that its training can't starve (`pulse`)."""

from __future__ import annotations

import json
import os
import subprocess
import time
from contextlib import suppress

from sweeper import child
from sweeper.ledger import workers
from sweeper.ledger.store import Ledger

SILENCE_S = 1800.0
"""For how long a worker may get nowhere and keep its trials. A turn holds a tick, and the first a compilation: minutes.
A worker that hangs for longer loses them to others; should it go on after all, what it brings is too late."""
SAY_S = 1.0  # between two words to the process that beats
PARTING_S = 2.0  # that a beat under way is given


class Heartbeat:
    """Renews a worker's lease four times in its span for as long as the block lasts; call it at every turn.

    Args:
        ledger: the store.
        worker_id: whose lease.
    """

    def __init__(self, ledger: Ledger, worker_id: int) -> None:
        driver, connect = ledger.driver
        order = {
            "driver": driver,
            "connect": connect,
            "statement": ledger.literal(workers.beating(ledger.dialect, worker_id)),
            "every_s": workers.LEASE_S / 4,
            "patience_s": SILENCE_S,
        }
        self._order = json.dumps(order).encode() + b"\n"
        self._process: subprocess.Popen[bytes] | None = None
        self._said = 0.0

    def __enter__(self) -> Heartbeat:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self) -> None:
        """Say that the worker gets on."""
        if time.monotonic() - self._said < SAY_S:
            return
        self._said, process = time.monotonic(), self._process
        assert process is not None
        assert process.stdin is not None
        if process.poll() is not None:  # killed, by whomever
            self._end()
            self._start()
            return
        with suppress(BlockingIOError, BrokenPipeError):  # it beats just now, or has just ended: the next turn's matter
            os.write(process.stdin.fileno(), b".")

    def _start(self) -> None:
        process = child.start([], {}, 1, subprocess.DEVNULL, module="sweeper.ledger.pulse")
        assert process.stdin is not None
        self._process = process
        with suppress(BrokenPipeError):
            os.write(process.stdin.fileno(), self._order)
        os.set_blocking(process.stdin.fileno(), False)

    def _end(self) -> None:
        """Nothing beats when this is over."""
        assert self._process is not None
        child.part(self._process)
        try:
            self._process.wait(PARTING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
