"""The ledger's answers to what people and reports ask: progress, trials, costs. Nothing here writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, and_, bindparam, case, func, select

from sweeper.ledger import costs, tallies
from sweeper.ledger.rows import Finished, Meter, SpaceProgress, Trial
from sweeper.ledger.schema import (
    COST_COLUMNS,
    AttemptRow,
    StudyRow,
    TrialRow,
    WorkerMeterRow,
    WorkerRow,
    WorkerTimeRow,
)
from sweeper.records import Cost, ParameterValue, PricedTrial, Setting, TrialState

SAMPLED = "sampled"
_RUNNING = (
    select(StudyRow.space, func.count().label("running"))
    .join(TrialRow)
    .where(StudyRow.sweep_id == bindparam("sweep"), TrialRow.state == TrialState.RUNNING)
    .group_by(StudyRow.space)
)
_PLANNED = (
    select(StudyRow.space, func.sum(StudyRow.trials))
    .where(StudyRow.sweep_id == bindparam("sweep"))
    .group_by(StudyRow.space)
    .order_by(func.min(StudyRow.id))
)


def progress(connection: Connection, sweep_id: int) -> list[SpaceProgress]:
    """How far each space has come, in the order in which the spaces were launched."""
    ended = tallies.by_space(connection, sweep_id)
    running = {row.space: row.running for row in connection.execute(_RUNNING, {"sweep": sweep_id})}
    return [
        SpaceProgress(
            space, int(planned), one.complete, one.failed, one.pruned, running.get(space, 0), one.best_validation_loss
        )
        for space, planned in connection.execute(_PLANNED, {"sweep": sweep_id})
        for one in (ended.get(space, Finished()),)
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
    return [_trial(row) for row in connection.execute(with_costs(columns, sweep_id))]


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
        costs.solo(),
    )
    query = with_costs(columns, sweep_id).outerjoin(WorkerRow, WorkerRow.id == AttemptRow.worker_id)
    query = query.where(TrialRow.ended_at.is_not(None))
    found: dict[str, dict[int, list[PricedTrial]]] = defaultdict(lambda: defaultdict(list))
    for row in connection.execute(query):
        space, replicate, number, state, origin, validation, test, solo_s = row[: len(columns)]
        cost = costs.summed(row[len(columns) :])
        complete = state == TrialState.COMPLETE and validation is not None and test is not None
        losses = (validation, test) if complete else (float("inf"), float("inf"))
        found[space][replicate].append(
            PricedTrial(
                number,
                losses[0],
                losses[1],
                exchangeable=origin == SAMPLED,
                device_s=cost.device_s,
                flops=cost.flops,
                joules=cost.joules,
                suggest_s=cost.suggest_s,
                solo_s=solo_s,
            )
        )
    return {space: dict(replicates) for space, replicates in found.items()}


def drawn_params(
    connection: Connection, sweep_id: int, space: str
) -> dict[int, dict[int, Mapping[str, ParameterValue]]]:
    """The parameters of one space's sampled trials, finished or not: replicate -> number -> value by name."""
    columns = StudyRow.replicate, TrialRow.number, TrialRow.params
    query = select(*columns).join(StudyRow, StudyRow.id == TrialRow.study_id)
    query = query.where(StudyRow.sweep_id == sweep_id, StudyRow.space == space, TrialRow.origin == SAMPLED)
    found: dict[int, dict[int, Mapping[str, ParameterValue]]] = defaultdict(dict)
    for replicate, number, params in connection.execute(query):
        found[replicate][number] = params
    return dict(found)


def worker_times(connection: Connection, sweep_id: int) -> dict[str, float]:
    """What the workers' time for a sweep went into, in seconds by kind."""
    query = select(WorkerTimeRow.kind, func.sum(WorkerTimeRow.seconds)).where(WorkerTimeRow.sweep_id == sweep_id)
    return {kind: float(seconds) for kind, seconds in connection.execute(query.group_by(WorkerTimeRow.kind))}


def elapsed_s(connection: Connection, sweep_id: int) -> float:
    """Seconds of the clock during which at least one worker was at work on a sweep, its start-up left out."""
    held = func.sum(case((WorkerTimeRow.kind == "start", 0.0), else_=WorkerTimeRow.seconds))
    query = select(WorkerRow.started_at, held).join(WorkerTimeRow, WorkerTimeRow.worker_id == WorkerRow.id)
    rows = connection.execute(query.where(WorkerTimeRow.sweep_id == sweep_id).group_by(WorkerRow.id))
    spans = sorted((begun.timestamp(), begun.timestamp() + float(seconds)) for begun, seconds in rows)
    total, until = 0.0, 0.0
    for begun, ended in spans:
        total += max(0.0, ended - max(begun, until))
        until = max(until, ended)
    return total


def meter(connection: Connection, sweep_id: int) -> Meter:
    """What all workers' slots did for a sweep; their energy only where every worker measured it."""
    unmeasured = and_(WorkerMeterRow.joules.is_(None), WorkerMeterRow.slot_steps > 0)
    query = select(
        func.coalesce(func.sum(WorkerMeterRow.busy_steps), 0),
        func.coalesce(func.sum(WorkerMeterRow.slot_steps), 0),
        costs.unless_any(unmeasured, func.sum(WorkerMeterRow.joules)),
    )
    busy, slots, joules = connection.execute(query.where(WorkerMeterRow.sweep_id == sweep_id)).one()
    return Meter(int(busy), int(slots), None if joules is None else float(joules))


def occupancy(connection: Connection, sweep_id: int) -> float | None:
    """Busy slot-steps over all slot-steps, over all workers of a sweep; None where nothing was trained."""
    return meter(connection, sweep_id).occupancy


def energy_notes(connection: Connection, sweep_id: int) -> list[str]:
    """What measured the energy of a sweep's workers, or why nothing did: each answer once, in the workers' order."""
    here = select(WorkerTimeRow.worker_id).where(WorkerTimeRow.sweep_id == sweep_id)
    query = select(WorkerRow.details).where(WorkerRow.id.in_(here)).order_by(WorkerRow.id)
    notes = (str(details["energy"]) for details in connection.scalars(query) if "energy" in details)
    return list(dict.fromkeys(notes))


def total_cost(connection: Connection, sweep_id: int) -> Cost:
    """All attempts of a sweep together, however they ended; energy only where all that used a device measured it."""
    return tallies.total_cost(connection, sweep_id)


def best_trials(connection: Connection, sweep_id: int) -> dict[str, Trial]:
    """Per space, the complete trial with the lowest validation loss (the lowest number where several have it)."""
    best: dict[str, tuple[float, int, Trial]] = {}
    for trial in trials(connection, sweep_id):
        if trial.state is TrialState.COMPLETE and trial.validation_loss is not None:
            candidate = (trial.validation_loss, trial.number, trial)
            best[trial.space] = min(best.get(trial.space, candidate), candidate, key=lambda ranked: ranked[:2])
    return {space: trial for space, (_, _, trial) in best.items()}


def with_costs(columns: Sequence[Any], sweep_id: int) -> Select[Any]:
    """Choose columns of a sweep's trials, by study and number, and after them what all their attempts cost."""
    return (
        select(*columns, *costs.sums())
        .join(StudyRow, StudyRow.id == TrialRow.study_id)
        .outerjoin(AttemptRow, AttemptRow.trial_id == TrialRow.id)
        .where(StudyRow.sweep_id == sweep_id)
        .group_by(TrialRow.id, StudyRow.id)
        .order_by(StudyRow.id, TrialRow.number)
    )


def _trial(row: Row[Any]) -> Trial:
    values: dict[str, Any] = dict(row._mapping)
    cost = costs.summed([values.pop(f"{costs.SUM}{name}") for name in COST_COLUMNS])
    setting = Setting(tuple(values.pop("keep_prob")), tuple(values.pop("lambda_")))
    return Trial(**values | {"state": TrialState(values["state"]), "setting": setting, "cost": cost})
