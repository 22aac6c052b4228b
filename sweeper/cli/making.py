"""A sweep made concrete for a command: whose code may run, and a bar while a backbone does its work."""

from __future__ import annotations

from dataclasses import replace

from sweeper.blueprint import named_packages
from sweeper.cli.console import counting
from sweeper.cli.places import Places, allowed_packages
from sweeper.config import SweepFile
from sweeper.construction import Access
from sweeper.engine import find_device
from sweeper.launched import named_places
from sweeper.ledger.rows import Sweep
from sweeper.roots import ANYWHERE, vouch
from sweeper.workload import Workload, workload_of


def made(
    places: Places, file: SweepFile, device: str, allow: list[str] | None = None, launched: Sweep | None = None
) -> Workload:
    """Make a sweep file concrete.

    Who types a file's path vouches for the code and the data that the file names; a file that was read back from a
    ledger, which others may write to, vouches for nothing.

    Args:
        places: activations are kept in its home, and its data roots hold what a sweep from the ledger may read.
        file: the sweep file.
        device: where a backbone runs, as the user named it.
        allow: the packages that --allow-import or its variable name; commas separate some of them.
        launched: the sweep that the file was read back from; None for a file that the user named by its path.
    """
    allowed = allowed_packages(allow)
    roots = ANYWHERE if launched is None else places.roots
    if launched is None:
        allowed |= named_packages(file.sweep)
    file = replace(file, folder=roots.place(file.folder))
    with counting(f"computing {file.sweep.name}'s activations", "rows") as progress:
        access = Access(allowed, places.activations, find_device(device), progress, roots)
        return workload_of(file, access, launched)


def vouched(places: Places, file: SweepFile) -> SweepFile:
    """A file that the user named by its path; what it names is a data root of this home from now on."""
    vouch(places.home, named_places(file))
    return file
