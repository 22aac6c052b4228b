"""What a sweep may spend and has spent, in words and for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping

from sweeper.ledger import budgets
from sweeper.ledger.budgets import UNITS
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Connection
from sweeper.quantities import energy

FINE = 100.0  # below so many device-seconds, three digits are shown


def spending(connection: Connection, sweep: Sweep) -> dict[str, dict[str, float]] | None:
    """Limit and amount spent of each unit that has a limit, by the sweep file's names; None without a budget."""
    limit = budgets.limit_of(sweep.config)
    limits = {unit: getattr(limit, name) for unit, name in UNITS.items() if math.isfinite(getattr(limit, name))}
    if not limits:
        return None
    spent = budgets.spent(connection, sweep.id)
    return {unit: {"limit": most, "spent": getattr(spent, UNITS[unit])} for unit, most in limits.items()}


def spending_words(told: Mapping[str, Mapping[str, float]]) -> str:
    """The same in a line, e.g. `budget: 1,250 of 3,600 device-seconds spent`."""
    parts = [f"{_said(unit, each['spent'])} of {_amount(unit, each['limit'])}" for unit, each in told.items()]
    return f"budget: {' and '.join(parts)} spent"


def limit_words(limits: Mapping[str, float | None]) -> str | None:
    """What a sweep file allows, e.g. `budget: at most 3,600 device-seconds`; None where it caps nothing."""
    parts = [_amount(unit, most) for unit, most in limits.items() if most is not None]
    if not parts:
        return None
    return f"budget: at most {' and '.join(parts)}" + (", whichever is spent first" if len(parts) > 1 else "")


def _amount(unit: str, value: float) -> str:
    return f"{_said(unit, value)} device-seconds" if unit == "device_seconds" else energy(value)


def _said(unit: str, value: float) -> str:
    if unit != "device_seconds":
        return energy(value)
    return f"{value:,.0f}" if value >= FINE else f"{value:.3g}"
