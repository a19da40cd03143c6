"""Log records in, lines on standard error out: JSON for machines or text for people, never a flood.

Whoever logs never waits: a thread of its own writes, and when nobody reads standard error, lines are left out and
counted. Knows nothing about what is logged; a record's camera stands in `extra={"camera": name}`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from queue import Full, Queue
from typing import Any

from fbft_edge.errors import FbftError
from fbft_edge.names import one_line

STYLES = ("text", "json")
REPEAT_S = 60.0
MAX_REMEMBERED = 256
MAX_QUEUED = 1000
CLOSE_TIMEOUT_S = 1.0

_SYSLOG_LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}


@contextlib.contextmanager
def logging_to_stderr(style: str, level: int = logging.INFO, repeat_s: float = REPEAT_S) -> Iterator[None]:
    """Send the project's records from `level` on, and everyone's warnings, to standard error inside the block.

    An exception that leaves the block is a record, too, before it goes on, except a user error in a text, which the
    command line tells anyway.

    Args:
        style: One of `STYLES`.
        level: Of `logging`.
        repeat_s: The same line is written once in so long, with the count of those left out.
    """
    root, project = logging.getLogger(), logging.getLogger("fbft_edge")
    level_before = project.level
    handler = LineHandler(style, _descriptor_of_stderr(), repeat_s)
    root.addHandler(handler)
    project.setLevel(level)
    try:
        yield
    except FbftError as error:
        if style == "json":
            project.critical("ended by %s: %s", type(error).__name__, error)
        raise
    except Exception as error:
        project.critical("ended by %s: %s", type(error).__name__, error, exc_info=True)
        raise
    finally:
        project.setLevel(level_before)
        root.removeHandler(handler)
        handler.close()


@dataclass(frozen=True, slots=True)
class _Line:
    time_s: float
    level: str
    camera: str | None
    event: str
    traceback: str | None = None


@dataclass(slots=True)
class _Written:
    at_s: float
    last: _Line
    repeats: int = 0


class LineHandler(logging.Handler):
    """Writes each record as one line to a file descriptor; the same line again is counted instead for a while.

    Under systemd's journal each line begins with its level, which the journal takes off again.

    Args:
        style: One of `STYLES`.
        descriptor: Where to; stays open.
        repeat_s: How long a line is not written again.
    """

    def __init__(self, style: str, descriptor: int, repeat_s: float = REPEAT_S) -> None:
        super().__init__()
        self._style, self._descriptor, self._repeat_s = style, os.dup(descriptor), repeat_s
        self._is_journal = _is_journal(descriptor)
        self._written: OrderedDict[tuple[str, str | None, str], _Written] = OrderedDict()
        self._lost = 0
        self._is_closing = False
        self._queue: Queue[bytes | None] = Queue(MAX_QUEUED)
        self._thread = threading.Thread(target=self._write, name="fbft-log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        try:
            self._add(_line_of(record))
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        """Write what is left, giving a reader 1 s; may be called twice."""
        with self.lock or contextlib.nullcontext():
            self._forget(None)
        self._is_closing = True
        with contextlib.suppress(Full):
            self._queue.put_nowait(None)
        self._thread.join(CLOSE_TIMEOUT_S)
        super().close()

    def _add(self, line: _Line) -> None:
        key, now_s = (line.level, line.camera, line.event), time.monotonic()
        repeats = self._forget(now_s, key)
        written = self._written.get(key)
        if written is None:
            self._written[key] = _Written(now_s, line)
            self._put(line, repeats)
        else:
            written.last, written.repeats = line, written.repeats + 1

    def _forget(self, now_s: float | None, wanted: tuple[str, str | None, str] | None = None) -> int:
        """Drop what was written long ago (everything at None), saying how often it came again.

        Returns:
            How often the wanted line did, which is then not said here.
        """
        repeats = 0
        while self._written:
            key, written = next(iter(self._written.items()))
            is_young = now_s is not None and now_s < written.at_s + self._repeat_s
            if is_young and len(self._written) <= MAX_REMEMBERED:
                break
            del self._written[key]
            if key == wanted:
                repeats = written.repeats
            elif written.repeats:
                self._put(written.last, written.repeats)
        return repeats

    def _put(self, line: _Line, repeats: int) -> None:
        text = _json_line(line, repeats) if self._style == "json" else _text_line(line, repeats)
        prefix = f"<{_SYSLOG_LEVELS.get(line.level, 6)}>" if self._is_journal else ""
        try:
            self._queue.put_nowait(f"{prefix}{text}\n".encode(errors="backslashreplace"))
        except Full:
            self._lost += 1

    def _write(self) -> None:
        while (line := self._queue.get()) is not None:
            _write_all(self._descriptor, line)
            if self._lost and self._queue.empty():
                self._say_lost()
            if self._is_closing and self._queue.empty():
                break
        os.close(self._descriptor)

    def _say_lost(self) -> None:
        with self.lock or contextlib.nullcontext():
            lost, self._lost = self._lost, 0
            self._put(_Line(time.time(), "warning", None, f"{lost} log lines were left out: nobody read them"), 0)


def _line_of(record: logging.LogRecord) -> _Line:
    traceback = logging.Formatter().formatException(record.exc_info) if record.exc_info else None
    camera = getattr(record, "camera", None)
    return _Line(record.created, record.levelname.lower(), camera, record.getMessage(), traceback)


def _json_line(line: _Line, repeats: int) -> str:
    members: dict[str, Any] = {"time": _iso_time(line.time_s), "level": line.level}
    members |= {"camera": line.camera, "event": line.event}
    if repeats:
        members["repeated"] = repeats
    if line.traceback is not None:
        members["traceback"] = line.traceback
    return json.dumps(members)


def _text_line(line: _Line, repeats: int) -> str:
    camera = "" if line.camera is None else f" {line.camera}:"
    repeated = f" (and {repeats} times more before)" if repeats else ""
    traceback = "" if line.traceback is None else f"\n{line.traceback}"
    return f"{_iso_time(line.time_s)} {line.level:8}{camera} {one_line(line.event)}{repeated}{traceback}"


def _iso_time(time_s: float) -> str:
    text = datetime.fromtimestamp(time_s, timezone.utc).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def _descriptor_of_stderr() -> int:
    try:
        return sys.stderr.fileno()
    except OSError:  # replaced by something that is no file
        return 2


def _is_journal(descriptor: int) -> bool:
    """Whether systemd connected this descriptor to its journal; JOURNAL_STREAM holds its device and inode."""
    with contextlib.suppress(OSError):
        status = os.fstat(descriptor)
        return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


def _write_all(descriptor: int, line: bytes) -> None:
    with contextlib.suppress(OSError):
        while line:
            line = line[os.write(descriptor, line) :]
