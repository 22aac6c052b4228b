"""Real `sweeper` processes that start at once, so that tests can kill many of them.

Importing PyTorch and the others takes seconds. Python's fork server imports them once; each process is forked from it,
runs the command line in a process of its own, and dies of a SIGKILL as any other does.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

PRELOAD = [
    "alembic.command",
    "mlflow.tracking",
    "optuna.samplers",
    "psycopg",
    "rich.live",  # not sweeper.cli: its console asks at once whether it writes to a terminal
    "rich.progress",
    "rich.table",
    "sklearn",
    "sweeper.cluster",
    "sweeper.courier",
    "sweeper.crew",
    "sweeper.price",
    "sweeper.worker",
    "torch._dynamo",  # the engine counts operations with it
    "typer",
]
OURS = ("MLFLOW_TRACKING_URI", "SWEEPER_HOME", "SWEEPER_STORE", "NO_COLOR", "FORCE_COLOR")
DEADLINE_S = 180.0  # for machines that are busy with other things
ROOT = str(Path(__file__).parents[1])

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # asked as MLflow is imported
FORK_SERVER = multiprocessing.get_context("forkserver")
FORK_SERVER.set_forkserver_preload(PRELOAD)


@dataclass(frozen=True)
class Crash:
    """Where a process kills itself: as it enters a function for the n-th time, or as it leaves it.

    Attributes:
        where: the function, e.g. "sweeper.scheduler:Scheduler._admit".
        number: the signal that it sends itself; SIGSTOP freezes it there.
    """

    where: str
    call: int = 1
    leaving: bool = False
    number: signal.Signals = signal.SIGKILL

    def arm(self) -> None:
        """Put the function under watch in this process."""
        replace_function(self.where, self._deadly)

    def _deadly(self, function: Callable[..., Any]) -> Callable[..., Any]:
        calls = 0

        def watched(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == self.call and not self.leaving:
                os.kill(os.getpid(), self.number)
            result = function(*args, **kwargs)
            if calls == self.call and self.leaving:
                os.kill(os.getpid(), self.number)
            return result

        return watched


def replace_function(where: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put what `change` makes of a function of this process in its place, e.g. of "sweeper.worker:work"."""
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, change(getattr(owner, name)))


@dataclass(frozen=True)
class Sweeper:
    """A `sweeper` process under way.

    Attributes:
        folder: where it runs, and where its output goes.
    """

    process: Any
    folder: Path
    number: int

    @property
    def pid(self) -> int:
        """The process's id."""
        return int(self.process.pid)

    @property
    def out(self) -> str:
        """Its standard output so far."""
        return _text(self.folder / f"{self.number}.out")

    @property
    def err(self) -> str:
        """Its standard error so far."""
        return _text(self.folder / f"{self.number}.err")

    @property
    def code(self) -> int | None:
        """Its exit code, -9 after a SIGKILL; None while it runs."""
        code: int | None = self.process.exitcode
        return code

    def wait(self) -> Sweeper:
        """Until it has ended by itself."""
        self.process.join(DEADLINE_S)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"still running after {DEADLINE_S:.0f} s: {self.out}{self.err}")
        return self

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Until something is so, which must be before it ends."""
        deadline = time.monotonic() + DEADLINE_S
        while not is_so():
            assert self.process.is_alive(), f"ended with {self.code}: {self.out}{self.err}"
            assert time.monotonic() < deadline, f"waited {DEADLINE_S:.0f} s: {self.out}{self.err}"
            time.sleep(0.005)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> Sweeper:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        return self.wait()


@dataclass
class Shell:
    """Starts `sweeper` in one folder.

    Attributes:
        folder: the working directory; the ledger is in its sweeper-data.
        environment: what is set beyond this process's environment.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    started: list[Sweeper] = field(default_factory=list)

    def start(self, *argv: str, crash: Crash | None = None, terminal: str | None = None) -> Sweeper:
        """Start a command; its output goes to a terminal, where one is given by its path."""
        number = len(self.started)
        outputs = (terminal, terminal) if terminal else (f"{number}.out", f"{number}.err")
        process = FORK_SERVER.Process(target=_sweeper, args=(self.folder, outputs, argv, self.environment, crash))
        process.start()
        self.started.append(Sweeper(process, self.folder, number))
        return self.started[-1]

    def __call__(self, *argv: str, crash: Crash | None = None) -> Sweeper:
        """Run a command to its end."""
        return self.start(*argv, crash=crash).wait()


@contextmanager
def shell(folder: Path, **environment: str) -> Iterator[Shell]:
    """A shell whose processes are gone at its end."""
    opened = Shell(folder, dict(environment))
    try:
        yield opened
    finally:
        for sweeper in opened.started:
            _end(sweeper)


def _end(sweeper: Sweeper) -> None:
    """Kill a process that still runs, and those that it started."""
    if sweeper.process.is_alive():
        for child in psutil.Process(sweeper.pid).children(recursive=True):
            child.kill()
        sweeper.process.kill()
    sweeper.process.join()


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _sweeper(
    folder: Path, outputs: tuple[str, str], argv: Sequence[str], environment: Mapping[str, str], crash: Crash | None
) -> None:
    """The process: as `python -m sweeper` in that folder, one thread, nothing to read on its standard input."""
    os.chdir(folder)
    for stream, path in enumerate(outputs, start=1):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOCTTY, 0o644), stream)
    for name in OURS:
        os.environ.pop(name, None)
    os.environ.update(environment)
    os.environ["PYTHONPATH"] = ROOT  # for the courier that it starts
    sys.argv = ["sweeper", *argv]

    import torch

    from sweeper.cli import main

    torch.set_num_threads(1)
    if crash is not None:
        crash.arm()
    main()
