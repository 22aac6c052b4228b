"""Processes that stay ready between turns: started by spawn, warmed up apart, let go together.

A crew's processes wait on a pipe while other sides have their turn, so they cost memory and no time.
"""

from __future__ import annotations

import multiprocessing
import os
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from engine_workload import Side, Turn, Work

from sweeper.engine import keep_freed_memory

PATIENCE_S = 600.0


class CrewError(Exception):
    """A process of a crew failed; the message is its own."""


class Crew:
    """The processes of one side.

    Args:
        make: makes the side within each process; picklable.
        work: what it trains.
        processes: how many.
        threads: of PyTorch's operations, each.
        cache: a folder for compiled code of this crew alone, so that its compile time is that of a first run; None
            takes PyTorch's own.

    Raises:
        CrewError: a process failed while it warmed up.
    """

    def __init__(self, make: Callable[[], Side], work: Work, processes: int, threads: int, cache: Path | None) -> None:
        context = multiprocessing.get_context("spawn")
        together = context.Barrier(processes)
        if cache is not None:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, together, make, work, number, threads), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self.compile_s = max(self._answers())

    def turn(self, seconds: float, seed: int) -> list[Turn]:
        """One turn of about so many seconds in every process; each has fits of its own."""
        return self._ask(("turn", seconds, seed))

    def sweep(self, fits: int, seed: int) -> list[Turn]:
        """A whole sweep of so many fits in every process, to its end."""
        return self._ask(("sweep", fits, seed))

    def close(self) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.join(timeout=5)
            if process.is_alive():
                process.kill()

    def _ask(self, question: tuple[str, float, int]) -> list[Turn]:
        for pipe in self._pipes:
            pipe.send(question)
        return self._answers()

    def _answers(self) -> list[Any]:
        try:
            answers = [pipe.recv() for pipe in self._pipes]
        except EOFError as error:
            self.close()
            raise CrewError("a process ended without an answer; was it out of memory?") from error
        failed = [answer for answer in answers if isinstance(answer, CrewError)]
        if failed:
            self.close()
            raise failed[0]
        return answers


def _serve(pipe: Connection, together: Any, make: Callable[[], Side], work: Work, number: int, threads: int) -> None:
    try:
        torch.set_num_threads(threads)
        if torch.device(work.device).type == "cuda":
            torch.cuda.set_device(torch.device(work.device).index or 0)
        keep_freed_memory()  # all sides alike
        side = make()
        pipe.send(side.warm_up())
        while True:
            kind, amount, seed = pipe.recv()
            fits = work.fits(1000 * seed + number)
            together.wait(timeout=PATIENCE_S)
            if kind == "turn":
                pipe.send(side.turn(amount, fits))
            else:
                pipe.send(side.sweep([next(fits) for _ in range(int(amount))]))
    except EOFError:
        return  # the crew was closed
    except Exception:
        together.abort()
        pipe.send(CrewError(traceback.format_exc()))
