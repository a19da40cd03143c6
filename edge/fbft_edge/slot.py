"""Room for one item between two threads; knows nothing about what the item is."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

_T = TypeVar("_T")


class Slot(Generic[_T]):
    """Holds at most one item; every method may be called from any thread."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._item: _T | None = None
        self._is_closed = False

    def replace(self, item: _T) -> _T | None:
        """Leave an item without waiting; returns the one it replaced, if that was not taken yet."""
        with self._condition:
            replaced, self._item = self._item, item
            self._condition.notify_all()
        return replaced

    def hand_over(self, item: _T) -> None:
        """Leave an item in the empty slot, and wait until it is taken or the slot closed."""
        with self._condition:
            self._item = item
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._item is None or self._is_closed)

    def take(self) -> _T | None:
        """Wait for an item and take it; None once the slot is closed and empty."""
        with self._condition:
            self._condition.wait_for(lambda: self._item is not None or self._is_closed)
            return self._taken()

    def poll(self) -> _T | None:
        """Take the item if there is one."""
        with self._condition:
            return self._taken()

    def close(self) -> None:
        """Wake everyone who waits."""
        with self._condition:
            self._is_closed = True
            self._condition.notify_all()

    def _taken(self) -> _T | None:
        item, self._item = self._item, None
        self._condition.notify_all()
        return item
