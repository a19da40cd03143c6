"""The table of tools is complete, and what it names answers."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "tools" / "README.md").read_text(encoding="utf-8")
# Those that import torch take many seconds to say what they can do; mypy holds what they import.
QUICK = (
    "bench_bridge",
    "bench_sharpening",
    "check_publisher",
    "fuzzing",
    "gpu_acceptance",
    "measure_half_precision",
    "release",
    "soak",
)


def test_every_tool_stands_in_the_table() -> None:
    files = {f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py")}
    folders = {f"tools.{path.parent.name}" for path in (ROOT / "tools").glob("*/__main__.py")}
    assert set(re.findall(r"^\| `python3? (?:-m )?(tools[\w./]+)", PAGE, re.MULTILINE)) == files | folders


def test_every_link_of_the_table_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?://)([^)#]+)", PAGE)
    assert [link for link in links if not (ROOT / "tools" / link).exists()] == []


def test_every_extra_that_a_tool_needs_exists() -> None:
    extras = metadata("fbft-edge").get_all("Provides-Extra")
    named = re.findall(r"extras? ((?:`[\w-]+`(?: and )?)+)", PAGE)
    assert {name for text in named for name in re.findall(r"`([\w-]+)`", text)} <= set(extras or ())


@pytest.mark.parametrize("tool", QUICK)
def test_a_tool_says_what_it_can_do(tool: str) -> None:
    command = [sys.executable, "-m", f"tools.{tool}", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "--help" in done.stdout, done.stderr) == (0, True, "")
