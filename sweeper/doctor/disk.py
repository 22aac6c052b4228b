"""Folders that are written to: whether there is room, and whether what is written arrives on the disk."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from sweeper.doctor.findings import Finding, Level, Place

LITTLE_BYTES, TOO_LITTLE_BYTES = 2e9, 2e8
"""README's main sweep leaves 0.1 GB behind, most of it MLflow's."""


def home(place: Place) -> Iterator[Finding]:
    """The home folder, or where it will be made."""
    yield from _folder("disk", place.home, "--home")
    if _anybody_writes(place.home):
        said = f"anybody on this machine may write to {place.home}, and so decide what sweeps may read"
        yield Finding("disk", Level.PROBLEM, said, f"chmod o-w {place.home}")


def checkpoints(place: Place) -> Iterator[Finding]:
    """Where trials that are under way are kept: a folder, or a URL that is written to, read and cleaned up."""
    from sweeper.checkpoints import Checkpoints
    from sweeper.errors import CheckpointError

    there = Checkpoints(place.checkpoints)
    try:
        folder = there.local_folder
        if folder is not None:
            yield from _folder("checkpoints", folder, "--checkpoints")
            return
        began = time.perf_counter()
        there.probe()
    except CheckpointError as error:
        yield Finding("checkpoints", Level.PROBLEM, str(error))
        return
    took = time.perf_counter() - began
    yield Finding(
        "checkpoints", Level.OK, f"{place.checkpoints} takes a file, gives it back and removes it in {took:.2g} s"
    )


def _folder(check: str, folder: Path, option: str) -> Iterator[Finding]:
    there = _nearest(folder.absolute())
    said = f"{folder}" if there == folder.absolute() else f"{folder} (not made yet, in {there})"
    other = f"Choose another with {option}."
    try:
        took = _written(there)
    except OSError as error:
        yield Finding(check, Level.PROBLEM, f"{said} can't be written to: {error.strerror}", other)
        return
    free = shutil.disk_usage(there).free
    said += f" has {free / 1e9:.3g} GB free and takes a file in {1000 * took:.2g} ms (fsync)"
    if free < LITTLE_BYTES:
        yield Finding(check, Level.PROBLEM if free < TOO_LITTLE_BYTES else Level.NOTE, said, f"Make room. {other}")
    else:
        yield Finding(check, Level.OK, said)


def _nearest(folder: Path) -> Path:
    """The folder, or the first above it that there is."""
    return next(each for each in (folder, *folder.parents) if each.exists())


def _written(folder: Path) -> float:
    """Seconds that a small file takes to reach the disk; it is gone at the end."""
    began = time.perf_counter()
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".sweeper-doctor-") as file:
        file.write(b"probe")
        file.flush()
        os.fsync(file.fileno())
    return time.perf_counter() - began


def _anybody_writes(folder: Path) -> bool:
    return folder.is_dir() and bool(folder.stat().st_mode & stat.S_IWOTH)
