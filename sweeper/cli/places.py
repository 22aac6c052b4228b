"""Where things live: the home folder, the ledger in it, and MLflow's store; and the options that name them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sweeper.ledger.store import Ledger, sqlite_url

HOME = Path("sweeper-data")

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="SWEEPER_HOME", help="Folder for the ledger, MLflow's store and logs.")
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", envvar="SWEEPER_STORE", help="URL of the ledger; default: ledger.db in the home folder."),
]
AllowOption = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-import",
        envvar="SWEEPER_ALLOW_IMPORT",
        metavar="PKG",
        help="A package whose code the sweep may import (repeatable; commas in the variable). Importing runs it.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
NameArgument = Annotated[str, typer.Argument(help="Name of a sweep.", show_default=False)]


@dataclass(frozen=True)
class Places:
    """The home folder and the two stores."""

    home: Path
    store: str
    tracking_uri: str

    @classmethod
    def of(cls, home: Path, store: str | None) -> Places:
        """From the options and MLFLOW_TRACKING_URI."""
        local = f"sqlite:///{home.resolve() / 'mlflow.db'}"
        return cls(home, store or sqlite_url(home), os.environ.get("MLFLOW_TRACKING_URI") or local)

    @property
    def activations(self) -> Path:
        """Where what backbones made of data is kept."""
        return self.home / "activations"

    @property
    def checkpoints(self) -> Path:
        """Where trials that are under way are kept, unless the user names another place."""
        return self.home / "checkpoints"

    @property
    def artifacts(self) -> Path:
        """Where MLflow's files go when its store is local."""
        return self.home.resolve() / "mlartifacts"

    @property
    def log(self) -> Path:
        """What the delivering process has to complain about."""
        return self.home / "mlflow-export.log"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead another process to the same places."""
        return {"SWEEPER_HOME": str(self.home), "SWEEPER_STORE": self.store}

    @property
    def hint(self) -> str:
        """The option that a user must repeat in the next command: none at the default home."""
        return "" if self.home == HOME else f" --home {self.home}"

    def ledger(self, *, create: bool = False) -> Ledger:
        """Open the ledger; where there is none, make it or complain."""
        return Ledger(self.store, create=create)
