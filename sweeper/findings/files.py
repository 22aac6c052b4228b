"""A report as files: the page, the sweep file, pictures and tables."""

from __future__ import annotations

from pathlib import Path

from sweeper.findings.facts import gather
from sweeper.ledger import tables
from sweeper.ledger.rows import Sweep
from sweeper.ledger.store import Ledger
from sweeper.report import figures, page, write_pictures, write_table

LARGEST_TABLE = 64 * 2**20  # bytes that a table may weigh to be sent along; `report --tables` writes any


def write_tables(ledger: Ledger, sweep: Sweep, folder: Path) -> list[Path]:
    """Write a sweep's trials and fits as CSV and Parquet into a folder, which is made if need be."""
    written = []
    with ledger.read() as connection:
        for name, table in (("trials", tables.trial_table), ("fits", tables.fit_table)):
            flat = table(connection, sweep.id)
            written += write_table(flat.columns, flat.rows, folder, name)
    return written


def write_report(ledger: Ledger, sweep: Sweep, folder: Path) -> None:
    """Write all that goes to MLflow into an empty folder.

    report.html, sweep.yaml, plots/*.png, and tables/*.parquet unless they are larger than 64 MiB each.
    """
    facts = gather(ledger, sweep)
    drawn = figures(facts)
    (folder / "report.html").write_text(page(facts, drawn), encoding="utf-8")
    (folder / "sweep.yaml").write_text(sweep.file_text, encoding="utf-8")
    write_pictures(facts, folder / "plots", drawn)
    for table in write_tables(ledger, sweep, folder / "tables"):
        if table.suffix != ".parquet" or table.stat().st_size > LARGEST_TABLE:
            table.unlink()
