"""One input of a parser in, what came of it out; whatever breaks a promise is raised.

Knows nothing of where inputs come from.
"""

from __future__ import annotations

import contextlib
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from tools.fuzzing.parsers import Parser

HANG_S = 30.0
MAX_LINES, MAX_LINE = 60, 2000


class TooSlow(BaseException):
    """Raised by the timer in the middle of a parser; nobody's `except Exception` holds it."""


def outcome(parser: Parser, data: bytes) -> str:
    """`accepted` or `refused: CLASS`.

    Raises:
        BaseException: Whatever breaks a promise.
    """
    parts = parser.parts(data)
    with _limited_time(parser.limit_s):
        started = time.thread_time()
        try:
            parser.parse(parts)
            found = "accepted"
        except parser.errors as error:
            found = f"refused: {type(error).__name__}"
            lines = str(error).split("\n")
            if len(lines) > MAX_LINES or not all(line.isprintable() and len(line) <= MAX_LINE for line in lines):
                raise AssertionError(f"the message is not printable, or too long: {lines!r:.500}") from error
        taken = time.thread_time() - started
    if taken > parser.limit_s:
        raise TooSlow(f"{taken:.2f} s")
    return found


@contextlib.contextmanager
def _limited_time(limit_s: float) -> Iterator[None]:
    """`TooSlow` after so much CPU time; death by SIGALRM when the input blocks, or a library does not let go."""
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


def raise_too_slow(*_: object) -> None:
    """What SIGPROF is to call in the process that tries inputs."""
    raise TooSlow("the CPU time is used up")


def limit_memory(parser: Parser) -> None:
    """Let this process take no more than it has and its parser may."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + parser.memory_bytes, resource.RLIM_INFINITY))
