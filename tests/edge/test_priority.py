"""Threads of a line go before others where the system grants it, and nothing else in the process does."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fbft_edge.bundle.reading import GRAPH, Bundle
from fbft_edge.detectors.host import OpenVinoEngine
from fbft_edge.priority import make_preferred, make_real_time, preferring_new_threads
from fbft_edge.sockets.publisher import ResultPublisher

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux's threads have priorities of their own")


def priority_of(thread_id: int) -> tuple[int, int]:
    """Its scheduling policy and niceness."""
    return os.sched_getscheduler(thread_id), os.getpriority(os.PRIO_PROCESS, thread_id)


def priorities_by_name() -> dict[str, tuple[int, int]]:
    tasks = Path("/proc/self/task")
    return {(task / "comm").read_text().strip(): priority_of(int(task.name)) for task in tasks.iterdir()}


def in_a_thread(work: Callable[[], object]) -> tuple[object, tuple[int, int]]:
    """What the work returned, and the priority that its thread then had."""
    results: list[tuple[object, tuple[int, int]]] = []
    thread = threading.Thread(target=lambda: results.append((work(), priority_of(threading.get_native_id()))))
    thread.start()
    thread.join()
    return results[0]


@pytest.fixture
def own_priority() -> tuple[int, int]:
    return priority_of(threading.get_native_id())


@pytest.fixture
def granted() -> None:
    """Skips where this user may not raise priorities."""
    if in_a_thread(make_real_time)[0] != "real-time":
        pytest.skip("this user may not have real-time priority")


def test_a_thread_tells_what_it_was_granted() -> None:
    expected = {"real-time": (os.SCHED_FIFO, 0), "nice -10": (os.SCHED_OTHER, -10), "normal": (os.SCHED_OTHER, 0)}
    for ask in (make_real_time, make_preferred):
        granted, (policy, niceness) = in_a_thread(ask)
        assert isinstance(granted, str)
        assert policy == expected[granted][0]
        assert niceness == expected[granted][1] or policy == os.SCHED_FIFO


@pytest.mark.usefixtures("granted")
def test_a_thread_raises_itself_alone(own_priority: tuple[int, int]) -> None:
    assert in_a_thread(make_preferred) == ("nice -10", (os.SCHED_OTHER, -10))
    assert priority_of(threading.get_native_id()) == own_priority


@pytest.mark.usefixtures("granted")
def test_only_threads_that_start_meanwhile_are_preferred(own_priority: tuple[int, int]) -> None:
    with preferring_new_threads():
        assert in_a_thread(lambda: None)[1] == (os.SCHED_OTHER, -10)
    assert in_a_thread(lambda: None)[1] == own_priority == priority_of(threading.get_native_id())


@pytest.mark.usefixtures("granted")
def test_the_socket_and_libzmqs_threads_go_first(own_priority: tuple[int, int]) -> None:
    with ResultPublisher("tcp://127.0.0.1:*"):
        found = {name: priority for name, priority in priorities_by_name().items() if name.startswith("ZMQbg")}
    assert found
    assert set(found.values()) == {(os.SCHED_OTHER, -10)}
    assert priority_of(threading.get_native_id()) == own_priority


@pytest.mark.usefixtures("granted")
def test_the_engine_computes_at_normal_priority_for_a_thread_that_is_preferred(small_bundle: Bundle) -> None:
    tile_px, side = small_bundle.tile.tile_px, small_bundle.tile.tile_patches
    engine = OpenVinoEngine(small_bundle.read(GRAPH), tile_px, "f32")
    tiles, distances = np.zeros((40, tile_px, tile_px, 3), np.uint8), np.zeros((40, side, side), np.float32)

    def infer() -> float:
        make_preferred()
        before_s = time.thread_time()
        engine.infer(tiles, distances)
        return time.thread_time() - before_s

    process_before_s = os.times().user
    own_s = in_a_thread(infer)[0]
    assert isinstance(own_s, float)
    assert own_s < 0.2 * (os.times().user - process_before_s)
