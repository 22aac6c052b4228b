"""The pruning rules: Optuna's own pruners decide the same on the same curves, and tables worked by hand agree."""

from __future__ import annotations

import math
import random
import warnings
from bisect import bisect_left, insort
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, SuccessiveHalvingPruner

from sweeper.errors import SearchError
from sweeper.search.rungs import Action, Asha, Field, Median, Pruner, pruner

SEED = 2**62 + 5
NAN = float("nan")
Curve = tuple[float, ...]


# Optuna decides the same ----------------------------------------------------------------------------------------------


def curves(draw: random.Random, trials: int, epochs: int) -> list[Curve]:
    """Loss curves with ties; some end early, and some begin with losses that are not numbers."""
    drawn = []
    for _ in range(trials):
        level, length = draw.choice([1.0, 2.0, draw.random()]), draw.choice([epochs, epochs, draw.randint(1, epochs)])
        curve = [level + draw.choice([0.0, 0.25, -0.25, draw.gauss(0, 0.2)]) for _ in range(length)]
        if draw.random() < 0.15:
            broken = draw.randint(1, length)
            curve[:broken] = [NAN] * broken
        drawn.append(tuple(curve))
    return drawn


def lowest_so_far(curve: Curve) -> Curve:
    """What is compared: the running minimum; not a number for as long as no loss is one."""
    numbers = [[value for value in curve[: at + 1] if not math.isnan(value)] for at in range(len(curve))]
    return tuple(min(seen) if seen else NAN for seen in numbers)


@dataclass
class Ours:
    """The rules, and who reached which rung so far."""

    pruner: Pruner
    scores: dict[tuple[int, int], dict[int, float]] = field(default_factory=dict)  # (bracket, epoch) -> number -> score
    complete: set[int] = field(default_factory=set)

    def should_prune(self, number: int, epoch: int, score: float) -> bool:
        if not self.pruner.is_rung(number, epoch):
            return False
        came = self.scores.setdefault((self.pruner.bracket(number), epoch), {})
        peers = came if not self.pruner.needs_complete else {n: s for n, s in came.items() if n in self.complete}
        decision = self.pruner.decide(number, score, Field(sorted(peers.values()), len(self.complete)))
        if not math.isnan(score):
            came[number] = score
        return decision.action is Action.PRUNE


@dataclass
class Theirs:
    """Optuna's pruner on an Optuna study."""

    pruner: BasePruner

    def __post_init__(self) -> None:
        self.study = optuna.create_study(study_name=str(SEED), pruner=self.pruner, direction="minimize")
        self.trials = list[optuna.Trial]()

    def ask(self) -> None:
        self.trials.append(self.study.ask())

    def should_prune(self, number: int, epoch: int, score: float) -> bool:
        self.trials[number].report(score, epoch)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
            return self.trials[number].should_prune()


def disagreements(ours: Ours, theirs: Theirs, table: list[Curve], draw: random.Random, at_once: int) -> list[Any]:
    """Train a table of curves in a random order, so many at once, and compare every decision."""
    epochs, found = ours.pruner.epochs, []
    running, waiting = dict[int, int](), list(range(len(table)))
    while running or waiting:
        while waiting and len(running) < at_once:
            theirs.ask()
            running[waiting.pop(0)] = 0
        number = draw.choice(list(running))
        running[number] += 1
        epoch, score = running[number], lowest_so_far(table[number])[running[number] - 1]
        if epoch == epochs:  # no rung: a trial that came so far is complete
            theirs.trials[number].report(score, epoch)
            pruned = False
        else:
            pruned = theirs.should_prune(number, epoch, score)
            found += [(number, epoch)] if ours.should_prune(number, epoch, score) != pruned else []
        if pruned or epoch == len(table[number]):
            del running[number]
            complete = not pruned and not any(map(math.isnan, table[number]))
            state = optuna.trial.TrialState.COMPLETE if complete else optuna.trial.TrialState.FAIL
            theirs.study.tell(number, score if complete else None, state=state)
            ours.complete |= {number} if complete else set()
    return found


def compared(ours: Pruner, theirs: BasePruner, seed: int, trials: int = 60) -> list[Any]:
    draw = random.Random(seed)
    table = curves(draw, trials, ours.epochs)
    return disagreements(Ours(ours), Theirs(theirs), table, draw, at_once=draw.choice([1, 3, 8]))


@pytest.fixture(autouse=True)
def quiet() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)


@pytest.mark.parametrize("seed", range(12))
def test_asha_decides_as_optunas_successive_halving(seed: int) -> None:
    draw = random.Random(f"asha/{seed}")
    arguments = {
        "min_resource": draw.choice([1, 1, 2, 3]),
        "reduction_factor": draw.choice([2, 3, 4]),
        "min_early_stopping_rate": draw.choice([0, 0, 1]),
        "bootstrap_count": draw.choice([0, 0, 4]),
    }
    ours = pruner("asha", arguments, epochs=draw.choice([7, 16, 20]), seed=SEED)
    assert compared(ours, SuccessiveHalvingPruner(**arguments), seed) == []


@pytest.mark.parametrize("seed", range(12))
def test_median_decides_as_optunas(seed: int) -> None:
    draw = random.Random(f"median/{seed}")
    arguments = {
        "n_startup_trials": draw.choice([0, 1, 5]),
        "n_warmup_steps": draw.choice([0, 1, 2, 5]),
        "interval_steps": draw.choice([1, 2, 3]),
        "n_min_trials": draw.choice([1, 4]),
    }
    ours = pruner("median", arguments, epochs=12, seed=SEED)
    assert compared(ours, MedianPruner(**arguments), seed) == []


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore:.*HyperbandPruner.*:optuna.exceptions.ExperimentalWarning")
def test_hyperband_decides_as_optunas(seed: int) -> None:
    draw = random.Random(f"hyperband/{seed}")
    arguments = {
        "min_resource": draw.choice([1, 2]),
        "reduction_factor": draw.choice([2, 3]),
        "bootstrap_count": draw.choice([0, 0, 3]),
    }
    epochs = draw.choice([10, 20, 27])
    ours = pruner("hyperband", arguments, epochs=epochs, seed=SEED)
    assert compared(ours, HyperbandPruner(**arguments, max_resource=epochs), seed, trials=90) == []


def test_the_comparison_sees_a_difference() -> None:
    """Else the tests above would prove nothing: the rules with another factor, or losses as they come."""
    ours = pruner("asha", {"reduction_factor": 3}, epochs=16, seed=SEED)
    assert compared(ours, SuccessiveHalvingPruner(min_resource=1, reduction_factor=2), 0) != []
    assert compared(pruner("median", {}, epochs=16, seed=SEED), MedianPruner(n_warmup_steps=3), 0) != []
    ours = pruner("hyperband", {}, epochs=27, seed=SEED + 1)
    assert compared(ours, HyperbandPruner(1, 27, 3), 0) != []


def test_optuna_has_one_bracket_less_where_its_logarithm_falls_short() -> None:
    theirs = HyperbandPruner(min_resource=1, max_resource=243, reduction_factor=3)
    theirs._try_initialization(optuna.create_study())
    ours = pruner("hyperband", {}, epochs=243, seed=SEED)
    assert (theirs._n_brackets, len(ours.rules)) == (5, 6)


# by hand --------------------------------------------------------------------------------------------------------------


def test_rungs_of_asha_are_powers_of_its_factor_before_the_last_epoch() -> None:
    ours = pruner("asha", {"min_resource": 2, "reduction_factor": 3}, epochs=54, seed=SEED)
    assert [epoch for epoch in range(1, 100) if ours.is_rung(0, epoch)] == [2, 6, 18]


@pytest.mark.parametrize(
    ("warmup", "interval", "rungs"),
    [(0, 1, [1, 2, 3, 4, 5, 6]), (0, 3, [1, 3, 6]), (1, 3, [1, 4]), (2, 2, [2, 4, 6]), (7, 1, []), (9, 1, [])],
)
def test_rungs_of_the_median_begin_after_its_warm_up(warmup: int, interval: int, rungs: list[int]) -> None:
    ours = pruner("median", {"n_warmup_steps": warmup, "interval_steps": interval}, epochs=7, seed=SEED)
    assert [epoch for epoch in range(1, 20) if ours.is_rung(0, epoch)] == rungs


@pytest.mark.parametrize(
    ("score", "peers", "goes_on"),
    [
        (0.9, [], True),  # the first of all
        (0.9, [0.9], True),  # as good as the best
        (0.9, [0.8], False),
        (0.5, [0.4, 0.6, 0.7], False),  # the best one of four
        (0.4, [0.4, 0.6, 0.7], True),
        (0.5, [0.4, 0.6, 0.7, 0.8, 0.9, 0.9, 0.9], True),  # the best two of eight
        (0.5, [0.4, 0.5, 0.5, 0.8, 0.9, 0.9, 0.9], True),  # with ties, more than a quarter
        (0.6, [0.4, 0.5, 0.7, 0.8, 0.9, 0.9, 0.9], False),
        (math.inf, [0.4], False),
        (NAN, [], False),
    ],
)
def test_the_best_quarter_goes_on(score: float, peers: list[float], goes_on: bool) -> None:
    assert (Asha().decide(score, Field(peers)).action is Action.CONTINUE) == goes_on


@pytest.mark.parametrize(
    ("score", "peers", "complete", "goes_on"),
    [
        (0.9, [0.1, 0.2], 4, True),  # before the start
        (0.9, [0.1, 0.2], 5, False),
        (0.15, [0.1, 0.2], 5, True),  # the median itself
        (0.1500001, [0.1, 0.2], 5, False),
        (0.3, [0.1, 0.3, 0.4], 5, True),
        (0.9, [], 5, True),  # nobody came so far
        (NAN, [0.1], 5, False),
        (NAN, [0.1], 4, True),
    ],
)
def test_who_is_above_the_median_does_not_go_on(score: float, peers: list[float], complete: int, goes_on: bool) -> None:
    assert (Median().decide(score, Field(peers, complete)).action is Action.CONTINUE) == goes_on


def test_reasons_say_what_was_compared_with_what() -> None:
    eleven = [0.1 * n for n in range(1, 12)]
    assert Asha().decide(0.41, Field(eleven)).reason == "0.41 is not among the best 1/4 of 12 trials"
    assert Asha().decide(0.41, Field([0.25, 0.5])).reason == "0.41 is not the best of 3 trials"
    assert Asha(bootstrap_count=3).decide(0.41, Field([0.5])).reason == (
        "it is among the first 3 trials to come there, which only set the mark"
    )
    assert Median().decide(0.41, Field([0.25, 0.3], 7)).reason == (
        "0.41 is worse than the median 0.275 of 2 complete trials"
    )
    assert Asha().decide(NAN, Field([])).reason == "its loss is not a number"
    assert Asha().decide(0.1, Field([0.2])).reason == ""


def test_brackets_of_hyperband_share_the_epochs_about_evenly() -> None:
    """A trial of bracket b trains 3^b epochs, and comes to 3^s with a chance of 3^(b - s)."""
    ours = pruner("hyperband", {}, epochs=27, seed=SEED)
    assert ours.shares == (27, 12, 6, 4)  # ceil(4 * 3^s / (s + 1)) for s = 3, 2, 1, 0
    drawn = Counter(ours.bracket(number) for number in range(4900))
    assert [drawn[bracket] / 100 for bracket in range(4)] == pytest.approx(ours.shares, abs=2.5)
    rungs = [[epoch for epoch in range(1, 40) if rule.is_rung(epoch)] for rule in ours.rules]
    assert rungs == [[1, 3, 9, 27], [3, 9, 27], [9, 27], [27]]
    each = [3**b + sum(2 * 3 ** (s - 1) * 3.0 ** (b - s) for s in range(b + 1, 4)) for b in range(4)]
    work = [share * epochs for share, epochs in zip(ours.shares, each, strict=True)]
    assert work == [81, 84, 90, 108]


def test_a_trial_has_one_bracket_for_its_study_whatever_else_happens() -> None:
    one, same, other = (pruner("hyperband", {}, epochs=27, seed=seed) for seed in (7, 7, 8))
    assert [one.bracket(n) for n in range(50)] == [same.bracket(n) for n in range(50)]
    assert [one.bracket(n) for n in range(50)] != [other.bracket(n) for n in range(50)]


@pytest.mark.parametrize("arguments", [{"min_resource": 30}, {"min_resource": 27}])
def test_a_first_rung_beyond_the_last_epoch_leaves_everyone_alone(arguments: dict[str, int]) -> None:
    for kind in ("asha", "hyperband"):
        ours = pruner(kind, arguments, epochs=27, seed=SEED)
        assert not any(ours.is_rung(number, epoch) for number in range(20) for epoch in range(1, 60))


@pytest.mark.parametrize(
    ("kind", "arguments", "words"),
    [
        ("sha", {}, "'sha' is no pruner. Known: asha, median, hyperband."),
        ("asha", {"reduction_factor": 1}, "reduction_factor = 1 of the asha pruner must be at least 2."),
        ("hyperband", {"min_resource": 0}, "min_resource = 0 of the asha pruner must be at least 1."),
        ("median", {"interval_steps": 0}, "interval_steps = 0 of the median pruner must be at least 1."),
    ],
)
def test_what_can_not_prune_is_refused(kind: str, arguments: dict[str, int], words: str) -> None:
    with pytest.raises(SearchError, match=words.replace(".", r"\.")):
        pruner(kind, arguments, epochs=9, seed=SEED)


def test_judging_changes_nothing() -> None:
    scores = [0.1, 0.2, 0.3]
    for rule in (Asha(), Median()):
        before = list(scores)
        assert rule.decide(0.2, Field(scores, 9)) == rule.decide(0.2, Field(scores, 9))
        assert scores == before
    insort(scores, 0.15)
    assert bisect_left(scores, 0.15) == 1
