"""`sweeper replay`: any recorded trial comes out the same, bit for bit, and what does not is said."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner, Result

from cli.test_price import PRUNING, SOME_DIVERGE
from small import FOLDS, Ran, outcome, run_here, small_workload
from sweeper.cli.app import app
from sweeper.ledger.schema import FitRow
from sweeper.records import TrialState

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """A sweep with complete, pruned and failed trials."""
    folder = tmp_path_factory.mktemp("replayed")
    return run_here(small_workload(folder, PRUNING, *SOME_DIVERGE), folder / "home")


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("folded")
    return run_here(small_workload(folder, FOLDS), folder / "home", slots=6)


def replay(ran: Ran, trial: str, *argv: str) -> Result:
    place = ["--store", ran.ledger.url, "--data-root", str(Path(ran.sweep.file_path).parent)]
    given = ["replay", f"small/{trial}", *place, "--device", "cpu", *argv]
    return CliRunner().invoke(app, given)


def printed(ran: Ran, trial: str) -> dict:
    done = replay(ran, trial, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def of_state(ran: Ran, state: TrialState) -> str:
    """The trial that ended so after most epochs, in whatever order the store gives them."""
    found = {place: trial["fits"] for place, trial in outcome(ran.ledger).items() if trial["state"] == state}
    place = max(found, key=lambda place: sum(fit["epochs"] for fit in found[place]))
    return "/".join(map(str, place))


@pytest.mark.parametrize("state", [TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
def test_a_trial_comes_out_the_same_however_it_ended(ran: Ran, state: TrialState):
    told = printed(ran, of_state(ran, state))
    assert told["same"] is True
    assert {one["measure"]: one["largest"] for one in told["measures"]}["validation_loss by epoch"] == 0
    assert sum(one["values"] for one in told["measures"]) > 20


def test_every_fold_is_replayed(folded: Ran):
    told = printed(folded, of_state(folded, TrialState.COMPLETE))
    assert told["same"] is True
    assert len(told["outcomes"]) == 3
    assert {one["values"] for one in told["measures"] if one["measure"] == "test_loss"} == {3}


def test_people_read_that_it_is_the_same(ran: Ran):
    shown = replay(ran, of_state(ran, TrialState.COMPLETE)).stdout
    assert shown.splitlines()[-1].endswith(": the same, bit for bit")
    assert "squared_norms" in shown


def test_what_differs_is_said(folded: Ran):
    """Last, for it changes what was recorded."""
    trial = of_state(folded, TrialState.COMPLETE)
    with folded.ledger.write() as connection:
        [(id_, loss)] = connection.execute(select(FitRow.id, FitRow.test_loss).order_by(FitRow.id).limit(1))
        connection.execute(update(FitRow).where(FitRow.fold == 0).values(test_loss=loss + 0.5, outcome="otherwise"))
    done = replay(folded, trial)
    assert done.stdout.splitlines()[-1].endswith(": NOT the same")
    assert "fold 0: otherwise; now: " in done.stdout
    assert not printed(folded, trial)["same"]
    assert id_


@pytest.mark.parametrize("name", ["small", "small/shared/0", "small/shared/a/0", "small/shared/0/0/0"])
def test_what_names_no_trial_is_refused(ran: Ran, name: str):
    done = CliRunner().invoke(app, ["replay", name, "--store", ran.ledger.url])
    assert "names no trial. Write SWEEP/SPACE/REPLICATE/NUMBER" in str(done.exception)


@pytest.mark.parametrize("name", ["nobody/0/0", "shared/9/0", "shared/0/99"])
def test_a_trial_that_is_not_there_is_named_with_the_spaces_that_are(ran: Ran, name: str):
    done = replay(ran, name)
    assert f"there is no trial {name!r}" in str(done.exception)
    assert "both, shared" in str(done.exception)
