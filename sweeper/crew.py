"""Further workers on this machine, started by `sweeper run` and gone when it is.

Each is a process of its own with an engine of its own, and knows no other: they meet in the ledger. When its parent
parts from it or is gone (see `child`), a worker finishes its tick, gives back what it has not finished, and ends.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sweeper import child

PARTING_S = 60.0  # that a crew is given to finish its ticks; it goes on by itself after that


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
    count: int, argv: Sequence[str], environment: Mapping[str, str], threads: int, logs: Path
) -> Iterator[list[Mate]]:
    """Run `python -m sweeper ARGV` so many times beside this process for as long as the block lasts.

    Args:
        count: how many.
        argv: the command that works, and ends when its standard input does.
        environment: what to add to this process's own.
        threads: of each.
        logs: the folder for what they say.
    """
    mates: list[Mate] = []
    try:
        for number in range(count):
            mates.append(_started(argv, environment, threads, logs / f"worker-{number + 2}.log"))
        yield mates
    finally:
        for mate in mates:
            _part(mate)


def _started(argv: Sequence[str], environment: Mapping[str, str], threads: int, log: Path) -> Mate:
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as said:
        return Mate(child.start(argv, environment, threads, said), log)


def _part(mate: Mate) -> None:
    child.part(mate.process)
    try:
        mate.process.wait(PARTING_S)
    except subprocess.TimeoutExpired:
        return
