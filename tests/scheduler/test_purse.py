"""A budget is kept and used up, however many workers ask for it in whatever order, and whoever of them dies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeper.ledger.budgets import UNLIMITED, Amount, Standing
from sweeper.scheduler.purse import GRANT_S, Purse, Share, Verdict, share

ROUNDING = 1e-6
NOTHING = Amount()


@dataclass
class Worker:
    """One worker as it is, and its row in the ledger: `entered`, `granted`, `is_alive`."""

    purse: Purse
    ticks: list[float]  # what they cost, again and again
    spent: Amount = NOTHING
    entered: Amount = NOTHING
    granted: Amount = NOTHING
    is_alive: bool = True
    done: int = 0

    @classmethod
    def that_takes(cls, ticks: list[float]) -> Worker:
        return cls(Purse(Amount(ticks[0]), 1), ticks)

    @property
    def can_go_on(self) -> bool:
        return self.is_alive and self.purse.verdict is not Verdict.SPENT

    def tick(self) -> None:
        took = Amount(self.ticks[self.done % len(self.ticks)], 40 * self.ticks[self.done % len(self.ticks)])
        self.done += 1
        self.spent = self.spent + took
        self.purse.enter(took, 1)


@dataclass
class Sweep:
    """A ledger's rows, and what `budgets.standing` says of them."""

    limit: Amount
    workers: list[Worker] = field(default_factory=list)

    @property
    def spent(self) -> Amount:
        return sum((worker.entered for worker in self.workers), NOTHING)

    def standing(self, asking: Worker) -> Standing:
        others = [worker for worker in self.workers if worker is not asking]
        living = [worker for worker in others if worker.is_alive]
        unused = [largest(worker.granted - worker.entered, NOTHING) for worker in living]
        spent = sum((worker.entered for worker in others), NOTHING)
        return Standing(self.limit, spent + sum(unused, NOTHING), sum(unused, NOTHING), len(living))

    def turn(self, worker: Worker) -> None:
        """As the scheduler does it."""
        if not worker.purse.has_room(worker.spent, 1):
            worker.entered = worker.spent
            granted = worker.purse.share(self.standing(worker), worker.spent, 1)
            worker.purse.take(granted)
            worker.granted = granted.until
        if worker.purse.verdict is Verdict.GO_ON:
            worker.tick()
        elif worker.purse.verdict is Verdict.SPENT:
            self.end(worker)

    def end(self, worker: Worker, *, killed: bool = False) -> None:
        """What a killed worker did since it last entered something is in nobody's books."""
        worker.is_alive = False
        worker.entered = worker.entered if killed else worker.spent

    def finish(self) -> None:
        while working := [worker for worker in self.workers if worker.can_go_on]:
            for worker in working:
                self.turn(worker)


def largest(one: Amount, other: Amount) -> Amount:
    return Amount(max(one.device_s, other.device_s), max(one.joules, other.joules))


LIMITS = st.sampled_from([Amount(2.5, math.inf), Amount(40.0, math.inf), Amount(math.inf, 300.0), Amount(9.0, 350.0)])
STEADY = st.lists(st.floats(0.01, 2.0).map(lambda tick_s: [tick_s]), min_size=1, max_size=6)
WAVERING = st.lists(st.lists(st.floats(0.01, 2.0), min_size=1, max_size=5), min_size=1, max_size=6)
EVENTS = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["turn", "turn", "turn", "turn", "idle", "kill"])))


def played(limit: Amount, costs: list[list[float]], events: list[tuple[int, str]]) -> Sweep:
    """Workers take turns, run out of trials for a while, and are killed and replaced; then all go on to the end."""
    sweep = Sweep(limit, [Worker.that_takes(ticks) for ticks in costs])
    for who, what in events:
        worker = sweep.workers[who % len(sweep.workers)]
        if what == "turn" and worker.can_go_on:
            sweep.turn(worker)
        elif what == "idle" and worker.is_alive and worker.purse.give_back():
            worker.entered = worker.granted = worker.spent
        elif what == "kill" and worker.can_go_on:
            sweep.end(worker, killed=True)
            sweep.workers.append(Worker.that_takes(worker.ticks))
    sweep.finish()
    return sweep


def unspent(sweep: Sweep) -> float:
    """As a share of the budget, in the unit of which the least is left."""
    left = sweep.limit - sweep.spent
    return min(left.device_s, left.joules / 40)


@given(LIMITS, STEADY, EVENTS)
def test_ticks_that_cost_what_they_did_never_exceed_the_budget_and_use_it_up(
    limit: Amount, costs: list[list[float]], events: list[tuple[int, str]]
):
    sweep = played(limit, costs, events)
    first_ticks = 0.0 if math.isinf(limit.joules) else sum(worker.ticks[0] for worker in sweep.workers)
    assert unspent(sweep) >= -first_ticks - ROUNDING  # nobody knows the joules of a tick before there was one
    assert unspent(sweep) <= min(worker.ticks[0] for worker in sweep.workers) + ROUNDING


@given(LIMITS, WAVERING, EVENTS)
def test_ticks_that_vary_exceed_it_by_no_more_than_one_of_each_worker(
    limit: Amount, costs: list[list[float]], events: list[tuple[int, str]]
):
    sweep = played(limit, costs, events)
    assert unspent(sweep) >= -sum(max(worker.ticks) for worker in sweep.workers) - ROUNDING
    assert unspent(sweep) <= max(max(worker.ticks) for worker in sweep.workers) + ROUNDING


# one worker -----------------------------------------------------------------------------------------------------------


def standing(limit: float, held: float = 0.0, unused: float = 0.0, others: int = 0) -> Standing:
    return Standing(Amount(limit, math.inf), Amount(held), Amount(unused), others)


@pytest.mark.parametrize(
    ("now", "verdict", "until"),
    [
        pytest.param(standing(1000.0), Verdict.GO_ON, 105.0, id="plenty: what it wants"),
        pytest.param(standing(108.0), Verdict.GO_ON, 104.0, id="near the end: half of the rest, another may come"),
        pytest.param(standing(200.0, 92.0, 0.0, 2), Verdict.GO_ON, 102.0, id="a fair part beside others"),
        pytest.param(standing(101.5), Verdict.GO_ON, 101.0, id="a tick is more than its part"),
        pytest.param(standing(101.0), Verdict.GO_ON, 101.0, id="the last tick"),
        pytest.param(standing(100.9), Verdict.SPENT, 100.0, id="less than a tick is left"),
        pytest.param(standing(150.0, 49.5, 0.4, 1), Verdict.SPENT, 100.0, id="less with what others may give back"),
        pytest.param(standing(150.0, 49.5, 0.5, 1), Verdict.WAIT, 100.0, id="others may give back enough"),
    ],
)
def test_what_a_worker_that_spent_100_s_is_granted(now: Standing, verdict: Verdict, until: float):
    granted = share(now, Amount(100.0), Amount(1.0), Amount(5.0))
    assert (granted.verdict, granted.until.device_s) == (verdict, pytest.approx(until))


def test_a_grant_lasts_for_some_seconds_and_two_ticks_at_least():
    for tick_s, lasts_s in ((0.01, GRANT_S), (60.0, 120.0)):
        granted = Purse(Amount(tick_s), 4).share(standing(1e6), NOTHING, 4)
        assert granted.until.device_s == pytest.approx(lasts_s)


def test_a_tick_with_more_fits_is_taken_for_dearer_and_one_with_fewer_for_no_cheaper():
    purse = Purse(Amount(9.0), 4)
    assert purse.needs(4) == purse.needs(1) == Amount(9.0)
    purse.enter(Amount(1.0, 50.0), 4)
    assert purse.needs(4) == Amount(1.0, 50.0)
    assert purse.needs(8) == Amount(2.0, 100.0)
    assert purse.needs(1) == Amount(1.0, 50.0)


def test_a_dear_tick_is_remembered_for_a_while():
    purse = Purse(NOTHING, 1)
    for took in (5.0, *[1.0] * 7):
        purse.enter(Amount(took), 1)
    assert purse.needs(1) == Amount(5.0)
    purse.enter(Amount(1.0), 1)
    assert purse.needs(1) == Amount(1.0)


def test_what_was_not_granted_is_not_spent():
    purse = Purse(Amount(1.0), 1)
    assert not purse.has_room(NOTHING, 1)
    purse.take(purse.share(standing(2.5), NOTHING, 1))
    assert purse.has_room(NOTHING, 1)
    assert not purse.has_room(Amount(0.5), 1)
    assert (purse.give_back(), purse.give_back()) == (True, False)
    assert not purse.has_room(NOTHING, 1)


def test_without_a_limit_nobody_runs_out():
    granted = share(Standing(UNLIMITED, Amount(1e9, 1e9), NOTHING, 3), Amount(1e9), Amount(1.0), Amount(2.0))
    assert granted == Share(Verdict.GO_ON, Amount(1e9 + 2.0))
