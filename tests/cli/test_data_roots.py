"""A sweep file from the store is data: what resume, worker and replay read of it lies under this process's roots."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from small import Change, small_workload
from sweeper.cli.app import app
from sweeper.cli.making import made, vouched
from sweeper.cli.places import Places
from sweeper.errors import LedgerError, SweeperError, SweepFileError
from sweeper.launched import launched_file
from sweeper.ledger import sweeps
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger, sqlite_url
from sweeper.workload import Workload, differences

NOW = datetime(2026, 11, 21, tzinfo=UTC)
NUMERICS = {"compiled": False, "torch": "2", "device": "cpu", "threads": 1, "products": "float32"}
POISON = "raise SystemExit('this code was run')\n"
HEAD = "{kind: head, backbone: python:b_roots:net, weights: %s, xtra_fc: [5]}"


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A home of its own; the current folder is another than the sweep's."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("SWEEPER_DATA_ROOTS", raising=False)
    return Places.of(tmp_path / "home", None)


@pytest.fixture
def workload(tmp_path: Path) -> Workload:
    folder = tmp_path / "there"
    folder.mkdir()
    return small_workload(folder)


def launched(workload: Workload, *changes: Change, file: Path | None = None) -> Sweep:
    """A sweep as the ledger has it, its text changed by somebody who may write there."""
    plan = workload.plan(NUMERICS)
    text = plan.file_text
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    known = {name: getattr(plan, name) for name in ("name", "mode", "config", "data_sha256", "numerics")}
    path = str(file or plan.file_path)
    return Sweep(1, token="0a0b", state="open", file_text=text, file_path=path, created_at=NOW, **known)


def made_of(places: Places, sweep: Sweep, *allow: str) -> Workload:
    return made(places, launched_file(sweep), "cpu", list(allow), sweep)


def refused(places: Places, sweep: Sweep, *allow: str) -> str:
    with pytest.raises(SweepFileError) as caught:
        made_of(places, sweep, *allow)
    return str(caught.value)


# the user's own sweeps ------------------------------------------------------------------------------------------------


def test_the_recorded_path_is_the_same_from_every_folder(
    places: Places, workload: Workload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    file = replace(workload.file, name="there/small.yaml")
    assert workload.plan(NUMERICS).file_path == str(tmp_path / "there" / "small.yaml")
    assert replace(workload, file=file).plan(NUMERICS).file_path == str(tmp_path / "there" / "small.yaml")


def test_who_named_the_file_goes_on_with_it_from_any_folder(places: Places, workload: Workload):
    vouched(places, workload.file)
    assert made_of(places, launched(workload)).table.sha256 == workload.table.sha256


def test_who_named_a_file_vouched_for_what_it_names_elsewhere(places: Places, workload: Workload, tmp_path: Path):
    far = tmp_path / "far"
    far.mkdir()
    (tmp_path / "there" / "rows.npz").rename(far / "rows.npz")
    change = ("npz:rows.npz", f"npz:{far / 'rows.npz'}")
    sweep = launched(workload, change)
    assert "under no data root" in refused(places, sweep)
    vouched(places, launched_file(sweep))
    assert made_of(places, sweep).table.sha256 == workload.table.sha256


def test_a_root_may_be_named_to_whoever_did_not_launch_it(places: Places, workload: Workload, tmp_path: Path):
    sweep = launched(workload)
    said = refused(places, sweep)
    assert f"small.yaml:2: {tmp_path / 'there' / 'rows.npz'} lies under no data root" in said
    assert f"add --data-root {tmp_path / 'there'}" in said
    allowed = replace(places, data_roots=(tmp_path / "there",))
    assert made_of(allowed, sweep).table.sha256 == workload.table.sha256


def test_a_sweep_of_another_machine_finds_its_data_under_the_root(places: Places, workload: Workload, tmp_path: Path):
    sweep = launched(workload, file=Path("/home/else/there/small.yaml"))
    allowed = replace(places, data_roots=(tmp_path,))
    assert made_of(allowed, sweep).table.sha256 == workload.table.sha256


# other people's sweeps ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["resume", "small"], ["worker", "--sweep", "small"], ["replay", "small/both/0/0"]])
def test_commands_that_compute_read_nothing_outside(
    places: Places, workload: Workload, command: list[str], monkeypatch: pytest.MonkeyPatch
):
    ledger = Ledger(sqlite_url(places.home))
    with ledger.write() as connection:
        sweeps.launch(connection, workload.plan(NUMERICS), fresh=False, differences=differences)
    ledger.close()
    monkeypatch.setattr("sweeper.cli.replay.recorded", lambda *_: None)
    ended = CliRunner().invoke(app, [*command, "--home", str(places.home)])
    assert isinstance(ended.exception, SweeperError), ended.output
    assert "under no data root" in str(ended.exception)


@pytest.mark.parametrize("scheme", ["csv", "parquet", "npz"])
@pytest.mark.parametrize("path", ["{0}/secret.file", "../secret.file", "link", "~/../../../../../..{0}/secret.file"])
def test_data_outside_is_not_read(places: Places, workload: Workload, tmp_path: Path, scheme: str, path: str):
    (tmp_path / "secret.file").write_text("a,b\n1,sesame\n")
    (tmp_path / "there" / "link").symlink_to(tmp_path / "secret.file")
    inside = replace(places, data_roots=(tmp_path / "there",))
    sweep = launched(workload, ('"npz:rows.npz"', f'"{scheme}:{path.format(tmp_path)}", target: y'))
    said = refused(inside, sweep)
    assert f"{tmp_path / 'secret.file'}" in said
    assert "lies under no data root" in said
    assert "sesame" not in said


def test_a_near_name_outside_is_not_given_away(places: Places, workload: Workload, tmp_path: Path):
    (tmp_path / "secret.csv").write_text("a,b\n1,2\n")
    inside = replace(places, data_roots=(tmp_path / "there",))
    said = refused(inside, launched(workload, ('"npz:rows.npz"', f'"csv:{tmp_path}/secert.csv", target: a')))
    assert "secret" not in said


def test_weights_outside_are_not_read(places: Places, workload: Workload, tmp_path: Path):
    (tmp_path / "there" / "b_roots.py").write_text(
        "from torch import nn\n\n\ndef net(inputs):\n    return nn.Linear(inputs, 3)\n"
    )
    for folder in (tmp_path, tmp_path / "there"):
        save_file(nn.Linear(4, 3).state_dict(), folder / "w.safetensors")
    inside = replace(places, data_roots=(tmp_path / "there",))
    head = ("{kind: mlp, hidden: [6, 5]}", HEAD)
    near = launched(workload, (head[0], head[1] % "w.safetensors"))
    assert made_of(inside, near, "b_roots").table.x.shape[1] == 3
    far = launched(workload, (head[0], head[1] % "../w.safetensors"))
    assert "model.weights" in refused(inside, far, "b_roots")
    assert "under no data root" in refused(inside, far, "b_roots")


@pytest.mark.parametrize("where", ["planted", "planted/below"])
def test_code_outside_is_not_run_though_its_name_is_allowed(
    places: Places, workload: Workload, tmp_path: Path, where: str
):
    """Whoever may write to the store and to some folder of this machine must not choose where a package comes from."""
    (tmp_path / "planted" / "below").mkdir(parents=True)
    (tmp_path / "planted" / "b_planted.py").write_text(POISON)
    (tmp_path / "planted" / "rows.npz").write_bytes((tmp_path / "there" / "rows.npz").read_bytes())
    inside = replace(places, data_roots=(tmp_path / "there",))
    change = ("{kind: mlp, hidden: [6, 5]}", "{kind: python:b_planted:net}")
    data = ("npz:rows.npz", f"npz:{tmp_path / 'there' / 'rows.npz'}")
    sweep = launched(workload, change, data, file=tmp_path / where / "small.yaml")
    assert "there is no module 'b_planted'" in refused(inside, sweep, "b_planted")


@pytest.mark.parametrize(
    "text",
    [
        "name: !!python/object/apply:os.system ['true']",
        "name: !!python/name:os.system",
        "name: !include /etc/passwd",
        "name: &a [x]\ndata: *a",
    ],
)
def test_tags_and_aliases_are_refused(places: Places, workload: Workload, text: str):
    sweep = replace(launched(workload), file_text=text)
    with pytest.raises(SweepFileError, match=r"not valid YAML: .*(tag|aliases)"):
        launched_file(sweep)


@pytest.mark.parametrize("kind", ["python:../evil:net", "python:/tmp/evil:net", "python:os.path:join.x", "python::f"])
def test_a_reference_is_a_name_and_no_path(places: Places, workload: Workload, kind: str):
    sweep = replace(launched(workload), file_text=workload.file.text.replace("kind: mlp, hidden", f"kind: '{kind}', w"))
    with pytest.raises(SweepFileError):
        launched_file(sweep)


@pytest.mark.parametrize("name", ["../../etc", "a/b", "..", "a\n"])
def test_a_sweep_that_is_called_like_a_path_is_refused(places: Places, workload: Workload, name: str):
    """Folders of checkpoints and reports are called after sweeps."""
    sweep = launched(workload)
    with pytest.raises(LedgerError, match="gives only names of letters"):
        replace(sweep, name=name)
