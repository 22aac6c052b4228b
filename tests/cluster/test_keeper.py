"""What an actor does for its worker, without Ray."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from sweeper import child
from sweeper.cluster import Keeper, Look, Order, keeper

UNTIL_CLOSED = """
import sys
print("at work", file=sys.stderr, flush=True)
sys.stdin.read()
print("saved", file=sys.stderr)
"""
THIRD_TIME_LUCKY = """
import pathlib, sys
starts = pathlib.Path("starts")
before = starts.read_text() if starts.exists() else ""
starts.write_text(before + "x")
sys.exit(0 if before == "xx" else 9)
"""


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Workers are programs of a line; they are started from this test's folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(keeper, "AGAIN_S", 0.05)

    def start(
        argv: Sequence[str], environment: Mapping[str, str], threads: int, errors: int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, *argv], env={**environment}, stdin=subprocess.PIPE, stderr=errors)

    monkeypatch.setattr(child, "start", start)


def kept(program: str, **environment: str) -> Keeper:
    return Keeper(Order(("-c", program), environment, 1, 0, "nowhere"), node="10.0.0.7 (1f)")


def looks(one: Keeper, enough: Callable[[list[Look]], bool]) -> list[Look]:
    """Looks until there are enough of them."""
    seen: list[Look] = []
    deadline = time.monotonic() + 30
    while not seen or not enough(seen):
        assert time.monotonic() < deadline, seen
        seen.append(one.look())
        time.sleep(0.01)
    return seen


def lines(seen: list[Look]) -> list[str]:
    return [line for look in seen for line in look.lines]


def test_what_a_worker_says_is_told_once_and_its_end_is_seen():
    seen = looks(kept("import sys; print('one\\n\\ntwo', file=sys.stderr)"), lambda seen: seen[-1].code == 0)
    assert lines(seen) == ["one", "", "two"]
    assert {look.node for look in seen} == {"10.0.0.7 (1f)"}


def test_a_worker_that_crashes_is_started_again_after_a_pause(tmp_path: Path):
    seen = looks(kept(THIRD_TIME_LUCKY), lambda seen: seen[-1].code == 0)
    assert lines(seen) == [
        "ended with 9; it is started again in 0.05 s",
        "ended with 9; it is started again in 0.1 s",
    ]
    assert all(look.code is None for look in seen[:-1])
    assert (tmp_path / "starts").read_text() == "xxx"


def test_a_worker_whose_user_has_something_to_mend_is_not_started_again():
    one = kept("import sys; sys.exit(2)")
    looks(one, lambda seen: seen[-1].code == 2)
    assert one.look().code == 2


def test_parting_lets_a_worker_save_and_end():
    one = kept(UNTIL_CLOSED)
    seen = looks(one, lambda seen: "at work" in lines(seen))
    one.part()
    seen = looks(one, lambda seen: seen[-1].code == 0 and "saved" in lines(seen))
    assert lines(seen) == ["saved"]


def test_a_worker_that_dies_as_it_is_parted_from_stays_dead():
    one = kept("import sys; sys.stdin.read(); sys.exit(9)")
    one.part()
    looks(one, lambda seen: seen[-1].code == 9)
    assert one.look().code == 9


def test_an_order_shows_no_environment():
    """It is an actor's argument: an error of Ray's might show it."""
    assert "secret" not in repr(Order(("worker",), {"SWEEPER_STORE": "postgresql://me:secret@db/x"}, 1, 0, "/"))
