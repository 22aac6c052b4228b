from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeper.export import configure_process, prepare


@pytest.fixture(scope="session")
def exporter_environment() -> Iterator[None]:
    """MLflow's switches as in an exporter process, taken back when the tests end."""
    before = dict(os.environ)
    configure_process()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory, exporter_environment: None) -> Path:
    """One new store; creating its schema takes seconds, so that tests copy it."""
    path = tmp_path_factory.mktemp("mlflow") / "home" / "mlflow.db"
    prepare(f"sqlite:///{path}")
    return path


@pytest.fixture
def uri(prepared: Path, tmp_path: Path) -> str:
    """A tracking store of the test's own, empty."""
    shutil.copyfile(prepared, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path}/mlflow.db"
