"""One clock for a session: Unix time at its start, carried on by the monotonic clock.

Timestamps from it can be compared across machines, and never jump when the wall clock is set.
"""

from __future__ import annotations

import time

_OFFSET_NS = time.time_ns() - time.monotonic_ns()


def now_ns() -> int:
    """Nanoseconds since the Unix epoch, monotonic within this process."""
    return _OFFSET_NS + time.monotonic_ns()


def session_ns(unix_ns: int) -> int:
    """What this clock showed at a moment of the recent past that the system's wall clock has stamped."""
    return now_ns() - max(0, time.time_ns() - unix_ns)
