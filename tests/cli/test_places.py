"""The options that lead the next command to the same places."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeper.cli.places import HOME, Places

STORE = "postgresql://sweeper@db/sweeper"


@pytest.mark.parametrize(
    ("home", "store", "variable", "hint"),
    [
        (HOME, None, None, ""),
        (Path("elsewhere"), None, None, " --home elsewhere"),
        (HOME, STORE, None, f" --store {STORE}"),
        (HOME, STORE, STORE, ""),
        (Path("elsewhere"), STORE, None, f" --home elsewhere --store {STORE}"),
    ],
)
def test_what_is_to_be_repeated(
    monkeypatch: pytest.MonkeyPatch, home: Path, store: str | None, variable: str | None, hint: str
) -> None:
    monkeypatch.delenv("SWEEPER_STORE", raising=False)
    if variable is not None:
        monkeypatch.setenv("SWEEPER_STORE", variable)
    assert Places.of(home, store).hint == hint


def test_a_password_is_not_repeated() -> None:
    assert "secret" not in Places.of(HOME, "postgresql://sweeper:secret@db/sweeper").hint
