"""What goes first on a machine that has more to do than it can: threads say what they are for, the system grants it.

    real-time   the tick and its socket: asleep nearly always, and never late
    nice -10    cameras, inference and libzmq's threads
    normal      all else, engines foremost: they compute in threads of their own

Python runs one thread at a time. The tick therefore also waits for a thread that was put aside in the middle of its
turn, and a busy machine puts aside what is not preferred: what often holds the interpreter's lock beside the tick is
preferred, too, and nothing that holds it is behind the engines.

Linux only, where each thread has a priority of its own; elsewhere everything stays `normal`. Knows nothing about the
work.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

PREFERRED_NICENESS = -10
REAL_TIME_PRIORITY = 1


def make_real_time() -> str:
    """Let the calling thread go before all others; returns what was granted: `real-time`, `nice -10` or `normal`."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(REAL_TIME_PRIORITY))
            return "real-time"
    return make_preferred()


def make_preferred() -> str:
    """Let the calling thread go before those of normal priority; returns `nice -10`, or `normal` when not granted."""
    return f"nice {PREFERRED_NICENESS}" if _set_niceness(PREFERRED_NICENESS) else "normal"


@contextlib.contextmanager
def preferring_new_threads() -> Iterator[None]:
    """Prefer the threads that a library starts meanwhile; the caller's own priority is as before afterwards."""
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) if sys.platform == "linux" else 0
    make_preferred()
    try:
        yield
    finally:
        _set_niceness(before)


def _set_niceness(niceness: int) -> bool:
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        return True
    return False
