"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from postgres import Postgres
from postgres import postgres as started_postgres

# Warnings are errors in tests; these come from inside other people's packages.
OTHERS = (
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",  # torch._inductor, on its first compile
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for other in OTHERS:
            item.add_marker(pytest.mark.filterwarnings(other))
    # The longest test goes first: two processes share the tests, and none of them is to wait for it in the end.
    items.sort(key=lambda item: "test_readme" not in item.nodeid)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A line of each test that recorded one, also where another process ran it: what the chaos suite counted."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    told = [value for report in reports for name, value in getattr(report, "user_properties", ()) if name == "counted"]
    for line in dict.fromkeys(told):
        terminalreporter.write_line(line)


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """A single thread of PyTorch's: two of them wait for each other on a busy machine (measured: 9 times slower)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL server, the same for all tests; each takes a database of its own."""
    with started_postgres() as started:
        yield started
