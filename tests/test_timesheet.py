"""Every second belongs to one kind, also where host and device worked at the same time."""

from __future__ import annotations

import pytest

from sweeper.timesheet import KINDS, Timesheet


def sheet(**seconds: float) -> Timesheet:
    times = Timesheet()
    for kind, value in seconds.items():
        times.add(kind, value)
    return times


def host(times: Timesheet) -> dict[str, float]:
    return {kind: value for kind, value in times.totals().items() if value and kind != "other"}


@pytest.mark.parametrize(
    ("device_s", "within_s", "kept"),
    [(9.0, 9.0, 0.0), (6.0, 9.0, 0.5), (3.0, 9.0, 1.0), (0.0, 9.0, 1.0), (9.5, 9.0, 0.0)],
    ids=["all hidden", "half of it waited for", "all of it waited for", "no device", "clocks that disagree"],
)
def test_what_ran_beside_the_device_takes_nobodys_time(device_s: float, within_s: float, kept: float):
    times = sheet(suggest=1.0, storage=2.0)
    mark = times.mark()
    for kind, value in {"suggest": 1.0, "storage": 3.0, "prepare": 2.0}.items():
        times.add(kind, value)
    times.hide(mark, behind=device_s, within=within_s)
    expected = {"suggest": 1.0 + kept, "storage": 2.0 + 3 * kept, "prepare": 2 * kept}
    assert host(times) == {kind: value for kind, value in expected.items() if value}


def test_where_nothing_was_done_beside_the_device_nothing_is_hidden():
    times = sheet(suggest=1.0)
    times.hide(times.mark(), behind=2.0, within=5.0)
    assert host(times) == {"suggest": 1.0}


def test_kinds_and_the_rest_make_up_the_time_since_the_start():
    times = sheet(train=0.0)
    with times.on("storage"):
        pass
    totals = times.totals()
    assert totals.keys() == {*KINDS, "other"}
    assert sum(totals.values()) == pytest.approx(times.held_s, abs=0.05)
    assert times["storage"] > 0
