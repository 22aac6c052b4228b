"""Scheduler: keeps one engine busy with the trials of one sweep."""

from sweeper.scheduler.loop import Scheduler

__all__ = ["Scheduler"]
