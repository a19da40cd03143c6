"""The handshake of machine vision: what the PLC writes and the results in, the handshake's signals out.

Every signal of the PLC is answered by one of the bridge, and each waits for the other to fall: trigger and trigger
acknowledge, results valid and results acknowledge. Knows nothing about registers and sockets.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from fbft_edge.bridges.camera_state import Line
from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.reading import Result

MAX_WAITING = 8
MAX_GOOD_S = 2.0
TAKEN_WITHIN_S = 1.0
MAX_TRIGGER_NUMBER = 2**32 - 1

Done = Callable[[bool], object]


@dataclass(frozen=True, slots=True)
class Trigger:
    """What is asked of a line: one acquisition, in time or not at all.

    Attributes:
        trigger_id: Comes back with the answer.
        part_id: The part that it is about; comes back as well.
        session: Of the line that is asked; one that was started since refuses.
        deadline_ns: On that line's clock; it refuses what reaches it later.
    """

    trigger_id: str
    session: str
    deadline_ns: int
    part_id: str | None = None


SendTrigger = Callable[[Trigger, Done], None]
SendTriggerOf = Callable[[str, Trigger, Done], None]


@dataclass(frozen=True, slots=True)
class TriggerSignals:
    """Of the trigger half.

    Attributes:
        is_ready: A trigger would be passed on.
        is_acknowledged: The line took the trigger; falls when the PLC lets the trigger fall.
        is_missed: A trigger was refused or brought no frame; falls when the next one is passed on.
        missed: How many did, since the bridge started.
        is_busy: A trigger was passed on, and its answer has not come.
        is_unanswered: The last trigger has no answer, be it that it is still to come or never will.
    """

    is_ready: bool
    is_acknowledged: bool
    is_missed: bool
    missed: int
    is_busy: bool = False
    is_unanswered: bool = False


class Triggers:
    """Passes triggers on, one at a time until it is answered; every method may be called from any thread.

    A trigger that is given up is never answered afterwards: what still comes of it is no answer. Identifiers are
    numbers from 1 to 2^32 - 1 that count on from a random one, so that those of an earlier bridge do not come again.

    Args:
        send: Sends one trigger and calls back, from any thread, whether the line took it; None when the bridge has
            no way to the line.
    """

    def __init__(self, send: SendTrigger | None = None) -> None:
        self._send, self._lock = send, threading.Lock()
        self._number = secrets.randbelow(MAX_TRIGGER_NUMBER)
        self._is_raised = self._is_acknowledged = self._is_unanswered = False
        self._awaited: Trigger | None = None
        self._lost_when_sent = 0
        self._missed = self._missed_when_sent = 0
        self._missed_by_line: int | None = None

    @property
    def can_send(self) -> bool:
        """True when there is a way to the line."""
        return self._send is not None

    def write(self, is_raised: bool, line: Line | None, *, is_clear: bool = True, part_id: str | None = None) -> None:
        """The PLC wrote its trigger; it counts when it rises.

        Args:
            is_raised: As it was written.
            line: None while the line is in fault.
            is_clear: False while a result waits to be taken.
            part_id: The part that the trigger is about.
        """
        with self._lock:
            is_rising = is_raised and not self._is_raised
            trigger = self._await_answer(line, is_clear=is_clear, part_id=part_id) if is_rising else None
            self._is_raised = is_raised
            self._is_acknowledged = self._is_acknowledged and is_raised
        self._pass_on(trigger)

    def ask(self, line: Line | None, told: Done, part_id: str | None = None) -> None:
        """One trigger without signals; `told` is called, from any thread, with whether the line took it."""
        with self._lock:
            trigger = self._await_answer(line, is_clear=True, part_id=part_id)
        if trigger is None:
            told(False)
        self._pass_on(trigger, told)

    def is_answer(self, trigger_id: str | None) -> bool:
        """True of what answers the trigger that is out."""
        with self._lock:
            return self._awaited is not None and self._awaited.trigger_id == trigger_id

    def answer(self, trigger_id: str | None) -> None:
        """A result came; the trigger that it answers, if it is one's own, is out no more."""
        with self._lock:
            if self._awaited is not None and self._awaited.trigger_id == trigger_id:
                self._awaited, self._is_unanswered = None, False
                self._is_acknowledged = self._is_raised

    def note_line(self, line: Line) -> None:
        """Give up the trigger whose answer cannot come any more: the line is another, or the answer may be lost."""
        with self._lock:
            if (awaited := self._awaited) is None:
                return
            if awaited.session != line.session or self._lost_when_sent != line.lost:
                self._give_up()

    def note_missed(self, missed_by_line: int) -> None:
        """The line says how many triggers brought no frame since it started; only what comes from now on counts."""
        with self._lock:
            if self._missed_by_line is not None:
                self._missed += max(0, missed_by_line - self._missed_by_line)
            self._missed_by_line = missed_by_line

    def signals(self, is_online: bool, *, is_clear: bool = True) -> TriggerSignals:
        """The signals now."""
        with self._lock:
            return TriggerSignals(
                is_online and self._is_ready(is_clear=is_clear),
                self._is_acknowledged,
                self._missed > self._missed_when_sent,
                self._missed,
                self._awaited is not None,
                self._is_unanswered,
            )

    def _is_ready(self, *, is_clear: bool) -> bool:
        return self._send is not None and not self._is_raised and self._awaited is None and is_clear

    def _await_answer(self, line: Line | None, *, is_clear: bool, part_id: str | None) -> Trigger | None:
        """The trigger to be passed on; None when it is missed, as there is no line, or no room for its answer."""
        self._is_unanswered = self._send is not None
        if line is None or not self._is_ready(is_clear=is_clear):
            self._missed += 1
            return None
        self._number = self._number % MAX_TRIGGER_NUMBER + 1
        deadline_ns = line.now_ns + round(TAKEN_WITHIN_S * 1e9)
        self._awaited = Trigger(str(self._number), line.session, deadline_ns, part_id)
        self._missed_when_sent, self._lost_when_sent = self._missed, line.lost
        return self._awaited

    def _pass_on(self, trigger: Trigger | None, told: Done = bool) -> None:
        if trigger is not None and self._send is not None:
            self._send(trigger, partial(self._done, trigger, told))

    def _done(self, trigger: Trigger, told: Done, is_taken: bool) -> None:
        with self._lock:
            if trigger is self._awaited and is_taken:
                self._is_acknowledged = self._is_raised
            elif trigger is self._awaited:
                self._give_up()
        told(is_taken)

    def _give_up(self) -> None:
        self._awaited = None
        self._missed += 1


@dataclass(frozen=True, slots=True)
class LatchSignals:
    """Of the result half.

    Attributes:
        shown: The result that waits for its acknowledgement; None when there is none.
        has_overrun: Results were lost; stays at least until one acknowledgement after the next.
        overruns: How many were, since the bridge started.
        age_s: Since what is shown was sent.
        is_clear: Nothing is shown, and nothing waits.
    """

    shown: Result | None
    has_overrun: bool
    overruns: int
    age_s: float = 0.0
    is_clear: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    result: Result
    sent_s: float


class ResultLatch:
    """Shows one result until it is acknowledged, with up to 8 more waiting in order; from any thread.

    When more come, results are lost and counted: a waiting one that is ok makes room for one that is not, and else
    the one that came is lost. What is shown never changes.

    Args:
        clock: `time.monotonic`, by which the subscriber dates messages.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._shown: _Held | None = None
        self._waiting: deque[_Held] = deque()
        self._is_acknowledging = self._has_overrun = self._has_lost_since_shown = False
        self._overruns = 0

    def offer(self, result: Result) -> None:
        """A frame's own result came."""
        with self._lock:
            if len(self._waiting) < MAX_WAITING or self._make_room(result):
                self._waiting.append(_Held(result, self._clock() if result.sent_s is None else result.sent_s))
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
            shown, is_clear = self._shown, self._shown is None and not self._waiting
            age_s = 0.0 if shown is None else self._clock() - shown.sent_s
            return LatchSignals(
                None if shown is None else shown.result, self._has_overrun, self._overruns, age_s, is_clear
            )

    def _make_room(self, result: Result) -> bool:
        """Lose one result: the oldest waiting ok one, or the one that came; False when that is lost."""
        self._overruns += 1
        self._has_overrun = self._has_lost_since_shown = True
        harmless = next((held for held in self._waiting if held.result.verdict is Verdict.OK), None)
        if harmless is None or result.verdict is Verdict.OK:
            return False
        self._waiting.remove(harmless)
        return True

    def _show_next(self) -> None:
        if self._shown is None and not self._is_acknowledging and self._waiting:
            self._shown = self._waiting.popleft()
