"""Numbers that are none, and more of them than fit: a result like any other, in the ledger and in MLflow."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest
from sqlalchemy import select, update

from chaos.kennel import KILLED
from chaos.stage import Stage
from processes import Crash
from small import DIVERGING, Change
from sweeper.ledger.schema import OutboxRow
from sweeper.records import TrialState

INFINITE: Change = ("{kind: mlp, hidden: [6, 5]}", "{kind: python:b_chaos:net}")
LONG: tuple[Change, ...] = (("trials: 3, replicates: 2", "trials: 1, replicates: 1"), ("epochs: 12", "epochs: 210"))


@pytest.mark.parametrize("change", [DIVERGING, INFINITE], ids=["NaN by a learning rate of 100", "a network's infinity"])
def test_losses_that_are_not_finite(stage: Callable[..., Stage], change: Change, request: pytest.FixtureRequest):
    """They fail the trial, with fold and epoch, and nothing else; also where the worker is killed beside them."""
    now = stage(change)
    failed = [trial for trial in now.cast.expected.values() if trial["state"] == TrialState.FAIL]
    assert 0 < len(failed) < now.trials
    assert all("(epoch" in trial["error"] for trial in failed)
    assert now.worker(Crash("sweeper.ledger.trials:claim", 2, leaving=True)).wait().code == KILLED
    now.finish()
    now.check(f"{request.node.callspec.id}: {len(failed)} trials failed by it, 1 kill")


def test_a_parameter_of_7000_characters_and_more_metrics_than_a_request_takes(stage: Callable[..., Stage]):
    now = stage(*LONG)
    now.finish()
    with now.ledger.write() as connection:
        trial = OutboxRow.uid.like("%/t0000")
        uid, payload = connection.execute(select(OutboxRow.uid, OutboxRow.payload).where(trial)).first()
        run = json.loads(payload)
        run["params"]["long"] = "x" * 7000
        connection.execute(update(OutboxRow).where(OutboxRow.uid == uid).values(payload=json.dumps(run)))
    points = sum(map(len, run["curves"].values())) + len(run["metrics"])
    assert points > 1001
    now.check(f"a param of 7000 characters (cut to 6000), {points} metrics in a run")
    with closing(sqlite3.connect(now.mlflow.database, timeout=30)) as connection:
        query = "SELECT p.value FROM params p JOIN tags t USING (run_uuid) WHERE p.key = 'long' AND t.value = ?"
        [(value,)] = connection.execute(query, [uid]).fetchall()
        assert value == "x" * 5999 + "…"
