"""What all tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from postgres import Postgres
from postgres import postgres as started_postgres

# Two threads of PyTorch's wait for each other on a busy machine (measured: 9 times slower), and tests run side by side.
# What is about threads asks for two.
torch.set_num_threads(1)

# What CI's quarter of an hour has no room for: each is another case of a test that it runs, or is covered by the chaos
# suite on other stores. `pytest --long` runs them too.
LONG = (
    "engine/test_promise.py::test_compiled_fits_are_their_own_too[odd sizes]",
    "engine/test_groups.py::test_compiled_too",
    "engine/test_groups.py::test_bfloat16_products_are_near_and_a_fits_own[True]",
    "price/test_truth.py::test_intervals_cover_what_they_promise[measurement-192]",
    "scheduler/test_saving.py::test_a_sweep_that_was_stopped_again_and_again_trains_no_epoch_twice[folds]",
    "scheduler/test_saving.py::test_a_sweep_that_was_stopped_again_and_again_trains_no_epoch_twice[tpe]",
    "test_worker.py::test_a_worker_that_runs_out_of_memory_goes_on_with_half_its_slots[in the first tick-random]",
    "test_worker.py::test_a_worker_that_runs_out_of_memory_goes_on_with_half_its_slots[in the first tick-tpe]",
    "test_worker.py::test_a_worker_that_runs_out_of_memory_goes_on_with_half_its_slots[in a later one-random]",
    "search/test_replay.py::test_an_interrupted_study_goes_on_as_if_it_never_had_been[gp-mixed-",
    "test_courier.py::test_a_courier_that_was_killed_leaves_no_run_twice[before its first run]",
    "test_courier.py::test_a_courier_that_was_killed_leaves_no_run_twice[with a run that has no results yet]",
    "test_courier.py::test_a_courier_that_was_killed_leaves_no_run_twice[with a run that is not ended yet]",
    "test_courier.py::test_a_courier_that_was_killed_leaves_no_run_twice[before the ledger knows of the first batch]",
    "test_courier.py::test_couriers_killed_at_random_moments_leave_no_run_twice",
    "test_resume.py::test_killed_at_random_moments[random-1]",
    "test_resume.py::test_killed_at_random_moments[random-2]",
    "test_resume.py::test_killed_at_random_moments[tpe-1]",
    "test_resume.py::test_killed_at_random_moments[tpe-2]",
    "cluster/test_ray.py::test_a_run_that_is_told_to_end_has_its_worker_give_back_what_it_has",
    "cli/test_commands.py::test_the_dashboard_serves_on_loopback_until_it_is_ended[15]",
)

# Warnings are errors in tests; these come from inside other people's packages.
OTHERS = (
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",  # torch._inductor, on its first compile
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also what CI has no time for")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        long = [item for item in items if any(name in item.nodeid for name in LONG)]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]
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
