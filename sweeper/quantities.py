"""Amounts as people say them."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as people say them: 0.8 s, 42 s, 3 min 05 s, 2 h 10 min."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def energy(joules: float) -> str:
    """Joules as people say them: 250 mJ, 4.2 J, 17 J, 1.2 kJ, 34 MJ."""
    value, units = joules * 1000, ["mJ", "J", "kJ", "MJ", "GJ"]
    while value >= 999.5 and len(units) > 1:
        value, units = value / 1000, units[1:]
    return f"{value:.1f} {units[0]}" if value < 9.95 else f"{value:.0f} {units[0]}"
