"""What faults and watchers tell each other while a run lasts, across processes: who is good now, who is stopped.

Knows nothing of how either is found out.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from multiprocessing.context import SpawnContext

from tools.soak.place import ASKED, CAMERAS

MESSAGES, MODBUS, OPCUA, MQTT = "messages", "Modbus", "OPC UA", "MQTT"
EXITS = (MESSAGES, MODBUS, OPCUA, MQTT)
COMMANDS, HANDSHAKE, METHOD = "command socket", "Modbus handshake", "OPC UA method"
WAYS = (COMMANDS, HANDSHAKE, METHOD)  # to ask for a picture of a part
AFTER_S = 1.0  # so long after it went on a program still counts as one that was stopped
_PLACES = [(exit_, camera) for exit_ in EXITS for camera in CAMERAS] + [(way, ASKED) for way in WAYS]


class Board:
    """Moments of the machine's monotonic clock, in memory that processes share."""

    def __init__(self, spawn: SpawnContext) -> None:
        self._good_s = spawn.Array("d", len(_PLACES))
        self._counts = spawn.Array("i", 2)  # how many programs are stopped; how many of them are the broker
        self._went_on_s = spawn.Array("d", 2)  # when the last of these went on
        self._behind_ns = spawn.Value("q")

    def note_good(self, exit_: str, camera: str, at_s: float) -> None:
        """A client of an exit saw that a camera is good; or who asked for a picture in one of the ways was answered."""
        self._good_s[_PLACES.index((exit_, camera))] = at_s

    def good_s(self, exit_: str, camera: str) -> float:
        """When a camera was last seen good."""
        return float(self._good_s[_PLACES.index((exit_, camera))])

    @contextlib.contextmanager
    def stopping(self, is_broker: bool = False) -> Iterator[None]:
        """A program is stopped or gone meanwhile."""
        self._count(is_broker, 1)
        try:
            yield
        finally:
            self._count(is_broker, -1)

    def was_stopped(self, since_s: float, broker: bool = False) -> bool:
        """Whether a program, or the broker, was stopped at any time since then."""
        return bool(self._counts[broker] > 0 or self._went_on_s[broker] + AFTER_S > since_s)

    @property
    def behind_ns(self) -> int:
        """By how much the line's clock lies behind the machine's monotonic one."""
        return int(self._behind_ns.value)

    @behind_ns.setter
    def behind_ns(self, behind_ns: int) -> None:
        self._behind_ns.value = behind_ns

    def _count(self, is_broker: bool, step: int) -> None:
        with self._counts.get_lock():
            for slot in range(1 + is_broker):
                self._counts[slot] += step
                self._went_on_s[slot] = time.monotonic()
