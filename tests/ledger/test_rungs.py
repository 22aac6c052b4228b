"""Rung scores: entered by whoever judges, seen by the trials of the same study, forgotten with their trial."""

from __future__ import annotations

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import IntegrityError

from ledger.makers import (
    claimed,
    cost,
    failure,
    launched,
    proposed,
    registered,
    rows,
    settled,
    settlement,
    started,
    study_ids,
)
from sweeper.ledger import rungs, trials
from sweeper.ledger.rows import Claimed, Peer, RungScore, Sweep
from sweeper.ledger.schema import RungRow, TrialRow
from sweeper.ledger.store import Ledger
from sweeper.records import TrialState


def enter(ledger: Ledger, claimed_: Claimed, **scores: float) -> None:
    """Scores by epoch, as e1=0.5."""
    with ledger.write() as connection:
        rungs.enter(connection, [RungScore(claimed_, int(epoch[1:]), score) for epoch, score in scores.items()])


def peers(ledger: Ledger, *study_ids_: int, first: int = 0) -> list[Peer]:
    with ledger.read() as connection:
        return rungs.peers(connection, study_ids_, first)


def steps(ledger: Ledger, *study_ids_: int) -> list[int | None]:
    with ledger.read() as connection:
        return [past.step for past in trials.past(connection, study_ids_)]


def test_every_trial_of_a_study_is_a_peer_with_its_scores_by_epoch(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    ids = study_ids(ledger, sweep)
    done, pruned, broken, running = started(ledger, sweep, worker, 4)
    proposed(ledger, ids["none", 0], 1, first=4)
    for one in (done, pruned, broken, running):
        enter(ledger, one, e1=one.number / 7)
    enter(ledger, done, e4=1 / 3, e16=0.25)
    settled(ledger, sweep, worker, settlement(done), settlement(pruned, state=TrialState.PRUNED), failure(broken))
    study = ids["none", 0]
    assert peers(ledger, study) == [
        Peer(study, 0, TrialState.COMPLETE, {1: 0.0, 4: 1 / 3, 16: 0.25}),
        Peer(study, 1, TrialState.PRUNED, {1: 1 / 7}),
        Peer(study, 2, TrialState.FAIL, {1: 2 / 7}),
        Peer(study, 3, TrialState.RUNNING, {1: 3 / 7}),
        Peer(study, 4, TrialState.WAITING, {}),
    ]


def test_peers_are_of_the_studies_and_from_the_number_asked_for(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    ids = study_ids(ledger, sweep)
    for study in (ids["none", 0], ids["none", 1], ids["shared", 0]):
        proposed(ledger, study, 3)
    found = peers(ledger, ids["shared", 0], ids["none", 1], first=1)
    assert {(peer.study_id, peer.number) for peer in found} == {
        (study, number) for study in (ids["none", 1], ids["shared", 0]) for number in (1, 2)
    }
    assert len(found) == 4
    assert peers(ledger) == []


def test_the_latest_attempts_score_counts_and_earlier_ones_where_it_has_not_come_yet(
    ledger: Ledger, sweep: Sweep, worker: int
) -> None:
    (first,) = started(ledger, sweep, worker)
    enter(ledger, first, e1=0.5, e4=0.25)
    with ledger.write() as connection:
        trials.release(connection, worker, {first: cost()})
    (peer,) = peers(ledger, first.study_id)
    assert (peer.state, peer.scores) == (TrialState.WAITING, {1: 0.5, 4: 0.25})
    (second,) = claimed(ledger, sweep, worker)
    enter(ledger, second, e1=0.75)
    (peer,) = peers(ledger, first.study_id)
    assert peer.scores == {1: 0.75, 4: 0.25}


def test_a_score_is_entered_once(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    (one,) = started(ledger, sweep, worker)
    enter(ledger, one, e1=0.5)
    with pytest.raises(IntegrityError):
        enter(ledger, one, e1=0.5)


def test_entering_nothing_is_nothing(ledger: Ledger) -> None:
    with ledger.write() as connection:
        rungs.enter(connection, [])
    assert rows(ledger, RungRow) == []


def test_a_sampler_learns_at_which_epoch_a_trial_was_judged_last(ledger: Ledger, sweep: Sweep, worker: int) -> None:
    never, once, again = started(ledger, sweep, worker, 3)
    enter(ledger, once, e1=0.5, e4=0.25)
    enter(ledger, again, e1=0.5, e4=0.25, e16=0.125)
    with ledger.write() as connection:
        trials.release(connection, worker, {again: cost()})
    (second,) = claimed(ledger, sweep, worker)
    enter(ledger, second, e1=0.5)
    assert steps(ledger, never.study_id) == [None, None, None]  # only of a pruned one does it matter
    with ledger.write() as connection:
        connection.execute(update(TrialRow).values(state=TrialState.PRUNED))
    assert steps(ledger, never.study_id) == [None, 4, 1]  # of the attempt that counts


def test_rung_scores_go_with_their_sweep(ledger: Ledger, sweep: Sweep) -> None:
    (one,) = started(ledger, sweep, registered(ledger))
    enter(ledger, one, e1=0.5)
    launched(ledger, fresh=True)
    with ledger.read() as connection:
        assert connection.scalar(text("SELECT count(*) FROM rung")) == 0
