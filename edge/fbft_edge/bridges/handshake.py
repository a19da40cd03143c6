"""The handshake of machine vision: what the PLC writes and the results in, the handshake's signals out.

Every signal of the PLC is answered by one of the bridge, and each waits for the other to fall: trigger and trigger
acknowledge, results valid and results acknowledge. Knows nothing about registers and sockets.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.reading import Result

MAX_WAITING = 8

Done = Callable[[bool], object]
SendTrigger = Callable[[Done], None]
SendTriggerOf = Callable[[str, Done], None]


@dataclass(frozen=True, slots=True)
class TriggerSignals:
    """Of the trigger half.

    Attributes:
        is_ready: A trigger would be passed on.
        is_acknowledged: The line took the trigger; falls when the PLC lets the trigger fall.
        is_missed: A trigger was refused or brought no frame; falls when the next one is passed on.
        missed: How many did, since the bridge started.
    """

    is_ready: bool
    is_acknowledged: bool
    is_missed: bool
    missed: int


class Triggers:
    """Passes triggers on; every method may be called from any thread.

    Args:
        send: Sends one trigger and calls back, from any thread, whether the line took it; None when the bridge has
            no way to the line.
    """

    def __init__(self, send: SendTrigger | None = None) -> None:
        self._send, self._lock = send, threading.Lock()
        self._is_raised = self._is_in_flight = self._is_acknowledged = False
        self._missed = self._missed_when_sent = 0
        self._missed_by_line: int | None = None

    def write(self, is_raised: bool, is_online: bool) -> None:
        """The PLC wrote its trigger; it counts when it rises."""
        with self._lock:
            is_rising = is_raised and not self._is_raised
            is_ready = self._is_ready(is_online)
            self._is_raised = is_raised
            self._is_acknowledged = self._is_acknowledged and is_raised
            self._is_in_flight = self._is_in_flight or (is_rising and is_ready)
            self._missed += is_rising and not is_ready
            if is_rising and is_ready:
                self._missed_when_sent = self._missed
        if is_rising and is_ready and self._send is not None:
            self._send(self._done)

    def note_missed(self, missed_by_line: int) -> None:
        """The line says how many triggers brought no frame since it started; only what comes from now on counts."""
        with self._lock:
            if self._missed_by_line is not None:
                self._missed += max(0, missed_by_line - self._missed_by_line)
            self._missed_by_line = missed_by_line

    def signals(self, is_online: bool) -> TriggerSignals:
        """The signals now."""
        with self._lock:
            is_missed = self._missed > self._missed_when_sent
            return TriggerSignals(self._is_ready(is_online), self._is_acknowledged, is_missed, self._missed)

    def _is_ready(self, is_online: bool) -> bool:
        return self._send is not None and is_online and not self._is_raised and not self._is_in_flight

    def _done(self, is_taken: bool) -> None:
        with self._lock:
            self._is_in_flight = False
            self._is_acknowledged = is_taken and self._is_raised
            self._missed += not is_taken


@dataclass(frozen=True, slots=True)
class LatchSignals:
    """Of the result half.

    Attributes:
        shown: The result that waits for its acknowledgement; None when there is none.
        has_overrun: Results were lost; stays at least until one acknowledgement after the next.
        overruns: How many were, since the bridge started.
    """

    shown: Result | None
    has_overrun: bool
    overruns: int


class ResultLatch:
    """Shows one result until it is acknowledged, with up to 8 more waiting in order; from any thread.

    When more come, results are lost and counted: a waiting one that is ok makes room for one that is not, and else
    the one that came is lost. What is shown never changes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._shown: Result | None = None
        self._waiting: deque[Result] = deque()
        self._is_acknowledging = self._has_overrun = self._has_lost_since_shown = False
        self._overruns = 0

    def offer(self, result: Result) -> None:
        """A frame's own result came."""
        with self._lock:
            if len(self._waiting) < MAX_WAITING or self._make_room(result):
                self._waiting.append(result)
            self._show_next()

    def acknowledge(self, is_raised: bool) -> None:
        """The PLC wrote its acknowledgement; what is shown ends when it rises, the next is shown when it is down."""
        with self._lock:
            is_rising = is_raised and not self._is_acknowledging
            self._is_acknowledging = is_raised
            if is_rising and self._shown is not None:
                self._shown = None
                self._has_overrun, self._has_lost_since_shown = self._has_lost_since_shown, False
            self._show_next()

    def signals(self) -> LatchSignals:
        """The signals now."""
        with self._lock:
            return LatchSignals(self._shown, self._has_overrun, self._overruns)

    def _make_room(self, result: Result) -> bool:
        """Lose one result: the oldest waiting ok one, or the one that came; False when that is lost."""
        self._overruns += 1
        self._has_overrun = self._has_lost_since_shown = True
        harmless = next((waiting for waiting in self._waiting if waiting.verdict is Verdict.OK), None)
        if harmless is None or result.verdict is Verdict.OK:
            return False
        self._waiting.remove(harmless)
        return True

    def _show_next(self) -> None:
        if self._shown is None and not self._is_acknowledging and self._waiting:
            self._shown = self._waiting.popleft()
