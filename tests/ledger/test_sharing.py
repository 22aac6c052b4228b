"""Studies are shared out among the workers that are alive: evenly, all of them, and to one worker each."""

from __future__ import annotations

from collections import Counter

import pytest
from sqlalchemy import update

from ledger.makers import claimed as claimed_trials
from ledger.makers import launched, plan, proposed, registered, rows, settled, settlement, study_ids
from sweeper.ledger import workers
from sweeper.ledger.rows import Meter, Sweep
from sweeper.ledger.schema import StudyRow, WorkerRow
from sweeper.ledger.store import Ledger
from sweeper.ledger.workers import Share


@pytest.fixture
def sweep(ledger: Ledger) -> Sweep:
    """Seven studies of two trials each."""
    return launched(ledger, plan(("none",), trials=2, replicates=7))


def at_work(ledger: Ledger, sweep: Sweep) -> int:
    """A worker that has entered what it did for a sweep."""
    worker = registered(ledger)
    with ledger.write() as connection:
        workers.set_meter(connection, worker, sweep.id, Meter())
    return worker


def share(ledger: Ledger, sweep: Sweep, worker: int) -> Share:
    with ledger.write() as connection:
        return workers.share_studies(connection, sweep.id, worker)


def shared(ledger: Ledger, sweep: Sweep, *at: int) -> list[int]:
    """How many studies each of some workers has, once all have noticed each other."""
    for _ in range(2):
        found = [share(ledger, sweep, worker) for worker in at]
    proposers = Counter(row.proposer_id for row in rows(ledger, StudyRow))
    assert [len(one.studies) for one in found] == [proposers[worker] for worker in at]
    return [len(one.studies) for one in found]


def test_one_worker_has_them_all(ledger: Ledger, sweep: Sweep):
    first = at_work(ledger, sweep)
    found = share(ledger, sweep, first)
    assert (len(found.studies), found.colleagues, found.crowd) == (7, 0, 1)
    assert found.studies == sorted(found.studies, reverse=True)  # in their order of turns
    assert share(ledger, sweep, first) == found


@pytest.mark.parametrize(("count", "expected"), [(2, [4, 3]), (3, [3, 2, 2]), (7, [1] * 7), (9, [1] * 7 + [0] * 2)])
def test_several_share_evenly_whoever_came_first(ledger: Ledger, sweep: Sweep, count: int, expected: list[int]):
    at = [at_work(ledger, sweep)]
    share(ledger, sweep, at[0])
    at += [at_work(ledger, sweep) for _ in range(count - 1)]
    assert shared(ledger, sweep, *at) == expected


def test_more_workers_than_studies_live_on_what_a_few_propose(ledger: Ledger):
    sweep = launched(ledger, plan(("none",), trials=2, replicates=2))
    at = [at_work(ledger, sweep) for _ in range(5)]
    assert shared(ledger, sweep, *at) == [1, 1, 0, 0, 0]
    assert share(ledger, sweep, at[0]).crowd == 3


def test_the_dead_the_retired_and_workers_of_other_sweeps_get_nothing(ledger: Ledger, sweep: Sweep):
    first, second, third = (at_work(ledger, sweep) for _ in range(3))
    other = launched(ledger, plan(name="other"))
    share(ledger, other, at_work(ledger, other))
    assert shared(ledger, sweep, first, second, third) == [3, 2, 2]
    with ledger.write() as connection:
        workers.retire(connection, second)
    assert shared(ledger, sweep, first, third) == [4, 3]
    with ledger.write() as connection:
        connection.execute(update(WorkerRow).where(WorkerRow.id == third).values(lease_until=0.0))
    assert share(ledger, sweep, first).colleagues == 0
    with ledger.write() as connection:
        workers.bury_dead(connection)
    assert shared(ledger, sweep, first) == [7]


def test_what_is_finished_is_nobodys_business(ledger: Ledger, sweep: Sweep):
    first, second = at_work(ledger, sweep), at_work(ledger, sweep)
    study = study_ids(ledger, sweep)["none", 3]
    proposed(ledger, study, 2)
    settled(ledger, sweep, first, *map(settlement, claimed_trials(ledger, sweep, first, 2)))
    assert shared(ledger, sweep, first, second) == [3, 3]
    assert study not in share(ledger, sweep, first).studies + share(ledger, sweep, second).studies


def test_a_worker_claims_what_it_proposed_itself_first(ledger: Ledger, sweep: Sweep):
    first, second = at_work(ledger, sweep), at_work(ledger, sweep)
    shared(ledger, sweep, first, second)
    for study in study_ids(ledger, sweep).values():
        proposed(ledger, study, 2)
    mine = set(share(ledger, sweep, second).studies)
    assert {one.study_id for one in claimed_trials(ledger, sweep, second, 6)} == mine
    assert {one.study_id for one in claimed_trials(ledger, sweep, second, 8)}.isdisjoint(mine)
