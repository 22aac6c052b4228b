"""kill -9 of workers and couriers, at the points where something is half done and at a hundred random moments."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from chaos.faults import Values
from chaos.kennel import AT_WORK, KILLED, SLOTS, Dog
from chaos.stage import LONGER, Stage
from processes import Crash

WORKER = {
    "before claims are committed": Crash("sweeper.ledger.trials:claim", 3, leaving=True),
    "mid-epoch": Crash("sweeper.engine.layers:linear", 200),
    "after results were committed": Crash("sweeper.scheduler.saving:Saver.forget", 3),
    "as a COMMIT was done and not answered": Crash("psycopg:Connection.commit", 5, leaving=True),
}
COURIER = {
    "before create_run": Crash("sweeper.export.mlflow:MlflowSink._create", 7),
    "after create_run": Crash("sweeper.export.mlflow:MlflowSink._create", 7, leaving=True),
    "between log_batch and terminate": Crash("sweeper.export.mlflow:MlflowSink._log", 9, leaving=True),
    "before the ledger knows what was delivered": Crash("sweeper.ledger.deliveries:record_delivered"),
}
KILLS = 100
# A trial whose workers die again and again is suspected of it, and given up in the end. Here it is innocent.
UNSUSPICIOUS = Values({"sweeper.ledger.workers:LOSSES": 10**6})


@pytest.mark.parametrize("point", WORKER)
def test_a_worker_that_is_killed_at_a_point(stage: Callable[..., Stage], point: str):
    now = stage()
    assert now.worker(WORKER[point]).wait().code == KILLED
    before = now.settled()
    assert 0 < before < now.trials
    now.finish()
    found = now.check(f"kill -9 of a worker {point}: 1 kill after {before} trials")
    assert 0 < found.attempts["LOST"] <= SLOTS


@pytest.mark.parametrize("point", COURIER)
def test_a_courier_that_is_killed_at_a_point(stage: Callable[..., Stage], point: str):
    now = stage()
    now.finish()
    assert now.courier(COURIER[point]).wait().code == KILLED
    now.check(f"kill -9 of a courier {point}: 1 kill")


@dataclass
class Doomed:
    """One place at which a process is started again whenever it was killed, each time at a moment drawn beforehand.

    Attributes:
        start: starts one.
        life_s: the longest that it is given, from its start on or, seven times of ten, from its first turn.
        works: whether it has turns.
        kills: so far.
    """

    start: Callable[[], Dog]
    moments: random.Random
    life_s: float
    works: bool = True
    kills: int = 0
    dog: Dog | None = None
    life: float = 0.0
    counts_work: bool = False
    until: float | None = None

    def look(self) -> None:
        """Kill it if its moment has come, and start another."""
        if self.dog is None:
            self.life = self.moments.uniform(0.0, self.life_s)
            self.counts_work = self.works and self.moments.random() < 0.7
            self.dog, self.until = self.start(), None
        elif self.dog.has_ended:
            assert self.dog.code == 0, self.dog.said
            self.dog = None
        elif self.until is None:
            if not self.counts_work or AT_WORK in self.dog.said:
                self.until = time.monotonic() + self.life
        elif time.monotonic() > self.until:
            self.kills += self.dog.kill().code == KILLED
            self.dog = None


def raid(now: Stage, moments: random.Random, kills: int) -> tuple[int, int]:
    """Two workers and a courier, killed until the sweep is done or so many workers were; returns who was."""
    never: Path = now.folder / "never"
    worker = partial(now.worker, UNSUSPICIOUS, checkpoints=True)
    workers = [Doomed(worker, moments, 0.5) for _ in range(2)]
    courier = Doomed(partial(now.courier, follows=never), moments, 1.5, works=False)
    killed = 0
    while killed < kills and now.settled() < now.trials:
        for one in (*workers, courier):
            one.look()
        killed = sum(one.kills for one in workers)
    for one in (*workers, courier):
        if one.dog is not None:
            one.dog.kill()
    now.finish(UNSUSPICIOUS, checkpoints=True)
    return killed, courier.kills


def test_workers_and_couriers_that_are_killed_at_random_moments(
    stage: Callable[..., Stage], record_property: Callable[[str, object], None]
):
    """A sweep after another until a hundred workers were killed; each must be whole."""
    moments, workers, couriers, told = random.Random(0), 0, 0, []
    while workers < KILLS:
        now = stage(*LONGER)
        killed = raid(now, moments, KILLS - workers)
        assert killed[0] > 0
        workers, couriers = workers + killed[0], couriers + killed[1]
        told.append(now.evidence())
        assert not list(now.folder.rglob("*.safetensors"))
    trials, attempts = sum(one.trials for one in told), sum(one.attempts.total() for one in told)
    lost, runs = sum(one.attempts["LOST"] for one in told), sum(one.runs for one in told)
    record_property(
        "counted",
        f"kill -9 at random moments: {workers} kills of workers, {couriers} of couriers, in {len(told)} sweeps, "
        f"{trials} trials, {attempts} attempts ({lost} lost), 0 twice, {runs} runs, bitwise equal",
    )
    assert lost > 0
    assert couriers > 0
