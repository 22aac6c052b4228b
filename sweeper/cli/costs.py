"""`price --costs`: where a sweep's time went, printed; see `sweeper.findings.accounts`."""

from __future__ import annotations

from sweeper.cli.console import output
from sweeper.cli.pricing import show_cells
from sweeper.findings import Accounts


def show_accounts(accounts: Accounts) -> None:
    """By space, by how attempts ended, by kind, and the balance."""
    sweep = accounts.sweep
    output.print(f"{sweep.name} ({sweep.mode} mode): seconds, every attempt counted.", soft_wrap=True)
    output.print()
    for sheet in accounts.sheets():
        show_cells(sheet.caption, sheet.rows, (next(iter(sheet.rows[0])),))
    output.print(accounts.balance, soft_wrap=True)
