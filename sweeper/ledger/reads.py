"""The ledger's answers to what people and reports ask: progress, trials, costs. Nothing here writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, case, func, select

from sweeper.ledger.rows import SpaceProgress, Trial
from sweeper.ledger.schema import COST_COLUMNS, AttemptRow, StudyRow, TrialRow, WorkerTimeRow
from sweeper.records import Cost, PricedTrial, Setting, TrialState

SAMPLED = "sampled"


def progress(connection: Connection, sweep_id: int) -> list[SpaceProgress]:
    """How far each space has come, in the order in which the spaces were launched."""

    def count(*states: TrialState) -> Any:
        return func.coalesce(func.sum(case((TrialRow.state.in_(states), 1), else_=0)), 0)

    done = (
        select(
            StudyRow.space,
            count(TrialState.COMPLETE),
            count(TrialState.FAIL, TrialState.PRUNED),
            count(TrialState.RUNNING),
            func.min(TrialRow.validation_loss),
        )
        .join(TrialRow, TrialRow.study_id == StudyRow.id)
        .where(StudyRow.sweep_id == sweep_id)
        .group_by(StudyRow.space)
    )
    counted = {row[0]: row[1:] for row in connection.execute(done)}
    planned = (
        select(StudyRow.space, func.sum(StudyRow.trials))
        .where(StudyRow.sweep_id == sweep_id)
        .group_by(StudyRow.space)
        .order_by(func.min(StudyRow.id))
    )
    return [
        SpaceProgress(space, int(trials), *counted.get(space, (0, 0, 0, None)))
        for space, trials in connection.execute(planned)
    ]


def trials(connection: Connection, sweep_id: int) -> list[Trial]:
    """Every trial of a sweep, by space, replicate and number."""
    columns = (
        StudyRow.space,
        StudyRow.replicate,
        TrialRow.number,
        TrialRow.state,
        TrialRow.origin,
        TrialRow.attempt.label("attempts"),
        TrialRow.params,
        TrialRow.keep_prob,
        TrialRow.lambda_.label("lambda_"),
        TrialRow.validation_loss,
        TrialRow.validation_metric,
        TrialRow.test_loss,
        TrialRow.test_metric,
        TrialRow.train_loss,
        TrialRow.best_epoch,
        TrialRow.error,
        TrialRow.started_at,
        TrialRow.ended_at,
    )
    return [_trial(row) for row in connection.execute(_with_costs(columns, sweep_id))]


def priced(connection: Connection, sweep_id: int) -> dict[str, dict[int, list[PricedTrial]]]:
    """What the price needs: space -> replicate -> finished trials in order; a failed trial's losses are infinite."""
    columns = (
        StudyRow.space,
        StudyRow.replicate,
        TrialRow.number,
        TrialRow.state,
        TrialRow.origin,
        TrialRow.validation_loss,
        TrialRow.test_loss,
    )
    query = _with_costs(columns, sweep_id).where(TrialRow.ended_at.is_not(None))
    found: dict[str, dict[int, list[PricedTrial]]] = defaultdict(lambda: defaultdict(list))
    for row in connection.execute(query):
        space, replicate, number, state, origin, validation, test = row[: len(columns)]
        cost = _cost(row[len(columns) :])
        complete = state == TrialState.COMPLETE and validation is not None and test is not None
        losses = (validation, test) if complete else (float("inf"), float("inf"))
        found[space][replicate].append(
            PricedTrial(number, losses[0], losses[1], origin == SAMPLED, cost.device_s, cost.flops)
        )
    return {space: dict(replicates) for space, replicates in found.items()}


def worker_times(connection: Connection, sweep_id: int) -> dict[str, float]:
    """What the workers' time for a sweep went into, in seconds by kind."""
    query = select(WorkerTimeRow.kind, func.sum(WorkerTimeRow.seconds)).where(WorkerTimeRow.sweep_id == sweep_id)
    return {kind: float(seconds) for kind, seconds in connection.execute(query.group_by(WorkerTimeRow.kind))}


def total_cost(connection: Connection, sweep_id: int) -> Cost:
    """The sum over every attempt of a sweep, however it ended."""
    sums = [func.coalesce(func.sum(getattr(AttemptRow, name)), 0) for name in COST_COLUMNS]
    query = select(*sums).select_from(AttemptRow).join(TrialRow, TrialRow.id == AttemptRow.trial_id).join(StudyRow)
    return _cost(connection.execute(query.where(StudyRow.sweep_id == sweep_id)).one())


def best_trials(connection: Connection, sweep_id: int) -> dict[str, Trial]:
    """Per space, the complete trial with the lowest validation loss (the lowest number where several have it)."""
    best: dict[str, tuple[float, int, Trial]] = {}
    for trial in trials(connection, sweep_id):
        if trial.state is TrialState.COMPLETE and trial.validation_loss is not None:
            candidate = (trial.validation_loss, trial.number, trial)
            best[trial.space] = min(best.get(trial.space, candidate), candidate, key=lambda ranked: ranked[:2])
    return {space: trial for space, (_, _, trial) in best.items()}


def _with_costs(columns: Sequence[Any], sweep_id: int) -> Select[Any]:
    sums = [func.coalesce(func.sum(getattr(AttemptRow, name)), 0).label(f"sum_{name}") for name in COST_COLUMNS]
    return (
        select(*columns, *sums)
        .join(StudyRow, StudyRow.id == TrialRow.study_id)
        .outerjoin(AttemptRow, AttemptRow.trial_id == TrialRow.id)
        .where(StudyRow.sweep_id == sweep_id)
        .group_by(TrialRow.id, StudyRow.id)
        .order_by(StudyRow.id, TrialRow.number)
    )


def _cost(values: Sequence[Any]) -> Cost:
    by_name = dict(zip(COST_COLUMNS, values, strict=True))
    typed: dict[str, Any] = {n: float(v) if n.endswith("_s") else int(v) for n, v in by_name.items()}
    return Cost(**typed)


def _trial(row: Row[Any]) -> Trial:
    values: dict[str, Any] = dict(row._mapping)
    cost = _cost([values.pop(f"sum_{name}") for name in COST_COLUMNS])
    setting = Setting(tuple(values.pop("keep_prob")), tuple(values.pop("lambda_")))
    return Trial(**values | {"state": TrialState(values["state"]), "setting": setting, "cost": cost})
