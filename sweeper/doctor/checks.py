"""The checks, in the order in which they are made.

Each is a function of the place that yields findings and changes nothing; it imports what it needs when it is called,
so that what is broken is a finding and not a crash. Probe files that it writes it removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import import_module

from sweeper.doctor.findings import Finding, Level, Place
from sweeper.errors import SweeperError
from sweeper.urls import masked

Check = Callable[[Place], Iterator[Finding]]

CHECKS = {
    "store": "sweeper.doctor.store:store",
    "mlflow": "sweeper.doctor.mlflow:tracking",
    "device": "sweeper.doctor.machine:device",
    "clock": "sweeper.doctor.machine:monotonic_clock",
    "disk": "sweeper.doctor.disk:home",
    "checkpoints": "sweeper.doctor.disk:checkpoints",
    "trust": "sweeper.doctor.trust:trust",
    "extras": "sweeper.doctor.trust:extras",
}
"""Where each check is; what it finds may have names of its own."""


def examine(place: Place) -> Iterator[Finding]:
    """Make every check, one after the other; credentials are masked in whatever they say."""
    urls = place.store, place.tracking_uri, place.checkpoints
    for name, where in CHECKS.items():
        for finding in _made(name, where, place):
            yield replace(finding, found=masked(finding.found, *urls), mend=masked(finding.mend, *urls))


def _made(name: str, where: str, place: Place) -> Iterator[Finding]:
    module, _, function = where.partition(":")
    try:
        check: Check = getattr(import_module(module), function)
        yield from check(place)
    except SweeperError as error:
        yield Finding(name, Level.PROBLEM, str(error))
    except Exception as error:  # a library that is broken breaks its check and no other
        why = f"{type(error).__name__}: {error}"
        yield Finding(name, Level.PROBLEM, f"it could not be checked: {why}", "Mend or reinstall what fails there.")
