"""Launching a name: it is created, continued, extended, refused or forgotten."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from ledger.makers import (
    SPACES,
    claimed,
    launched,
    plan,
    proposed,
    registered,
    rows,
    settled,
    settlement,
    started,
    study_ids,
)
from sweeper.errors import SweepChangedError, UnknownSweepError
from sweeper.ledger import sweeps, workers
from sweeper.ledger.rows import Study
from sweeper.ledger.schema import Base, SweepRow, TrialRow, WorkerRow, WorkerTimeRow
from sweeper.ledger.store import Ledger


def studies(ledger: Ledger, sweep_id: int) -> list[Study]:
    with ledger.read() as connection:
        return sweeps.studies(connection, sweep_id)


def test_a_launched_sweep_is_found_with_all_that_was_planned(ledger: Ledger) -> None:
    launched(ledger)
    with ledger.read() as connection:
        found = sweeps.find(connection, "digits")
    assert {name: getattr(found, name) for name in vars(plan()) if name != "studies"} == {
        name: value for name, value in vars(plan()).items() if name != "studies"
    }
    assert found.state == sweeps.OPEN
    assert found.created_at.tzinfo is UTC
    assert abs(found.created_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_studies_come_in_their_order_of_turns_with_all_that_was_planned(ledger: Ledger) -> None:
    sweep = launched(ledger)
    fields = ("space", "replicate", "dimensions", "sampler", "seed", "trials")
    found = [{name: asdict(study)[name] for name in fields} for study in studies(ledger, sweep.id)]
    in_turn = sorted(plan().studies, key=lambda study: study.turn)
    assert found == [{name: asdict(study)[name] for name in fields} for study in in_turn]


def test_the_same_content_continues_the_sweep(ledger: Ledger) -> None:
    first = launched(ledger)
    proposed(ledger, study_ids(ledger, first)["none", 0], 2)
    assert launched(ledger) == first
    assert len(rows(ledger, TrialRow)) == 2
    assert len(studies(ledger, first.id)) == 4


def test_continuing_a_stopped_sweep_opens_it(ledger: Ledger) -> None:
    sweep = launched(ledger)
    with ledger.write() as connection:
        sweeps.set_state(connection, sweep.id, sweeps.STOPPED)
    assert launched(ledger).state == sweeps.OPEN


@pytest.mark.parametrize(
    ("longer", "studies_after", "trials_after"),
    [
        pytest.param(plan(trials=12), 4, 48, id="more trials"),
        pytest.param(plan(replicates=3), 6, 48, id="more replicates"),
        pytest.param(plan((*SPACES, "per_layer")), 6, 48, id="another space"),
        pytest.param(plan((*SPACES, "per_layer"), trials=10, replicates=3), 9, 90, id="all three"),
    ],
)
def test_more_extends_the_sweep_and_keeps_its_trials(
    ledger: Ledger, longer: object, studies_after: int, trials_after: int
) -> None:
    first = launched(ledger)
    before = study_ids(ledger, first)
    proposed(ledger, before["none", 0], 3)
    extended = launched(ledger, longer)  # type: ignore[arg-type]
    assert (extended.id, extended.token, extended.created_at) == (first.id, first.token, first.created_at)
    assert extended.config == longer.config  # type: ignore[attr-defined]
    after = studies(ledger, first.id)
    assert (len(after), sum(study.trials for study in after)) == (studies_after, trials_after)
    assert before.items() <= study_ids(ledger, first).items()
    assert len(rows(ledger, TrialRow, study_id=before["none", 0])) == 3


@pytest.mark.parametrize(
    ("other", "said"),
    [
        pytest.param(plan(epochs=41), "train.epochs: 40 -> 41", id="another value"),
        pytest.param(plan(trials=7), "search.trials: 8 -> 7, but a sweep can only be extended", id="fewer trials"),
        pytest.param(plan(replicates=1), "search.replicates: 2 -> 1", id="fewer replicates"),
        pytest.param(plan(SPACES[:1]), "spaces.shared was taken out", id="a space less"),
        pytest.param(replace(plan(), data_sha256="cd" * 32), "the data: the rows", id="other data"),
    ],
)
def test_another_content_is_refused_with_what_changed(ledger: Ledger, other: object, said: str) -> None:
    sweep = launched(ledger)
    with pytest.raises(SweepChangedError, match=r"a sweep named 'digits' was launched on \d{4}-\d\d-\d\d") as caught:
        launched(ledger, other)  # type: ignore[arg-type]
    assert said in str(caught.value)
    assert "another name, or pass --fresh" in str(caught.value)
    assert launched(ledger) == sweep
    assert len(studies(ledger, sweep.id)) == 4


def test_a_refusal_tells_every_change(ledger: Ledger) -> None:
    launched(ledger)
    with pytest.raises(SweepChangedError) as caught:
        launched(ledger, replace(plan(epochs=41, trials=7), data_sha256="cd" * 32))
    assert len([line for line in str(caught.value).splitlines() if line.startswith("  ")]) == 3


def test_fresh_forgets_the_sweep_of_that_name_and_no_other(ledger: Ledger) -> None:
    worker = registered(ledger)
    other = launched(ledger, plan(name="lecture"))
    kept = started(ledger, other, worker)[0].trial_id
    first = launched(ledger)
    settled(ledger, first, worker, settlement(started(ledger, first, worker)[0]))
    with ledger.write() as connection:
        workers.set_times(connection, worker, first.id, {"train": 1.0})
    second = launched(ledger, plan(epochs=41), fresh=True)
    assert second.token != first.token
    assert [row.id for row in rows(ledger, TrialRow)] == [kept]
    for table in Base.metadata.sorted_tables:
        if table.name not in ("sweep", "study", "worker", "lease", "trial", "attempt"):
            with ledger.read() as connection:
                assert connection.execute(table.select()).all() == [], table.name
    assert len(rows(ledger, WorkerRow)) == 1
    assert [row.name for row in rows(ledger, SweepRow)] == ["lecture", "digits"]


def test_a_worker_of_a_forgotten_sweep_leaves_the_new_one_alone(ledger: Ledger) -> None:
    worker = registered(ledger)
    first = launched(ledger)
    late = started(ledger, first, worker, 2)
    second = launched(ledger, fresh=True)
    mine = started(ledger, second, worker, 2)
    before = rows(ledger, TrialRow)
    assert settled(ledger, first, worker, settlement(late[0])) == []
    assert rows(ledger, TrialRow) == before
    assert {one.trial_id for one in mine}.isdisjoint(one.trial_id for one in late)
    assert {one.attempt_id for one in mine}.isdisjoint(one.attempt_id for one in late)
    assert claimed(ledger, first, worker) == []
    with ledger.read() as connection:
        assert sweeps.state_of(connection, first.id) is None
    assert rows(ledger, WorkerTimeRow) == []


def test_an_unknown_name_is_answered_with_the_nearest(ledger: Ledger) -> None:
    launched(ledger)
    launched(ledger, plan(name="lecture"))
    with (
        pytest.raises(UnknownSweepError, match=r"no sweep named 'digit'\. Did you mean 'digits'\?.* digits, lecture"),
        ledger.read() as connection,
    ):
        sweeps.find(connection, "digit")


def test_an_unknown_name_in_an_empty_store_is_answered_with_how_to_launch(ledger: Ledger) -> None:
    with pytest.raises(UnknownSweepError, match="nor any other"), ledger.read() as connection:
        sweeps.find(connection, "digits")


def test_every_sweep_is_listed_oldest_first(ledger: Ledger) -> None:
    names = ["zeta", "alpha", "mid"]
    for name in names:
        launched(ledger, plan(name=name))
    with ledger.read() as connection:
        assert [sweep.name for sweep in sweeps.every(connection)] == names


def test_stopping_one_sweep_leaves_the_others_open(ledger: Ledger) -> None:
    stopped, open_ = launched(ledger), launched(ledger, plan(name="lecture"))
    with ledger.write() as connection:
        sweeps.set_state(connection, stopped.id, sweeps.STOPPED)
        assert sweeps.state_of(connection, stopped.id) == sweeps.STOPPED
        assert sweeps.state_of(connection, open_.id) == sweeps.OPEN


def test_an_estimate_is_kept_until_another_one_is_made(ledger: Ledger) -> None:
    sweep = launched(ledger)
    assert sweep.estimate is None
    for estimate in ({"seconds": [1.5, 7.25], "joules": None}, {"seconds": [2.0, 3.0]}, None):
        with ledger.write() as connection:
            sweeps.set_estimate(connection, sweep.id, estimate)
        with ledger.read() as connection:
            assert sweeps.find(connection, "digits").estimate == estimate
            assert connection.scalar(select(func.count()).where(SweepRow.estimate.is_(None))) == (estimate is None)
