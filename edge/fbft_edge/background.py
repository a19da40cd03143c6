"""Threads for work that may wait: a function goes in, a running thread comes out, behind everything else.

Knows nothing about the work.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

NICENESS = 10


def start_background(work: Callable[[], None], name: str) -> threading.Thread:
    """Start a daemon thread at low priority; inference and publishing get the processor first."""

    def run() -> None:
        if sys.platform == "linux":  # there a thread has a priority of its own; elsewhere it would be the process's
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        work()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread
