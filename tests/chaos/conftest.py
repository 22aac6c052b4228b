"""One PostgreSQL server, one MLflow server and one kennel per sweep file for the whole suite; a stage for each test."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch

from chaos.kennel import kennel, prepared
from chaos.stage import Cast, Server, Stage, stage_on
from export.test_server import free_port, running
from postgres import Postgres
from small import Change, outcome, run_here, write_sweep
from sweeper.export import configure_process, dashboard_command, prepare

SHORT: tuple[Change, ...] = (("trials: 5, replicates: 2", "trials: 3, replicates: 2"), ("epochs: 4", "epochs: 12"))
PACKAGE = "b_chaos"
NET = """
import torch
from torch import nn


class Net(nn.Module):
    \"""Gives infinite outputs once its weights have grown.\"""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.hidden, self.out = nn.Linear(inputs, 6), nn.Linear(6, outputs)

    def forward(self, rows):
        hidden = torch.relu(self.hidden(rows))
        return torch.where(hidden.amax(-1, keepdim=True) > 2.0, torch.inf, self.out(hidden))


def net(inputs, outputs):
    return Net(inputs, outputs)
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("chaos")


@pytest.fixture(scope="session")
def cast(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Cast]]:
    """Whatever works on sweeps of SHORT with some changes, and what an undisturbed worker finds of it."""
    casts: dict[tuple[Change, ...], Cast] = {}
    threads = torch.get_num_threads()
    with ExitStack() as stack:

        def of(*changes: Change) -> Cast:
            if changes not in casts:
                torch.set_num_threads(1)
                folder = tmp_path_factory.mktemp("cast")
                file = write_sweep(folder, *SHORT, *changes)
                (folder / f"{PACKAGE}.py").write_text(NET)
                opened = stack.enter_context(kennel(file))
                workload, setup = prepared(file)
                expected = outcome(run_here(workload, folder / "undisturbed").ledger)
                casts[changes] = Cast(opened, workload, setup, expected)
                torch.set_num_threads(threads)
            return casts[changes]

        yield of


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real MLflow server, whose tables lie in a SQLite file."""
    before, folder, port = dict(os.environ), tmp_path_factory.mktemp("mlflow"), free_port()
    configure_process()
    database = folder / "mlflow.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own, on SQLAlchemy
        prepare(f"sqlite:///{database}")
    command = dashboard_command(f"sqlite:///{database}", port, str(folder / "artifacts"))
    try:
        with running(command, port, folder) as process:
            yield Server(f"http://127.0.0.1:{port}", port, database, process.pid)
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def stage(
    cast: Callable[..., Cast], mlflow: Server, postgres: Postgres, tmp_path: Path, record_property: Any
) -> Iterator[Callable[..., Stage]]:
    """A sweep that nobody has worked on yet, on PostgreSQL unless a store is given; call it with the file's changes."""
    with ExitStack() as stack:

        def of(*changes: Change, store: str | None = None) -> Stage:
            url = store or stack.enter_context(postgres.database(migrated=True))
            return stack.enter_context(stage_on(url, cast(*changes), mlflow, tmp_path, record_property))

        yield of
