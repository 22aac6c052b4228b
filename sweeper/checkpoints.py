"""Trials that are under way, on disk or in a bucket, so that another worker can go on with them.

A checkpoint holds how far each fold of one trial has come: a snapshot of a fit that trains on, the result of one that
has ended. It is a safetensors file (nothing in it is code) under any URL that fsspec knows. Its name tells how much
work it stands for and the hash of its content: a torn or damaged one is noticed, and the one before it is used.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import fsspec
from safetensors import SafetensorError
from safetensors.torch import load, save

from sweeper.engine import Snapshot
from sweeper.errors import CheckpointError
from sweeper.files import write_whole
from sweeper.records import Cost, FitResult, Score, fit_result
from sweeper.urls import masked

KEPT = 2  # the latest, and the one before it in case that is damaged
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*")  # no part of it is hidden or leads upwards
_MEANING = "1"  # of the content; another way to write it makes it 2

Progress = Mapping[int, Snapshot | FitResult]
"""How far the folds of one trial have come, by their numbers."""


@dataclass(frozen=True)
class Checkpoints:
    """A place for checkpoints.

    Attributes:
        url: a folder as fsspec names it, e.g. "/data/checkpoints", "s3://bucket/checkpoints", "memory://checkpoints".
    """

    url: str

    def save(self, trial: str, progress: Progress) -> None:
        """Keep how far a trial has come; all of it, or nothing.

        Args:
            trial: its name, unique over all sweeps, of letters, digits, "-", "_", "." and "/".
            progress: of its folds.

        Raises:
            CheckpointError: the place can't be written to.
        """
        try:
            content = _packed(progress)
            work = sum(len(one.scores) for one in progress.values())
            folder = self._folder(trial)
            self._write(Path(folder, f"{work:08d}-{sha256(content).hexdigest()}.safetensors"), content)
            for old in self._known(trial)[KEPT:]:
                self._files.rm_file(old)
        except Exception as error:  # every file system has its own kinds
            raise CheckpointError(_unusable(self.url, error)) from error

    def load(self, trial: str) -> Progress:
        """The latest checkpoint of a trial that is whole; empty where there is none."""
        try:
            known = self._known(trial)
        except Exception as error:
            raise CheckpointError(_unusable(self.url, error)) from error
        found = (self._whole(path) for path in known)
        return next((progress for progress in found if progress), {})

    def forget(self, trial: str) -> None:
        """Remove a trial's checkpoints; what can't be removed stays."""
        try:
            self._files.rm(self._folder(trial), recursive=True)
        except Exception:
            return

    def probe(self) -> None:
        """Write a small file, read it and remove it.

        Raises:
            CheckpointError: any of that fails.
        """
        name = f"probe-{secrets.token_hex(4)}"
        try:
            path = Path(self._folder(name), "probe")
            self._write(path, name.encode())
            try:
                if self._files.cat_file(path.as_posix()) != name.encode():
                    raise OSError("what was written is not what is read")
            finally:
                self._files.rm(self._folder(name), recursive=True)
        except Exception as error:
            raise CheckpointError(_unusable(self.url, error)) from error

    @property
    def local_folder(self) -> Path | None:
        """The place as a folder of this machine's; None where it is elsewhere.

        Raises:
            CheckpointError: no file system that is installed knows the URL.
        """
        try:
            files, root = fsspec.core.url_to_fs(self.url)
        except Exception as error:
            raise CheckpointError(_unusable(self.url, error)) from error
        return Path(root) if _is_local(files) else None

    @property
    def _files(self) -> Any:
        return fsspec.core.url_to_fs(self.url)[0]

    def _folder(self, trial: str) -> str:
        if not _NAME.fullmatch(trial):  # from a ledger that others may write to, and `forget` removes it
            raise CheckpointError(f"{trial!r} is no name of a trial, so it has no checkpoint.")
        root = fsspec.core.url_to_fs(self.url)[1]
        return f"{root.rstrip('/')}/{trial}"

    def _known(self, trial: str) -> list[str]:
        """The files of a trial's checkpoints, the latest first."""
        self._files.invalidate_cache()  # another process may have written since
        found = self._files.glob(f"{self._folder(trial)}/*.safetensors")
        return sorted(found, key=lambda path: path.rpartition("/")[2], reverse=True)

    def _whole(self, path: str) -> Progress:
        """A checkpoint's content; nothing where it is damaged."""
        try:
            content = self._files.cat_file(path)
        except Exception:
            return {}
        wanted = path.rpartition("-")[2].removesuffix(".safetensors")
        return _unpacked(content) if sha256(content).hexdigest() == wanted else {}

    def _write(self, path: Path, content: bytes) -> None:
        files = self._files
        if not _is_local(files):
            files.pipe_file(path.as_posix(), content)  # an object comes to be as a whole
            return
        write_whole(path, content)


def _is_local(files: Any) -> bool:
    return "file" in (files.protocol if isinstance(files.protocol, tuple) else (files.protocol,))


def _packed(progress: Progress) -> bytes:
    snapshots = {fold: one for fold, one in progress.items() if isinstance(one, Snapshot)}
    results = {fold: asdict(one) for fold, one in progress.items() if isinstance(one, FitResult)}
    scores = {fold: [asdict(score) for score in one.scores] for fold, one in snapshots.items()}
    costs = {fold: asdict(one.cost) for fold, one in snapshots.items()}
    told = json.dumps({"meaning": _MEANING, "scores": scores, "costs": costs, "results": results})
    tensors = {f"{fold}/{name}": value for fold, one in snapshots.items() for name, value in one.tensors.items()}
    return bytes(save(tensors, {"told": told}))


def _unpacked(content: bytes) -> Progress:
    """What `_packed` wrote; nothing where it means something else."""
    try:
        told = _told(content)
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError):
        return {}
    found: dict[int, Snapshot | FitResult] = {}
    for fold, scores in told["scores"].items():
        mine = {name.partition("/")[2]: value for name, value in tensors.items() if name.partition("/")[0] == fold}
        cost = Cost(**told["costs"][fold])
        found[int(fold)] = Snapshot(mine, tuple(Score(**score) for score in scores), cost)
    return found | {int(fold): _result(values) for fold, values in told["results"].items()}


def _told(content: bytes) -> Any:
    """The metadata of a safetensors file: an 8-byte length and a JSON header open it."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    told = json.loads(header["__metadata__"]["told"])
    if told["meaning"] != _MEANING:
        raise ValueError("another meaning")
    return told


def _result(values: dict[str, Any]) -> FitResult:
    """A fold's result; what it cost was charged to the attempt in which it ended."""
    result = fit_result(values)
    return replace(result, cost=Cost(), before=result.before + result.cost)


def _unusable(url: str, error: Exception) -> str:
    why = f"{type(error).__name__}: {masked(str(error), url)}"
    return (
        f"checkpoints can't be kept at {masked(url)}: {why}. Training goes on without them; name another place with "
        f"--checkpoints."
    )
