"""Where things live: the home folder, the ledger in it, and MLflow's store; and the options that name them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.console import errors
from sweeper.errors import StoreAwayError
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.roots import VARIABLE, Roots
from sweeper.urls import masked

HOME = Path("sweeper-data")
OPENING_S = (
    60.0  # that a worker waits for a store that is away from the first; it can't tell a wrong password from that
)

HomeOption = Annotated[
    Path, typer.Option("--home", envvar="SWEEPER_HOME", help="Folder for the ledger, MLflow's store and logs.")
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", envvar="SWEEPER_STORE", help="URL of the ledger; default: ledger.db in the home folder."),
]
DeviceOption = Annotated[
    str, typer.Option("--device", help="cpu, cuda, cuda:1, ...; auto takes a GPU if there is one.")
]
CheckpointsOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoints",
        envvar="SWEEPER_CHECKPOINTS",
        help="Folder or URL (as fsspec knows them) for trials that are under way; default: in the home folder.",
    ),
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
DataRootOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--data-root",
        envvar=VARIABLE,
        metavar="DIR",
        help="A folder that a sweep which is read from the store may name files in (repeatable; between colons in the "
        "variable). Default: the current folder; and always what was named at launches with this home.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
NameArgument = Annotated[str, typer.Argument(help="Name of a sweep.", show_default=False)]


def allowed_packages(given: Sequence[str] | None) -> frozenset[str]:
    """What --allow-import or its variable names; commas separate some of them."""
    return frozenset(name.strip() for text in given or () for name in text.split(",") if name.strip())


@dataclass(frozen=True)
class Places:
    """The home folder, the two stores, and the data roots that the user named."""

    home: Path
    store: str
    tracking_uri: str
    data_roots: tuple[Path, ...] = ()

    @classmethod
    def of(cls, home: Path, store: str | None, data_roots: Sequence[Path] | None = None) -> Places:
        """From the options and MLFLOW_TRACKING_URI."""
        local = f"sqlite:///{home.resolve() / 'mlflow.db'}"
        named = tuple(path.expanduser().absolute() for path in data_roots or ())
        return cls(home, store or sqlite_url(home), os.environ.get("MLFLOW_TRACKING_URI") or local, named)

    @property
    def activations(self) -> Path:
        """Where what backbones made of data is kept."""
        return self.home / "activations"

    @property
    def checkpoints(self) -> Path:
        """Where trials that are under way are kept, unless the user names another place."""
        return self.home / "checkpoints"

    @property
    def unsettled(self) -> Path:
        """Where results wait that the ledger can't take while its server is away."""
        return self.home / "unsettled"

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
        named = {VARIABLE: os.pathsep.join(map(str, self.data_roots))} if self.data_roots else {}
        return {"SWEEPER_HOME": str(self.home), "SWEEPER_STORE": self.store, **named}

    @property
    def roots(self) -> Roots:
        """Where files may lie that a sweep from the ledger names."""
        return Roots.here(self.data_roots, self.home)

    @property
    def hint(self) -> str:
        """The options that a user must repeat in the next command: none for the default home and its ledger."""
        home = "" if self.home == HOME else f" --home {self.home}"
        is_known = self.store in (sqlite_url(self.home), os.environ.get("SWEEPER_STORE"))
        return home + ("" if is_known else f" --store {masked(self.store)}")

    def ledger(self, *, create: bool = False) -> Ledger:
        """Open the ledger; where there is none, make it or complain."""
        return Ledger(self.store, create=create)

    def awaited_ledger(self, *, create: bool = False) -> Ledger:
        """The same for a worker, which may come up before the ledger's server does."""
        try:
            return self.ledger(create=create)
        except StoreAwayError as error:
            errors.print(f"{error}\nWaiting for it, up to {OPENING_S:.0f} s.")
            return Ledger(self.store, create=create, patience_s=OPENING_S)
