"""Launching sweeps, finding them, and opening and stopping them."""

from __future__ import annotations

import difflib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update

from sweeper.errors import SweepChangedError, UnknownSweepError
from sweeper.ledger.rows import Study, StudyPlan, Sweep, SweepPlan
from sweeper.ledger.schema import StudyRow, SweepRow

OPEN, STOPPED = "open", "stopped"
SPENT = "budget spent"  # a worker found that no tick can be paid for any more; launching the sweep again opens it
_SWEEP = tuple(getattr(SweepRow, name) for name in Sweep.__dataclass_fields__)
_STUDY = tuple(getattr(StudyRow, name) for name in Study.__dataclass_fields__)
_STATE = select(SweepRow.state).where(SweepRow.id == bindparam("sweep"))
_HELD = _STATE.with_for_update(read=True, key_share=True)


def launch(
    connection: Connection,
    plan: SweepPlan,
    *,
    fresh: bool,
    differences: Callable[[Mapping[str, Any], Mapping[str, Any]], Sequence[str]],
) -> Sweep:
    """Create a sweep and its studies, or continue or extend the one of that name.

    Args:
        connection: a writing transaction.
        plan: what is launched.
        fresh: forget the sweep of that name, with its trials, first.
        differences: says what changed between two configs beyond more trials, replicates or spaces.

    Raises:
        SweepChangedError: the name is taken by a sweep with another content.
    """
    old = _find(connection, plan.name)
    if old is not None and fresh:
        connection.execute(delete(SweepRow).where(SweepRow.id == old.id))
        old = None
    if old is None:
        return _create(connection, plan)
    changed = changes(old, plan, differences)
    if changed:
        raise SweepChangedError(
            f"a sweep named {plan.name!r} was launched on {old.created_at:%Y-%m-%d} with another content:\n  "
            + "\n  ".join(changed)
            + "\nGive this one another name, or pass --fresh to forget the old sweep and its trials."
        )
    _extend(connection, old, plan)
    return find(connection, plan.name)


def changes(
    old: Sweep, plan: SweepPlan, differences: Callable[[Mapping[str, Any], Mapping[str, Any]], Sequence[str]]
) -> list[str]:
    """What is otherwise than when a sweep was launched, its data included, beyond what extends it; see `launch`."""
    changed = list(differences(old.config, plan.config))
    if plan.data_sha256 != old.data_sha256:
        changed.append("the data: the rows that the sweep was launched with are not the ones found now")
    return changed


def find(connection: Connection, name: str) -> Sweep:
    """The sweep of that name.

    Raises:
        UnknownSweepError: there is none.
    """
    sweep = _find(connection, name)
    if sweep is None:
        raise UnknownSweepError(_unknown(name, [known.name for known in every(connection)]))
    return sweep


def chosen(connection: Connection, name: str | None) -> list[Sweep]:
    """The sweep of that name, or every sweep where none is named.

    Raises:
        UnknownSweepError: there is none of that name.
    """
    return [find(connection, name)] if name else every(connection)


def by_id(connection: Connection, sweep_id: int) -> Sweep | None:
    """The sweep of that id; None where it was forgotten."""
    row = connection.execute(select(*_SWEEP).where(SweepRow.id == sweep_id)).one_or_none()
    return None if row is None else Sweep(*row)


def every(connection: Connection) -> list[Sweep]:
    """All sweeps, oldest first."""
    return [Sweep(*row) for row in connection.execute(select(*_SWEEP).order_by(SweepRow.id))]


def studies(connection: Connection, sweep_id: int) -> list[Study]:
    """The studies of a sweep, in their order of turns."""
    query = select(*_STUDY).where(StudyRow.sweep_id == sweep_id).order_by(StudyRow.turn, StudyRow.id)
    return [Study(*row) for row in connection.execute(query)]


def set_state(connection: Connection, sweep_id: int, state: str) -> None:
    """Open a sweep for work, or stop it: workers let go of it at their next tick."""
    connection.execute(update(SweepRow).where(SweepRow.id == sweep_id).values(state=state))


def set_estimate(connection: Connection, sweep_id: int, estimate: Mapping[str, Any] | None) -> None:
    """Enter what was said of a sweep before it began, for comparison with what came of it."""
    entered = None if estimate is None else dict(estimate)
    connection.execute(update(SweepRow).where(SweepRow.id == sweep_id).values(estimate=entered))


def pin(connection: Connection, sweep_id: int, numerics: Mapping[str, Any]) -> Mapping[str, Any]:
    """How a sweep's fits are computed, for good: as the first worker that chose says, whoever asks; returns that.

    A sweep that was only launched has none yet (`{}`): what suits the machines that work on it, they find out.
    """
    lock(connection, sweep_id)
    pinned = connection.scalar(select(SweepRow.numerics).where(SweepRow.id == sweep_id))
    if pinned is None:  # it was forgotten, and the worker is about to learn that
        return numerics
    if not pinned:
        connection.execute(update(SweepRow).where(SweepRow.id == sweep_id).values(numerics=dict(numerics)))
    return pinned or numerics


def state_of(connection: Connection, sweep_id: int) -> str | None:
    """Whether a sweep is open or stopped; None where it was forgotten."""
    return connection.scalar(_STATE, {"sweep": sweep_id})


def lock(connection: Connection, sweep_id: int) -> None:
    """Wait for other transactions that have locked this sweep, and see what they committed.

    SQLite has one writing transaction at a time anyway. Rows that refer to the sweep don't wait for the lock.
    """
    connection.execute(select(SweepRow.id).where(SweepRow.id == sweep_id).with_for_update(key_share=True))


def hold(connection: Connection, sweep_id: int) -> str | None:
    """As `state_of`; and nobody can forget the sweep before this transaction ends, nor be in its way half way through.

    What forgets a sweep locks its trials one by one; so does a worker, in another order, and each would wait for the
    other.
    """
    return connection.scalar(_HELD, {"sweep": sweep_id})


def _find(connection: Connection, name: str) -> Sweep | None:
    row = connection.execute(select(*_SWEEP).where(SweepRow.name == name)).one_or_none()
    return None if row is None else Sweep(*row)


def _create(connection: Connection, plan: SweepPlan) -> Sweep:
    values = {name: value for name, value in vars(plan).items() if name != "studies"}
    created = insert(SweepRow).values(**values, token=secrets.token_hex(4), state=OPEN, created_at=datetime.now(UTC))
    sweep_id = connection.execute(created.returning(SweepRow.id)).scalar_one()
    _insert_studies(connection, sweep_id, plan.studies)
    return find(connection, plan.name)


def _extend(connection: Connection, old: Sweep, plan: SweepPlan) -> None:
    """The new file counts from now on; studies only gain trials, so a budget that was met stays met."""
    connection.execute(
        update(SweepRow)
        .where(SweepRow.id == old.id)
        .values(state=OPEN, file_text=plan.file_text, file_path=plan.file_path, config=dict(plan.config))
    )
    known = {(study.space, study.replicate): study for study in studies(connection, old.id)}
    fresh = [study for study in plan.studies if (study.space, study.replicate) not in known]
    _insert_studies(connection, old.id, fresh)
    for study in plan.studies:
        before = known.get((study.space, study.replicate))
        if before is not None and before.trials < study.trials:
            connection.execute(update(StudyRow).where(StudyRow.id == before.id).values(trials=study.trials))


def _insert_studies(connection: Connection, sweep_id: int, plans: Sequence[StudyPlan]) -> None:
    if plans:
        connection.execute(insert(StudyRow), [{"sweep_id": sweep_id, **asdict(plan)} for plan in plans])


def _unknown(name: str, known: Sequence[str]) -> str:
    if not known:
        return f"there is no sweep named {name!r}, nor any other. Launch one: sweeper run studies/digits.yaml"
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"there is no sweep named {name!r}.{hint} Known sweeps: {', '.join(known)}."
