"""All that a report tells of a sweep, read from the ledger and priced."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sweeper.errors import PriceError
from sweeper.findings.accounts import Accounts
from sweeper.findings.importance import Decisive
from sweeper.launched import launched_blueprint, launched_shapes
from sweeper.ledger import reads
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.ledger.tables import WorkerNote, workers
from sweeper.price import Mode, price_sweep, summarise_spaces
from sweeper.quantities import duration, energy
from sweeper.records import Cost, Task
from sweeper.report import Facts, Machine, Sheet

_LOSSES = {
    Task.MULTICLASS: "cross-entropy, nats per row",
    Task.BINARY: "cross-entropy, nats per row",
    Task.REGRESSION: "half the squared error per row",
}
_SOFTWARE = ("sweeper", "numpy", "scipy", "opda", "torch", "optuna")
_SHOWN = 400  # characters of a detail


def gather(ledger: Ledger, sweep: Sweep) -> Facts:
    """All that the report of a sweep tells, as the ledger has it now; takes some seconds."""
    mode, shapes, blueprint = Mode(sweep.mode), launched_shapes(sweep), launched_blueprint(sweep)
    with ledger.read() as connection:
        progress = reads.progress(connection, sweep.id)
        studies, here = reads.priced(connection, sweep.id), workers(connection, sweep.id)
        accounts = Accounts.read(connection, sweep)
        cost, occupancy = reads.total_cost(connection, sweep.id), reads.occupancy(connection, sweep.id)
    return Facts(
        name=sweep.name,
        workload=f"{blueprint.title} on {sweep.config['data']['source']}",
        loss=_LOSSES[blueprint.task],
        mode=mode,
        finished=sum(space.finished for space in progress),
        planned=sum(space.planned for space in progress),
        studies=studies,
        shapes=shapes,
        prices=price_sweep(studies, shapes, mode=mode),
        spaces=summarise_spaces(studies, shapes, mode=mode),
        importance=_importance(ledger, sweep),
        accounts=accounts.sheets() if accounts.worker_s else (),
        balance=accounts.balance if accounts.worker_s else "",
        amounts=_amounts(cost, occupancy),
        machines=_machines(here),
        numerics=_words(sweep.numerics),
        data_sha256=sweep.data_sha256,
        file_path=Path(sweep.file_path).name,
        file_text=sweep.file_text,
        made_at=datetime.now(UTC),
        versions={"Python": platform.python_version()} | {software: version(software) for software in _SOFTWARE},
    )


def _importance(ledger: Ledger, sweep: Sweep) -> Sheet:
    try:
        return Decisive.of(ledger, sweep).sheet()
    except PriceError as error:
        return Sheet("importance", (), str(error))


def _amounts(cost: Cost, occupancy: float | None) -> list[tuple[str, str]]:
    """What all attempts of all trials took together, however they ended."""
    return [
        ("training and evaluation", f"{duration(cost.device_s)} of devices, as run"),
        ("suggestions", duration(cost.suggest_s)),
        ("energy", "not measured" if cost.joules is None else energy(cost.joules)),
        ("arithmetic", f"{cost.flops:.3g} FLOPs"),
        ("optimizer steps", f"{cost.steps:,}"),
        ("occupancy", "not measured" if occupancy is None else f"{occupancy:.1%} of all slot-steps had a fit"),
    ]


def _machines(workers: list[WorkerNote]) -> list[Machine]:
    """Processes that are alike together, in the order in which the first of them came."""
    alike: dict[tuple[str, str, str], list[WorkerNote]] = {}
    for worker in workers:
        key = worker.host, worker.device, str(sorted(_words(worker.details).items()))
        alike.setdefault(key, []).append(worker)
    return [
        Machine(
            device=group[0].device,
            host=group[0].host,
            workers=len(group),
            began=min(worker.started_at for worker in group),
            ended=max((worker.ended_at for worker in group if worker.ended_at), default=None),
            details=_words(group[0].details),
        )
        for group in alike.values()
    ]


def _words(details: Mapping[str, Any]) -> dict[str, str]:
    """A JSON object as words, the inner ones flattened."""
    said: dict[str, str] = {}
    for key, value in details.items():
        if isinstance(value, Mapping):
            said |= {f"{key}, {inner}": words for inner, words in _words(value).items()}
        else:
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            said[str(key)] = text if len(text) <= _SHOWN else text[:_SHOWN] + "…"
    return said
