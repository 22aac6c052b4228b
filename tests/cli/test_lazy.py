"""Commands that only look load nothing that trains, and the list of commands imports none of them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.main import get_command

from sweeper.cli.app import app

LOADED = """
import sys
from sweeper.cli import main
sys.argv = ["sweeper", *{argv!r}]
try:
    main()
except SystemExit:
    pass
print([name for name in {heavy!r} if name in sys.modules])
"""
HEAVY = ["torch", "mlflow", "optuna", "sklearn", "scipy", "sqlalchemy", "sweeper.cli.look"]


def loaded(*argv: str) -> str:
    """Which heavy modules a command has imported by its end."""
    code = LOADED.format(argv=list(argv), heavy=HEAVY)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_list_of_commands_imports_none_of_them():
    assert loaded("--help").splitlines()[-1] == "[]"


@pytest.mark.parametrize("argv", [("status",), ("trials", "x"), ("best", "x"), ("price", "x"), ("mlflow", "sync")])
def test_what_only_looks_loads_nothing_that_trains(argv: tuple[str, ...]):
    found = loaded(*argv, "--home", "nowhere").splitlines()[-1]
    assert "sqlalchemy" in found
    assert "torch" not in found
    assert "sklearn" not in found


def test_the_list_says_what_each_command_says_of_itself():
    group = get_command(app)
    listed = group.get_help(group.make_context("sweeper", [], resilient_parsing=True))
    for name in group.list_commands(None):
        help_ = group.get_command(None, name).help
        assert help_
        assert help_.split("\n")[0][:40] in listed
