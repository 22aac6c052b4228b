"""Clocks an hour off, and time zones that differ: leases are the server's business, durations the monotonic clock's."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from chaos.faults import HOUR_S, Clock, Zone
from chaos.stage import Stage
from sweeper import courier
from sweeper.ledger import workers

PAIRS = {
    "clocks an hour off": (Clock(HOUR_S), Clock(-HOUR_S)),
    "mixed time zones": (Zone("Asia/Tokyo"), Zone("America/St_Johns")),
}


@pytest.mark.parametrize("name", PAIRS)
def test_workers_that_differ_on_the_time(stage: Callable[..., Stage], name: str):
    """No lease runs out, though it is far shorter than they differ."""
    now, (one, other) = stage(), PAIRS[name]
    assert max(workers.LEASE_S, courier.LEASE_S) < HOUR_S
    followed = now.folder / "followed"
    delivering = now.courier(other, follows=followed)
    at_work = [now.worker(fault) for fault in (one, other)]
    assert ["done" in worker.wait_well().said for worker in at_work] == [True, True]
    followed.touch()
    delivering.wait_well()
    found = now.check(f"{name}: 2 workers, 1 courier")
    assert found.attempts.total() == now.trials
