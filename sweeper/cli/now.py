"""What is going on at a sweep this moment: its workers, how fast they are, what has come to a halt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from sweeper.cli.console import number, table
from sweeper.ledger import fleet
from sweeper.ledger.rows import SpaceProgress
from sweeper.ledger.store import Connection
from sweeper.quantities import duration


def now(connection: Connection, sweep_id: int, spaces: Sequence[SpaceProgress]) -> dict[str, Any]:
    """A sweep's workers and rates, for programs.

    Args:
        connection: to ask on.
        sweep_id: which sweep.
        spaces: how far they are.
    """
    hands, delivery = fleet.hands(connection, sweep_id), fleet.delivery(connection, sweep_id)
    rate, left = fleet.trials_per_s(connection, sweep_id), sum(space.planned - space.finished for space in spaces)
    losses = [space.best_validation_loss for space in spaces if space.best_validation_loss is not None]
    stale = [f"{hand.name} is dead and holds {hand.running} trials" for hand in hands if hand.is_stale]
    if delivery.is_stale:
        stale.append("whoever delivered to MLflow is dead")
    return {
        "trials_per_s": rate,
        "eta_s": left / rate if rate and left > 0 else None,
        "best_validation_loss": min(losses, default=None),
        "mlflow": asdict(delivery),
        "workers": [asdict(hand) for hand in hands],
        "stale": stale,
    }


def words(status: Mapping[str, Any]) -> Iterator[str]:
    """The same in lines, but for the workers.

    Args:
        status: as `sweeper status --json` prints it.
    """
    this = status["now"]
    if this["trials_per_s"] or this["workers"]:
        eta = "" if this["eta_s"] is None else f", about {duration(this['eta_s'])} to go at this rate (an estimate)"
        best = number(this["best_validation_loss"])
        yield f"now: {this['trials_per_s']:.2g} trials/s{eta}, best validation loss {best}"
    oldest_s, waiting = this["mlflow"]["oldest_s"], status["mlflow"]["waiting"]
    if waiting and oldest_s is not None:
        yield f"MLflow is behind: {waiting} runs are on their way, the oldest for {duration(oldest_s)}"
    for each in this["stale"]:
        yield f"stale: {each}; whoever comes next takes over"
    if status["state"] == "open" and not any(worker["life"] != fleet.Life.DEAD for worker in this["workers"]):
        yield "nobody works on it. Start a worker: sweeper worker"


def workers_table(told: Sequence[Mapping[str, Any]]) -> Table | None:
    """The workers of some sweeps; None where there are none."""
    right = "lease", "running", "trials/s", "slots busy"
    shown = table(None, "worker", "device", "sweep", "", *right, right=right)
    for worker in (worker for status in told for worker in status["now"]["workers"]):
        occupancy, lease_s = worker["occupancy"], worker["lease_s"]
        shown.add_row(
            worker["name"],
            worker["device"],
            worker["sweep"],
            str(worker["life"]),
            duration(lease_s) if lease_s >= 0 else f"ran out {duration(-lease_s)} ago",
            str(worker["running"]),
            f"{worker['trials_per_s']:.2g}",
            "-" if occupancy is None else f"{occupancy:.0%}",
        )
    return shown if shown.row_count else None
