"""Who is compared with whom: every way in which a rung score comes to be known."""

from __future__ import annotations

import random

import pytest

from sweeper.ledger.rows import Peer
from sweeper.records import TrialState
from sweeper.scheduler.standings import Standings
from sweeper.search import Action, Field, Pruner, pruner

DONE, PRUNED, RUNNING, WAITING = TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING, TrialState.WAITING


def asha(**arguments: int) -> Pruner:
    return pruner("asha", {"reduction_factor": 2} | arguments, epochs=99, seed=1)


def median(**arguments: int) -> Pruner:
    return pruner("median", {"n_startup_trials": 1} | arguments, epochs=99, seed=1)


def peer(number: int, state: TrialState = RUNNING, **scores: float) -> Peer:
    """Scores by epoch, as e1=0.5."""
    return Peer(7, number, state, {int(epoch[1:]): score for epoch, score in scores.items()})


def reason(standings: Standings, number: int, epoch: int) -> str:
    return standings.decide(number, epoch).reason


def test_a_trial_is_judged_among_all_that_reached_the_rung_and_once_itself():
    standings = Standings(asha())
    for number, score in enumerate([0.1, 0.2, 0.3, 0.4]):
        standings.enter(number, 1, score)
    assert standings.decide(1, 1).action is Action.CONTINUE
    assert reason(standings, 2, 1) == "0.3 is not among the best 1/2 of 4 trials"
    standings.enter(0, 2, 0.05)
    standings.enter(2, 2, 0.3)
    assert reason(standings, 2, 2) == "0.3 is not among the best 1/2 of 2 trials"


def test_a_trial_that_starts_anew_counts_once():
    standings = Standings(asha())
    for score in (0.9, 0.9, 0.5):
        standings.enter(3, 1, score)
    standings.enter(4, 1, 0.6)
    assert reason(standings, 4, 1) == "0.6 is not among the best 1/2 of 2 trials"


def test_trials_that_failed_or_were_pruned_stay_peers():
    standings = Standings(asha())
    for number, state in enumerate([TrialState.FAIL, PRUNED, DONE]):
        standings.enter(number, 1, 0.1)
        standings.finish(number, state)
    standings.enter(3, 1, 0.2)
    assert reason(standings, 3, 1) == "0.2 is not among the best 1/2 of 4 trials"


def test_of_the_median_only_complete_trials_are_peers_from_their_end_on():
    standings = Standings(median())
    for number in range(3):
        standings.enter(number, 1, 0.1)
    standings.enter(3, 1, 0.2)
    assert standings.decide(3, 1).action is Action.CONTINUE
    standings.finish(0, PRUNED)
    standings.finish(1, TrialState.FAIL)
    assert standings.decide(3, 1).action is Action.CONTINUE
    standings.finish(2, DONE)
    standings.finish(2, DONE)
    assert reason(standings, 3, 1) == "0.2 is worse than the median 0.1 of 1 complete trials"


def test_trials_of_another_bracket_are_no_peers():
    rules = pruner("hyperband", {"reduction_factor": 2}, epochs=9, seed=5)
    standings = Standings(rules)
    brackets = [rules.bracket(number) for number in range(40)]
    assert len(set(brackets)) == 4
    for number in range(40):
        standings.enter(number, 4, 0.1 if brackets[number] else 0.5)
    standings.enter(40, 4, 0.3)
    alike = sum(bracket == rules.bracket(40) for bracket in brackets)
    decision = standings.decide(40, 4)
    assert (decision.action is Action.CONTINUE) == (rules.bracket(40) == 0)
    assert decision.reason in ("", f"0.3 is not among the best 1/2 of {alike + 1} trials")


def test_what_the_ledger_knows_of_others_is_taken_in_and_of_ones_own_only_what_is_missing():
    standings = Standings(asha())
    standings.enter(5, 1, 0.5)
    standings.learn(peer(5, e1=0.9, e2=0.4), is_mine=True)  # an earlier attempt came further
    standings.learn(peer(6, e1=0.7), is_mine=False)
    standings.learn(peer(6, PRUNED, e1=0.8), is_mine=False)
    standings.learn(peer(7, WAITING), is_mine=False)
    assert reason(standings, 6, 1) == "0.8 is not among the best 1/2 of 2 trials"
    standings.enter(6, 2, 0.45)
    assert reason(standings, 6, 2) == "0.45 is not among the best 1/2 of 2 trials"
    standings.enter(5, 2, 0.5)
    assert standings.decide(6, 2).action is Action.CONTINUE


def test_below_the_first_unfinished_trial_everything_is_known():
    standings = Standings(asha())
    for number in (0, 2, 3):
        standings.finish(number, DONE)
    assert standings.settled_below == 1
    assert standings.lacks({5})  # 1 and 4
    assert not standings.lacks({1})
    assert standings.lacks({1, 5})
    assert not standings.lacks({1, 4, 5})
    assert not standings.lacks(set())
    standings.learn(peer(1, PRUNED), is_mine=False)
    assert standings.settled_below == 4


@pytest.mark.parametrize("make", [asha, median], ids=["asha", "median"])
def test_in_whatever_order_scores_come_the_same_is_decided_as_by_looking_at_all_of_them(make):
    draw = random.Random(3)
    for _ in range(30):
        rules = make()
        scores = {number: draw.choice([0.1, 0.2, draw.random()]) for number in range(20)}
        complete = set(draw.sample(range(19), 9))
        standings = Standings(rules)
        steps = [("enter", number) for number in scores] + [("finish", number) for number in complete]
        draw.shuffle(steps)
        for step, number in steps:
            if step == "enter":
                standings.enter(number, 1, draw.random())
                standings.enter(number, 1, scores[number])
            else:
                standings.finish(number, DONE)
        peers = sorted(s for n, s in scores.items() if n != 19 and (n in complete or not rules.needs_complete))
        assert standings.decide(19, 1) == rules.decide(19, scores[19], Field(peers, len(complete)))
