"""What triggers have counted is what the rows come to, whatever was done to them."""

from __future__ import annotations

import importlib
import random
from contextlib import suppress
from typing import Any

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import ColumnElement, and_, case, delete, func, select

from ledger.makers import (
    claimed,
    cost,
    failure,
    launched,
    new_trial,
    plan,
    proposed,
    registered,
    rows,
    settled,
    settlement,
    study_ids,
)
from sweeper.ledger import deliveries, tallies, trials, workers
from sweeper.ledger.rows import Claimed, Finished, Letter, Settlement, Sweep
from sweeper.ledger.schema import (
    COST_COLUMNS,
    AttemptRow,
    OutboxRow,
    OutboxTallyRow,
    StudyRow,
    StudyTallyRow,
    TrialRow,
)
from sweeper.ledger.store import Connection, Ledger
from sweeper.records import TrialState

MOVES, NONE = 40, -1.0
tallies_migration = importlib.import_module("sweeper.ledger.migrations.versions.0005_tallies")


def number(condition: ColumnElement[bool]) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def counted(connection: Connection) -> dict[int, tuple[float, ...]]:
    """By study what its rows come to."""
    ends = [number(TrialRow.state == state) for state in (TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED)]
    best = func.coalesce(func.min(case((TrialRow.state == TrialState.COMPLETE, TrialRow.validation_loss))), NONE)
    joined = select(StudyRow.id, *ends, best).outerjoin(TrialRow).group_by(StudyRow.id)
    found = {id_: tuple(values) for id_, *values in connection.execute(joined)}
    ended = AttemptRow.ended_at.is_not(None)
    used = and_(ended, AttemptRow.joules.is_(None), AttemptRow.train_s + AttemptRow.evaluate_s > 0)
    spent = [func.coalesce(func.sum(case((ended, getattr(AttemptRow, name)))), 0) for name in COST_COLUMNS]
    counts = number(ended), number(and_(ended, AttemptRow.joules.is_not(None))), number(used)
    attempts = select(StudyRow.id, *counts, *spent).outerjoin(TrialRow, TrialRow.study_id == StudyRow.id)
    query = attempts.outerjoin(AttemptRow, AttemptRow.trial_id == TrialRow.id).group_by(StudyRow.id)
    return {id_: (*map(float, found[id_]), *map(float, values)) for id_, *values in connection.execute(query)}


def tallied(connection: Connection) -> dict[int, tuple[float, ...]]:
    """The same as triggers counted it."""
    counts = ("attempts", "measured", "unmeasured", *COST_COLUMNS)

    def total(name: str) -> Any:
        return func.coalesce(func.sum(getattr(StudyTallyRow, name)), 0)

    ends = [*map(total, ("complete", "failed", "pruned")), func.min(StudyTallyRow.best_validation_loss)]
    ends[-1] = func.coalesce(ends[-1], NONE)
    query = select(StudyRow.id, *ends, *map(total, counts)).outerjoin(StudyTallyRow).group_by(StudyRow.id)
    return {id_: tuple(map(float, values)) for id_, *values in connection.execute(query)}


def runs(connection: Connection, sweep_id: int) -> tuple[int, int, int]:
    """Delivered, waiting and parked runs, counted row by row."""
    letters: dict[str, list[tuple[bool, bool]]] = {}
    columns = OutboxRow.uid, OutboxRow.delivered_at, OutboxRow.refusals
    for uid, delivered_at, refusals in connection.execute(select(*columns).where(OutboxRow.sweep_id == sweep_id)):
        is_open = delivered_at is None
        letters.setdefault(uid, []).append((is_open, is_open and refusals < deliveries.REFUSALS))
    waiting = sum(any(waits for _, waits in one) for one in letters.values())
    is_open = sum(any(open_ for open_, _ in one) for one in letters.values())
    return len(letters) - is_open, waiting, is_open - waiting


class Life:
    """Random things that happen to a sweep. Workers settle whatever they ever claimed, be it another's by now."""

    def __init__(self, ledger: Ledger, sweep: Sweep, seed: int) -> None:
        self.ledger, self.sweep, self.random = ledger, sweep, random.Random(seed)
        self.studies = list(study_ids(ledger, sweep).values())
        self.claims: dict[int, list[Claimed]] = {registered(ledger): [], registered(ledger): []}

    def move(self) -> None:
        """One transaction; some are undone."""
        acts = [self.work] * 5 + [self.give_up, self.lose, self.mail]
        worker, claims = self.random.choice(list(self.claims.items()))
        with suppress(Undone), self.ledger.write() as connection:
            claimed = self.random.choice(acts)(connection, worker, claims)
            if self.random.random() < 0.2:
                raise Undone
            claims += claimed or []

    def work(self, connection: Connection, worker: int, claims: list[Claimed]) -> list[Claimed]:
        over = [claims.pop(self.random.randrange(len(claims))) for _ in range(min(2, len(claims)))]
        counts = trials.settle(connection, worker, self.sweep.id, [self.ending(one) for one in over])
        trials.charge_storage(connection, {one.claimed.attempt_id: 0.0625 for one in counts})
        study = self.random.choice(self.studies)
        asked = connection.scalar(select(func.count()).where(TrialRow.study_id == study)) or 0
        trials.propose(connection, [new_trial(study, asked, running=())])
        return trials.claim(connection, self.sweep.id, worker, 2)

    def ending(self, one: Claimed) -> Settlement:
        spent = cost(0.5, 0.25, self.random.choice([None, 1.5, 0.0]))
        state = self.random.choice([TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
        make = failure if state is TrialState.FAIL else settlement
        return make(one, loss=self.random.random(), cost=spent, state=state)

    def give_up(self, connection: Connection, worker: int, claims: list[Claimed]) -> None:
        trials.release(connection, worker, {one: cost(2.0, 0.0) for one in claims[:2]})

    def lose(self, connection: Connection, worker: int, claims: list[Claimed]) -> None:
        workers.set_times(connection, worker, self.sweep.id, {"train": float(self.random.randrange(64))})
        workers.give_back(connection, worker, workers.LOST)

    def mail(self, connection: Connection, worker: int, claims: list[Claimed]) -> None:
        uid, statuses = f"study {self.random.randrange(3)}", self.random.choice([["RUNNING"], ["RUNNING", "FINISHED"]])
        deliveries.post(connection, self.sweep.id, [Letter(uid, status, "{}") for status in statuses])
        taken = deliveries.take(connection, self.sweep.id, 4)
        deliveries.record_delivered(connection, {row.id: "run" for row in taken[:2]})
        for row in taken[2:]:
            for _ in range(self.random.choice([1, deliveries.REFUSALS])):
                deliveries.record_refused(connection, row.id, "no")


class Undone(Exception):  # noqa: N818
    """Ends a transaction that is to leave nothing behind."""


def agree(ledger: Ledger, sweep: Sweep) -> dict[int, tuple[float, ...]]:
    """Compare every tally with its rows; returns what they come to, by study."""
    with ledger.read() as connection:
        found, expected = tallied(connection), counted(connection)
        assert found.keys() == expected.keys()
        for study, values in expected.items():
            assert found[study] == pytest.approx(values, rel=1e-12)  # sums in another order
        assert deliveries.counts(connection, sweep.id) == runs(connection, sweep.id)
        return expected


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_happens_the_tallies_are_what_the_rows_come_to(ledger: Ledger, sweep: Sweep, seed: int) -> None:
    life = Life(ledger, sweep, seed)
    for _ in range(MOVES):
        life.move()
    expected = agree(ledger, sweep)
    totals = [sum(column) for column in zip(*((*one[:3], *one[4:7]) for one in expected.values()), strict=True)]
    assert min(totals) > 0  # every kind of end and of measurement was there
    launched(ledger, plan(trials=99))
    agree(ledger, sweep)
    fresh = launched(ledger, fresh=True)
    assert set(agree(ledger, fresh).values()) == {(0.0, 0.0, 0.0, NONE, *[0.0] * 13)}
    assert not rows(ledger, OutboxTallyRow)


def test_a_study_is_perhaps_complete_once_nobody_waits_to_be_trained(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    study = study_ids(ledger, sweep)["none", 0]

    def perhaps() -> list[int]:
        with ledger.read() as connection:
            return tallies.perhaps_complete(connection, [study])

    proposed(ledger, study, 8)
    first = claimed(ledger, sweep, worker, 7)
    settled(ledger, sweep, worker, *map(settlement, first[:5]))
    assert perhaps() == []
    claimed(ledger, sweep, worker)
    assert perhaps() == [study]
    with ledger.read() as connection:
        assert tallies.by_study(connection, [study]) == {study: Finished(5, 0, 0, 0.2)}


def test_a_store_of_an_older_sweeper_is_counted_as_it_stands(ledger: Ledger, sweep: Sweep) -> None:
    life = Life(ledger, sweep, seed=3)
    for _ in range(MOVES // 2):
        life.move()
    before = agree(ledger, sweep)
    with ledger.write() as connection:
        for table in (StudyTallyRow, OutboxTallyRow):
            connection.execute(delete(table))
        context = MigrationContext.configure(connection)
        with Operations.context(context):
            for table in tallies_migration.TALLIED:
                tallies_migration._fill(table)
    assert agree(ledger, sweep) == before
