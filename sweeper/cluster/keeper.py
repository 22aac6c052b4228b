"""What runs on a node of the cluster: an actor that keeps one worker process.

What an actor is made with travels in its task's arguments, which neither Ray's dashboard, nor its state commands, nor
its logs show (tests/cluster/test_ray.py); its `runtime_env`, which they do show, is not used. URLs are among it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO

from sweeper import child
from sweeper.cluster.driver import load

AGAIN_S, LONGEST_S = 1.0, 60.0  # before a worker that crashed is started again: twice as long each time
LAST_WORDS_S = 1.0  # to hear them, once it has ended
KEPT_LINES = 500  # of what a worker says, until they are fetched
ENDED_WELL, TO_BE_MENDED = 0, 2  # exit codes of `sweeper worker`: neither is helped by starting it again


@dataclass(frozen=True)
class Order:
    """What each worker runs.

    Attributes:
        argv: of `python -m sweeper`; it ends when its standard input does.
        environment: what to add to that of its node; URLs with passwords are in it.
        threads: of its arithmetic.
        gpus: that it needs, 0 or 1.
        folder: where to run it, if the node has it: what relative paths start from.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    threads: int
    gpus: int
    folder: str


@dataclass(frozen=True)
class Look:
    """How a worker fares.

    Attributes:
        node: its address and the start of its id.
        code: how its process ended; None while it works.
        lines: what it said since the last look.
    """

    node: str
    code: int | None
    lines: tuple[str, ...]


class Keeper:
    """On a node of the cluster: keeps one worker process, and starts it again where it crashed."""

    def __init__(self, order: Order, node: str | None = None) -> None:
        self._order, self._node = order, node or _here()
        self._said: deque[str] = deque(maxlen=KEPT_LINES)
        self._is_parting, self._pause_s, self._crashed_at = False, AGAIN_S, 0.0
        with suppress(OSError):
            os.chdir(order.folder)
        self._start()

    def look(self) -> Look:
        """How the worker fares."""
        code = self._process.poll()
        if code is not None:
            self._listener.join(LAST_WORDS_S)
            child.part(self._process)
        if code not in (None, ENDED_WELL, TO_BE_MENDED) and not self._is_parting:
            self._crashed(code)
            code = None
        lines = tuple(self._said.popleft() for _ in range(len(self._said)))
        return Look(self._node, code, lines)

    def part(self) -> None:
        """Let the worker save what it has under way, give it back, and end."""
        self._is_parting = True
        child.part(self._process)

    def pid(self) -> int:
        """The worker's process."""
        return self._process.pid

    def _crashed(self, code: int | None) -> None:
        """Start it again, after a pause."""
        if not self._crashed_at:
            self._crashed_at = time.monotonic()
            self._said.append(f"ended with {code}; it is started again in {self._pause_s:g} s")
        elif time.monotonic() - self._crashed_at >= self._pause_s:
            self._pause_s = min(2 * self._pause_s, LONGEST_S)
            self._crashed_at = 0.0
            self._start()

    def _start(self) -> None:
        order = self._order
        self._process = child.start(order.argv, order.environment, order.threads, subprocess.PIPE)
        assert self._process.stderr is not None
        self._listener = threading.Thread(target=self._listen, args=(self._process.stderr,), daemon=True)
        self._listener.start()

    def _listen(self, said: IO[bytes]) -> None:
        """Keep what the worker says for the next look, and for Ray's own logs of this actor."""
        with said:
            for line in said:
                text = line.decode(errors="replace").rstrip()
                self._said.append(text)
                print(text, file=sys.stderr, flush=True)  # noqa: T201


def _here() -> str:
    """This actor's node, as Ray's own commands name it; several can share an address."""
    ray = load()
    return f"{ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:6]})"
