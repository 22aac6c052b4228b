"""Scheduler: keeps one engine busy with the trials of one sweep."""

from sweeper.scheduler.loop import Scheduler
from sweeper.scheduler.saving import NEVER, Saving
from sweeper.scheduler.spool import Spool

__all__ = ["NEVER", "Saving", "Scheduler", "Spool"]
