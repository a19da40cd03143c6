"""The table of tools is complete, and what it names answers."""

from __future__ import annotations

import multiprocessing
import random
import re
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest

from tools.soak.board import EXITS, MODBUS, Board
from tools.soak.clients import Look
from tools.soak.place import GOOD
from tools.soak.report import growth, is_flat, judged_unfit
from tools.soak.shown import Judge

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
MIB = 1024


def message(verdict: str = "ok", *, session: str = "one", sequence: int = 1, at_s: int = 5) -> dict[str, Any]:
    told = {"camera": GOOD, "session": session, "sequence": sequence, "frame_id": sequence, "verdict": verdict}
    return {**told, "captured_ns": at_s * SECOND_NS, "published_ns": at_s * SECOND_NS}


@pytest.fixture
def judge() -> Judge:
    return Judge(10.0, 1.0, Board(multiprocessing.get_context("spawn")))


@pytest.mark.parametrize("exit_", EXITS)
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
    judge: Judge, exit_: str, age_s: float, verdict: str, sequence: int, words: str
) -> None:
    judge.hear(message(verdict), 7 * SECOND_NS)
    judge.look(Look(exit_, GOOD, 7 + age_s, 7 + age_s, True, sequence))
    judge.judge()
    told = judge.shown[exit_, GOOD].problems
    assert (bool(told), words in "".join(told)) == (bool(words), True), told


@pytest.mark.parametrize(("sequence", "words"), [(1, "never came"), (2, "")])
def test_the_soak_believes_nothing_that_a_line_said_before_it_was_started_again(
    judge: Judge, sequence: int, words: str
) -> None:
    judge.hear(message(), 7 * SECOND_NS)
    judge.hear(message(session="two", sequence=2, at_s=100), 9 * SECOND_NS)
    judge.look(Look(MODBUS, GOOD, 9.1, 9.1, True, sequence))
    judge.judge()
    told = judge.shown[MODBUS, GOOD].problems
    assert (bool(told), words in "".join(told)) == (bool(words), True), told


def test_the_soak_tells_a_picture_that_was_judged_and_builds_on_a_lost_one(judge: Judge) -> None:
    for sequence, at_s in enumerate((5, 6, 7, 8), 1):
        judge.hear(message("anomalous", sequence=sequence, at_s=at_s), at_s * SECOND_NS)
    assert judged_unfit({"judged_pictures": judge.judged, "unfit_pictures": [4, 7, 9]}) == [7]


@pytest.mark.parametrize(
    ("first_mib", "leak_mib", "flat"), [(60, 0.0, True), (60, 3.0, True), (60, 6.0, False), (900, 6.0, True)]
)
def test_the_soak_tells_memory_that_grows_by_the_hour(first_mib: float, leak_mib: float, flat: bool) -> None:
    pictures_mib = random.Random(0).choices((0, 36, 72, 108), k=360)
    samples = [
        {"elapsed_s": at_s, "rss_kib": MIB * (first_mib + leak_mib * at_s / 3600 + held_mib)}
        for at_s, held_mib in zip(range(0, 3600, 10), pictures_mib, strict=True)
    ]
    assert is_flat(growth(samples, "rss_kib")) is flat
