"""Further workers on this machine, started by `sweeper run` and gone when it is.

Each is a process of its own with an engine of its own, and knows no other: they meet in the ledger. When its parent
parts from it or is gone (see `child`), a worker finishes its tick, gives back what it has not finished, and ends.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sweeper import child
from sweeper.errors import EngineError

PARTING_S = 20.0  # that a crew is given to finish its ticks and save; it goes on by itself after that


def devices(wanted: str, processes: int | None, gpus: int) -> tuple[str, ...]:
    """Where each worker of a machine computes: one per GPU, or as many on one device as were asked for.

    Args:
        wanted: a device that is there; "cuda" stands for all GPUs, "cuda:1" for that one.
        processes: how many workers the user wants; None leaves it to this.
        gpus: how many the machine has.

    Returns:
        A device for each worker; nothing on a CPU, where the calibration says how many there are.

    Raises:
        EngineError: there are more workers than GPUs.
    """
    if wanted == "cpu":
        return ()
    if wanted != "cuda":
        return (wanted,) * (processes or 1)
    count = processes or gpus
    if count > gpus:
        raise EngineError(
            f"-n {count} asks for {count} workers, and one keeps a GPU busy: there {_are(gpus)}. Pass -n {gpus}; or "
            f"name the GPU that all of them are to share: --device cuda:0 -n {count}"
        )
    return ("cuda",) if gpus == 1 else tuple(f"cuda:{number}" for number in range(count))


def _are(gpus: int) -> str:
    return "is one GPU" if gpus == 1 else f"are {gpus} GPUs"


@dataclass(frozen=True)
class Mate:
    """One further worker.

    Attributes:
        log: where it says what a user should know.
    """

    process: subprocess.Popen[bytes]
    log: Path

    @property
    def problem(self) -> str | None:
        """Why it ended before its time; None for one that works or has ended well."""
        code = self.process.poll()
        if not code:
            return None
        said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return f"a further worker ended ({said[-1] if said else f'exit code {code}'}); see {self.log}"


@contextmanager
def crew(
    commands: Sequence[Sequence[str]], environment: Mapping[str, str], threads: int, logs: Path
) -> Iterator[list[Mate]]:
    """Run `python -m sweeper ARGV` beside this process for as long as the block lasts, once for each ARGV.

    Args:
        commands: each works, and ends when its standard input does.
        environment: what to add to this process's own.
        threads: of each.
        logs: the folder for what they say.
    """
    mates: list[Mate] = []
    try:
        for number, argv in enumerate(commands, start=2):
            mates.append(_started(argv, environment, threads, logs / f"worker-{number}.log"))
        yield mates
    finally:
        part(mates)
        _await(mates, time.monotonic() + PARTING_S)


def _started(argv: Sequence[str], environment: Mapping[str, str], threads: int, log: Path) -> Mate:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as said:
        return Mate(child.start(argv, environment, threads, said), log)


def part(mates: Sequence[Mate]) -> None:
    """Tell further workers to finish; nobody waits for them here."""
    for mate in mates:
        child.part(mate.process)


def _await(mates: Sequence[Mate], deadline: float) -> None:
    for mate in mates:
        try:
            mate.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return
