"""One trial as it was recorded, with every fit that counted: what a replay is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, select

from sweeper.errors import UnknownTrialError
from sweeper.ledger.schema import AttemptRow, FitRow, StudyRow, TrialRow
from sweeper.records import Setting, TrialState

MEASURES = ("best_epoch", "train_loss", "validation_loss", "validation_metric", "test_loss", "test_metric")


@dataclass(frozen=True)
class RecordedFit:
    """One fit of the attempt that counted.

    Attributes:
        measures: by name; None where a number was not finite or not measured.
        squared_norms: per weight layer.
        curves: per measure one value per epoch.
    """

    fold: int
    seed: int
    outcome: str
    measures: Mapping[str, float | None]
    squared_norms: tuple[float | None, ...]
    curves: Mapping[str, tuple[float | None, ...]]

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self.curves["epoch"])


@dataclass(frozen=True)
class Recorded:
    """One trial.

    Attributes:
        fits: in the order of the folds; none where it never came so far.
    """

    space: str
    replicate: int
    number: int
    state: TrialState
    setting: Setting
    fits: tuple[RecordedFit, ...]


def recorded(connection: Connection, sweep_id: int, space: str, replicate: int, number: int) -> Recorded:
    """The trial of that name.

    Raises:
        UnknownTrialError: there is none.
    """
    here = StudyRow.sweep_id == sweep_id, StudyRow.space == space, StudyRow.replicate == replicate
    columns = TrialRow.id, TrialRow.attempt, TrialRow.state, TrialRow.keep_prob, TrialRow.lambda_.label("lambda_")
    query = select(*columns).join(StudyRow).where(*here, TrialRow.number == number)
    trial = connection.execute(query).one_or_none()
    if trial is None:
        raise UnknownTrialError(_unknown(connection, sweep_id, f"{space}/{replicate}/{number}"))
    counted = AttemptRow.trial_id == trial.id, AttemptRow.attempt == trial.attempt
    columns_of_fit = FitRow.fold, FitRow.seed, FitRow.outcome, FitRow.squared_norms, FitRow.curves
    fits = (
        select(*columns_of_fit, *(getattr(FitRow, name) for name in MEASURES))
        .join(AttemptRow)
        .where(*counted)
        .order_by(FitRow.fold)
    )
    setting = Setting(tuple(trial.keep_prob), tuple(trial.lambda_))
    found = tuple(_fit(row) for row in connection.execute(fits))
    return Recorded(space, replicate, number, TrialState(trial.state), setting, found)


def _fit(row: Row[Any]) -> RecordedFit:
    return RecordedFit(
        row.fold,
        row.seed,
        row.outcome,
        {name: row._mapping[name] for name in MEASURES},
        tuple(row.squared_norms),
        {name: tuple(values) for name, values in row.curves.items()},
    )


def _unknown(connection: Connection, sweep_id: int, name: str) -> str:
    query = (
        select(StudyRow.space).where(StudyRow.sweep_id == sweep_id).group_by(StudyRow.space).order_by(StudyRow.space)
    )
    spaces = ", ".join(connection.scalars(query))
    return (
        f"there is no trial {name!r} in this sweep. A trial is named SPACE/REPLICATE/NUMBER, as `sweeper trials` shows "
        f"it; the spaces are {spaces}."
    )
