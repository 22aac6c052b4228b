"""What is examined, and what a check finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sweeper.roots import Roots


class Level(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    NOTE = "note"  # sweeps run, but slower, or with less to show
    PROBLEM = "problem"  # something that sweeps need fails


@dataclass(frozen=True)
class Finding:
    """One line of a diagnosis.

    Attributes:
        check: what was looked at.
        found: what was found, and what is wrong with it.
        mend: what to do about it; "" where nothing is to be done, or `found` says it.
    """

    check: str
    level: Level
    found: str
    mend: str = ""


@dataclass(frozen=True)
class Place:
    """What is examined: where a command with the same options would work.

    Attributes:
        home: the home folder.
        store: URL of the ledger.
        tracking_uri: MLflow's.
        checkpoints: folder or URL for trials that are under way.
        device: as the user named it.
        roots: where files may lie that a sweep from the store names.
        allowed: packages that a sweep from the store may import.
    """

    home: Path
    store: str
    tracking_uri: str
    checkpoints: str
    device: str
    roots: Roots
    allowed: tuple[str, ...] = ()
