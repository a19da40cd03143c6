"""The command `fbft-edge`: arguments in, an exit status out; only the command that is asked for is loaded.

Exit statuses are those of `fbft_edge.cli.exit_status`; `inspect` also ends with 1 when an image got no verdict (or,
with `--fail-on-anomaly`, an anomalous one). Knows nothing about what the commands do.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from importlib.metadata import version
from typing import Any

from fbft_edge.cli.exit_status import exit_status

# Name: module of this folder whose `add_NAME` declares the options, and what `--help` says of the command.
COMMANDS = {
    "demo": ("files", "the whole job on synthetic parts, no hardware needed"),
    "run": ("line", "inspect a camera's frames and publish the results"),
    "check-config": ("line", "what a configuration would run, and what would stop it"),
    "install-service": ("line", "print a systemd unit for a line"),
    "inspect": ("files", "inspect image files"),
    "listen": ("line", "show the messages of a publisher"),
    "command": ("line", "trigger a camera, ask a running line for its status, give it another bundle"),
    "bench": ("files", "time every stage of a frame"),
    "doctor": ("files", "what this machine can run, and what is missing"),
    "replay": ("files", "run recordings through a bundle again"),
    "sign": ("keys", "sign a bundle for lines that trust your key"),
    "verify": ("keys", "check that a bundle is whole, and who signed it"),
    "keygen": (
        "keys",
        "make a CURVE key pair for a line or for a program that reads or commands it, or one that signs bundles",
    ),
    "bridge": ("bridge", "show results to a PLC: Modbus TCP, OPC UA or MQTT"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = command_line().parse_args(argv)
    return exit_status("fbft-edge", lambda: int(args.command(args)))


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands; what it returns has the command's function as `command`."""
    parser = argparse.ArgumentParser(
        prog="fbft-edge", description="Visual inspection on the line: frames in, verdicts and masks out."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('fbft-edge')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_CommandParser)
    for name, (module, about) in COMMANDS.items():
        commands.add_parser(name, help=about, declare=partial(_declare, module, name))
    return parser


def _declare(module: str, name: str, parser: argparse.ArgumentParser) -> None:
    """Let a command's module add its options."""
    getattr(import_module(f"fbft_edge.cli.{module}"), f"add_{name.replace('-', '_')}")(parser)


class _CommandParser(argparse.ArgumentParser):
    """Has no options until its command is asked for; those inside of a command have theirs from the start."""

    def __init__(self, *, declare: Callable[[argparse.ArgumentParser], None] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._declare = declare

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Add the options first, and parse."""
        if self._declare is not None:
            self._declare(self)
            self._declare = None
        return super().parse_known_args(args, namespace)
