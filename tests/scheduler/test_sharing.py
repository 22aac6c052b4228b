"""Several workers on one sweep: the studies are shared out, nobody is idle for long, and what is found stays the same.

Two schedulers take turns in this process, so that what happens is the same every time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from sqlalchemy import select

from small import FOLDS, TPE, TRIALS, Change, outcome, run_here, small_workload
from sweeper.calibration import Wish, set_up
from sweeper.ledger import deliveries, sweeps, trials, workers
from sweeper.ledger.schema import AttemptRow, StudyRow, TrialRow
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.letters import study_name
from sweeper.scheduler import Scheduler, sharing
from sweeper.timesheet import Timesheet
from sweeper.workload import Workload, differences

ONE_STUDY: Change = ("replicates: 2", "replicates: 1")
ONE_SPACE: Change = ("  both: {keep_prob: per_layer, lambda: per_layer}\n", "")
CONCURRENT: Change = ("trials: 5", "trials: 12, concurrency: 4")
PRUNED: Change = ("replicates: 2", "replicates: 2, pruner: {kind: asha, min_resource: 1, reduction_factor: 2}")


@pytest.fixture(autouse=True)
def at_every_turn(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Studies are shared anew at every turn; on one thread."""
    monkeypatch.setattr(sharing, "SHARE_S", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Pair:
    """A sweep and its workers, each a scheduler that waits for its turn."""

    def __init__(self, workload: Workload, home: Path) -> None:
        self.workload, self.ledger = workload, Ledger(sqlite_url(home))
        with self.ledger.write() as connection:
            self.sweep = sweeps.launch(connection, workload.plan({}), fresh=False, differences=differences)
        self.idle: Counter[int] = Counter()
        self.turns = 0

    def worker(self, slots: int = 2) -> Scheduler:
        setup = set_up(self.workload, Wish("cpu", slots=slots, threads=1, processes=1, compiling=False))
        with self.ledger.write() as connection:
            id_ = workers.register(connection, "cpu", {})
        identity = {"worker": str(id_), "device": "cpu"}
        scheduler = Scheduler(
            self.ledger, self.sweep, self.workload, setup.engine, worker_id=id_, times=Timesheet(), identity=identity
        )
        scheduler.open()
        return scheduler

    def turn(self, *at_work: Scheduler) -> None:
        """A turn of each."""
        self.turns += 1
        for number, scheduler in enumerate(at_work):
            if scheduler.is_idle:
                self.idle[number] += 1
                scheduler.wait(0.0)
            else:
                scheduler.turn()

    def finish(self, *at_work: Scheduler) -> None:
        while not all(scheduler.is_done() for scheduler in at_work):
            self.turn(*at_work)
        for scheduler in at_work:
            scheduler.close()

    def column(self, *of: Any) -> list[Any]:
        with self.ledger.read() as connection:
            return connection.execute(select(*of)).all() if len(of) > 1 else list(connection.scalars(select(*of)))

    def proposers(self) -> Counter[int | None]:
        """How many studies each worker proposes for."""
        return Counter(self.column(StudyRow.proposer_id))


@pytest.mark.parametrize("changes", [(TPE,), (FOLDS,), (PRUNED, TPE)], ids=["tpe", "folds", "pruned"])
def test_two_workers_find_what_one_finds_and_train_each_trial_once(tmp_path: Path, changes: tuple[Change, ...]):
    workload, slots = small_workload(tmp_path, *changes), 6 if FOLDS in changes else 2
    pair = Pair(workload, tmp_path)
    pair.finish(pair.worker(slots), pair.worker(slots))
    assert outcome(pair.ledger) == outcome(run_here(workload, tmp_path / "alone").ledger)
    trained = Counter(pair.column(AttemptRow.worker_id))
    assert trained.total() == TRIALS
    assert trained[1] == trained[2]
    assert pair.idle.total() <= 2


def test_whoever_joins_gets_an_even_share_and_leaves_it_behind(tmp_path: Path):
    pair = Pair(small_workload(tmp_path, ("trials: 5", "trials: 15")), tmp_path)
    first = pair.worker()
    assert pair.proposers() == {1: 4}
    second = pair.worker()
    for _ in range(6):  # whoever keeps results in the ledger, which is every fourth turn, notices its company
        pair.turn(first, second)
    assert pair.proposers() == {1: 2, 2: 2}
    third = pair.worker()
    for _ in range(9):
        pair.turn(first, second, third)
    assert sorted(pair.proposers().values()) == [1, 1, 2]
    second.give_up()
    second.close()
    for _ in range(9):
        pair.turn(first, third)
    assert pair.proposers() == {1: 2, 3: 2}
    pair.finish(first, third)
    assert set(pair.column(TrialRow.state)) == {"COMPLETE"}
    assert len(pair.column(AttemptRow.id)) == 60 + 2  # two were given up


@pytest.mark.parametrize("changes", [(TPE, CONCURRENT), (CONCURRENT,)], ids=["tpe", "random"])
def test_one_study_keeps_two_workers_busy(tmp_path: Path, changes: tuple[Change, ...]):
    """One of them proposes for both, and learns from the ledger how the other's trials ended."""
    pair = Pair(small_workload(tmp_path, ONE_STUDY, ONE_SPACE, *changes), tmp_path)
    pair.finish(pair.worker(), pair.worker())
    trained = Counter(pair.column(AttemptRow.worker_id))
    assert trained.total() == 12
    assert min(trained.values()) >= 4
    rows = pair.column(TrialRow.number, TrialRow.told, TrialRow.running)
    assert all(number == told + len(running) for number, told, running in rows)
    assert max(len(running) for _, _, running in rows) <= 3


def test_who_dies_leaves_its_studies_and_trials_to_the_other(tmp_path: Path):
    pair = Pair(small_workload(tmp_path, TPE), tmp_path)
    first, second = pair.worker(), pair.worker()
    for _ in range(5):
        pair.turn(first, second)
    with pair.ledger.write() as connection:
        workers.give_back(connection, 2, workers.LOST)
        workers.retire(connection, 2)
    pair.finish(first)
    assert outcome(pair.ledger) == outcome(run_here(pair.workload, tmp_path / "alone").ledger)


def test_a_worker_trains_its_own_studies_first(tmp_path: Path):
    """So that only at the end of a sweep anybody has to ask what became of its trials elsewhere."""
    pair = Pair(small_workload(tmp_path, ("trials: 5", "trials: 15")), tmp_path)
    first, second = pair.worker(), pair.worker()
    for _ in range(9):
        pair.turn(first, second)
    before = len(pair.column(TrialRow.id))
    for _ in range(12):
        pair.turn(first, second)
    with pair.ledger.read() as connection:
        query = select(TrialRow.worker_id == StudyRow.proposer_id).join(StudyRow)
        own = list(connection.scalars(query.where(TrialRow.id > before)))
    assert len(own) >= 8
    assert all(own)
    for scheduler in (first, second):
        scheduler.give_up()
        scheduler.close()


def test_a_long_history_is_taken_on_in_parts_and_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workload, alone = small_workload(tmp_path, TPE), tmp_path / "alone"
    run_here(workload, tmp_path, stop_after=12)
    monkeypatch.setattr(sharing, "AT_ONCE", 1)  # a trial, or a study, at a time
    ran = run_here(workload, tmp_path)
    assert outcome(ran.ledger) == outcome(run_here(workload, alone).ledger)


def test_a_restart_reads_no_finished_trial_where_none_matters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    workload, read, asked = small_workload(tmp_path), list[int](), trials.past
    run_here(workload, tmp_path, stop_after=12)

    def past(*args: Any, **kwargs: Any) -> Any:
        found = asked(*args, **kwargs)
        read.extend(one.number for one in found if one.state.is_finished)
        return found

    monkeypatch.setattr(trials, "past", past)
    ran = run_here(workload, tmp_path)
    assert read == []
    assert outcome(ran.ledger) == outcome(run_here(workload, tmp_path / "alone").ledger)


def test_whoever_leaves_closes_what_was_overlooked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The last two trials of a study were settled in transactions that did not see each other."""
    monkeypatch.setattr("sweeper.scheduler.settling.tallies.perhaps_complete", lambda connection, studies: [])
    workload = small_workload(tmp_path)
    ran = run_here(workload, tmp_path)
    ended = partial(deliveries.ended, uids=[ran.sweep.uid])
    assert ran.ledger.ask(ended) == set()
    monkeypatch.undo()
    run_here(workload, tmp_path)
    assert ran.ledger.ask(ended) == {ran.sweep.uid}
    with ran.ledger.read() as connection:
        studies = [study_name(ran.sweep, study).uid for study in sweeps.studies(connection, ran.sweep.id)]
        assert deliveries.ended(connection, studies) == set(studies)
