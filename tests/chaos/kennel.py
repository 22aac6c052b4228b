"""Real workers and couriers that start in milliseconds and can be killed by the hundred.

A process that has imported everything, read the sweep and built its engine waits for orders, and forks itself for each.
What it forks does what `sweeper worker` does from there on (`worker.work`), or what `sweeper mlflow sync` does
(`courier.deliver`), with a session, connections, a heartbeat and an end of its own. The start that it is spared, import
and calibration, is killed in tests/test_resume.py.
"""

from __future__ import annotations

import os
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from processes import DEADLINE_S, FORK_SERVER

SLOTS = 4
KILLED = -signal.SIGKILL
AT_WORK = "at work\n"  # what a worker says at its first turn


class Fault(Protocol):
    """Something that is wrong with a process, from its start or at a certain point of its life."""

    def arm(self) -> None:
        """Make it so, in this process."""


class Job(Protocol):
    """What a process is to do; picklable."""

    @property
    def folder(self) -> Path:
        """Where its output goes."""

    def run(self, workload: Any, setup: Any) -> str:
        """Do it with the sweep made concrete and its engine; returns how it ended."""


@dataclass(frozen=True)
class Order:
    """A worker's or a courier's job.

    Attributes:
        folder: where its output goes; a worker leaves results there that the store can't take, a courier files that
            MLflow's server does not.
        store: the ledger's URL.
        sweep: its name.
        faults: what is wrong with it.
        checkpoints: where it keeps trials that are under way; None nowhere.
        every_s: seconds between two times that it does.
        mlflow: where a courier delivers; None makes it a worker.
        follows: a courier goes on until this file is there; None delivers what there is.
    """

    folder: Path
    store: str
    sweep: str
    faults: tuple[Fault, ...] = ()
    checkpoints: str | None = None
    every_s: float = float("inf")
    mlflow: str | None = None
    follows: Path | None = None

    def run(self, workload: Any, setup: Any) -> str:
        """Do it; returns how it ended."""
        from sweeper.ledger import sweeps
        from sweeper.ledger.store import Ledger

        for fault in self.faults:
            fault.arm()
        ledger = Ledger(self.store)
        with ledger.read() as connection:
            sweep = sweeps.find(connection, self.sweep)
        return self._deliver(ledger, sweep) if self.mlflow else self._work(ledger, sweep, workload, setup)

    def _work(self, ledger: Any, sweep: Any, workload: Any, setup: Any) -> str:
        from sweeper.checkpoints import Checkpoints
        from sweeper.scheduler import Saving, Spool
        from sweeper.timesheet import Timesheet
        from sweeper.worker import StopRequest, work

        place = None if self.checkpoints is None else Checkpoints(self.checkpoints)
        saving = Saving(place, self.every_s, lambda note: print(note, flush=True), Spool(self.folder / "spool"))
        with StopRequest().listening() as stop:
            told = iter([AT_WORK])
            said = {"on_turn": lambda scheduler: print(*told, end="", flush=True)}
            return str(work(ledger, sweep, workload, setup, Timesheet(), stop=stop, saving=saving, **said))

    def _deliver(self, ledger: Any, sweep: Any) -> str:
        from sweeper.courier import deliver

        awaited = self.follows
        more = (lambda: not awaited.exists()) if awaited else (lambda: False)
        return str(deliver(ledger, sweep, str(self.mlflow), self.folder / "mlartifacts", more_to_come=more))


@dataclass
class Dog:
    """A process of a kennel's.

    Attributes:
        out: what it said.
        code: its exit code, -9 after a SIGKILL; None while it runs.
    """

    kennel: Kennel
    pid: int
    out: Path
    code: int | None = None

    @property
    def said(self) -> str:
        """All that it said."""
        return self.out.read_text(encoding="utf-8") if self.out.exists() else ""

    def wait(self, seconds: float = DEADLINE_S) -> Dog:
        """Until it has ended by itself."""
        self.wait_until(lambda: self.has_ended, seconds)
        return self

    def wait_until(self, is_so: Callable[[], bool], seconds: float = DEADLINE_S) -> None:
        """Until something is so; where that takes too long, it is killed."""
        deadline = time.monotonic() + seconds
        while not is_so():
            if time.monotonic() > deadline:
                self.kill()
                raise TimeoutError(f"waited {seconds:.0f} s: {self.said}")
            time.sleep(0.002)

    def wait_well(self) -> Dog:
        """Until it has ended as it should."""
        assert self.wait().code == 0, self.said
        return self

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if not self.has_ended:
            os.kill(self.pid, number)

    def kill(self) -> Dog:
        """SIGKILL, and wait for its end."""
        self.send(signal.SIGKILL)
        return self.wait()

    @property
    def has_ended(self) -> bool:
        """Whether it is gone, by itself or not."""
        if self.code is None:
            self.code = self.kennel.code_of(self.pid)
        return self.code is not None

    @property
    def is_stopped(self) -> bool:
        """Whether a SIGSTOP holds it."""
        return Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0] == "T"


@dataclass
class Kennel:
    """Starts processes that work on sweeps of one file."""

    process: Any
    pipe: Any
    dogs: list[Dog] = field(default_factory=list)

    def start(self, order: Job) -> Dog:
        """Start a process; it works when this returns."""
        out = order.folder / f"{len(self.dogs)}.out"
        self.pipe.send((order, out))
        self.dogs.append(Dog(self, self._answer(), out))
        return self.dogs[-1]

    def code_of(self, pid: int) -> int | None:
        """The exit code of one of its processes; None while that runs."""
        self.pipe.send(pid)
        code: int | None = self._answer()
        return code

    def _answer(self) -> Any:
        assert self.pipe.poll(DEADLINE_S), "the kennel does not answer"
        return self.pipe.recv()


@contextmanager
def kennel(file: Path, slots: int = SLOTS) -> Iterator[Kennel]:
    """A kennel for sweeps of a file, of workers with so many slots; its processes are gone at its end."""
    ours, theirs = FORK_SERVER.Pipe()
    process = FORK_SERVER.Process(target=_serve, args=(theirs, file, slots))
    process.start()
    theirs.close()
    opened = Kennel(process, ours)
    try:
        assert opened._answer() == "ready"
        yield opened
    finally:
        for dog in opened.dogs:
            if dog.code is None:
                dog.kill()
        ours.close()
        process.join(10)
        if process.is_alive():
            process.kill()


def _serve(pipe: Any, file: Path, slots: int) -> None:
    """The process that waits for orders: it starts no thread and opens no store."""
    import torch

    torch.set_num_threads(1)
    workload, setup = prepared(file, slots)
    pipe.send("ready")
    while True:
        try:
            said = pipe.recv()
        except EOFError:
            return
        if isinstance(said, int):
            pipe.send(_code(said))
            continue
        pid = os.fork()
        if pid == 0:
            pipe.close()
            _obey(*said, workload, setup)
        pipe.send(pid)


def prepared(file: Path, slots: int = SLOTS) -> tuple[Any, Any]:
    """A sweep file made concrete, and how this machine computes it."""
    from sweeper.blueprint import named_packages
    from sweeper.calibration import Wish, set_up
    from sweeper.config import parse_sweep
    from sweeper.construction import Access
    from sweeper.workload import workload_of

    said = parse_sweep(file.read_text(encoding="utf-8"), str(file), file.parent)
    workload = workload_of(said, Access(named_packages(said.sweep)))
    return workload, set_up(workload, Wish("cpu", slots=slots, threads=1, processes=1, compiling=False))


def _code(pid: int) -> int | None:
    ended, status = os.waitpid(pid, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if ended else None


def _obey(order: Job, out: Path, workload: Any, setup: Any) -> None:
    """In the forked process: do as told, and end without what the parent would do at its end."""
    from sweeper.errors import SweeperError

    os.setsid()
    for stream in (1, 2):
        os.dup2(os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644), stream)
    code = 1
    try:
        print(order.run(workload, setup), flush=True)
        code = 0
    except SweeperError as error:
        print(f"error: {error}", flush=True)
        code = 2
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)
