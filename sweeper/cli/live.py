"""What a user sees while a sweep runs: a live table in a terminal, a line now and then in a pipe."""

from __future__ import annotations

import re
import time
from functools import partial
from types import TracebackType

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from sweeper.cli.console import errors, number, table
from sweeper.ledger import deliveries, reads
from sweeper.ledger.rows import SpaceProgress, Sweep
from sweeper.ledger.store import Ledger
from sweeper.quantities import duration
from sweeper.scheduler import Scheduler

HEADLINE = re.compile(r".+: \d+/\d+ trials, [\d.]+ trials/s, ETA ")
LOOK_S = 1.0  # between two looks at the ledger in a terminal
LINE_S = 10.0  # between two lines in a pipe


class LiveView:
    """Shows a sweep's progress on standard error; call it at every turn.

    Args:
        ledger: the store.
        sweep: what runs.
    """

    def __init__(self, ledger: Ledger, sweep: Sweep) -> None:
        self._ledger, self._sweep = ledger, sweep
        self._began, self._looked = time.monotonic(), -LINE_S
        self._before: int | None = None
        self._every = LOOK_S if errors.is_terminal else LINE_S
        live = Live(console=errors, auto_refresh=False, transient=True, redirect_stdout=False)  # that may be a file
        self._live = live if errors.is_terminal else None

    def __enter__(self) -> LiveView:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, scheduler: Scheduler | None = None) -> None:
        """Look at the ledger and show it, if the last look is long enough ago; None where others do the work."""
        now = time.monotonic()
        if now - self._looked < self._every:
            return
        self._looked = now
        spaces = self._ledger.ask(partial(reads.progress, sweep_id=self._sweep.id))
        lag = self._ledger.ask(partial(deliveries.counts, sweep_id=self._sweep.id))[1]
        headline = self._headline(spaces, scheduler.occupancy if scheduler else None, lag, now)
        if self._live:
            self._live.update(Group(Text(headline), self._table(spaces)), refresh=True)
        else:
            errors.print(headline)

    def _headline(self, spaces: list[SpaceProgress], occupancy: float | None, lag: int, now: float) -> str:
        done, planned = sum(space.finished for space in spaces), sum(space.planned for space in spaces)
        if self._before is None:
            self._before = done
        elapsed = now - self._began
        rate = (done - self._before) / elapsed if elapsed else 0.0
        eta = duration((planned - done) / rate) if rate else "-"
        slots = "" if occupancy is None else f"slots {occupancy:.0%} busy, "
        return (
            f"{self._sweep.name}: {done}/{planned} trials, {rate:.1f} trials/s, ETA {eta}, "
            f"{slots}{lag} runs on their way to MLflow"
        )

    def _table(self, spaces: list[SpaceProgress]) -> Table:
        shown = table(None, "space", "", "trials", "best validation loss", right=("trials", "best validation loss"))
        for space in spaces:
            bar = Progress(BarColumn(bar_width=24), TextColumn("{task.percentage:>3.0f} %"))
            bar.add_task(space.space, total=space.planned, completed=space.finished)
            ends = (("failed", space.failed), ("pruned", space.pruned))
            ended = "".join(f" ({count} {how})" for how, count in ends if count)
            shown.add_row(space.space, bar, f"{space.finished}{ended}", number(space.best_validation_loss))
        return shown
