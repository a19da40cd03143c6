"""The command `fbft-edge`: arguments in, an exit status out; only the command that is asked for is loaded.

Exit statuses are those of `fbft_edge.cli.exit_status`; `inspect` also ends with 1 when an image got no verdict (or,
with `--fail-on-anomaly`, an anomalous one). Knows nothing about what the commands do.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from fbft_edge.cli.commands import command_parser
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
    commands = {name: (partial(_declare, module, name), about) for name, (module, about) in COMMANDS.items()}
    return command_parser("fbft-edge", "Visual inspection on the line: frames in, verdicts and masks out.", commands)


def _declare(module: str, name: str, parser: argparse.ArgumentParser) -> None:
    """Let a command's module add its options."""
    getattr(import_module(f"fbft_edge.cli.{module}"), f"add_{name.replace('-', '_')}")(parser)
