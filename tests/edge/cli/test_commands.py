"""Every command stands in one table; asking for help loads nothing that only the work needs."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import fbft_edge
from fbft_edge.cli.main import COMMANDS, command_line, main

EDGE = Path(fbft_edge.__file__).parent
HEAVY = ("cv2", "numpy", "openvino", "rich", "zmq")
HELP = """
import sys
import fbft_edge
from fbft_edge.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ended:
    print([ended.code, *sorted(set(sys.modules) & {HEAVY})])
"""
LOADED = """
import sys
import fbft_edge
from fbft_edge.cli.main import COMMANDS, command_line
try:
    command_line().parse_args(["sign", "--help"])
except SystemExit:
    print(*{module for module, _ in COMMANDS.values() if f"fbft_edge.cli.{module}" in sys.modules})
"""
WITHIN = {"command": ("reload", "status", "trigger"), "bridge": ("modbus", "mqtt", "opcua")}


@pytest.mark.parametrize(
    "arguments", [(), *((name,) for name in COMMANDS), *((name, one) for name in WITHIN for one in WITHIN[name])]
)
def test_help_loads_nothing_heavy(arguments: Sequence[str]) -> None:
    program = HELP.replace("HEAVY", repr(set(HEAVY)).strip("{}"))
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--help"], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[0]"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_of_the_table_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    usage, about, *_ = capsys.readouterr().out.split("\n\n")
    assert (ended.value.code, usage.split()[:3], ":" in about.split()[0]) == (0, ["usage:", "fbft-edge", name], False)


def test_the_help_lists_every_command_with_what_it_is_for() -> None:
    listed = " ".join(command_line().format_help().split())
    assert [name for name, (_, about) in COMMANDS.items() if f" {name} {about}" not in listed] == []


def test_only_the_module_of_a_command_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "keys"


@pytest.mark.parametrize("room", sorted(path.name for path in EDGE.iterdir() if path.is_dir() and path.name != "cli"))
def test_what_is_drawn_for_a_person_is_drawn_by_the_command_line_alone(room: str) -> None:
    """Whatever else runs, from Python too, hands back what it found."""
    sources = {path.name: path.read_text(encoding="utf-8") for path in (EDGE / room).rglob("*.py")}
    assert [name for name, source in sources.items() if re.search(r"^\s*(from|import) rich\b", source, re.M)] == []
