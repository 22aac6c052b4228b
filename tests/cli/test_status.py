"""What `status` says of occupancy and energy: what the workers measured, or why they could not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ledger.makers import claimed, cost, launched, plan, proposed, settled, settlement, study_ids
from small import run_here, small_workload
from sweeper.cli.look import status, trials
from sweeper.export import from_json
from sweeper.ledger import reads, workers
from sweeper.ledger.rows import Meter, Sweep
from sweeper.ledger.schema import OutboxRow
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.records import Cost

RAPL = "measured by RAPL, 1 CPU package with all that ran there"
ROOT_ONLY = "not measured: /sys/class/powercap/intel-rapl:0/energy_uj is readable by root only"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def ledger(home: Path) -> Iterator[Ledger]:
    opened = Ledger(sqlite_url(home))
    yield opened
    opened.close()


@pytest.fixture
def sweep(ledger: Ledger) -> Sweep:
    """One study of four trials."""
    return launched(ledger, plan(("none",), trials=4, replicates=1))


@pytest.fixture
def shown(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[], tuple[str, dict[str, Any]]]:
    """`sweeper status` for people and for programs."""

    def show() -> tuple[str, dict[str, Any]]:
        status("digits", home=home, store=None, json=False)
        words = capsys.readouterr().out
        status("digits", home=home, store=None, json=True)
        return words, json.loads(capsys.readouterr().out)

    return show


def worked(ledger: Ledger, sweep: Sweep, details: dict[str, str], costs: list[Cost], meter: Meter) -> None:
    """A worker that settled trials of a sweep, and what its slots did meanwhile."""
    with ledger.write() as connection:
        worker = workers.register(connection, "cpu", details)
        workers.set_times(connection, worker, sweep.id, {"train": 3.0, "idle": 1.0})
        workers.set_meter(connection, worker, sweep.id, meter)
    with ledger.read() as connection:
        before = len(reads.trials(connection, sweep.id))
    proposed(ledger, study_ids(ledger, sweep)["none", 0], len(costs), first=before)
    taken = claimed(ledger, sweep, worker, len(costs))
    settled(ledger, sweep, worker, *(settlement(one, cost=each) for one, each in zip(taken, costs, strict=True)))


def test_energy_and_occupancy_that_were_measured(ledger: Ledger, sweep: Sweep, shown: Any):
    costs = [cost(joules=joules) for joules in (600.0, 200.0, 100.0, 300.0)]
    worked(ledger, sweep, {"energy": RAPL}, costs, Meter(975, 1000, 1250.0))
    words, told = shown()
    assert "digits: done, 4/4 trials" in words
    assert "  occupancy: 97.5% of all slot-steps had a fit, drain included\n" in words
    assert f"  energy: 1.2 kJ (300 J per trial), 1.2 kJ with idle slots; {RAPL}\n" in words
    assert told["occupancy"] == 0.975
    assert told["cost"]["joules"] == 1200.0
    assert told["energy"] == {
        "joules": 1200.0,
        "joules_per_trial": 300.0,
        "joules_with_idle_slots": 1250.0,
        "notes": [RAPL],
    }


def test_energy_that_was_not_measured_is_no_zero_and_has_its_reason(ledger: Ledger, sweep: Sweep, shown: Any):
    worked(ledger, sweep, {"energy": ROOT_ONLY}, [cost()] * 2, Meter(8, 8))
    words, told = shown()
    assert f"  energy: {ROOT_ONLY}\n" in words
    assert (told["energy"]["joules"], told["energy"]["joules_per_trial"], told["cost"]["joules"]) == (None, None, None)
    assert told["energy"]["notes"] == [ROOT_ONLY]


def test_one_worker_without_a_counter_leaves_the_sweep_unmeasured(ledger: Ledger, sweep: Sweep, shown: Any):
    worked(ledger, sweep, {"energy": RAPL}, [cost(joules=600.0)], Meter(4, 4, 700.0))
    worked(ledger, sweep, {"energy": ROOT_ONLY}, [cost()], Meter(2, 4))
    worked(ledger, launched(ledger, plan(name="other")), {"energy": "not measured: elsewhere"}, [cost()], Meter(1, 1))
    words, told = shown()
    assert f"  energy: {ROOT_ONLY}\n" in words
    assert told["energy"]["notes"] == [RAPL, ROOT_ONLY]
    assert told["occupancy"] == 0.75


def test_before_anything_was_trained_nothing_is_said_of_either(ledger: Ledger, sweep: Sweep, shown: Any):
    words, told = shown()
    assert "occupancy" not in words
    assert "energy" not in words
    assert (told["occupancy"], told["energy"]["joules"], told["energy"]["notes"]) == (None, None, [])


def test_a_worker_of_an_older_version_said_nothing_about_energy(ledger: Ledger, sweep: Sweep, shown: Any):
    worked(ledger, sweep, {}, [cost()], Meter(1, 1))
    assert "  energy: not measured\n" in shown()[0]


def test_trials_tell_their_energy_to_programs(
    ledger: Ledger, home: Path, sweep: Sweep, capsys: pytest.CaptureFixture[str]
):
    worked(ledger, sweep, {"energy": RAPL}, [cost(joules=2.5), cost()], Meter(2, 2))
    trials("digits", space=None, limit=20, home=home, store=None, json=True)
    assert [trial["cost"]["joules"] for trial in json.loads(capsys.readouterr().out)] == [2.5, None]
    with ledger.read() as connection:
        assert reads.energy_notes(connection, sweep.id) == [RAPL]


class Ticking:
    """A meter that has gained ten joules at every look."""

    joules = 0.0

    def read(self) -> float:
        self.joules += 10.0
        return self.joules


def test_energy_goes_from_the_meter_through_the_ledger_to_mlflow_and_the_terminal(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    meter = Ticking()
    monkeypatch.setattr("sweeper.engine.meter.find_meter", lambda device: meter)
    monkeypatch.setattr("sweeper.engine.device.energy_note", lambda device: RAPL)
    ran = run_here(
        small_workload(tmp_path), home, slots=3
    )  # 20 trials of 4 epochs: 7 rounds, the last with a slot free
    with ran.ledger.read() as connection:
        spent = {(t.space, t.replicate, t.number): t.cost.joules for t in reads.trials(connection, ran.sweep.id)}
        payloads = connection.scalars(select(OutboxRow.payload).where(OutboxRow.status == "FINISHED")).all()
        in_all = reads.meter(connection, ran.sweep.id)
    # a tick is one look, and one more for each fit that ends in it; the free slot's share of the last four is idle
    assert in_all == Meter(20 * 4 * 3, 21 * 4 * 3, 10.0 * (7 * 4 + 20))
    assert sum(spent.values()) == pytest.approx(in_all.joules - 4 * 10.0 / 3, rel=1e-9)
    delivered = [run.metrics["cost.joules"] for run in map(from_json, payloads) if run.tags["sweeper.kind"] == "trial"]
    assert sorted(delivered) == pytest.approx(sorted(spent.values()), rel=1e-12)
    status("small", home=home, store=None, json=False)
    assert f"energy: 467 J (23 J per trial), 480 J with idle slots; {RAPL}" in capsys.readouterr().out
