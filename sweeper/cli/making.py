"""A sweep made concrete for a command: whose code may run, and a bar while a backbone does its work."""

from __future__ import annotations

from sweeper.blueprint import named_packages
from sweeper.cli.console import counting
from sweeper.cli.places import Places
from sweeper.config import SweepFile
from sweeper.construction import Access
from sweeper.engine import find_device
from sweeper.ledger.rows import Sweep
from sweeper.workload import Workload, workload_of


def made(
    places: Places, file: SweepFile, device: str, allow: list[str] | None = None, launched: Sweep | None = None
) -> Workload:
    """Make a sweep file concrete.

    Who types a file's path vouches for the code that the file names; a file that was read back from a ledger, which
    others may write to, vouches for nothing.

    Args:
        places: activations are kept in its home.
        file: the sweep file.
        device: where a backbone runs, as the user named it.
        allow: the packages that --allow-import or its variable name; commas separate some of them.
        launched: the sweep that the file was read back from; None for a file that the user named by its path.
    """
    allowed = frozenset(name.strip() for text in allow or () for name in text.split(",") if name.strip())
    if launched is None:
        allowed |= named_packages(file.sweep)
    with counting(f"computing {file.sweep.name}'s activations", "rows") as progress:
        return workload_of(file, Access(allowed, places.activations, find_device(device), progress), launched)
