"""`run --on`: the workers are on a Ray cluster; this process places them, shows how they fare, and parts from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from sweeper.cli.computing import Compile, Saved
from sweeper.cli.console import errors
from sweeper.cli.live import HEADLINE, LiveView
from sweeper.cli.places import Places
from sweeper.cluster import Order, Said, Workers, check_nodes, connected, room
from sweeper.errors import ClusterError
from sweeper.ledger import reads, sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.worker import Ending, StopRequest

OnOption = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar="ADDRESS",
        help="Train on a Ray cluster instead of here, with -n workers: ray://HOST:10001; or ray for the one that this "
        "machine belongs to.",
    ),
]
LOOK_S = 0.5  # between two looks at the workers
ENDINGS = {sweeps.STOPPED: Ending.STOPPED, sweeps.SPENT: Ending.SPENT}


@dataclass(frozen=True)
class Wanted:
    """What the options say of the workers, each of which is told the same.

    Attributes:
        count: how many; None for as many as there is room for.
        paths: files and folders that the sweep file names, for which its user vouches.
    """

    count: int | None
    device: str
    slots: int | None
    threads: int | None
    compiling: Compile
    allowed: Sequence[str]
    paths: Iterable[Path]


@dataclass
class Placing:
    """A cluster that could take the workers of a sweep.

    Attributes:
        log: writes down what is not shown.
    """

    ledger: Ledger
    places: Places
    wanted: Wanted
    saved: Saved
    log: Callable[[str], object]
    _shown: set[str]

    def work(self, sweep: Sweep, stop: StopRequest) -> Ending:
        """Have a sweep worked on until it is done, stopped, or this process is told to end.

        Raises:
            ClusterError: all workers ended, and the sweep is not done.
        """
        threads = self.wanted.threads or 1
        device = self.wanted.device.partition(":")[0]  # which GPU of a node, Ray says
        seats, gpus = room(threads, wants_gpu=None if device == "auto" else device != "cpu")
        order = Order(self._argv(sweep, gpus, threads), self._environment, threads, gpus, str(Path.cwd()))
        workers = Workers(order, self.wanted.count or seats, sweep.name)
        if self.wanted.count and self.wanted.count > seats:
            errors.print(f"note: the cluster has room for {seats} of {self.wanted.count} workers now; the rest wait")
        try:
            with LiveView(self.ledger, sweep) as view:
                return self._watch(sweep, workers, stop, view)
        finally:
            for lines in workers.part():
                self._show(lines)

    def _watch(self, sweep: Sweep, workers: Workers, stop: StopRequest, view: LiveView) -> Ending:
        while not stop:
            view()
            self._show(workers.look())
            if not workers.working:
                return self._ended(sweep, workers)
            stop.wait(LOOK_S)
        return Ending.INTERRUPTED

    def _ended(self, sweep: Sweep, workers: Workers) -> Ending:
        with self.ledger.read() as connection:
            state = sweeps.state_of(connection, sweep.id)
            is_done = all(space.is_complete for space in reads.progress(connection, sweep.id))
        ending = Ending.DONE if is_done else ENDINGS.get(state or "")
        if ending is not None:
            return ending
        raise ClusterError(
            f"all workers on the cluster ended, and {sweep.name} is not done. {workers.problem or 'None said why.'} "
            "What they finished is kept; mend that and run the same again."
        )

    def _show(self, lines: Iterable[Said]) -> None:
        """Show what is new: how far the sweep is, the live view says; what all workers say, one of them."""
        for line in lines:
            self.log(str(line))
            if line.is_own and (HEADLINE.match(line.text) or line.text in self._shown):
                continue
            self._shown.add(line.text)
            errors.print(str(line))

    def _argv(self, sweep: Sweep, gpus: int, threads: int) -> tuple[str, ...]:
        wanted = self.wanted
        argv = ["worker", "--sweep", sweep.name, "--crew", "1", "--device", "cuda" if gpus else "cpu"]
        argv += ["--threads", str(threads), "--compile", wanted.compiling.value]
        argv += ["--checkpoint-every", str(self.saved.every_s)]
        argv += ["--slots", str(wanted.slots)] if wanted.slots else []
        return (*argv, *(word for package in wanted.allowed for word in ("--allow-import", package)))

    @property
    def _environment(self) -> dict[str, str]:
        """Where things are, the same on every node."""
        roots = [*self.places.data_roots, *self.wanted.paths]
        places = Places.of(self.places.home.absolute(), self.places.store, roots)
        return places.environment | {"SWEEPER_CHECKPOINTS": _checkpoints(self.saved, self.places)}


@contextmanager
def placing(address: str, ledger: Ledger, places: Places, wanted: Wanted, saved: Saved) -> Iterator[Placing]:
    """Be connected to a Ray cluster on which any node can take a worker.

    Raises:
        ClusterError: there is none, or some node can't.
    """
    with connected(address, places.home / "ray.log") as log:
        checkpoints = _checkpoints(saved, places)
        folder = None if "://" in checkpoints else Path(checkpoints)
        check_nodes(is_local_store=ledger.dialect == "sqlite", checkpoints=folder)
        yield Placing(ledger, places, wanted, saved, log, set())


def _checkpoints(saved: Saved, places: Places) -> str:
    """Where trials under way are saved, as every node can say it."""
    url = (saved.url or str(places.checkpoints)).removeprefix("file://")
    return url if "://" in url else str(Path(url).absolute())
