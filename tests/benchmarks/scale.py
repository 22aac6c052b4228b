"""Many workers on one PostgreSQL: trials settled a second, and how long claims and whole transactions take.

    python tests/benchmarks/scale.py [WORKERS,WORKERS,...] [TRIALS_A_SECOND] [SECONDS] [REPLICATES]

Every worker is a process with the real scheduler, proposer, ledger and letters (random search, two spaces). Only its
engine is a stand-in: 8 slots, whose fits are over after two ticks, all with the same curves of 40 epochs. Ticks sleep,
so that all workers together want TRIALS_A_SECOND (400); 0 lets them run as fast as they can. The processes are forked
from one that has imported everything, so that they share PyTorch's memory. There are no processes that beat, and no
exporter. PostgreSQL waits for the disk at every commit, and has its cores in common with all workers.

In the end what the triggers counted is compared with the rows.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg
from sqlalchemy import func, select

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger.makers import fit_result
from postgres import NOT_DURABLE, Postgres, postgres
from small import small_workload
from sweeper.engine import Prepared, Tick
from sweeper.ledger import deliveries, sweeps, trials, workers
from sweeper.ledger.rows import Sweep
from sweeper.ledger.schema import StudyTallyRow, TrialRow
from sweeper.ledger.store import Connection, Ledger
from sweeper.letters import opening_letters
from sweeper.records import Cost, Fit, FitResult
from sweeper.scheduler import Scheduler
from sweeper.timesheet import Timesheet
from sweeper.worker import IDLE_LOOK_S
from sweeper.workload import Workload, differences

SLOTS, TICKS, EPOCHS = 8, 2, 40
CLAIM, KEEP = "claim", "transaction"
WARM_UP_S = 10.0  # that studies are shared out in
TEMPLATE = fit_result(epochs=EPOCHS)


@dataclass
class StandIn:
    """An engine that trains nothing: a fit is over after two ticks, and a tick takes its time.

    Attributes:
        tick_s: seconds that it sleeps.
    """

    tick_s: float
    slots: int = SLOTS
    overlaps: bool = False
    seated: dict[str, int] = field(default_factory=dict)  # ticks that each fit has left

    @property
    def free(self) -> int:
        """Slots without a fit."""
        return self.slots - len(self.seated)

    def prepare(self, fit: Fit, past: Any = None) -> Prepared:
        """Nothing to prepare."""
        return Prepared(fit, {}, past)

    def admit(self, fits: Sequence[Prepared]) -> None:
        """Put fits into slots; at first they are spread over the ticks, so that they don't all end in one."""
        for number, one in enumerate(fits, start=len(self.seated)):
            self.seated[one.fit.key] = TICKS - number % TICKS if self.free == self.slots else TICKS

    def launch(self) -> None:
        """Nothing to compute."""

    def collect(self) -> Tick:
        """Sleep for a tick."""
        began = time.perf_counter()
        time.sleep(self.tick_s)
        busy = len(self.seated)
        self.seated = {key: left - 1 for key, left in self.seated.items()}
        over = [key for key, left in self.seated.items() if left == 0]
        for key in over:
            del self.seated[key]
        results = tuple(_result(key) for key in over)
        took = max(1e-6, time.perf_counter() - began)
        return Tick(results, {}, 1, busy, self.slots, took, 0.0, took * (1 - busy / self.slots))

    def evict(self, keys: Sequence[str] | None = None) -> dict[str, Cost]:
        """Empty the slots."""
        gone = list(self.seated) if keys is None else list(keys)
        for key in gone:
            del self.seated[key]
        return {key: Cost() for key in gone}


def _result(key: str) -> FitResult:
    return replace(TEMPLATE, key=key, validation_loss=random.random())


@dataclass(frozen=True)
class Seen:
    """What one process measured within the time that counts."""

    seconds: Mapping[str, list[float]]
    retries: int
    private_mib: float


@dataclass(frozen=True)
class Stage:
    """What the processes have in common.

    Attributes:
        gate: all pass it together, once they are open.
        begin: the moment from which on things count. end: up to which.
        out: takes what each has seen.
    """

    gate: Any
    begin: Any
    end: Any
    out: Any


def work(url: str, sweep: Sweep, workload: Workload, tick_s: float, stage: Stage) -> None:
    """One worker from its start to its end; only what lies between two moments counts."""
    random.seed(os.getpid())
    measured: dict[str, list[float]] = {CLAIM: [], KEEP: []}
    ledger = Ledger(url)
    ledger.patience_s = 60.0
    _watch(measured, stage)
    worker_id = ledger.keep(partial(workers.register, device="stand-in", details={}))
    identity = {"worker": f"bench:{os.getpid()}", "device": "stand-in"}
    engine: Any = StandIn(tick_s)
    scheduler = Scheduler(
        ledger, sweep, workload, engine, worker_id=worker_id, times=Timesheet(), identity=identity, tick_s=tick_s
    )
    scheduler.open()
    stage.gate.wait()
    time.sleep(random.random() * tick_s)  # out of step
    while time.time() < stage.end.value:
        if scheduler.is_idle:
            scheduler.wait(IDLE_LOOK_S)
        else:
            scheduler.turn()
    seen = Seen({name: list(values) for name, values in measured.items()}, RETRIES[0], _private_mib())
    scheduler.give_up()
    scheduler.close()
    stage.out.put(seen)


RETRIES = [0]


def _watch(measured: dict[str, list[float]], stage: Stage) -> None:
    """Time claims, and every try of a transaction that keeps and claims."""
    from sweeper.ledger.store import Promise

    claim, tried = trials.claim, Promise.tried

    def timed(name: str, act: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                answer = act(*args, **kwargs)
            except BaseException:
                RETRIES[0] += 1
                raise
            if stage.begin.value <= time.time() <= stage.end.value:
                measured[name].append(time.perf_counter() - began)
            return answer

        return call

    trials.claim = timed(CLAIM, claim)
    Promise.tried = timed(KEEP, tried)  # type: ignore[method-assign]


def _private_mib() -> float:
    """This process's own memory, what it shares with the others left out."""
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) / 1024


def settled(connection: Connection) -> int:
    """Trials that are finished, by what the triggers counted."""
    return int(connection.scalar(select(func.coalesce(func.sum(StudyTallyRow.complete), 0))) or 0)


@dataclass(frozen=True)
class Count:
    """Where things stand: the moment, trials that are settled, and seconds of CPU so far."""

    at: float
    settled: int
    workers_s: float
    server_s: float


def _cpu_s(server: Postgres, processes: Sequence[Any]) -> tuple[float, float]:
    """Of the workers, and of all of PostgreSQL."""
    postmaster = int((server.folder / "postmaster.pid").read_text(encoding="utf-8").split()[0])
    theirs = psutil.Process(postmaster).children()
    sums = []
    for pids in ([process.pid for process in processes], [one.pid for one in theirs]):
        times = [psutil.Process(pid).cpu_times() for pid in pids if psutil.pid_exists(pid)]
        sums.append(sum(one.user + one.system for one in times))
    return sums[0], sums[1]


def crowd(server: Postgres, workload: Workload, number: int, rate: float, seconds: float) -> None:
    """So many workers on a fresh database; prints a line."""
    with server.database(migrated=True) as url:
        ledger = Ledger(url)
        with ledger.write() as connection:
            sweep = sweeps.launch(connection, workload.plan({}), fresh=False, differences=differences)
            deliveries.post(connection, sweep.id, opening_letters(sweep, sweeps.studies(connection, sweep.id)))
        ledger.close()
        tick_s = number * SLOTS / (TICKS * rate) if rate else 0.0
        context = multiprocessing.get_context("fork")
        moments = context.Value("d", math.inf), context.Value("d", math.inf)
        stage = Stage(context.Barrier(number + 1), *moments, context.Queue())
        processes = [context.Process(target=work, args=(url, sweep, workload, tick_s, stage)) for _ in range(number)]
        for process in processes:
            process.start()
        stage.gate.wait()
        stage.begin.value = time.time() + WARM_UP_S + 2 * tick_s
        stage.end.value = stage.begin.value + seconds
        counts = []
        for moment in (stage.begin.value, stage.end.value):
            time.sleep(max(0.0, moment - time.time()))
            with ledger.read() as connection:
                counts.append(Count(time.time(), settled(connection), *_cpu_s(server, processes)))
        seen = [stage.out.get(timeout=120) for _ in processes]
        for process in processes:
            process.join()
        _print(url, ledger, number, rate, counts, seen)
        ledger.close()


def _print(url: str, ledger: Ledger, number: int, rate: float, counts: Sequence[Count], seen: Sequence[Seen]) -> None:
    first, last = counts
    took, done = last.at - first.at, last.settled - first.settled
    with ledger.read() as connection:
        rows = connection.scalar(select(func.count()).where(TrialRow.state == "COMPLETE"))
        exact = rows == settled(connection)
    with psycopg.connect(url.replace("+psycopg", "")) as raw:
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        (deadlocks,) = raw.execute(query).fetchone() or (None,)
    claims, keeps = (1000 * np.concatenate([one.seconds[name] for one in seen]) for name in (CLAIM, KEEP))
    told = [
        f"{number:3} workers",
        f"wanted {rate:5.0f}" if rate else "wanted   all",
        f"{done / took:6.1f} trials/s",
        f"{len(keeps) / took:6.1f} transactions/s",
        *(f"{what} p50 {np.percentile(ms, 50):6.1f} p99 {np.percentile(ms, 99):6.1f} ms" for what, ms in
          ((CLAIM, claims), (KEEP, keeps))),
        f"{sum(one.retries for one in seen)} retries, {deadlocks} deadlocks",
        f"CPU per trial {1000 * (last.workers_s - first.workers_s) / max(1, done):.2f} ms workers, "
        f"{1000 * (last.server_s - first.server_s) / max(1, done):.2f} ms server",
        f"tallies {'exact' if exact else 'WRONG'}",
        f"{np.mean([one.private_mib for one in seen]):.0f} MiB each",
    ]  # fmt: skip
    print(", ".join(told), flush=True)


def surroundings() -> str:
    """The day, the machine, how busy it is, and what takes part."""
    names = ", ".join(f"{name} {version(name)}" for name in ("sqlalchemy", "psycopg", "optuna"))
    return f"{date.today()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before, {names}"


def main() -> None:
    """A line per number of workers."""
    given = dict(enumerate(sys.argv[1:]))
    numbers = [int(one) for one in given.get(0, "1,4,16,64").split(",")]
    rate, seconds, replicates = float(given.get(1, "400")), float(given.get(2, "15")), int(given.get(3, "70"))
    # A thread of OpenMP's that runs in a parent is missing in its children.
    os.environ["OMP_NUM_THREADS"] = "1"
    print(f"{surroundings()}, {2 * replicates} studies", flush=True)
    with tempfile.TemporaryDirectory() as folder, postgres() as server:
        budget = f"trials: 1000000, replicates: {replicates}"
        changes = ("epochs: 4", f"epochs: {EPOCHS}"), ("trials: 5, replicates: 2", budget)
        workload = small_workload(Path(folder), *changes)
        settings = (f"ALTER SYSTEM RESET {name}" for name in NOT_DURABLE)
        server.run(*settings, "ALTER SYSTEM SET max_connections = 200")
        server.stop()
        server.start()
        for number in numbers:
            crowd(server, workload, number, rate, seconds)


if __name__ == "__main__":
    main()
