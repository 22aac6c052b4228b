"""Commands that are imported when they are called: `sweeper status` has no use for PyTorch, which loads for seconds.

For the list of commands their help is read off the source, in milliseconds, without importing what they need.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

_PLAIN: Mapping[str, Any] = {
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
    "context_settings": {"help_option_names": ["-h", "--help"]},
}


@dataclass(frozen=True)
class Command:
    """Where a command is.

    Attributes:
        module: of `sweeper.cli`; function: in it.
        example: of its use.
    """

    module: str
    function: str
    example: str

    def load(self, name: str) -> Any:
        """The command, its module imported."""
        one = typer.Typer(**_PLAIN, add_completion=False)
        function = getattr(import_module(f"sweeper.cli.{self.module}"), self.function)
        one.command(name, epilog=f"Example: {self.example}")(function)
        return typer.main.get_command(one)

    def outline(self, name: str) -> TyperCommand:
        """Its name and help alone."""
        spec = find_spec(f"sweeper.cli.{self.module}")
        assert spec is not None
        assert spec.origin is not None
        for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name == self.function:
                return TyperCommand(name, help=ast.get_docstring(node), rich_markup_mode=None)
        raise AssertionError(f"sweeper.cli.{self.module} has no function {self.function}")


Commands = Mapping[str, Command | Mapping[str, Command]]


def lazy_app(
    name: str, about: str, epilog: str, commands: Commands, groups: Mapping[str, str], *, completes: bool = True
) -> typer.Typer:
    """An application of commands that are not imported yet.

    Args:
        name: what it is called.
        about: its help.
        epilog: the last line of it.
        commands: by name; a mapping is a group of them.
        groups: the help of each group.
        completes: whether it can install completion for a shell.
    """
    lazy = _lazy(commands, groups)
    app = typer.Typer(
        name=name, cls=lazy, help=about, epilog=epilog, no_args_is_help=True, add_completion=completes, **_PLAIN
    )
    app.callback()(lambda: None)  # it is a group, though none of its commands is there yet
    return app


def _lazy(commands: Commands, groups: Mapping[str, str]) -> type[TyperGroup]:
    """A group that knows its commands by name; Any stands for types of Click, which Typer may bring along itself."""

    class Lazy(TyperGroup):
        def list_commands(self, ctx: Any) -> list[str]:
            return list(commands)

        def get_command(self, ctx: Any, cmd_name: str) -> Any:
            found = commands.get(cmd_name)
            if isinstance(found, Command):
                return found.load(cmd_name)
            inner = found and lazy_app(cmd_name, groups[cmd_name], "", found, {}, completes=False)
            return typer.main.get_command(inner) if inner else None

        def format_commands(self, ctx: Any, formatter: Any) -> None:
            outlines: dict[str, Any] = {
                name: found.outline(name) if isinstance(found, Command) else TyperCommand(name, help=groups[name])
                for name, found in commands.items()
            }
            TyperGroup(commands=outlines, rich_markup_mode=None).format_commands(ctx, formatter)

    return Lazy
