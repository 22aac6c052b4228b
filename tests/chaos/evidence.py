"""What a sweep must show whatever happened to it, read from the ledger and from the tables behind MLflow's server."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from small import Outcome, outcome
from sweeper.findings import Accounts
from sweeper.ledger import deliveries, reads
from sweeper.ledger.rows import Sweep
from sweeper.ledger.schema import AttemptRow, FitRow, StudyRow, TrialRow, WorkerRow, WorkerTimeRow
from sweeper.ledger.store import Connection, Ledger
from sweeper.records import TrialState

CURVES = "train_loss", "train_loss_dropped", "validation_loss"  # named alike in the ledger and in MLflow
Key = tuple[str, int, int]  # space, replicate, number
Points = Mapping[str, list[tuple[int, float | None]]]  # by metric: step and value


@dataclass(frozen=True)
class Shown:
    """A trial's run in MLflow.

    Attributes:
        points: of its metrics, in the order of the steps.
    """

    status: str
    params: Mapping[str, str]
    points: Points
    report: str | None  # of how many trials its report tells


@dataclass(frozen=True)
class Evidence:
    """What was found to be in order.

    Attributes:
        attempts: how they ended, with how many of them did.
        runs: in MLflow, of trials.
    """

    trials: int
    attempts: Counter[str]
    runs: int

    @property
    def words(self) -> str:
        """Counts in a line."""
        others = [f"{count} {state.lower()}" for state, count in sorted(self.attempts.items()) if state not in ENDS]
        more = f" ({', '.join(others)})" if others else ""
        return f"{self.trials} trials, {self.attempts.total()} attempts{more}, 0 twice, {self.runs} runs, bitwise equal"


ENDS = {TrialState.COMPLETE, TrialState.FAIL, TrialState.PRUNED}


def ledger_evidence(ledger: Ledger, sweep: Sweep, expected: Outcome) -> Counter[str]:
    """Every trial once and as expected, nobody at work, accounts balanced; returns how the attempts ended."""
    assert outcome(ledger) == expected
    with ledger.read() as connection:
        numbers = list(connection.execute(select(TrialRow.study_id, TrialRow.number)))
        states = Counter(connection.scalars(select(AttemptRow.state)))
        counting = Counter(connection.scalars(select(AttemptRow.trial_id).where(AttemptRow.state.in_(ENDS))))
        proposers = set(connection.scalars(select(StudyRow.proposer_id)))
        ends = [*connection.scalars(select(WorkerRow.ended_at)), *connection.scalars(select(AttemptRow.ended_at))]
        backwards = select(AttemptRow.id).where(AttemptRow.ended_at < AttemptRow.started_at)
        assert connection.scalars(backwards).all() == []
        budgets = dict(connection.execute(select(StudyRow.id, StudyRow.trials)).all())
        cost, times = reads.total_cost(connection, sweep.id), reads.worker_times(connection, sweep.id)
        unbalanced = _unbalanced(connection)
    assert sorted(numbers) == [(study, number) for study, trials in sorted(budgets.items()) for number in range(trials)]
    assert set(counting.values()) == {1}
    assert len(counting) == len(numbers) == len(expected)
    assert TrialState.RUNNING not in states
    assert proposers == {None}
    assert None not in ends
    assert min(times.values()) >= 0
    assert not unbalanced, f"seconds charged, seconds spent and attempts, by worker: {unbalanced}"
    assert cost.device_s == pytest.approx(times["train"] + times["evaluate"], rel=1e-3)
    assert Accounts.of(ledger, sweep.name).is_balanced
    return states


def _unbalanced(connection: Connection) -> dict[int, tuple[float, float, Any]]:
    """Workers whose attempts don't add up to what they trained: seconds of both, and how the attempts ended."""
    found, told = {}, (AttemptRow.state, AttemptRow.train_s, AttemptRow.evaluate_s)
    for worker in connection.scalars(select(WorkerRow.id)).all():
        mine = AttemptRow.worker_id == worker
        charged = connection.scalar(select(func.sum(AttemptRow.train_s + AttemptRow.evaluate_s)).where(mine)) or 0.0
        kinds = WorkerTimeRow.worker_id == worker, WorkerTimeRow.kind.in_(["train", "evaluate"])
        spent = connection.scalar(select(func.sum(WorkerTimeRow.seconds)).where(*kinds)) or 0.0
        if charged != pytest.approx(spent, rel=1e-3, abs=1e-6):
            found[worker] = charged, spent, connection.execute(select(*told).where(mine)).all()
    return found


def mlflow_evidence(ledger: Ledger, sweep: Sweep, database: Path) -> int:
    """Every finished trial has one run, whole; and the studies and the sweep theirs. Returns the trials' runs."""
    uids = Counter(uid for uid, _ in _runs(database, sweep))
    trials = _trials(ledger, sweep)
    studies = {uid.rpartition("/")[0] for uid in trials}
    assert dict(uids) == dict.fromkeys([sweep.uid, *studies, *trials], 1)
    shown = _shown(database, sweep)
    for uid, (trial, curves) in trials.items():
        run = shown[uid]
        assert run.status == ("FAILED" if trial.state is TrialState.FAIL else "FINISHED")
        assert {name: run.params[name] for name in run.params if name in _params(trial)} == _params(trial)
        for name in CURVES:
            steps = [step for step, _ in run.points.get(name, [])]
            assert steps == list(range(1, len(curves[name]) + 1))
            assert [value for _, value in run.points.get(name, [])] == curves[name]
        if trial.validation_loss is not None:
            assert run.points["best.validation_loss"] == [(0, trial.validation_loss)]
    assert all(shown[uid].status == "FINISHED" for uid in (sweep.uid, *studies))
    assert shown[sweep.uid].report == str(len(trials))
    with ledger.read() as connection:
        assert deliveries.counts(connection, sweep.id) == (len(uids), 0, 0)
    return len(trials)


def _trials(ledger: Ledger, sweep: Sweep) -> dict[str, tuple[Any, Mapping[str, list[float | None]]]]:
    """Each trial by its run's uid, with the curves of its only fold; a number that is not finite is None."""
    names = StudyRow.space, StudyRow.replicate, TrialRow.number
    counted = select(*names, FitRow.curves).join(AttemptRow, FitRow.attempt_id == AttemptRow.id)
    counted = counted.join(TrialRow, (AttemptRow.trial_id == TrialRow.id) & (AttemptRow.attempt == TrialRow.attempt))
    with ledger.read() as connection:
        curves = {tuple(key): kept for *key, kept in connection.execute(counted.join(StudyRow))}
        found = {(one.space, one.replicate, one.number): one for one in reads.trials(connection, sweep.id)}
    return {f"{sweep.uid}/{s}/r{r:02d}/t{n:04d}": (one, curves[s, r, n]) for (s, r, n), one in found.items()}


def _params(trial: Any) -> dict[str, str]:
    keep = {f"keep_prob_{layer}": repr(value) for layer, value in enumerate(trial.setting.keep_prob)}
    return keep | {f"lambda_{layer}": repr(value) for layer, value in enumerate(trial.setting.lambda_, start=1)}


def _runs(database: Path, sweep: Sweep) -> list[tuple[str, str]]:
    """uid and status of every run of a sweep, as often as they are there."""
    return _asked(database, sweep, "r.status")


def _shown(database: Path, sweep: Sweep) -> dict[str, Shown]:
    params: dict[str, dict[str, str]] = {}
    points: dict[str, dict[str, list[tuple[int, float | None]]]] = {}
    for uid, key, value in _asked(database, sweep, "p.key, p.value", "JOIN params p USING (run_uuid)"):
        params.setdefault(uid, {})[key] = value
    for uid, key, step, value, is_nan in _asked(
        database, sweep, "m.key, m.step, m.value, m.is_nan", "JOIN metrics m USING (run_uuid)"
    ):
        points.setdefault(uid, {}).setdefault(key, []).append((step, None if is_nan else value))
    has_report = "JOIN tags g ON g.run_uuid = t.run_uuid AND g.key = 'sweeper.report'"
    reports = dict(_asked(database, sweep, "g.value", has_report))
    return {
        uid: Shown(
            status,
            params.get(uid, {}),
            {key: sorted(values, key=lambda point: point[0]) for key, values in points.get(uid, {}).items()},
            reports.get(uid),
        )
        for uid, status in _runs(database, sweep)
    }


def _asked(database: Path, sweep: Sweep, columns: str, joined: str = "") -> list[Any]:
    """Rows of MLflow's tables, each after its run's uid, of the runs of one sweep that nobody deleted."""
    query = f"""SELECT t.value, {columns} FROM tags t JOIN runs r USING (run_uuid) {joined}
                WHERE t.key = 'sweeper.uid' AND (t.value = :uid OR t.value LIKE :uid || '/%')
                AND r.lifecycle_stage = 'active'"""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        return connection.execute(query, {"uid": sweep.uid}).fetchall()
