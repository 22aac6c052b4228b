"""`report`: one HTML file that says what extra hyperparameters cost, the same pictures as PNG, and tables."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from sweeper.cli.console import duration, energy, errors, output
from sweeper.cli.places import HOME, HomeOption, NameArgument, Places, StoreOption
from sweeper.ledger import reads, sweeps, tables
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.price import Mode, price_sweep, summarise_spaces
from sweeper.records import Cost, Task
from sweeper.report import Facts, Machine, page, write_pictures, write_table
from sweeper.workload import launched_blueprint, launched_shapes

_LOSSES = {
    Task.MULTICLASS: "cross-entropy, nats per row",
    Task.BINARY: "cross-entropy, nats per row",
    Task.REGRESSION: "half the squared error per row",
}
_SOFTWARE = ("sweeper", "numpy", "scipy", "opda", "torch", "optuna")
_SHOWN = 400  # characters of a detail


def report(
    name: NameArgument,
    out: Annotated[
        Path | None, typer.Option("--out", help="The HTML file to write; default: NAME.html here.", show_default=False)
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--plots", help="Write the pictures as PNG into this folder, too.")
    ] = None,
    listed: Annotated[
        Path | None, typer.Option("--tables", help="Write trials and fits as CSV and Parquet into this folder, too.")
    ] = None,
    home: HomeOption = HOME,
    store: StoreOption = None,
) -> None:
    """Write what extra hyperparameters cost and bought into one HTML file that needs nothing beside it."""
    ledger = Places.of(home, store).ledger()
    with ledger.read() as connection:
        sweep = sweeps.find(connection, name)
    facts = _facts(ledger, sweep)
    path = out or Path(f"{name}.html")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(facts), encoding="utf-8")
    written = [path]
    if pictures is not None:
        written += write_pictures(facts, pictures)
    if listed is not None:
        with ledger.read() as connection:
            for what, table in (("trials", tables.trial_table), ("fits", tables.fit_table)):
                flat = table(connection, sweep.id)
                written += write_table(flat.columns, flat.rows, listed, what)
    for file in written:
        output.print(str(file), soft_wrap=True)
    if not facts.supports_claims:
        errors.print(f"R = {facts.replicates} replicates: too few for any claim, and the report says so.")


def _facts(ledger: Ledger, sweep: Sweep) -> Facts:
    mode, shapes, blueprint = Mode(sweep.mode), launched_shapes(sweep), launched_blueprint(sweep)
    with ledger.read() as connection:
        progress = reads.progress(connection, sweep.id)
        studies = reads.priced(connection, sweep.id)
        seconds, workers = reads.worker_times(connection, sweep.id), tables.workers(connection, sweep.id)
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
        seconds=seconds,
        amounts=_amounts(cost, occupancy),
        machines=_machines(workers),
        numerics=_words(sweep.numerics),
        data_sha256=sweep.data_sha256,
        file_path=Path(sweep.file_path).name,
        file_text=sweep.file_text,
        made_at=datetime.now(UTC),
        versions={"Python": platform.python_version()} | {software: version(software) for software in _SOFTWARE},
    )


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


def _machines(workers: list[tables.WorkerNote]) -> list[Machine]:
    """Processes that are alike together, in the order in which the first of them came."""
    alike: dict[tuple[str, str, str], list[tables.WorkerNote]] = {}
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
