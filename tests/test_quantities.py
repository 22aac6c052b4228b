"""Amounts as people say them."""

from __future__ import annotations

import pytest

from sweeper.quantities import duration, energy


@pytest.mark.parametrize(
    ("joules", "words"),
    [(0.25, "250 mJ"), (0.9996, "1.0 J"), (9.96, "10 J"), (17.4, "17 J"), (999.4, "999 J"), (1234.0, "1.2 kJ"),
     (3.4e7, "34 MJ"), (2e9, "2.0 GJ"), (5e12, "5000 GJ")],
)  # fmt: skip
def test_joules_as_people_say_them(joules: float, words: str):
    assert energy(joules) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.84, "0.8 s"), (42.4, "42 s"), (59.4, "59 s"), (185.0, "3 min 05 s"), (7800.0, "2 h 10 min")],
)
def test_seconds_as_people_say_them(seconds: float, words: str):
    assert duration(seconds) == words
