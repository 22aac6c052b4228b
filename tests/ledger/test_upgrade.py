"""A store that an older sweeper made, with rows in it, becomes the present one and loses nothing."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, create_engine, insert, select, text

from ledger.makers import claimed, cost, proposed, registered, settled, settlement
from sweeper.ledger import migrations, reads, rungs, sweeps, trials
from sweeper.ledger.rows import RungScore, Sweep
from sweeper.ledger.store import Ledger
from sweeper.records import TrialState

MOMENT = "2026-01-02 03:04:05.000006+00:00"
COSTS = {
    "steps": 40, "epochs": 4, "examples": 96, "flops": 2**53 + 1, "train_s": 2.0, "evaluate_s": 1.0,
    "suggest_s": 0.125, "storage_s": 0.0625, "checkpoint_s": 0.0,
}  # fmt: skip
LOSSES = {
    "validation_loss": 0.25, "validation_metric": 0.75, "test_loss": 0.5, "test_metric": 0.625, "train_loss": 0.125,
}  # fmt: skip
COUNTED = {"failures": 0, "losses": 0}  # of nothing that has happened so far; what was not measured is None
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("sweep", {"name": "old", "token": "0a0b", "state": "open", "mode": "measurement", "file_path": "old.yaml",
               "file_text": "name: old", "config": {"search": {"pruner": "none"}}, "data_sha256": "ab",
               "numerics": {"compiled": False}, "created_at": MOMENT}),
    ("worker", {"host": "elsewhere", "pid": 7, "process_started": 1.0, "device": "cpu", "details": {},
                "started_at": MOMENT, "ended_at": MOMENT, "lease_until": 0.0}),
    ("study", {"sweep_id": 1, "space": "none", "replicate": 0, "dimensions": 0, "sampler": {"kind": "random"},
               "seed": 2**62, "trials": 8, "turn": 0, "proposer_id": None}),
    ("trial", {"study_id": 1, "number": 0, "state": "COMPLETE", "attempt": 1, "worker_id": 1,
               "origin": "sampled", "params": {"keep_prob": 0.5}, "keep_prob": [1.0, 0.5], "lambda": [0.0, 0.0],
               "told": 0, "running": [], "suggest_s": 0.125, "best_epoch": 3.0, "error": None, "created_at": MOMENT,
               "started_at": MOMENT, "ended_at": MOMENT, **LOSSES}),
    ("attempt", {"trial_id": 1, "attempt": 1, "worker_id": 1, "state": "COMPLETE", "started_at": MOMENT,
                 "ended_at": MOMENT, **COSTS}),
    ("fit", {"attempt_id": 1, "fold": 0, "seed": 2**62 + 1, "outcome": "trained all its epochs",
             "best_epoch": 3, "squared_norms": [1.5], "curves": {"epoch": [1, 2, 3, 4]}, **LOSSES, **COSTS}),
    ("worker_time", {"worker_id": 1, "sweep_id": 1, "kind": "train", "seconds": 2.0}),
    ("outbox", {"sweep_id": 1, "uid": "old/none/r00/t0000", "status": "FINISHED", "payload": "{}",
                "attempts": 1, "refusals": 0, "error": None, "run_id": "r", "created_at": MOMENT,
                "delivered_at": MOMENT}),
    ("lease", {"name": "export:1", "owner": "elsewhere/7/1.0", "until": 0.0}),
]  # fmt: skip


def store_at(url: str, revision: str) -> None:
    """A store of an older sweeper, with a row in every table that it had; each gets the id 1."""
    engine = create_engine(url)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        tables = reflected(connection).tables
        assert {table for table, _ in ROWS} == tables.keys() - {migrations.VERSION_TABLE}
        for table, row in ROWS:
            connection.execute(insert(tables[table]), [_with_moments(row)])
    engine.dispose()


def _with_moments(row: dict[str, Any]) -> dict[str, Any]:
    return {name: datetime.fromisoformat(MOMENT) if value is MOMENT else value for name, value in row.items()}


def reflected(connection: Connection) -> MetaData:
    metadata = MetaData()
    metadata.reflect(connection)
    return metadata


@pytest.fixture
def old(ledger_url: str) -> str:
    """The URL of a store at the first revision."""
    if ledger_url.startswith("sqlite"):
        Path(ledger_url.removeprefix("sqlite:///")).parent.mkdir()
    store_at(ledger_url, "0001")
    return ledger_url


@pytest.fixture
def upgraded(old: str) -> Any:
    ledger = Ledger(old)
    yield ledger
    ledger.close()


def found(ledger: Ledger) -> Sweep:
    with ledger.read() as connection:
        return sweeps.find(connection, "old")


def test_every_row_keeps_every_value(old: str) -> None:
    engine = create_engine(old)
    with engine.begin() as connection:
        before = {name: contents(connection, name) for name, _ in ROWS}
    Ledger(old).close()
    with engine.begin() as connection:
        after = {name: contents(connection, name) for name, _ in ROWS}
        assert connection.scalar(text("SELECT version_num FROM sweeper_alembic_version")) == migrations.HEAD
    engine.dispose()
    for table, (row,) in before.items():
        assert {name: after[table][0][name] for name in row} == row
        added = {name: value for name, value in after[table][0].items() if name not in row}
        assert added == {name: COUNTED.get(name) for name in added}, table


def contents(connection: Connection, table: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(select(reflected(connection).tables[table])).mappings()]


def test_what_was_not_measured_then_is_told_as_not_measured(upgraded: Ledger) -> None:
    sweep = found(upgraded)
    assert sweep.estimate is None
    with upgraded.read() as connection:
        (trial,) = reads.trials(connection, sweep.id)
        assert (trial.cost.joules, trial.cost.device_s, trial.validation_loss) == (None, 3.0, 0.25)
        assert reads.occupancy(connection, sweep.id) is None
        assert connection.execute(text("SELECT joules, device_s FROM trial_costs")).all() == [(None, 3.0)]
        assert connection.execute(text("SELECT joules, complete, pruned FROM space_costs")).all() == [(None, 1, 0)]
        assert [past.step for past in trials.past(connection, [1])] == [None]


def test_an_old_sweep_goes_on_in_the_upgraded_store(upgraded: Ledger) -> None:
    sweep, worker = found(upgraded), registered(upgraded)
    proposed(upgraded, 1, 2, first=1)
    one, _ = claimed(upgraded, sweep, worker, 2)
    with upgraded.write() as connection:
        rungs.enter(connection, [RungScore(one, 1, 0.5)])
    settled(upgraded, sweep, worker, settlement(one, state=TrialState.PRUNED, cost=cost(joules=4.0)))
    with upgraded.read() as connection:
        assert [peer.scores for peer in rungs.peers(connection, [1])] == [{}, {1: 0.5}, {}]
        assert [trial.cost.joules for trial in reads.trials(connection, sweep.id)] == [None, 4.0, None]
