"""More trials are written into the text of a sweep file; whatever else it says, and how, stays."""

from __future__ import annotations

from dataclasses import replace

import pytest

from small import small_text
from sweeper.config import parse_sweep, with_trials
from sweeper.errors import SweepFileError

LAYOUTS = {
    "in one line": small_text(),
    "over several lines, with comments": small_text(
        (
            "search: {sampler: random, trials: 5, replicates: 2}",
            "search:  # how\n  # the trials: 5 of each\n  trials: 5   # more later\n  replicates: 2\n  sampler: random",
        )
    ),
    "behind characters of several bytes": "# für größere 5 später: 🙂\n" + small_text(),
    "with the line ends of another system": small_text().replace("\n", "\r\n"),
    "quoted key": small_text(("trials: 5", '"trials": 5')),
}


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_only_the_number_changes(text: str):
    before = parse_sweep(text, "small.yaml", ".")
    after = with_trials(before, 12)
    assert after.sweep.search.trials == 12
    assert after.sweep.model_dump() | {"search": None} == before.sweep.model_dump() | {"search": None}
    key = "trials: 5" if "trials: 5 " in text or "trials: 5," in text else '"trials": 5'
    head, _, tail = text.rpartition(key)
    assert after.text == head + key.replace("5", "12") + tail


def test_a_text_that_says_it_in_no_plain_way_is_left_to_its_user():
    file = replace(parse_sweep(small_text(), "small.yaml", "."), text="name: small\n")
    with pytest.raises(
        SweepFileError, match=r"small.yaml:5: .*Write trials: 9 into the file itself.*sweeper run small"
    ):
        with_trials(file, 9)
