"""A table of commands in, the parser of a program out; only the command that is asked for gets its options.

Shared by the project's programs. Knows nothing about what the commands do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any

# Adds a command's options, its description, and its function as `command`.
Declare = Callable[[argparse.ArgumentParser], None]


def command_parser(program: str, about: str, commands: Mapping[str, tuple[Declare, str]]) -> argparse.ArgumentParser:
    """The parser of a program with commands.

    Args:
        program: Its name.
        about: What it is for.
        commands: By its name, what declares a command, and what the program's `--help` says of it.
    """
    parser = argparse.ArgumentParser(program, description=about)
    add_version(parser)
    adding = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser)
    for name, (declare, what) in commands.items():
        adding.add_parser(name, help=what, declare=declare)
    return parser


def add_version(parser: argparse.ArgumentParser) -> None:
    """Add `--version`, the same of all programs."""
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('fbft-edge')}")


class _CommandParser(argparse.ArgumentParser):
    """Has no options until its command is asked for; those inside of a command have theirs from the start."""

    def __init__(self, *, declare: Declare | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._declare = declare

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the options first, and parse."""
        declare, self._declare = self._declare, None
        if declare is not None:
            declare(self)
        return super().parse_known_args(args, namespace)
