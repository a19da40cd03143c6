"""What goes first on a machine that has more to do than it can: threads say what they are for, the system grants it.

    real-time   the tick and its socket: asleep nearly always, and never late
    nice -10    cameras, inference and libzmq's threads
    nice 10     whatever may wait: recorder, drift

Python runs one thread at a time. The tick therefore also waits for a thread that was put aside in the middle of its
turn, and a busy machine puts aside whatever is of normal priority: what holds the interpreter's lock beside the tick
is preferred, too. Engines compute in threads of their own, without that lock, at normal priority.

Linux only, where each thread has a priority of its own; elsewhere everything stays `normal`. Knows nothing about the
work.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator

PREFERRED_NICENESS = -10
BACKGROUND_NICENESS = 10
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


def start_background(work: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread behind everything else."""

    def run() -> None:
        _set_niceness(BACKGROUND_NICENESS)
        work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def _set_niceness(niceness: int) -> bool:
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
        return True
    return False
