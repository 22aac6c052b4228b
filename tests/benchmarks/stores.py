"""How many trials a second a ledger takes in: suggestions, claims and settlements, on SQLite and on PostgreSQL.

    python tests/benchmarks/stores.py [SECONDS]

Each process is a worker with a study of its own. In one transaction each time, as in the scheduler, it settles some
trials with one fit of 40 epochs and one run for MLflow of 6 kB each, and enters and claims as many again. Both stores
wait for the disk at every commit.
"""

from __future__ import annotations

import itertools
import multiprocessing
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from ledger.makers import fit_result, launched, new_trial, plan, registered, settlement, study_ids
from postgres import NOT_DURABLE, postgres
from sweeper.ledger import trials, workers
from sweeper.ledger.rows import Claimed, Letter, NewTrial, SettledFit
from sweeper.ledger.store import Connection, Ledger
from sweeper.records import Setting

SETTING = Setting((1.0, 0.5), (0.1, 0.0))
FIT = SettledFit(0, 7, fit_result(epochs=40))


def turn(connection: Connection, worker: int, open_: list[Claimed], new: list[NewTrial], sweep: int) -> list[Claimed]:
    """Settle what is open, and claim as many again."""
    letters = {one.trial_id: (Letter(f"{one.trial_id}", "FINISHED", "x" * 6000),) for one in open_}
    ends = [settlement(one, fits=(FIT,), letters=letters[one.trial_id]) for one in open_]
    workers.has_ended(connection, worker)
    trials.settle(connection, worker, sweep, ends)
    trials.propose(connection, new)
    return trials.claim(connection, sweep, worker, len(new))


def work(url: str, sweep: int, study: int, batch: int, seconds: float, counts: multiprocessing.Queue[int]) -> None:
    """One worker."""
    ledger, open_, done = Ledger(url), list[Claimed](), 0
    worker, numbers, deadline = registered(ledger), itertools.count(), time.monotonic() + seconds
    while time.monotonic() < deadline:
        done += len(open_)
        new = [new_trial(study, next(numbers), told=0, running=(), setting=SETTING) for _ in range(batch)]
        open_ = ledger.keep(partial(turn, worker=worker, open_=open_, new=new, sweep=sweep))
    counts.put(done)


def rate(url: str, crowd: int, batch: int, seconds: float) -> float:
    """Trials a second of so many workers on a fresh sweep, of as many studies."""
    ledger = Ledger(url)
    sweep = launched(ledger, plan(("none",), replicates=8, trials=10**6, name=f"of-{crowd}-{batch}"))
    studies = list(study_ids(ledger, sweep).values())
    ledger.close()
    context = multiprocessing.get_context("spawn")
    counts = context.Queue()
    at_work = [
        context.Process(target=work, args=(url, sweep.id, study, batch, seconds, counts)) for study in studies[:crowd]
    ]
    for process in at_work:
        process.start()
    total = sum(counts.get() for _ in at_work)
    for process in at_work:
        process.join()
    return total / seconds


def table(name: str, url: str, seconds: float) -> None:
    """A line per number of workers and of trials in a transaction."""
    for crowd in (1, 4):
        for batch in (1, 8):
            found = rate(url, crowd, batch, seconds)
            print(f"{name:10} {crowd} workers, {batch} trials a transaction: {found:6.0f} trials/s, "
                  f"{found / batch:6.0f} transactions/s", flush=True)  # fmt: skip


def main() -> None:
    """Both stores."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory() as folder:
        table("SQLite", f"sqlite:///{folder}/ledger.db", seconds)
    with postgres() as server:
        server.run(*(f"ALTER SYSTEM RESET {name}" for name in NOT_DURABLE), "SELECT pg_reload_conf()")
        with server.database(migrated=True) as url:
            table("PostgreSQL", url, seconds)


if __name__ == "__main__":
    main()
