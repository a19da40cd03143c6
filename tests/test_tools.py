"""The table of tools is complete, and what it names answers."""

from __future__ import annotations

import multiprocessing
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path

import pytest

from tools.soak.board import MODBUS, Board
from tools.soak.place import GOOD
from tools.soak.shown import Judge, Look

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


SECOND_NS = 10**9


@pytest.mark.parametrize(
    ("age_s", "verdict", "sequence", "words"),
    [
        (0.15, "ok", 1, ""),
        (0.25, "ok", 1, "sent 250 ms ago"),
        (0.15, "stale", 1, "says stale"),
        (0.15, "ok", 2, "never came"),
    ],
)
def test_the_soak_tells_a_good_that_is_old_or_that_the_line_never_said(
    age_s: float, verdict: str, sequence: int, words: str
) -> None:
    judge = Judge(10.0, 1.0, Board(multiprocessing.get_context("spawn")))
    said = {"camera": GOOD, "sequence": 1, "frame_id": 1, "verdict": verdict}
    judge.hear({**said, "captured_ns": 5 * SECOND_NS, "published_ns": 5 * SECOND_NS}, 7 * SECOND_NS)
    judge.look(Look(MODBUS, GOOD, 7 + age_s, 7 + age_s, True, sequence))
    judge.judge()
    told = judge.shown[MODBUS, GOOD].problems
    assert (bool(told), words in "".join(told)) == (bool(words), True), told
