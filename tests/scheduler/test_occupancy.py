"""Slots are busy for nearly all of a long sweep, though fits end early and trials are pruned; the drain is included."""

from __future__ import annotations

from pathlib import Path

import pytest

from ledger.makers import rows
from small import ONE_STEP, TPE, Change, outcome, run_here, small_workload
from sweeper.engine import Engine
from sweeper.ledger import reads
from sweeper.ledger.schema import FitRow
from sweeper.records import TrialState
from sweeper.scheduler import Scheduler

pytestmark = pytest.mark.usefixtures("one_thread")

SLOTS = 4
LONG: tuple[Change, ...] = (
    ONE_STEP,
    ("epochs: 4", "epochs: 12, patience: 3"),
    (
        "trials: 5, replicates: 2",
        "trials: 20, replicates: 2, concurrency: 2, pruner: {kind: asha, reduction_factor: 2}",
    ),
)


@pytest.mark.parametrize(
    ("overlaps", "trials"), [(False, 20), (True, 40)], ids=["one after the other", "beside the device"]
)
@pytest.mark.parametrize("sampler", [(), (TPE,)], ids=["random", "tpe"])
def test_at_least_95_percent_of_slot_steps_have_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlaps: bool, trials: int, sampler: tuple[Change, ...]
):
    """An engine that overlaps computes all its lanes to the end, so that the same drain weighs more."""
    monkeypatch.setattr(Engine, "overlaps", overlaps)
    monkeypatch.setattr(Scheduler, "_is_worth_waiting_for", lambda self: not self._by_key)  # else the clock decides
    changes = (*sampler, *LONG, ("trials: 20", f"trials: {trials}"))
    ran = run_here(small_workload(tmp_path, *changes), tmp_path, slots=SLOTS)
    found = outcome(ran.ledger)
    assert len(found) == 4 * trials >= 20 * SLOTS
    pruned = sum(trial["state"] == TrialState.PRUNED for trial in found.values())
    early = sum(row.outcome.startswith("stopped early") for row in rows(ran.ledger, FitRow))
    assert pruned > 20
    assert early > 0
    with ran.ledger.read() as connection:
        meter = reads.meter(connection, ran.sweep.id)
        assert reads.occupancy(connection, ran.sweep.id) == ran.scheduler.occupancy
    assert meter.busy_steps == sum(fit["epochs"] for trial in found.values() for fit in trial["fits"])
    assert meter.busy_steps / meter.slot_steps >= 0.95
