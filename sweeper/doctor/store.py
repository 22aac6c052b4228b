"""The store: whether it answers, which revision its tables are at, what its user may do, and what time it has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from sweeper.doctor.findings import Finding, Level, Place
from sweeper.errors import LedgerError
from sweeper.ledger.condition import Condition, condition
from sweeper.ledger.rights import Rights, Role
from sweeper.ledger.store import Ledger, sqlite_path
from sweeper.machine import filesystem

FAR_S = 0.02
"""A worker's claim is some round trips: more than this each shows in what small trials take."""
APART_S = 1.0
NETWORKS = ("nfs", "cifs", "smb", "fuse.sshfs", "afs", "9p", "ceph", "lustre", "glusterfs")
_MAY = {
    Role.OWNER: "owner: reads, writes and migrates",
    Role.WORKER: "worker: reads and writes, can't migrate",
    Role.ANALYST: "analyst: only reads",
}


def store(place: Place) -> Iterator[Finding]:
    """All about the ledger; it is neither made nor migrated."""
    path = sqlite_path(place.store)
    if path is not None:
        yield from _file(path)
        if not path.exists():
            yield Finding("store", Level.NOTE, f"there is no ledger at {path} yet", "`sweeper run FILE` makes it.")
            return
    try:
        with closing(Ledger(place.store, create=False, migrates=False)) as ledger:
            found = condition(ledger)
            yield _answer(ledger.masked_url, found)
    except LedgerError as error:
        yield Finding("store", Level.PROBLEM, str(error))
        return
    if found.rights is None or found.rights.sees_revision:
        yield _migrations(found)
    if found.rights is not None:
        yield _rights(found.rights)
        yield _clock(found)


def _answer(url: str, found: Condition) -> Finding:
    said = f"{found.server} at {url} answers in {1000 * found.round_trip_s:.2g} ms"
    if found.round_trip_s > FAR_S:
        return Finding("store", Level.NOTE, said, "Run workers nearer to the server, or fewer with more slots each.")
    return Finding("store", Level.OK, said)


def _migrations(found: Condition) -> Finding:
    """What is to become of the tables, and who can do that."""
    if found.revision == found.needed:
        return Finding("migrations", Level.OK, f"the tables are at revision {found.revision}, as this sweeper needs")
    if found.revision is not None and found.revision > found.needed:
        said = f"the tables are at revision {found.revision}, newer than this sweeper's {found.needed}"
        return Finding("migrations", Level.PROBLEM, said, "Update sweeper: pip install --upgrade sweeper")
    said = f"the tables are at revision {found.revision}" if found.revision else "there are no tables yet"
    said += f", and this sweeper needs {found.needed}"
    if found.rights is None or found.rights.role is Role.OWNER:
        end = " Workers of older versions can't use the store after that." if found.revision else ""
        return Finding("migrations", Level.NOTE, said, f"The next command brings them there: sweeper status.{end}")
    mend = f"Its user {found.rights.user!r} may not: have their owner run `sweeper status` with this version."
    return Finding("migrations", Level.PROBLEM, said, mend)


def _rights(found: Rights) -> Finding:
    if found.role is not Role.NONE:
        return Finding("permissions", Level.OK, f"user {found.user!r} has the rights of the {_MAY[found.role]}")
    said = (
        f"user {found.user!r} may read {len(found.reads)} and write {len(found.writes)} of {found.tables} tables"
        if found.tables
        else f"user {found.user!r} sees no tables, and may make none"
    )
    mend = "Have the tables' owner grant it sweeper_worker or sweeper_analyst: sweeper doctor --roles"
    return Finding("permissions", Level.PROBLEM, f"{said}, which is no role's", mend)


def _clock(found: Condition) -> Finding:
    apart = found.clock_ahead_s
    said = f"this machine's clock is {abs(apart):.1f} s {'ahead of' if apart > 0 else 'behind'} the server's"
    if abs(apart) < APART_S:
        return Finding("clock", Level.OK, f"this machine's clock and the server's agree to {APART_S:g} s")
    mend = "Leases go by the server's and don't mind; curves in MLflow show this machine's. Synchronise it (NTP)."
    return Finding("clock", Level.NOTE, said, mend)


def _file(path: Path) -> Iterator[Finding]:
    """What SQLite needs of the file and its folder, which has the write-ahead log beside it."""
    kind = filesystem(path)
    if kind.startswith(NETWORKS):
        said = f"{path} is on a network file system ({kind}), where SQLite's write-ahead log can be corrupted"
        yield Finding("store", Level.PROBLEM, said, "Put --home on a local disk, or use PostgreSQL (--store).")
    if not path.exists():
        return
    shut = [str(one) for one in (path, path.parent) if not os.access(one, os.W_OK)]
    if not os.access(path, os.R_OK):
        yield Finding("permissions", Level.PROBLEM, f"{path} can't be read", f"Have its owner run: chmod u+rw {path}")
    elif shut:
        mend = "Enough to look, while others have it open; to work, have their owner give you the right to write."
        yield Finding("permissions", Level.NOTE, f"no right to write: {', '.join(shut)}", mend)
    else:
        yield Finding("permissions", Level.OK, f"{path} can be read and written")
