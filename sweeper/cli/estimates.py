"""What was expected of a sweep, in words, beside what it took; needs nothing that trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sweeper.quantities import duration, energy

Span = tuple[float, float]
"""A least and a most."""


def expectations(status: Mapping[str, Any]) -> list[str]:
    """What a sweep took so far beside what was expected of it: time, device time, energy, trials per second.

    Args:
        status: as `sweeper status --json` prints it.
    """
    expected, actual, counted = status["estimate"], status["actual"], status["trials"]
    if expected is None or not actual["seconds"]:
        return []
    done, planned = counted["finished"], counted["planned"]
    for_all = "" if done >= planned else f" for all {planned} trials"
    spans = [
        ("time", duration, "seconds"),
        ("device time", duration, "device_s"),
        ("energy with idle slots", energy, "joules"),
    ]
    lines = [
        f"{name}: {words(actual[key])}, expected {span_words(expected[key], words)}{for_all}"
        for name, words, key in spans
        if expected[key] is not None and actual[key] is not None
    ]
    rates = [planned / seconds for seconds in reversed(expected["seconds"]) if seconds]
    if len(rates) == 2:
        expected_rate = span_words((rates[0], rates[1]), _rate)
        lines.append(f"trials/s: {_rate(actual['trials_per_s'])}, expected {expected_rate}")
    return lines


def _rate(per_s: float) -> str:
    return f"{per_s:.3g}"


def span_words(span: Span, words: Callable[[float], str] = duration) -> str:
    """A least and a most; one value where they read the same."""
    least, most = words(span[0]), words(span[1])
    return least if least == most else f"{least} to {most}"
