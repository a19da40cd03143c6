"""Waiting ends by the event or by the monotonic clock."""

from __future__ import annotations

import threading

from fbft_edge.clock import wait_for


def test_an_event_that_is_set_ends_the_wait() -> None:
    event = threading.Event()
    threading.Timer(0.1, event.set).start()
    assert wait_for(event, 60)


def test_what_is_set_already_is_not_waited_for() -> None:
    event = threading.Event()
    event.set()
    assert wait_for(event, -1)


def test_without_the_event_the_wait_ends_in_time() -> None:
    assert not wait_for(threading.Event(), 0.12)
    assert not wait_for(threading.Event(), -1)
