"""The life of a trial: proposed, claimed, settled. Every function works inside the caller's transaction.

`attempt` is the fencing token: a result counts only if its trial still runs under that attempt. A late one is kept as
SUPERSEDED, with its cost, and changes nothing else.

An attempt that an error ends takes along all trials that trained beside the one to blame. All are tried again; whoever
was there twice is a suspect, and is trained alone. So is one whose workers died again and again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    case,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)

from sweeper.ledger import rungs
from sweeper.ledger.deliveries import post
from sweeper.ledger.rows import Claimed, Means, NewTrial, PastTrial, SettledFit, Settlement
from sweeper.ledger.schema import COST_COLUMNS, AttemptRow, FitRow, StudyRow, TrialRow
from sweeper.ledger.workers import LOSSES, LOST, RELEASED
from sweeper.records import Cost, Score, Setting, TrialState

SUPERSEDED, ERROR = "SUPERSEDED", "ERROR"
MOST_FAILURES = 3  # with which a trial has failed for good
UNFINISHED = TrialState.WAITING, TrialState.RUNNING
_AT_ONCE = 500  # rows that a statement names one by one
NO_ERRORS: Mapping[Claimed, str] = {}
SUSPECT = TrialRow.failures >= MOST_FAILURES - 1, TrialRow.losses >= LOSSES

# The statements of a worker's turn, built once: SQLAlchemy takes longer to build one than the store takes to run it.
_WAITING = (
    select(
        TrialRow.id,
        TrialRow.attempt,
        TrialRow.study_id,
        TrialRow.number,
        TrialRow.params,
        TrialRow.keep_prob,
        TrialRow.lambda_.label("lambda_"),
        TrialRow.suggest_s,
        TrialRow.failures,
    )
    .join(StudyRow)
    .where(
        TrialRow.state == TrialState.WAITING,
        StudyRow.sweep_id == bindparam("sweep"),
        or_(*SUSPECT) == bindparam("suspect"),
    )
    .order_by(
        case((StudyRow.proposer_id == bindparam("worker"), 0), else_=1), TrialRow.number, StudyRow.turn, StudyRow.id
    )
    .limit(bindparam("limit"))
    .with_for_update(of=TrialRow, skip_locked=True)  # SQLite has one writer at a time, and ignores it
)
_RUNNING = (
    select(TrialRow.id, TrialRow.attempt)
    .where(
        TrialRow.id.in_(bindparam("ids", expanding=True)),
        TrialRow.worker_id == bindparam("worker"),
        TrialRow.state == TrialState.RUNNING,
    )
    .order_by(TrialRow.id)
    .with_for_update()
)
_OPEN_ATTEMPT = insert(AttemptRow).returning(AttemptRow.trial_id, AttemptRow.id)
# These set the columns that their parameters name.
_SET_TRIAL = update(TrialRow).where(TrialRow.id == bindparam("trial"))
_SET_UNSETTLED_ATTEMPT = update(AttemptRow).where(
    AttemptRow.id == bindparam("closed"), or_(AttemptRow.state == TrialState.RUNNING, AttemptRow.state == LOST)
)
_CHARGE = (
    update(AttemptRow)
    .where(AttemptRow.id == bindparam("charged"))
    .values(storage_s=AttemptRow.storage_s + bindparam("more_s"))
)
_INSERT_TRIAL, _INSERT_FIT = insert(TrialRow), insert(FitRow)
_SETTLED_COSTS = tuple(name for name in COST_COLUMNS if name != "suggest_s")  # that one is entered with the claim
_LOSSES = ("train_loss", "validation_loss", "validation_metric", "test_loss", "test_metric")
_score_values = attrgetter(*Score.__slots__)


def propose(connection: Connection, trials: Sequence[NewTrial]) -> None:
    """Enter suggestions as WAITING trials."""
    if trials:
        connection.execute(_INSERT_TRIAL, [_new(trial) for trial in trials])


def claim(connection: Connection, sweep_id: int, worker_id: int, limit: int, *, suspect: bool = False) -> list[Claimed]:
    """Take up to `limit` WAITING trials of a sweep for a worker, lowest numbers first, spaces interleaved.

    Those that it proposed itself come first: only of these does it learn without asking how they ended.

    Args:
        connection: the transaction.
        sweep_id: whose trials.
        worker_id: for whom.
        limit: how many at most.
        suspect: take trials that are to be trained alone, and no others.
    """
    wanted = {"sweep": sweep_id, "worker": worker_id, "limit": limit, "suspect": suspect}
    found = connection.execute(_WAITING, wanted).all()
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
            row.failures,
            suspect,
        )
        for row in found
    ]


def settle(connection: Connection, worker_id: int, sweep_id: int, settled: Sequence[Settlement]) -> list[Settlement]:
    """Keep the trials' results, fits, costs and runs to deliver; returns those that were not too late."""
    if not settled:
        return []
    mine = _still_mine(connection, worker_id, [one.claimed for one in settled])
    counted = [one for one in settled if one.claimed.attempt_id in mine]
    if counted:
        connection.execute(_SET_TRIAL, [_finished(one) for one in counted])
    fits = [_fit(one.claimed.attempt_id, fit) for one in counted for fit in one.fits]
    if fits:
        connection.execute(_INSERT_FIT, fits)
    closed = [
        _closed(one.claimed, one.state if one.claimed.attempt_id in mine else SUPERSEDED, one.ended_at, one.cost)
        for one in settled
    ]
    connection.execute(_SET_UNSETTLED_ATTEMPT, closed)
    post(connection, sweep_id, [letter for one in counted for letter in one.letters])
    return counted


def release(
    connection: Connection, worker_id: int, given_up: Mapping[Claimed, Cost], errors: Mapping[Claimed, str] = NO_ERRORS
) -> None:
    """Put claimed trials back to WAITING, with what they have cost so far.

    Args:
        connection: the transaction.
        worker_id: whose trials.
        given_up: which, and what this attempt cost.
        errors: what ended those of them that an error ended.
    """
    if not given_up:
        return
    now = datetime.now(UTC)
    mine = _still_mine(connection, worker_id, given_up)
    waiting = {"state": TrialState.WAITING, "worker_id": None, "started_at": None}
    requeued = [
        {"trial": claimed.trial_id, "failures": claimed.failures + (claimed in errors), **waiting}
        for claimed in given_up
        if claimed.attempt_id in mine
    ]
    if requeued:
        connection.execute(_SET_TRIAL, requeued)
    closed = [
        _closed(claimed, _ending(claimed, mine, errors), now, cost) | {"error": errors.get(claimed)}
        for claimed, cost in given_up.items()
    ]
    connection.execute(_SET_UNSETTLED_ATTEMPT, closed)


def charge_storage(connection: Connection, seconds: Mapping[int, float]) -> None:
    """Enter what keeping their results took, by attempt; it is known one transaction late."""
    if seconds:
        connection.execute(_CHARGE, [{"charged": key, "more_s": value} for key, value in seconds.items()])


def asked(connection: Connection, study_ids: Iterable[int]) -> dict[int, int]:
    """How many trials each of some studies has, whatever their state."""
    last = select(func.max(TrialRow.number)).where(TrialRow.study_id == StudyRow.id).correlate(StudyRow)
    query = select(StudyRow.id, func.coalesce(last.scalar_subquery() + 1, 0)).where(StudyRow.id.in_(study_ids))
    return {id_: int(count) for id_, count in connection.execute(query.order_by(StudyRow.id))}


def past(connection: Connection, study_ids: Iterable[int], *, unfinished: bool = False) -> list[PastTrial]:
    """The trials of some studies, in order of study and number, as a sampler needs them; or only unfinished ones."""
    wanted = TrialRow.study_id.in_(study_ids)
    return _past(connection, and_(wanted, TrialRow.state.in_(UNFINISHED)) if unfinished else wanted)


def ended(connection: Connection, numbers: Mapping[int, Iterable[int]]) -> list[PastTrial]:
    """Those of some trials, by study and number, that are finished."""
    pairs = [(study, number) for study, of_study in numbers.items() for number in of_study]
    found: list[PastTrial] = []
    for some in (pairs[start : start + _AT_ONCE] for start in range(0, len(pairs), _AT_ONCE)):
        is_one = tuple_(TrialRow.study_id, TrialRow.number).in_(some)
        found += _past(connection, and_(is_one, TrialRow.state.not_in(UNFINISHED)))
    return found


def _past(connection: Connection, wanted: ColumnElement[bool]) -> list[PastTrial]:
    query = select(
        TrialRow.study_id,
        TrialRow.number,
        TrialRow.state,
        TrialRow.params,
        TrialRow.validation_loss,
        TrialRow.running,
        TrialRow.origin,
        case((TrialRow.state == TrialState.PRUNED, rungs.last_epoch)).label("step"),
    )
    query = query.where(wanted).order_by(TrialRow.study_id, TrialRow.number)
    return [
        PastTrial(
            row.study_id,
            row.number,
            TrialState(row.state),
            row.params,
            row.validation_loss,
            tuple(row.running),
            row.origin,
            row.step,
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
    connection.execute(_SET_TRIAL, [{"trial": row.id, "attempt": row.attempt + 1, **running} for row in found])
    opened = [
        {
            "trial_id": row.id,
            "attempt": row.attempt + 1,
            # the suggestion is paid once, by the first attempt
            "suggest_s": row.suggest_s if row.attempt == 0 else 0.0,
            **running,
        }
        for row in found
    ]
    returned = connection.execute(_OPEN_ATTEMPT, opened)
    return {row.trial_id: row.id for row in returned}


def _still_mine(connection: Connection, worker_id: int, claimed: Iterable[Claimed]) -> set[int]:
    """The attempts under which a worker's trials still run; nobody else can take those before the transaction ends."""
    attempts = {(one.trial_id, one.attempt): one.attempt_id for one in claimed}
    sought = {"ids": [trial_id for trial_id, _ in attempts], "worker": worker_id}
    running = connection.execute(_RUNNING, sought)
    return {attempts[key] for row in running if (key := (row.id, row.attempt)) in attempts}


def _ending(claimed: Claimed, mine: set[int], errors: Mapping[Claimed, str]) -> str:
    if claimed.attempt_id not in mine:
        return SUPERSEDED
    return ERROR if claimed in errors else RELEASED


def _finished(one: Settlement) -> dict[str, Any]:
    means = {name: one.means and finite(getattr(one.means, name)) for name in Means.__dataclass_fields__}
    return {"trial": one.claimed.trial_id, "state": one.state, "error": one.error, "ended_at": one.ended_at, **means}


def _closed(claimed: Claimed, state: str, ended_at: datetime, cost: Cost) -> dict[str, Any]:
    costs = {name: getattr(cost, name) for name in _SETTLED_COSTS} | {"joules": _measured(cost)}
    return {"closed": claimed.attempt_id, "state": state, "ended_at": ended_at, **costs}


def _fit(attempt_id: int, fit: SettledFit) -> dict[str, Any]:
    result, cost = fit.result, fit.result.before + fit.result.cost
    return {
        "attempt_id": attempt_id,
        "fold": fit.fold,
        "seed": fit.seed,
        "outcome": result.outcome.value,
        "best_epoch": result.best_epoch,
        "squared_norms": [finite(norm) for norm in result.squared_norms],
        "curves": _curves(result.scores),
        **{name: finite(getattr(result, name)) for name in _LOSSES},
        **{name: getattr(cost, name) for name in COST_COLUMNS},
        "joules": _measured(cost),
    }


def _measured(cost: Cost) -> float | None:
    return None if cost.joules is None else finite(cost.joules)


def _curves(scores: Sequence[Score]) -> dict[str, list[float | None]]:
    """One list per measure, empty ones where not even one epoch was trained."""
    measured = zip(*map(_score_values, scores), strict=True) if scores else [()] * len(Score.__slots__)
    return {name: [finite(value) for value in values] for name, values in zip(Score.__slots__, measured, strict=True)}
