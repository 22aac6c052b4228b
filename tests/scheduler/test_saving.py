"""Trials that were under way go on where they were saved, and end as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from scheduler.test_pruning import ASHA, pruning
from small import FOLDS, Change, Ran, outcome, run_here, small_workload
from sweeper.checkpoints import Checkpoints
from sweeper.findings import Accounts
from sweeper.ledger import reads
from sweeper.ledger.schema import AttemptRow, TrialRow
from sweeper.ledger.store import Ledger
from sweeper.scheduler import Saving
from sweeper.worker import Ending

pytestmark = pytest.mark.usefixtures("one_thread")

LONG: Change = ("epochs: 4", "epochs: 12")
FEW: Change = ("trials: 5, replicates: 2", "trials: 3, replicates: 1")
KINDS = {
    "random": (FEW, LONG),
    "folds": (FEW, LONG, FOLDS),
    "folds that stop early": (FEW, ("epochs: 4", "epochs: 12, patience: 1"), FOLDS),
    "tpe": (FEW, LONG, ("sampler: random", "sampler: {kind: tpe, n_startup_trials: 1}")),
    "pruned": pruning(ASHA),
}


class KilledError(Exception):
    """Stands for a worker's sudden end."""


@pytest.fixture(params=KINDS.values(), ids=KINDS.keys())
def changes(request: pytest.FixtureRequest) -> tuple[Change, ...]:
    found: tuple[Change, ...] = request.param
    return found


def kept(folder: Path, every_s: float = float("inf")) -> Saving:
    return Saving(Checkpoints(str(folder / "kept")), every_s)


def files(folder: Path) -> list[Path]:
    return list((folder / "kept").rglob("*.safetensors"))


def epochs(ran: Ran) -> int:
    """That all attempts together trained."""
    with ran.ledger.read() as connection:
        return sum(connection.scalars(select(AttemptRow.epochs)))


def least_epochs(ran: Ran) -> int:
    """That the results need, fold by fold."""
    return sum(len(fit["curves"]["epoch"]) for trial in outcome(ran.ledger).values() for fit in trial["fits"])


def slots(changes: tuple[Change, ...]) -> int:
    return 6 if FOLDS in changes else 4


def test_a_sweep_that_was_stopped_again_and_again_trains_no_epoch_twice(tmp_path: Path, changes: tuple[Change, ...]):
    workload, many = small_workload(tmp_path, *changes), slots(changes)
    endings = []
    while not endings or endings[-1] is not Ending.DONE:
        ran = run_here(workload, tmp_path, slots=many, stop_after=5, saving=kept(tmp_path))
        endings.append(ran.ending)
    assert len(endings) > 3
    undisturbed = run_here(workload, tmp_path / "undisturbed", slots=many)
    assert outcome(ran.ledger) == outcome(undisturbed.ledger)
    assert epochs(ran) == least_epochs(ran) == epochs(undisturbed)
    assert files(tmp_path) == []


def test_a_worker_that_was_killed_loses_what_it_did_since_it_last_saved(tmp_path: Path):
    workload = small_workload(tmp_path, LONG)

    def kill(ledger: Ledger) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        run_here(workload, tmp_path, at_turn={8: kill}, saving=kept(tmp_path, every_s=0.0))
    assert files(tmp_path)
    ran = run_here(workload, tmp_path, saving=kept(tmp_path))
    undisturbed = run_here(workload, tmp_path / "undisturbed")
    assert outcome(ran.ledger) == outcome(undisturbed.ledger)
    assert least_epochs(ran) == epochs(undisturbed)
    # What a killed worker trained is in nobody's books but as time; what the next one trained begins behind it.
    assert epochs(ran) == epochs(undisturbed) - 4 * 7
    assert files(tmp_path) == []


def test_saving_is_charged_to_those_who_are_saved_and_accounts_balance(tmp_path: Path):
    workload = small_workload(tmp_path, LONG)
    run_here(workload, tmp_path, stop_after=8, saving=kept(tmp_path, every_s=0.0))
    ran = run_here(workload, tmp_path, saving=kept(tmp_path, every_s=0.0))
    accounts = Accounts.of(ran.ledger, "small")
    assert accounts.kinds["checkpoint"] > 0
    assert accounts.is_balanced
    assert min(accounts.unassigned.values()) >= 0
    with ran.ledger.read() as connection:
        assert all(trial.cost.checkpoint_s > 0 for trial in reads.trials(connection, ran.sweep.id))


def test_where_nothing_can_be_saved_that_is_said_once_and_training_goes_on(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    saving = Saving(Checkpoints(str(tmp_path / "file")), 0.0, said.append)
    ran = run_here(small_workload(tmp_path, LONG), tmp_path, saving=saving)
    assert ran.ending is Ending.DONE
    assert len(said) == 1
    assert "can't be kept at" in said[0]


def test_a_damaged_checkpoint_costs_no_more_than_itself(tmp_path: Path):
    workload = small_workload(tmp_path, LONG)
    run_here(workload, tmp_path, stop_after=8, saving=kept(tmp_path))
    for file in files(tmp_path):
        file.write_bytes(file.read_bytes()[:-1])
    ran = run_here(workload, tmp_path, saving=kept(tmp_path))
    assert outcome(ran.ledger) == outcome(run_here(workload, tmp_path / "undisturbed").ledger)
    with ran.ledger.read() as connection:
        assert max(connection.scalars(select(TrialRow.attempt))) == 2
    assert epochs(ran) > least_epochs(ran)


def test_a_sweep_that_nobody_interrupts_writes_nothing(tmp_path: Path):
    ran = run_here(small_workload(tmp_path), tmp_path, saving=kept(tmp_path))
    assert ran.ending is Ending.DONE
    assert not (tmp_path / "kept").exists()


def test_what_a_killed_worker_left_behind_of_a_finished_trial_goes_with_the_sweep(tmp_path: Path) -> None:
    place = tmp_path / "checkpoints"
    ran = run_here(small_workload(tmp_path), tmp_path, stop_after=1, saving=Saving(Checkpoints(str(place))))
    left = place / ran.sweep.uid / "shared" / "r00" / "t0000" / "left.safetensors"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"")
    (place / "another-1a2b").mkdir()
    run_here(small_workload(tmp_path), tmp_path, saving=Saving(Checkpoints(str(place))))
    assert [path.name for path in place.iterdir()] == ["another-1a2b"]
