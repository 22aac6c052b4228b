"""Warnings are errors in tests; these come from inside other people's packages."""

from __future__ import annotations

import pytest

OTHERS = (
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning",  # torch._inductor, on its first compile
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for other in OTHERS:
            item.add_marker(pytest.mark.filterwarnings(other))
    # The longest test goes first: two processes share the tests, and none of them is to wait for it in the end.
    items.sort(key=lambda item: "test_readme" not in item.nodeid)
