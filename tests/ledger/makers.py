"""Sweeps, trials and results as tests of the ledger need them: small, and no two values alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select

from sweeper.ledger import sweeps, trials, workers
from sweeper.ledger.rows import Claimed, Letter, Means, NewTrial, SettledFit, Settlement, StudyPlan, Sweep, SweepPlan
from sweeper.ledger.schema import Base
from sweeper.ledger.store import Ledger
from sweeper.records import Cost, FitResult, Outcome, Score, Setting, TrialState
from sweeper.workload import differences

SPACES = ("none", "shared")
NUMERICS: Mapping[str, Any] = {"compiled": False, "torch": "2.13"}


def plan(
    spaces: Sequence[str] = SPACES,
    *,
    trials: int = 8,
    replicates: int = 2,
    name: str = "digits",
    epochs: int = 40,
    numerics: Mapping[str, Any] = NUMERICS,
) -> SweepPlan:
    """A sweep to launch. Turns run against the order of the studies, so that the one is not taken for the other."""
    pairs = [(space, replicate) for space in spaces for replicate in range(replicates)]
    studies = tuple(
        StudyPlan(space, replicate, 1, {"kind": "random", "arguments": {}}, 2**62 + replicate, trials, -turn)
        for turn, (space, replicate) in enumerate(pairs)
    )
    config = {
        "name": name,
        "train": {"epochs": epochs},
        "search": {"trials": trials, "replicates": replicates},
        "spaces": {space: {} for space in spaces},
    }
    return SweepPlan(name, "measurement", f"{name}.yaml", f"name: {name}", config, "ab" * 32, numerics, studies)


def launched(ledger: Ledger, plan_: SweepPlan | None = None, *, fresh: bool = False) -> Sweep:
    with ledger.write() as connection:
        return sweeps.launch(connection, plan_ or plan(), fresh=fresh, differences=differences)


def study_ids(ledger: Ledger, sweep: Sweep) -> dict[tuple[str, int], int]:
    with ledger.read() as connection:
        return {(study.space, study.replicate): study.id for study in sweeps.studies(connection, sweep.id)}


def registered(ledger: Ledger) -> int:
    with ledger.write() as connection:
        return workers.register(connection, "cpu", {"slots": 4})


def new_trial(study_id: int, number: int, **changes: Any) -> NewTrial:
    """A suggestion whose numbers have no short decimal form."""
    keep, lambda_ = 1 / (number + 3), math.pi * 10.0 ** -(number + 1)
    trial = NewTrial(
        study_id=study_id,
        number=number,
        origin="sampled",
        params={"keep_prob_1": keep, "drop_2": True, "lambda": lambda_, "depth": number, "kind": "é"},
        setting=Setting((1.0, keep), (lambda_, 0.0)),
        told=number,
        running=tuple(range(number)),
        suggest_s=0.125 + number,
    )
    return replace(trial, **changes)


def proposed(ledger: Ledger, study_id: int, count: int, *, first: int = 0) -> list[NewTrial]:
    made = [new_trial(study_id, number) for number in range(first, first + count)]
    with ledger.write() as connection:
        trials.propose(connection, made)
    return made


def claimed(ledger: Ledger, sweep: Sweep, worker: int, limit: int = 1) -> list[Claimed]:
    with ledger.write() as connection:
        return trials.claim(connection, sweep.id, worker, limit)


def started(ledger: Ledger, sweep: Sweep, worker: int, count: int = 1) -> list[Claimed]:
    """Trials of one study, proposed and claimed."""
    proposed(ledger, study_ids(ledger, sweep)["none", 0], count)
    return claimed(ledger, sweep, worker, count)


def cost(train_s: float = 0.5, evaluate_s: float = 0.25, joules: float | None = None) -> Cost:
    return Cost(400, 40, 12_000, 2**53 + 1, train_s, evaluate_s, 0.0, 0.0, 0.0625, joules)


def score(epoch: int) -> Score:
    return Score(
        epoch, 1 / (epoch + 1), 1 / (epoch + 2), 1 / (epoch + 3), 0.5, 1 / (epoch + 4), 1_700_000_000_000 + epoch
    )


def fit_result(epochs: int = 3, **changes: Any) -> FitResult:
    scores = tuple(score(epoch) for epoch in range(1, epochs + 1))
    whole = FitResult("1/0", Outcome.FINISHED, 2, 0.1, 0.2, 0.3, 0.4, 0.7, (1 / 3, 2 / 3), scores, cost())
    return replace(whole, **changes)


def settlement(claimed_: Claimed, loss: float = 0.2, **changes: Any) -> Settlement:
    """A trial that ended well, with one fit and one run to deliver."""
    end = Settlement(
        claimed=claimed_,
        state=TrialState.COMPLETE,
        means=Means(loss, 0.9, loss + 0.1, 0.8, 0.05, 2.5),
        error=None,
        ended_at=datetime.now(UTC),
        cost=cost(),
        fits=(SettledFit(0, 2**63 - 1, fit_result()),),
        letters=(Letter(f"{claimed_.study_id}/{claimed_.number}", "FINISHED", "{}"),),
    )
    return replace(end, **changes)


def failure(claimed_: Claimed, **changes: Any) -> Settlement:
    """A trial whose only fit diverged."""
    nan = math.nan
    diverged = fit_result(
        outcome=Outcome.DIVERGED, validation_loss=nan, test_loss=math.inf, squared_norms=(nan, -math.inf)
    )
    fits = (SettledFit(0, 7, diverged),)
    return settlement(
        claimed_, **{"state": TrialState.FAIL, "means": None, "error": "fold 0 diverged", "fits": fits} | changes
    )


def settled(ledger: Ledger, sweep: Sweep, worker: int, *ends: Settlement) -> list[Settlement]:
    with ledger.write() as connection:
        return trials.settle(connection, worker, sweep.id, ends)


def rows(ledger: Ledger, table: type[Base], **where: Any) -> list[Any]:
    """Rows of a table by id, as the store holds them."""
    columns = table.__table__.c
    wanted = [columns[name] == value for name, value in where.items()]
    with ledger.read() as connection:
        return list(connection.execute(select(table.__table__).where(*wanted).order_by(*table.__table__.primary_key)))
