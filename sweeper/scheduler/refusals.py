"""Why a worker can't go on with a sweep that others changed, in words for its user."""

from __future__ import annotations

from sweeper.errors import OutdatedError
from sweeper.ledger.workers import LEASE_S


def taken_over(sweep: str) -> OutdatedError:
    """It was taken for dead."""
    return OutdatedError(
        "another worker took over the trials of this one, as if it had died: it was asleep for longer than its "
        f"lease of {LEASE_S:.0f} s. Nothing is counted twice. Start it again: sweeper resume {sweep}"
    )


def forgotten(sweep: str) -> OutdatedError:
    """There is nothing to go on with."""
    return OutdatedError(
        f"the sweep {sweep!r} that this worker works on was forgotten: another command launched it "
        f"with --fresh. Work on the new one: sweeper resume {sweep}"
    )


def extended(sweep: str) -> OutdatedError:
    """It has neither data nor spaces for studies that were added since it began."""
    return OutdatedError(
        f"the sweep {sweep!r} was extended by another command while this one worked on it. Nothing "
        f"is lost. Go on with all of it: sweeper resume {sweep}"
    )
