"""`status --watch`: the same look again every second; live in a terminal, one block after another in a pipe."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from rich.console import Group, RenderableType
from rich.live import Live

from sweeper.cli.console import json_line, output
from sweeper.ledger.fleet import Life

REFRESH_S = 1.0
PLAIN = "NO_COLOR", "CI"  # variables that ask for plain text

Status = Mapping[str, Any]


def watch(
    look: Callable[[], Sequence[Status]],
    shown: Callable[[Sequence[Status]], Sequence[RenderableType]],
    *,
    json: bool,
    ends: bool,
) -> None:
    """Look and show, until Ctrl-C.

    Args:
        look: how sweeps stand, as `status --json` tells it.
        shown: the same for people.
        json: one line of JSON for programs at each look.
        ends: end when all that is looked at is at rest, too.
    """
    with suppress(KeyboardInterrupt):  # how a view is left
        if json:
            _repeat(look, lambda told: json_line(list(told)), ends)
        elif output.is_terminal and not any(os.environ.get(name) for name in PLAIN):
            with Live(console=output, auto_refresh=False) as live:
                _repeat(look, lambda told: live.update(Group(*shown(told)), refresh=True), ends)
        else:
            _repeat(look, lambda told: output.print(*shown(told), "", sep="\n", soft_wrap=True), ends)


def _repeat(look: Callable[[], Sequence[Status]], show: Callable[[Sequence[Status]], None], ends: bool) -> None:
    while True:
        began, told = time.monotonic(), look()
        show(told)
        if ends and all(is_at_rest(one) for one in told):
            return
        time.sleep(max(0.0, REFRESH_S - (time.monotonic() - began)))


def is_at_rest(status: Status) -> bool:
    """Whether a sweep is not open, and nobody works on it any more."""
    return status["state"] != "open" and all(worker["life"] == Life.DEAD for worker in status["now"]["workers"])
