"""What a sweep may spend, what it has spent, and how much of the rest each of its workers may go on with.

A worker trains only what it was granted before. A grant is how far the worker may go, on the scale of what it has spent
itself: at once it is a claim on the budget,

    what is left for a worker = budget - sum over the others of (ended: spent; living: the larger of granted and spent)

and nobody else is given it until the worker spends less or has ended. Who asks does so in one transaction under the
sweep's lock, with its own spending entered, so that no two workers are given the same.

What a sweep has spent is what its trials are charged, finished, failed, released and lost ones alike: the device's
seconds of training and evaluation, and its energy, of slots with a fit. The workers' rows hold both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Subquery, case, func, select, update

from sweeper.ledger.rows import Meter
from sweeper.ledger.schema import SweepRow, WorkerMeterRow, WorkerRow, WorkerTimeRow
from sweeper.ledger.workers import SHARED_KINDS
from sweeper.timesheet import Timesheet

IDLE = "idle"  # the kind of time that slots without a fit take
UNITS = {"device_seconds": "device_s", "joules": "joules"}
"""What a sweep file calls each unit, and what an `Amount` does."""


@dataclass(frozen=True)
class Amount:
    """Something spent or granted, or a limit of that; infinity is no limit."""

    device_s: float = 0.0
    joules: float = 0.0

    def __add__(self, other: Amount) -> Amount:
        """Both together."""
        return Amount(self.device_s + other.device_s, self.joules + other.joules)

    def __sub__(self, other: Amount) -> Amount:
        """What is left without the other."""
        return Amount(self.device_s - other.device_s, self.joules - other.joules)

    def __mul__(self, times: float) -> Amount:
        """So many times as much."""
        return Amount(self.device_s * times, self.joules * times)

    def is_within(self, other: Amount) -> bool:
        """Whether no unit is more than the other's."""
        return self.device_s <= other.device_s and self.joules <= other.joules


UNLIMITED = Amount(math.inf, math.inf)


@dataclass(frozen=True)
class Standing:
    """How a sweep's budget stands, as one of its workers asks.

    Attributes:
        limit: the budget.
        held: what the others have spent, or may still spend.
        unused: what of that they have not spent, and might give back.
        others: how many of them live.
    """

    limit: Amount
    held: Amount
    unused: Amount
    others: int


def limit_of(config: Mapping[str, Any]) -> Amount:
    """The budget in a sweep's recorded config; one that was recorded before there were budgets has none."""
    budget = config["search"].get("budget", {})
    given = {name: budget.get(key) for key, name in UNITS.items()}
    return Amount(**{name: math.inf if value is None else float(value) for name, value in given.items()})


def spent_by(times: Timesheet, meter: Meter) -> Amount:
    """What one worker has spent; energy that was not measured counts as nothing here.

    What slots without a fit took is not charged. Of the energy that is the share which it is of the time: the timesheet
    knows what the last looks at fits that ended took, in which those slots had no part.
    """
    busy_s = times["train"] + times["evaluate"]
    share = busy_s / (busy_s + times[IDLE]) if busy_s else 0.0
    return Amount(busy_s, (meter.joules or 0.0) * share)


def spent(connection: Connection, sweep_id: int) -> Amount:
    """What a sweep has spent so far, to the last tick that its workers entered.

    Energy that was not measured counts as what had been granted: it was no more than that.
    """
    rows = _workers(sweep_id)
    columns = (func.coalesce(func.sum(rows.c[f"spent_{name}"]), 0.0) for name in UNITS.values())
    return Amount(*map(float, connection.execute(select(*columns)).one()))


def standing(connection: Connection, sweep_id: int, worker_id: int) -> Standing:
    """How a sweep's budget stands for a worker that asks; it has locked the sweep (`sweeps.lock`)."""
    rows = _workers(sweep_id)
    columns: list[Any] = [func.coalesce(func.sum(case((rows.c.is_alive, 1), else_=0)), 0)]
    for name in UNITS.values():
        gone, granted = rows.c[f"spent_{name}"], rows.c[f"granted_{name}"]
        unused = case((rows.c.is_alive & (granted > gone), granted - gone), else_=0.0)
        columns += [func.coalesce(func.sum(gone + unused), 0.0), func.coalesce(func.sum(unused), 0.0)]
    others, *amounts = connection.execute(select(*columns).where(rows.c.worker_id != worker_id)).one()
    held_s, unused_s, held_joules, unused_joules = map(float, amounts)
    config = connection.scalars(select(SweepRow.config).where(SweepRow.id == sweep_id)).one()
    return Standing(limit_of(config), Amount(held_s, held_joules), Amount(unused_s, unused_joules), int(others))


def set_grant(connection: Connection, worker_id: int, sweep_id: int, until: Amount) -> None:
    """Enter how far a worker may go. Its meter was entered before."""
    row = update(WorkerMeterRow).where(WorkerMeterRow.worker_id == worker_id, WorkerMeterRow.sweep_id == sweep_id)
    connection.execute(row.values(granted_s=until.device_s, granted_joules=until.joules))


def _workers(sweep_id: int) -> Subquery:
    """A sweep's workers, with what they have spent and were granted."""
    busy_s, idle_s = _seconds(*SHARED_KINDS), _seconds(IDLE)
    metered = case((busy_s + idle_s > 0, WorkerMeterRow.joules * busy_s / (busy_s + idle_s)), else_=0.0)
    unmeasured = WorkerMeterRow.joules.is_(None) & (WorkerMeterRow.slot_steps > 0)
    columns = (
        WorkerMeterRow.worker_id,
        WorkerRow.ended_at.is_(None).label("is_alive"),
        WorkerMeterRow.granted_s.label("granted_device_s"),
        WorkerMeterRow.granted_joules,
        busy_s.label("spent_device_s"),
        case((unmeasured, WorkerMeterRow.granted_joules), else_=func.coalesce(metered, 0.0)).label("spent_joules"),
    )
    return select(*columns).join(WorkerRow).where(WorkerMeterRow.sweep_id == sweep_id).subquery()


def _seconds(*kinds: str) -> ColumnElement[float]:
    """What a worker's time for a sweep has of some kinds."""
    same = WorkerTimeRow.worker_id == WorkerMeterRow.worker_id, WorkerTimeRow.sweep_id == WorkerMeterRow.sweep_id
    summed = select(func.sum(WorkerTimeRow.seconds)).where(*same, WorkerTimeRow.kind.in_(kinds))
    return func.coalesce(summed.correlate(WorkerMeterRow).scalar_subquery(), 0.0)
