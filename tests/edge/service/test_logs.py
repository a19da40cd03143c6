"""One line per event, machine-readable when asked for; repeats are counted, and nobody who logs ever waits."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from waiting import wait_until

from fbft_edge.errors import CameraError
from fbft_edge.service.logs import MAX_QUEUED, LineHandler, logging_to_stderr


class Sink:
    """A logger that writes to a pipe, and what was read from it."""

    def __init__(self, style: str, repeat_s: float) -> None:
        self._read, self._write = os.pipe()
        self.handler = LineHandler(style, self._write, repeat_s)
        self.log = logging.Logger("test")
        self.log.addHandler(self.handler)

    def text(self) -> str:
        """Everything that was written, the handler closed."""
        self.handler.close()
        os.close(self._write)
        with open(self._read, encoding="utf-8") as file:  # noqa: PTH123
            return file.read()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


def test_a_json_line_has_time_level_camera_and_event() -> None:
    sink = Sink("json", 60)
    sink.log.error("no frame for %d s", 5, extra={"camera": "press-1"})
    (line,) = sink.lines()
    assert {key: line[key] for key in ("level", "camera", "event")} == {
        "level": "error",
        "camera": "press-1",
        "event": "no frame for 5 s",
    }
    assert line["time"].endswith("Z")


def test_whatever_stands_in_an_event_it_is_one_line_of_json() -> None:
    sink = Sink("json", 60)
    event = 'quote " newline \n escape \x1b[2J surrogate \ud800 umlaut \u00e4 separator \u2028'
    sink.log.warning("%s", event)
    text = sink.text()
    assert (len(text.splitlines()), json.loads(text)["event"]) == (1, event)


def test_an_exception_keeps_its_traceback_within_the_line() -> None:
    sink = Sink("json", 60)
    try:
        raise ValueError("bad")
    except ValueError:
        sink.log.exception("failed")
    (line,) = sink.lines()
    assert "ValueError: bad" in line["traceback"]


def test_text_is_for_people_and_harmless_to_a_terminal() -> None:
    sink = Sink("text", 60)
    sink.log.warning("clear \x1b[2J\nnext \u202e", extra={"camera": "press-1"})
    text = sink.text()
    assert text.endswith("warning  press-1: clear ?[2J next ?\n")


def test_the_same_line_is_written_once_and_its_repeats_are_counted_at_the_end() -> None:
    sink = Sink("json", 60)
    for _ in range(1000):
        sink.log.error("no frame", extra={"camera": "press-1"})
    assert [line.get("repeated") for line in sink.lines()] == [None, 999]


def test_a_line_that_comes_again_later_is_written_again_with_the_count_between() -> None:
    sink = Sink("json", 0.05)
    sink.log.error("no frame")
    sink.log.error("no frame")
    time.sleep(0.1)
    sink.log.error("no frame")
    assert [line.get("repeated") for line in sink.lines()] == [None, 1]


def test_repeats_are_told_by_the_next_line_of_any_kind() -> None:
    sink = Sink("json", 0.05)
    sink.log.error("no frame")
    sink.log.error("no frame")
    time.sleep(0.1)
    sink.log.info("reloaded")
    assert [(line["event"], line.get("repeated")) for line in sink.lines()] == [
        ("no frame", None),
        ("no frame", 1),
        ("reloaded", None),
    ]


@pytest.mark.parametrize("field", ["camera", "level", "event"])
def test_lines_that_differ_in_anything_are_not_repeats(field: str) -> None:
    sink = Sink("json", 60)
    sink.log.log(logging.ERROR, "no frame", extra={"camera": "press-1"})
    level, camera, event = {
        "camera": (logging.ERROR, "press-2", "no frame"),
        "level": (logging.WARNING, "press-1", "no frame"),
        "event": (logging.ERROR, "press-1", "no light"),
    }[field]
    sink.log.log(level, event, extra={"camera": camera})
    assert len(sink.lines()) == 2


def test_ever_new_lines_take_no_more_memory() -> None:
    sink = Sink("text", 60)
    for index in range(2000):
        sink.log.debug("line %d", index)
    remembered = len(sink.handler._written)
    sink.text()
    assert remembered < 300


def test_logging_never_waits_for_a_reader_and_says_how_much_it_left_out() -> None:
    sink = Sink("json", 60)
    for index in range(3 * MAX_QUEUED):
        sink.log.info("%d %s", index, "x" * 1000)
    os.set_blocking(sink._read, False)
    received = bytearray()

    def read() -> bytearray:
        with contextlib.suppress(BlockingIOError):
            received.extend(os.read(sink._read, 1 << 20))
        return received

    wait_until(read, "what was left out", lambda seen: b"left out" in seen)
    os.set_blocking(sink._read, True)
    rest = sink.text().encode()
    lines = [json.loads(line) for line in (received + rest).splitlines()]
    lost = next(int(line["event"].split()[0]) for line in lines if "left out" in line["event"])
    assert lost + len(lines) - 1 == 3 * MAX_QUEUED


@pytest.fixture
def journal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    before = os.pipe

    def piped() -> tuple[int, int]:
        read, write = before()
        status = os.fstat(write)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        return read, write

    monkeypatch.setattr(os, "pipe", piped)
    return Sink("json", 60)


@pytest.mark.parametrize(("level", "prefix"), [(logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>")])
def test_the_journal_is_told_the_level_of_each_line(journal: Sink, level: int, prefix: str) -> None:
    journal.log.log(level, "x")
    assert journal.text().startswith(f'{prefix}{{"time"')


PROGRAM = """
import logging
from fbft_edge.errors import CameraError
from fbft_edge.service.logs import logging_to_stderr
with logging_to_stderr("json"):
    logging.getLogger("fbft_edge.line.pipeline").info("engine: %s", "OpenVINO")
    logging.getLogger("asyncio").info("not ours, and no warning")
    raise {error}
"""


@pytest.mark.parametrize(("error", "has_traceback"), [("CameraError('gone')", False), ("ValueError('gone')", True)])
def test_what_ends_a_program_is_its_last_json_line(error: str, has_traceback: bool) -> None:
    code = PROGRAM.format(error=error)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    first, last = (json.loads(line) for line in done.stderr.splitlines()[:2])
    assert (first["event"], last["level"], "gone" in last["event"]) == ("engine: OpenVINO", "critical", True)
    assert ("traceback" in last) is has_traceback


def test_logging_is_as_before_after_the_block() -> None:
    before = list(logging.getLogger().handlers), logging.getLogger("fbft_edge").level
    with contextlib.suppress(CameraError), logging_to_stderr("text"):
        raise CameraError("gone")
    assert (list(logging.getLogger().handlers), logging.getLogger("fbft_edge").level) == before
