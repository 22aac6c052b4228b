"""A sweep in a store of its own, with everything that a test needs to disturb it and to look at what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from chaos.evidence import Evidence, ledger_evidence, mlflow_evidence
from chaos.faults import EAGER_COURIER, PlainReport
from chaos.kennel import Dog, Fault, Kennel, Order
from small import Outcome
from sweeper.ledger import deliveries, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.schema import TrialRow
from sweeper.ledger.store import Ledger
from sweeper.letters import opening_letters
from sweeper.workload import Workload, differences

LONGER = ("trials: 3, replicates: 2", "trials: 6, replicates: 2"), ("epochs: 12", "epochs: 30")
PATIENCE_S = 30.0  # of the test itself, where the server is away


@dataclass(frozen=True)
class Server:
    """An MLflow server.

    Attributes:
        database: the SQLite file behind it.
        pid: of the process that leads its session.
    """

    url: str
    port: int
    database: Path
    pid: int


@dataclass(frozen=True)
class Cast:
    """Those who work on sweeps of one file.

    Attributes:
        expected: what an undisturbed worker finds.
    """

    kennel: Kennel
    workload: Workload
    setup: Any
    expected: Outcome


@dataclass(frozen=True)
class Stage:
    """A sweep and those who work on it.

    Attributes:
        folder: the test's own.
        told: takes the line that the test counted.
    """

    folder: Path
    ledger: Ledger
    sweep: Sweep
    cast: Cast
    mlflow: Server
    told: Callable[[str], None]

    @property
    def trials(self) -> int:
        """How many the sweep has."""
        return len(self.cast.expected)

    def worker(self, *faults: Fault, checkpoints: bool = False, every_s: float = 0.0) -> Dog:
        """Start a worker; with checkpoints it saves its trials at every tick."""
        place = str(self.folder / "checkpoints") if checkpoints else None
        return self._start(Order(self.folder, self.ledger.url, "small", faults, place, every_s))

    def courier(self, *faults: Fault, uri: str | None = None, follows: Path | None = None) -> Dog:
        """Start a courier that has no long breath."""
        usual: tuple[Fault, ...] = (EAGER_COURIER, PlainReport())
        where = {"mlflow": uri or self.mlflow.url, "follows": follows}
        return self._start(Order(self.folder, self.ledger.url, "small", (*usual, *faults), **where))

    def finish(self, *faults: Fault, checkpoints: bool = False) -> None:
        """Whatever is left is done by one more worker."""
        assert "done" in self.worker(*faults, checkpoints=checkpoints).wait_well().said

    def check(self, fault: str) -> Evidence:
        """See that all is there, once and as it should be, and say what was counted."""
        found = self.evidence()
        self.told(f"{fault}, {found.words}")
        return found

    def evidence(self) -> Evidence:
        """What must be so whatever happened: in the ledger, and in MLflow once the rest is delivered."""
        states = ledger_evidence(self.ledger, self.sweep, self.cast.expected)
        self.courier().wait_well()
        return Evidence(self.trials, states, mlflow_evidence(self.ledger, self.sweep, self.mlflow.database))

    def settled(self) -> int:
        """Trials that have ended so far."""
        return self.count(TrialRow.ended_at.is_not(None))

    def is_settled(self, trials: int) -> Callable[[], bool]:
        """Asks whether so many have ended."""
        return lambda: self.settled() >= trials

    @property
    def letters(self) -> int:
        """How many runs MLflow is told of, counted once where they are told at their start and at their end."""
        return self.trials + len({key[:2] for key in self.cast.expected}) + 1

    def undelivered(self) -> int:
        """How many of them MLflow does not have, as far as the ledger knows."""
        with self.ledger.read() as connection:
            _, waiting, parked = deliveries.counts(connection, self.sweep.id)
        assert parked == 0
        return waiting

    def is_delivered(self) -> bool:
        """Whether MLflow has all of them."""
        return self.undelivered() == 0

    def count(self, where: Any) -> int:
        """Rows that are so."""
        query = select(func.count()).where(where)
        return int(self.ledger.ask(lambda connection: connection.scalar(query)) or 0)

    def sum(self, column: Any) -> int:
        """Of a column's values."""
        return int(self.ledger.ask(lambda connection: connection.scalar(select(func.sum(column)))) or 0)

    def _start(self, order: Order) -> Dog:
        return self.cast.kennel.start(order)


@contextmanager
def stage_on(url: str, cast: Cast, mlflow: Server, folder: Path, record_property: Any) -> Iterator[Stage]:
    """Launch the sweep in a store."""
    ledger = Ledger(url)
    ledger.patience_s = PATIENCE_S
    dogs = len(cast.kennel.dogs)
    plan = cast.workload.plan(vars(cast.setup.numerics))
    with ledger.write() as connection:
        sweep = sweeps.launch(connection, plan, fresh=False, differences=differences)
        deliveries.post(connection, sweep.id, opening_letters(sweep, sweeps.studies(connection, sweep.id)))
    try:
        yield Stage(folder, ledger, sweep, cast, mlflow, lambda line: record_property("counted", line))
    finally:
        for dog in cast.kennel.dogs[dogs:]:
            dog.kill()
        ledger.close()
