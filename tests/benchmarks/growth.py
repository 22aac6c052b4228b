"""What takes how long in a ledger of 10^3, 10^4, 10^5 and 10^6 trials, on SQLite and on PostgreSQL.

    python tests/benchmarks/growth.py [TRIALS,TRIALS,...] [sqlite] [postgresql] [all]

Each ledger holds one sweep of 140 studies, with as many finished trials each; a trial has an attempt, a fit and a
delivered letter. The rows are copies of one trial that was really settled (`INSERT ... SELECT`; the tallies come from
the triggers on SQLite, and from the migration's own statements on PostgreSQL). Their fits have curves of 2 epochs, and
their letters no payload.

    status        seconds of `sweeper status NAME --json` in a process of its own, and of its queries; medians of 3
    random, tpe   seconds from nothing to the first claimed trials: a worker's `Scheduler.open`; 64 slots
    all           tpe: until the samplers of all studies are rebuilt; only where it is asked for
    claim, settle milliseconds of 8 trials each, transaction included; medians of 10
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import func, select, text

sys.path.insert(0, str(Path(__file__).parents[1]))

from scale import StandIn, surroundings

from ledger.makers import fit_result, new_trial, settlement
from postgres import NOT_DURABLE, postgres
from small import TPE, small_workload
from sweeper.cli import look
from sweeper.ledger import deliveries, sweeps, trials, workers
from sweeper.ledger.rows import Letter, SettledFit, Sweep
from sweeper.ledger.schema import AttemptRow, FitRow, OutboxRow, TrialRow
from sweeper.ledger.store import Connection, Ledger
from sweeper.letters import opening_letters
from sweeper.scheduler import Scheduler
from sweeper.timesheet import Timesheet
from sweeper.workload import Workload, differences

TALLIES = import_module("sweeper.ledger.migrations.versions.0005_tallies")
KINDS, ALL = ("sqlite", "postgresql"), "all"
STUDIES, SLOTS, REPEATS, BATCH = 140, 64, 3, 8
ROOT = Path(__file__).parents[2]


def seconds(act: Callable[[], object], repeats: int = REPEATS) -> float:
    """The median of some runs."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        act()
        found.append(time.perf_counter() - began)
    return median(found)


def first_trial(connection: Connection, sweep: Sweep, study: int, params: Any) -> int:
    """A trial from its proposal to its delivered letter; returns its id."""
    worker = workers.register(connection, "cpu", {"solo_step_s": 1e-6})
    trials.propose(connection, [new_trial(study, 0, params=params, told=0, running=())])
    (claimed,) = trials.claim(connection, sweep.id, worker, 1)
    fits = (SettledFit(0, 7, fit_result(epochs=2)),)
    trials.settle(
        connection, worker, sweep.id, [settlement(claimed, fits=fits, letters=(Letter("0", "FINISHED", ""),))]
    )
    deliveries.record_delivered(connection, {row.id: "run" for row in deliveries.take(connection, sweep.id, 10**6)})
    workers.set_times(connection, worker, sweep.id, {"train": 3600.0, "idle": 60.0})
    workers.retire(connection, worker)
    return claimed.trial_id


def copied(connection: Connection, table: Any, changes: dict[str, str], of: str) -> None:
    """Copy the only row of a table, some columns changed, once for each row of something."""
    names = [column.name for column in table.__table__.columns if column.name != "id"]
    values = [changes.get(name, f'first."{name}"') for name in names]
    quoted = ", ".join(f'"{name}"' for name in names)
    name = table.__tablename__
    statement = f'INSERT INTO "{name}" ({quoted}) SELECT {", ".join(values)} FROM "{name}" AS first, {of}'
    connection.execute(text(statement))


def fill(ledger: Ledger, sweep: Sweep, total: int, params: Any) -> None:
    """Finished trials, evenly over the studies."""
    with ledger.write() as connection:
        studies = [study.id for study in sweeps.studies(connection, sweep.id)]
        first = first_trial(connection, sweep, studies[0], params)
    each, low = total // len(studies), studies[0]
    numbers = f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {each}) SELECT i FROM n"
    pairs = f"(SELECT s.id AS study, m.i AS i FROM study AS s, ({numbers}) AS m WHERE s.id <> {low} OR m.i > 0) AS p"
    loss = "0.1 + 0.8 * ((p.i * 7919 + p.study * 104729) % 100003) / 100003.0"
    with ledger.write() as connection:
        if ledger.dialect == "postgresql":  # a million changes of one tally's row in one transaction take hours
            connection.execute(text("SET LOCAL session_replication_role = replica"))
        copied(connection, TrialRow, {"study_id": "p.study", "number": "p.i", "validation_loss": loss},
               f"{pairs} WHERE first.id = {first}")  # fmt: skip
        others = f"trial AS p WHERE first.id = 1 AND p.id <> {first}"
        # not all of them in the last minute, which `status` counts
        then = {"sqlite": "datetime(first.ended_at, '-1 day')", "postgresql": "first.ended_at - interval '1 day'"}
        copied(connection, AttemptRow, {"trial_id": "p.id", "ended_at": then[ledger.dialect]}, others)
        copied(connection, FitRow, {"attempt_id": "p.id"}, "attempt AS p WHERE first.id = 1 AND p.id > 1")
        uid = "CAST(p.id AS VARCHAR(20))"
        copied(connection, OutboxRow, {"uid": uid}, f"trial AS p WHERE first.uid = '0' AND p.id <> {first}")
    if ledger.dialect == "postgresql":
        with ledger.write() as connection, Operations.context(MigrationContext.configure(connection)):
            for tally in ("study_tally", "outbox_tally"):
                connection.execute(text(f"DELETE FROM {tally}"))
            for table in TALLIES.TALLIED:
                TALLIES._fill(table)
        with ledger._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM ANALYZE"))  # as autovacuum does within minutes


def status_s(url: str, folder: Path, name: str) -> float:
    """The whole command."""
    command = [sys.executable, "-m", "sweeper", "status", name, "--store", url, "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = partial(subprocess.run, command, cwd=folder, check=True, capture_output=True, env=environment)
    return seconds(run)


def opened(ledger: Ledger, sweep: Sweep, workload: Workload) -> tuple[float, float]:
    """Seconds to the first claimed trials, and until all samplers are rebuilt; then the worker lets go."""
    worker = ledger.keep(partial(workers.register, device="stand-in", details={}))
    engine: Any = StandIn(0.0, slots=SLOTS)
    identity = {"worker": "bench", "device": "stand-in"}
    scheduler = Scheduler(ledger, sweep, workload, engine, worker_id=worker, times=Timesheet(), identity=identity)
    began = time.perf_counter()
    scheduler.open()
    first = time.perf_counter() - began
    assert not scheduler.is_idle
    with ledger.read() as connection:
        mine = connection.scalar(select(func.count()).where(TrialRow.worker_id == worker, TrialRow.state == "RUNNING"))
    assert mine
    while ALL in sys.argv and len(scheduler._desks.studies) < STUDIES:
        scheduler._keep()
    whole = time.perf_counter() - began
    scheduler.give_up()
    scheduler.close()
    return first, whole


def turn_ms(ledger: Ledger, sweep: Sweep, params: Any) -> tuple[float, float]:
    """Milliseconds of claiming and of settling a few trials."""
    worker = ledger.keep(partial(workers.register, device="cpu", details={}))
    study = max(_asked(ledger, sweep).items(), key=lambda pair: pair[0])
    claims, settles, number = [], [], study[1]
    for _ in range(10):
        new = [new_trial(study[0], number + more, params=params, told=0, running=()) for more in range(BATCH)]
        number += BATCH
        ledger.keep(partial(trials.propose, trials=new))
        began = time.perf_counter()
        taken = ledger.keep(lambda connection: trials.claim(connection, sweep.id, worker, BATCH))
        claims.append(time.perf_counter() - began)
        ends = [settlement(one, letters=(Letter(f"t{one.trial_id}", "FINISHED", "x" * 6000),)) for one in taken]
        began = time.perf_counter()
        ledger.keep(lambda connection, ends=ends: trials.settle(connection, worker, sweep.id, ends))  # type: ignore[misc]
        settles.append(time.perf_counter() - began)
    ledger.keep(partial(workers.retire, worker_id=worker))
    return 1000 * median(claims), 1000 * median(settles)


def _asked(ledger: Ledger, sweep: Sweep) -> dict[int, int]:
    with ledger.read() as connection:
        return trials.asked(connection, [study.id for study in sweeps.studies(connection, sweep.id)])


def line(store: str, url: str, folder: Path, workloads: Sequence[Workload], total: int) -> None:
    """One ledger with so many trials."""
    ledger, free = Ledger(url), workloads[0]
    with ledger.write() as connection:
        sweep = sweeps.launch(connection, free.plan({}), fresh=False, differences=differences)
        deliveries.post(connection, sweep.id, opening_letters(sweep, sweeps.studies(connection, sweep.id)))
    space = next(iter(free.spaces.values()))
    params = {
        one.name: (one.low * one.high) ** 0.5 if one.log else (one.low + one.high) / 2 for one in space.parameters
    }
    began = time.perf_counter()
    fill(ledger, sweep, total, params)
    filled = time.perf_counter() - began
    queries = seconds(lambda: look._status(ledger, sweep))
    command = status_s(url, folder, sweep.name)
    restarts = [opened(ledger, sweep, workload) for workload in workloads]
    claim, settle = turn_ms(ledger, sweep, params)
    ledger.close()
    told = [
        f"{store:10} {total:9,} trials (filled in {filled:5.0f} s)",
        f"status {command:5.2f} s, its queries {queries:6.3f}",
        f"restart: random {restarts[0][0]:5.2f} s, tpe {restarts[1][0]:6.2f} s"
        + (f", all {restarts[1][1]:7.2f} s" if ALL in sys.argv else ""),
        f"claim {claim:5.1f} ms, settle {settle:5.1f} ms",
    ]
    print(" | ".join(told), flush=True)


@contextmanager
def stores(kind: str, folder: Path) -> Iterator[Callable[[int], Any]]:
    """Makes fresh stores of one kind."""
    if kind == "sqlite":

        @contextmanager
        def fresh(total: int) -> Iterator[str]:
            path = folder / f"{total}" / "ledger.db"
            yield f"sqlite:///{path}"
            path.unlink()

        yield fresh
        return
    with postgres() as server:
        server.run(*(f"ALTER SYSTEM RESET {name}" for name in NOT_DURABLE), "SELECT pg_reload_conf()")
        yield lambda total: server.database(migrated=True)


def main() -> None:
    """A line per store and size."""
    sizes = [int(float(one)) for one in (sys.argv[1] if len(sys.argv) > 1 else "1e3,1e4,1e5,1e6").split(",")]
    kinds = [kind for kind in KINDS if kind in sys.argv] or KINDS
    print(f"{surroundings()}, {STUDIES} studies", flush=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one_space = ("  both: {keep_prob: per_layer, lambda: per_layer}\n", "")
        budget = ("trials: 5, replicates: 2", f"trials: 1000000, replicates: {STUDIES}")
        workloads = [small_workload(folder, budget, one_space, *more) for more in ((), (TPE,))]
        for kind in kinds:
            with stores(kind, folder) as fresh:
                for total in sizes:
                    with fresh(total) as url:
                        line(kind, url, folder, workloads, total)


if __name__ == "__main__":
    main()
