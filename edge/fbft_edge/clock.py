"""One clock for a session: Unix time at its start, carried on by the monotonic clock; and waiting by that clock.

Timestamps from it can be compared across machines, and never jump when the wall clock is set.
"""

from __future__ import annotations

import threading
import time

_LONGEST_SLEEP_S = 0.05

_OFFSET_NS = time.time_ns() - time.monotonic_ns()


def now_ns() -> int:
    """Nanoseconds since the Unix epoch, monotonic within this process."""
    return _OFFSET_NS + time.monotonic_ns()


def session_ns(unix_ns: int) -> int:
    """What this clock showed at a moment of the recent past that the system's wall clock has stamped."""
    return now_ns() - max(0, time.time_ns() - unix_ns)


def wait_for(event: threading.Event, timeout_s: float) -> bool:
    """Wait until an event is set, at most 50 ms beyond it; False when that takes longer than the timeout.

    Before Python 3.11 `Event.wait` measures by the wall clock: set back by an hour, it would wait that hour.
    """
    due_s = time.monotonic() + timeout_s
    while not event.is_set():
        rest_s = due_s - time.monotonic()
        if rest_s <= 0:
            return False
        time.sleep(min(rest_s, _LONGEST_SLEEP_S))
    return True
