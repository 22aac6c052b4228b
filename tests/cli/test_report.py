"""`sweeper report`: a finished sweep becomes one file, pictures and tables."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet
import pytest

from small import TRIALS, run_here, small_workload
from sweeper.cli.report import report
from sweeper.errors import UnknownSweepError
from sweeper.ledger.store import sqlite_url


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the ledger of a finished sweep."""
    folder = tmp_path_factory.mktemp("reported")
    run_here(small_workload(folder), folder).ledger.close()
    return folder


def test_a_finished_sweep_becomes_a_page_pictures_and_tables(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    page, pictures, tables = tmp_path / "new" / "report.html", tmp_path / "pictures", tmp_path / "tables"
    report("small", page, pictures, tables, home, sqlite_url(home))
    said = capsys.readouterr()
    assert "too few for any claim" in said.err
    html = page.read_text()
    assert f"{TRIALS} of {TRIALS} trials, R = 2 replicates" in html
    assert "4-6-5-3 on npz:rows.npz" in html
    assert "torch" in html
    assert "both has too few trials that differ" in html  # 10, where importance takes 20
    assert "Seconds by how attempts ended" in html
    assert "balanced: " in html
    assert (pictures / "curves.png").exists()
    for name in ("trials", "fits"):
        assert pyarrow.parquet.read_table(tables / f"{name}.parquet").num_rows == TRIALS
        assert len((tables / f"{name}.csv").read_text().splitlines()) == TRIALS + 1
    assert {Path(line) for line in said.out.split()} == {page, *pictures.iterdir(), *tables.iterdir()}


def test_the_page_alone_is_named_after_the_sweep(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    report("small", None, None, None, home, sqlite_url(home))
    assert [path.name for path in tmp_path.iterdir()] == ["small.html"]


def test_a_sweep_that_is_not_there_has_no_report(home: Path, tmp_path: Path):
    with pytest.raises(UnknownSweepError, match="Did you mean 'small'"):
        report("smal", tmp_path / "x.html", None, None, home, sqlite_url(home))
    assert not (tmp_path / "x.html").exists()
