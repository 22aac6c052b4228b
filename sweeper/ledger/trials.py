"""The life of a trial: proposed, claimed, settled. Every function works inside the caller's transaction.

`attempt` is the fencing token: a result counts only if its trial still runs under that attempt. A late one is kept as
SUPERSEDED, with its cost, and changes nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, insert, select, update

from sweeper.ledger.deliveries import post
from sweeper.ledger.rows import Claimed, NewTrial, PastTrial, SettledFit, Settlement
from sweeper.ledger.schema import COST_COLUMNS, AttemptRow, FitRow, StudyRow, TrialRow
from sweeper.ledger.workers import RELEASED
from sweeper.records import Cost, FitResult, Score, Setting, TrialState

SUPERSEDED = "SUPERSEDED"


def propose(connection: Connection, trials: Sequence[NewTrial]) -> None:
    """Enter suggestions as WAITING trials."""
    if trials:
        connection.execute(insert(TrialRow), [_new(trial) for trial in trials])


def claim(connection: Connection, sweep_id: int, worker_id: int, limit: int) -> list[Claimed]:
    """Take up to `limit` WAITING trials of a sweep for a worker, lowest numbers first, spaces interleaved."""
    waiting = (
        select(
            TrialRow.id,
            TrialRow.attempt,
            TrialRow.study_id,
            TrialRow.number,
            TrialRow.params,
            TrialRow.keep_prob,
            TrialRow.lambda_.label("lambda_"),
            TrialRow.suggest_s,
        )
        .join(StudyRow)
        .where(TrialRow.state == TrialState.WAITING, StudyRow.sweep_id == sweep_id)
        .order_by(TrialRow.number, StudyRow.turn)
        .limit(limit)
        .with_for_update(of=TrialRow, skip_locked=True)  # SQLite has one writer at a time, and ignores it
    )
    found = connection.execute(waiting).all()
    now = datetime.now(UTC)
    attempts = _start(connection, found, worker_id, now)
    return [
        Claimed(
            row.id,
            attempts[row.id],
            row.attempt + 1,
            row.study_id,
            row.number,
            row.params,
            Setting(tuple(row.keep_prob), tuple(row.lambda_)),
            row.suggest_s,
            now,
        )
        for row in found
    ]


def settle(connection: Connection, worker_id: int, sweep_id: int, settled: Sequence[Settlement]) -> list[Settlement]:
    """Keep the trials' results, fits, costs and runs to deliver; returns those that were not too late."""
    counted = [one for one in settled if _finish(connection, worker_id, one)]
    for one in settled:
        state = one.state.value if one in counted else SUPERSEDED
        _close(connection, one.claimed.attempt_id, state, one.ended_at, one.cost)
    fits = [_fit(one.claimed.attempt_id, fit) for one in settled for fit in one.fits]
    if fits:
        connection.execute(insert(FitRow), fits)
    post(connection, sweep_id, [letter for one in counted for letter in one.letters])
    return counted


def release(connection: Connection, worker_id: int, given_up: Mapping[Claimed, Cost]) -> None:
    """Put claimed trials back to WAITING, with what they have cost so far."""
    now = datetime.now(UTC)
    for claimed, cost in given_up.items():
        mine = (
            TrialRow.id == claimed.trial_id,
            TrialRow.attempt == claimed.attempt,
            TrialRow.worker_id == worker_id,
        )
        connection.execute(
            update(TrialRow).where(*mine).values(state=TrialState.WAITING, worker_id=None, started_at=None)
        )
        _close(connection, claimed.attempt_id, RELEASED, now, cost)


def charge_storage(connection: Connection, seconds: Mapping[int, float]) -> None:
    """Enter what keeping their results took, by attempt; it is known one transaction late."""
    if seconds:
        charged = (
            update(AttemptRow)
            .where(AttemptRow.id == bindparam("charged"))
            .values(storage_s=AttemptRow.storage_s + bindparam("more_s"))
        )
        connection.execute(charged, [{"charged": key, "more_s": value} for key, value in seconds.items()])


def past(connection: Connection, study_ids: Sequence[int]) -> list[PastTrial]:
    """Every trial of some studies, in order of study and number, as a sampler needs them."""
    query = select(
        TrialRow.study_id,
        TrialRow.number,
        TrialRow.state,
        TrialRow.params,
        TrialRow.validation_loss,
        TrialRow.running,
        TrialRow.origin,
    )
    query = query.where(TrialRow.study_id.in_(study_ids)).order_by(TrialRow.study_id, TrialRow.number)
    return [
        PastTrial(
            row.study_id,
            row.number,
            TrialState(row.state),
            row.params,
            row.validation_loss,
            tuple(row.running),
            row.origin,
        )
        for row in connection.execute(query)
    ]


def finite(value: float) -> float | None:
    """A number as the ledger keeps it: NULL where it is not finite."""
    return value if math.isfinite(value) else None


def _new(trial: NewTrial) -> dict[str, Any]:
    return {
        "study_id": trial.study_id,
        "number": trial.number,
        "state": TrialState.WAITING,
        "origin": trial.origin,
        "params": dict(trial.params),
        "keep_prob": list(trial.setting.keep_prob),
        "lambda_": list(trial.setting.lambda_),
        "told": trial.told,
        "running": list(trial.running),
        "suggest_s": trial.suggest_s,
        "created_at": datetime.now(UTC),
    }


def _start(connection: Connection, found: Sequence[Row[Any]], worker_id: int, now: datetime) -> dict[int, int]:
    """Mark trials as running and open an attempt for each; returns attempt ids by trial id."""
    if not found:
        return {}
    running = {"state": TrialState.RUNNING, "worker_id": worker_id, "started_at": now}
    ids = [row.id for row in found]
    connection.execute(update(TrialRow).where(TrialRow.id.in_(ids)).values(**running, attempt=TrialRow.attempt + 1))
    opened = [
        {
            "trial_id": row.id,
            "attempt": row.attempt + 1,
            "worker_id": worker_id,
            "state": TrialState.RUNNING,
            "started_at": now,
            # the suggestion is paid once, by the first attempt
            "suggest_s": row.suggest_s if row.attempt == 0 else 0.0,
        }
        for row in found
    ]
    returned = connection.execute(insert(AttemptRow).returning(AttemptRow.trial_id, AttemptRow.id), opened)
    return {row.trial_id: row.id for row in returned}


def _finish(connection: Connection, worker_id: int, one: Settlement) -> bool:
    claimed = one.claimed
    means = {} if one.means is None else {name: finite(value) for name, value in asdict(one.means).items()}
    done = connection.execute(
        update(TrialRow)
        .where(
            TrialRow.id == claimed.trial_id,
            TrialRow.attempt == claimed.attempt,
            TrialRow.worker_id == worker_id,
            TrialRow.state == TrialState.RUNNING,
        )
        .values(state=one.state, error=one.error, ended_at=one.ended_at, **means)
    )
    return done.rowcount == 1


def _close(connection: Connection, attempt_id: int, state: str, ended_at: datetime, cost: Cost) -> None:
    costs = {name: getattr(cost, name) for name in COST_COLUMNS if name != "suggest_s"}
    connection.execute(
        update(AttemptRow).where(AttemptRow.id == attempt_id).values(state=state, ended_at=ended_at, **costs)
    )


def _fit(attempt_id: int, fit: SettledFit) -> dict[str, Any]:
    result = fit.result
    losses = ("train_loss", "validation_loss", "validation_metric", "test_loss", "test_metric")
    return {
        "attempt_id": attempt_id,
        "fold": fit.fold,
        "seed": fit.seed,
        "outcome": result.outcome.value,
        "best_epoch": result.best_epoch,
        "squared_norms": [finite(norm) for norm in result.squared_norms],
        "curves": _curves(result),
        **{name: finite(getattr(result, name)) for name in losses},
        **asdict(result.cost),
    }


def _curves(result: FitResult) -> dict[str, list[float | None]]:
    return {name: [finite(getattr(score, name)) for score in result.scores] for name in Score.__slots__}
