"""A sweep's trials and fits as flat rows for spreadsheets and data frames, and the workers that made them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Select, select

from sweeper.ledger.reads import with_costs
from sweeper.ledger.schema import COST_COLUMNS, AttemptRow, FitRow, StudyRow, TrialRow, WorkerRow, WorkerTimeRow

_AT_ONCE = 5000  # rows
_COST_TYPES: dict[str, type] = {
    name: float if name.endswith("_s") or name == "joules" else int for name in COST_COLUMNS
}
_WHERE: dict[str, type] = {"space": str, "replicate": int, "trial": int}
_LOSSES: dict[str, type] = dict.fromkeys(
    ("train_loss", "validation_loss", "validation_metric", "test_loss", "test_metric"), float
)
_TRIAL: dict[str, type] = {
    **_WHERE, "state": str, "origin": str, "attempts": int, **_LOSSES, "best_epoch": float, "error": str,
    "started_at": datetime, "ended_at": datetime, "parameters": str,
}  # fmt: skip
_FIT: dict[str, type] = {
    **_WHERE, "attempt": int, "state": str, "fold": int, "seed": int, "outcome": str, "best_epoch": int, **_LOSSES,
}  # fmt: skip


@dataclass(frozen=True)
class Flat:
    """A table.

    Attributes:
        columns: the type of each by its name: int, float, str or datetime.
        rows: read as they are asked for, within the connection that the table came from; a value or None per column.
    """

    columns: dict[str, type]
    rows: Iterator[Sequence[Any]]


@dataclass(frozen=True)
class WorkerNote:
    """A worker of a sweep, as it registered itself."""

    host: str
    device: str
    details: dict[str, Any]
    started_at: datetime
    ended_at: datetime | None


def trial_table(connection: Connection, sweep_id: int) -> Flat:
    """Every trial of a sweep: its setting layer by layer, what the sampler drew (JSON), its losses and its costs."""
    plain = (
        StudyRow.space, StudyRow.replicate, TrialRow.number, TrialRow.state, TrialRow.origin, TrialRow.attempt,
        TrialRow.train_loss, TrialRow.validation_loss, TrialRow.validation_metric, TrialRow.test_loss,
        TrialRow.test_metric, TrialRow.best_epoch, TrialRow.error, TrialRow.started_at, TrialRow.ended_at,
    )  # fmt: skip
    query = with_costs((*plain, TrialRow.params, TrialRow.keep_prob, TrialRow.lambda_), sweep_id)
    end = len(plain)

    def flat(row: Sequence[Any]) -> Sequence[Any]:
        costs = _cost_values(row[end + 3 :])
        return (*row[:end], json.dumps(row[end]), *row[end + 1], *row[end + 2], *costs)

    def layers(row: Sequence[Any]) -> list[str]:
        keeps = [f"keep_prob_{layer}" for layer in range(len(row[end + 1]))]
        return keeps + [f"lambda_{layer}" for layer in range(1, len(row[end + 2]) + 1)]

    return _table(connection, query, _TRIAL, layers, flat)


def fit_table(connection: Connection, sweep_id: int) -> Flat:
    """Every fit of a sweep: how it ended, its losses, its weights' norms and its costs; its curves are in MLflow."""
    plain = (
        StudyRow.space, StudyRow.replicate, TrialRow.number, AttemptRow.attempt, AttemptRow.state, FitRow.fold,
        FitRow.seed, FitRow.outcome, FitRow.best_epoch, FitRow.train_loss, FitRow.validation_loss,
        FitRow.validation_metric, FitRow.test_loss, FitRow.test_metric,
    )  # fmt: skip
    columns: list[Any] = [*plain, FitRow.squared_norms, *(getattr(FitRow, name) for name in COST_COLUMNS)]
    joined = select(*columns).select_from(FitRow).join(AttemptRow).join(TrialRow).join(StudyRow)
    query = joined.where(StudyRow.sweep_id == sweep_id).order_by(StudyRow.id, TrialRow.number, FitRow.id)
    end = len(plain)

    def flat(row: Sequence[Any]) -> Sequence[Any]:
        return (*row[:end], *row[end], *row[end + 1 :])

    def layers(row: Sequence[Any]) -> list[str]:
        return [f"squared_norm_{layer}" for layer in range(1, len(row[end]) + 1)]

    return _table(connection, query, _FIT, layers, flat)


def workers(connection: Connection, sweep_id: int) -> list[WorkerNote]:
    """Who worked on a sweep, in the order in which they came."""
    here = select(WorkerTimeRow.worker_id).where(WorkerTimeRow.sweep_id == sweep_id)
    columns = WorkerRow.host, WorkerRow.device, WorkerRow.details, WorkerRow.started_at, WorkerRow.ended_at
    query = select(*columns).where(WorkerRow.id.in_(here)).order_by(WorkerRow.id)
    return [WorkerNote(*row) for row in connection.execute(query)]


def _cost_values(values: Sequence[Any]) -> list[Any]:
    """Sums as numbers of their columns' types; PostgreSQL's sum of big integers is a decimal."""
    return [None if v is None else kind(v) for kind, v in zip(_COST_TYPES.values(), values, strict=True)]


def _table(
    connection: Connection,
    query: Select[Any],
    plain: dict[str, type],
    layers: Callable[[Sequence[Any]], list[str]],
    flat: Callable[[Sequence[Any]], Sequence[Any]],
) -> Flat:
    """A table whose columns of layers are as many as its first row has; all rows of a sweep have as many."""
    found = iter(connection.execution_options(yield_per=_AT_ONCE).execute(query))
    first = next(found, None)
    if first is None:
        return Flat(plain | _COST_TYPES, iter(()))
    columns = plain | dict.fromkeys(layers(first), float) | _COST_TYPES
    return Flat(columns, (flat(row) for row in chain([first], found)))
