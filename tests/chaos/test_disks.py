"""Disks that are full, and checkpoints that are torn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from chaos.faults import FileLimit, FullSqlite
from chaos.kennel import KILLED
from chaos.stage import Stage
from processes import Crash
from sweeper.ledger.schema import AttemptRow, FitRow
from sweeper.ledger.store import sqlite_url


def test_the_disk_of_a_sqlite_ledger_is_full(stage: Callable[..., Stage], tmp_path: Path):
    now = stage(store=sqlite_url(tmp_path))
    full = now.worker(FullSqlite(pages=16)).wait()
    assert full.code == 2
    assert "database or disk is full" in full.said
    assert "Nothing committed is lost" in full.said
    assert "Traceback" not in full.said
    before = now.settled()
    assert 0 < before < now.trials
    now.finish()
    now.check(f"disk full (SQLite ledger): full after {before} trials")


def test_the_disk_for_checkpoints_is_full(stage: Callable[..., Stage]):
    """The kernel breaks off the write of the first one; training goes on without, and that is said once."""
    now = stage()
    full = now.worker(FileLimit(2000), checkpoints=True).wait_well()
    assert "done" in full.said
    assert full.said.count("checkpoints can't be kept at") == 1
    assert not list(now.folder.rglob("*.safetensors"))
    found = now.check("disk full (checkpoints)")
    assert found.attempts.total() == now.trials


def test_checkpoints_are_torn(stage: Callable[..., Stage]):
    """One worker is killed as it writes one; of each trial's, the latest is cut in two. Those before them are used."""
    now = stage()
    assert now.worker(Crash("pathlib:Path.replace", 30), checkpoints=True).wait().code == KILLED
    [_] = now.folder.rglob("*.part")
    folders = {path.parent for path in now.folder.rglob("*.safetensors")}
    for folder in folders:
        latest = max(folder.glob("*.safetensors"))
        latest.write_bytes(latest.read_bytes()[: latest.stat().st_size // 2])
    now.finish(checkpoints=True)
    trained, needed = now.sum(AttemptRow.epochs), now.sum(FitRow.epochs)
    assert needed - trained > 0  # by the worker that was killed, in whose books they are time alone
    found = now.check(f"torn checkpoints: {len(folders)} torn, {needed - trained} epochs saved by those before")
    assert found.attempts["LOST"] == len(folders)
