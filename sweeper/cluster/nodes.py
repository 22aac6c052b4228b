"""Whether a worker can work on any node of the cluster, and others go on there with what it has under way."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sweeper import __version__, machine
from sweeper.cluster.driver import load
from sweeper.errors import ClusterError

ANSWER_S = 60.0  # that nodes have to say what they see


def check_nodes(*, is_local_store: bool, checkpoints: Path | None) -> None:
    """Make sure that a worker can work on any node, and that what it saves can be gone on with on any other.

    Args:
        is_local_store: whether the ledger is a file, which one machine alone can have.
        checkpoints: the folder for trials under way; None for a URL that all nodes reach.

    Raises:
        ClusterError: some node can't; it says which, and what to do.
    """
    with _marker(checkpoints) as marker:
        witnesses = _witnesses(str(marker) if marker else None)
    refuse(witnesses, machine.place(), is_local_store=is_local_store, checkpoints=checkpoints)


@dataclass(frozen=True)
class Witness:
    """What a node says of itself.

    Attributes:
        node: its address.
        place: which machine it is on (`machine.place`).
        version: of sweeper.
        sees: whether it sees the file that it was asked for.
    """

    node: str
    place: str
    version: str
    sees: bool


def refuse(witnesses: Sequence[Witness], here: str, *, is_local_store: bool, checkpoints: Path | None) -> None:
    """Raise a ClusterError where nodes say that workers could not work there; see `check_nodes`."""
    for witness in witnesses:
        if witness.version != __version__:
            raise ClusterError(
                f"the Ray node {witness.node} has sweeper {witness.version}, and this is {__version__}. Install the "
                "same on all nodes."
            )
        if is_local_store and witness.place != here:
            raise ClusterError(
                f"the ledger is a file of this machine, and the Ray cluster has others ({witness.node}). Give the "
                "sweep a store that all reach: --store postgresql://USER@HOST/DATABASE."
            )
        if not witness.sees:
            raise ClusterError(
                f"the Ray node {witness.node} does not see the folder {checkpoints}, where trials under way are saved "
                "for whoever goes on with them. Put the home folder on a file system that all nodes have (--home), or "
                "give --checkpoints a URL that all reach."
            )


def _witness(node: str, marker: str | None) -> Witness:
    return Witness(node, machine.place(), __version__, marker is None or Path(marker).exists())


def _witnesses(marker: str | None) -> list[Witness]:
    """What each node that could have a worker says."""
    ray = load()
    nodes = [node for node in ray.nodes() if node["Alive"] and {"CPU", "GPU"} & set(node["Resources"])]
    strategy = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    ask = ray.remote(num_cpus=0, max_retries=0)(_witness)
    asked = [
        ask.options(scheduling_strategy=strategy(node["NodeID"], soft=False)).remote(node["NodeManagerAddress"], marker)
        for node in nodes
    ]
    try:
        return list(ray.get(asked, timeout=ANSWER_S))
    except ray.exceptions.RayError as error:
        raise ClusterError(
            f"a node of the Ray cluster can't run sweeper: {_last_line(error)} Install sweeper {__version__} on every "
            "node, in the Python that its `ray start` runs in."
        ) from error


@contextmanager
def _marker(folder: Path | None) -> Iterator[Path | None]:
    """A file in a folder, for others to see."""
    if folder is None:
        yield None
        return
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder.resolve() / f".seen-{secrets.token_hex(8)}"
    marker.touch()
    try:
        yield marker
    finally:
        marker.unlink(missing_ok=True)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].rstrip(".") + "."
