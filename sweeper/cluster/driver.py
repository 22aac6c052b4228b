"""Being a driver of a Ray cluster: connect, and ask what room it has."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from sweeper.errors import ClusterError

TRIES, AGAIN_S = 3, 2.0
HERE = ("ray", "ray://auto")  # the cluster that this machine belongs to


@contextmanager
def connected(address: str, log: Path) -> Iterator[Callable[[str], object]]:
    """Be a driver of a Ray cluster inside the block.

    Ray prints what it wants to say of nodes and tasks; it does so into a file, so that standard output stays ours.

    Args:
        address: "ray://HOST:PORT"; "ray" for the cluster that this machine belongs to, or that RAY_ADDRESS names.
        log: the file.

    Yields:
        What writes a line to the file.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster at the address.
    """
    if address not in HERE and not address.startswith("ray://"):
        raise ClusterError(
            f"--on {address!r} names no Ray cluster. Right would be ray://HOST:10001, or ray for the cluster that this "
            "machine belongs to."
        )
    ray = load()
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a", encoding="utf-8") as said, redirect_stdout(said):
        try:
            with warnings.catch_warnings(action="ignore"):  # the error says the same
                _join(ray, "auto" if address in HERE else address)
        except (ConnectionError, ValueError, RuntimeError, ImportError) as error:
            raise ClusterError(
                f"no Ray cluster answers at --on {address}: {_short(error)} Start one with `ray start --head`, or "
                "name one that runs, with the Python and Ray versions of this machine: ray://HOST:10001."
            ) from error
        try:
            yield lambda line: print(line, file=said, flush=True)
        finally:
            ray.shutdown()


def _join(ray: Any, address: str) -> None:
    """Connect; a head that can't start this driver's own server at once, as where it is very busy, is asked again."""
    for _ in range(TRIES - 1):
        try:
            ray.init(address, log_to_driver=False, logging_level="ERROR")
            return
        except ConnectionError as error:
            if "Initialization failure" not in str(error):
                raise
        ray.shutdown()
        time.sleep(AGAIN_S)
    ray.init(address, log_to_driver=False, logging_level="ERROR")


def room(threads: int, *, wants_gpu: bool | None) -> tuple[int, int]:
    """How many workers the cluster has room for, and how many GPUs each takes: one where there are some.

    Args:
        threads: of each.
        wants_gpu: whether the user said so; None for where there is one.

    Raises:
        ClusterError: a GPU is wanted, and the cluster has none.
    """
    has = load().cluster_resources()
    gpus, cpus = int(has.get("GPU", 0)), int(has.get("CPU", 0))
    if wants_gpu and not gpus:
        raise ClusterError("--device names a GPU, and the Ray cluster has none. Leave it out, or add a node with GPUs.")
    if gpus and wants_gpu is not False:
        return gpus, 1
    return max(1, cpus // threads), 0


def load() -> Any:
    """The module; whatever it has besides."""
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ClusterError(f"--on needs Ray: {error}. Install it with: pip install 'sweeper[ray]'") from error
    return ray


def _short(error: Exception) -> str:
    """What an error says, without the traceback of the other side that may stand in its middle."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(dict.fromkeys([lines[0], lines[-1].strip()])).rstrip(".") + "."
