"""Activations on disk: computed once for the same rows, backbone and weights, and read by everybody else.

A file is named by the hash of all that its content depends on. It comes to be under another name and is moved into
place, so that a crash leaves either the whole of it or nothing; whoever computes holds a lock, so that two processes
compute once; and it carries a hash of its numbers, so that a damaged file is noticed and computed anew.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from sweeper.errors import DataError
from sweeper.records import Floats

_NAME = "activations"
_MEANING = 1  # of the numbers: another way to pool or to read rows makes it 2


def key_of(**parts: Any) -> str:
    """A content's name: hash of all that it depends on, as plain values."""
    text = json.dumps({"meaning": _MEANING, **parts}, sort_keys=True, allow_nan=False)
    return sha256(text.encode()).hexdigest()


def kept(folder: Path, key: str, rows: int) -> Floats | None:
    """Activations that were computed before, `rows x F`; None where there are none, or none that are whole."""
    if not key.isalnum():
        return None  # a key from a ledger that others may write to must not lead elsewhere
    try:
        with safe_open(_path(folder, key), framework="np") as file:
            found: Floats = file.get_tensor(_NAME)
            wanted = (file.metadata() or {}).get("sha256")
    except (SafetensorError, OSError):
        return None
    return found if found.ndim == 2 and len(found) == rows and _digest(found) == wanted else None


def computed_once(folder: Path, key: str, rows: int, compute: Callable[[], Floats]) -> Floats:
    """The activations of that name, from disk or else computed and kept there.

    Args:
        folder: where they are kept; made if it is not there.
        key: see `key_of`.
        rows: how many there must be.
        compute: makes them; called by one process at a time, and not at all where they are on disk.

    Raises:
        DataError: the folder can't be written to.
    """
    found = kept(folder, key, rows)
    if found is not None:
        return found
    path = _path(folder, key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            found = kept(folder, key, rows)  # another process may have been at it until now
            if found is None:
                for left in folder.glob(f"{key}.*.part"):  # by a process that was killed while it wrote
                    left.unlink()
                found = compute()
                _write(path, found)
    except OSError as error:
        raise DataError(f"activations can't be kept in {folder}: {error.strerror}.") from error
    return found


def _path(folder: Path, key: str) -> Path:
    return folder / f"{key}.safetensors"


def _write(path: Path, activations: Floats) -> None:
    part = path.with_suffix(f".{secrets.token_hex(4)}.part")
    save_file({_NAME: np.ascontiguousarray(activations)}, part, {"sha256": _digest(activations)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _digest(activations: Floats) -> str:
    return sha256(np.ascontiguousarray(activations).data).hexdigest()
