"""What a PLC may believe of each camera: received messages in, the camera's standing out; silence is a fault.

The rule of every bridge is here: only a message that says `ok`, sent at most two periods ago, is good. Its age is taken
by the publisher's clock when the standing is asked for, so a line that falls silent, a network or a thread that hangs
and a bridge that was held up make a fault and never an old `ok`.
Knows nothing about Modbus, OPC UA or MQTT.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum

from fbft_edge.closeable import Closeable
from fbft_edge.errors import MessageError
from fbft_edge.frames.frame import DecidedBy, Verdict
from fbft_edge.messages.age import oldest_s, shorter
from fbft_edge.messages.header import Health
from fbft_edge.messages.reading import Result
from fbft_edge.sockets.subscriber import ResultSubscriber

TURN_S = 0.05
JOIN_TIMEOUT_S = 5.0
DECIDED_BY_NUMBERS: Mapping[DecidedBy | None, int] = {None: 0, "image": 1, "pixel": 2, "both": 3}
VERDICT_NUMBERS = {Verdict.FAULT: 0, Verdict.OK: 1, Verdict.ANOMALOUS: 2, Verdict.STALE: 3}

_logger = logging.getLogger(__name__)


class Fault(IntEnum):
    """Why no verdict can be believed; the numbers stand in registers and never change."""

    NONE = 0
    NO_MESSAGE = 1
    SILENCE = 2
    CAMERA = 3
    INFERENCE = 4
    LINE = 5
    TRIGGER = 6


@dataclass(frozen=True, slots=True)
class Standing:
    """What is true of one camera at one moment.

    Attributes:
        verdict: Of the newest message; `FAULT` when there is none or it is too old.
        fault: Why; `NONE` unless the verdict is `FAULT`.
        reason: One line for the operator; None when there is nothing to say.
        message: The newest message, without mask and preview, however old; None when none has come.
        period_s: Between messages, the smaller one of what was given and learned; None when neither is known yet.
        results: Frames, and triggers without one, whose own result has come since the bridge started.
        anomalous: How many of the frames were anomalous.
        lost: Messages missed on the way.
        current_for_s: How long `message` still says what is true now; 0 when it does not any more.
    """

    verdict: Verdict
    fault: Fault
    reason: str | None
    message: Result | None
    period_s: float | None
    results: int
    anomalous: int
    lost: int
    current_for_s: float = field(compare=False)  # it runs down by itself; two that differ in nothing else are the same

    @property
    def is_good(self) -> bool:
        """True for a frame within the thresholds, as long as `stale_after_s` lets its verdict be repeated."""
        return self.verdict is Verdict.OK


@dataclass(frozen=True, slots=True)
class Line:
    """What a trigger has to know of the line that it is for.

    Attributes:
        session: Of its newest message.
        now_ns: Its clock, less by what its quickest message took to come.
        lost: Messages of it that never arrived, since the bridge started.
    """

    session: str
    now_ns: int
    lost: int


class CameraState:
    """Takes one camera's messages and says how it stands; every method may be called from any thread.

    Args:
        camera: The camera's name.
        period_s: Between messages; None, or a larger one, takes that which the subscriber learned.
        clock: `time.monotonic`, by which the subscriber dates messages.

    Attributes:
        clock: As it was given.
    """

    def __init__(self, camera: str, period_s: float | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.camera = camera
        self._given_period_s, self.clock = period_s, clock
        self._lock = threading.Lock()
        self._message: Result | None = None
        self._frame: tuple[str, int] | None = None
        self._missed: tuple[str, str | None] | None = None
        self._results = self._anomalous = self._lost = 0

    def receive(self, message: Result) -> Result | None:
        """Take note of a message.

        Returns:
            The one result of a frame, or of a trigger without a frame, if the message brings it, as it may be shown
            later, too: an `ok` that is too old when it comes is a fault.
        """
        message = message.without_pictures()
        with self._lock:
            if self._message is None or self._message.session != message.session:
                self._note_beginning(message)
            self._message = message
            self._lost += message.lost
            is_new = self._is_own(message)
            self._results += is_new
            self._anomalous += is_new and message.verdict is Verdict.ANOMALOUS
            return self._believable(message) if is_new else None

    def line(self) -> Line | None:
        """The line as a trigger has to know it; None as long as its clock is not known."""
        with self._lock:
            message, now_s = self._message, self.clock()
            if message is None or message.sent_s is None:
                return None
            now_ns = message.published_ns + round((now_s - message.sent_s) * 1e9)
            return Line(message.session, now_ns, self._lost)

    def is_current(self, message: Result) -> bool:
        """True as long as a message that came is at most two periods old."""
        return self._left_s(message) >= 0

    def standing(self) -> Standing:
        """How the camera stands now."""
        with self._lock:
            fault, reason = self._fault()
            return Standing(
                Verdict.FAULT if self._message is None or fault else self._message.verdict,
                fault,
                reason,
                self._message,
                self._period_s,
                self._results,
                self._anomalous,
                self._lost,
                0.0 if self._message is None else max(0.0, self._left_s(self._message)),
            )

    @property
    def _period_s(self) -> float | None:
        return shorter(self._given_period_s, None if self._message is None else self._message.period_s)

    def _believable(self, message: Result) -> Result:
        fault, reason = self._fault()
        if message.verdict is not Verdict.OK or fault is Fault.NONE:
            return message
        return replace(message, verdict=Verdict.FAULT, health=Health("fault", reason))

    def _note_beginning(self, message: Result) -> None:
        """The first message heard of a session may repeat what was said before, unless it is the session's first.

        What it says is nobody's own result, then: a bridge that was restarted must not show a repeat as new.
        """
        if message.sequence > 0:
            self._frame = None if message.frame_id is None else (message.session, message.frame_id)
            self._missed = (message.session, message.trigger_id)

    def _is_own(self, message: Result) -> bool:
        if message.verdict is Verdict.STALE:
            return False
        if message.frame_id is not None:
            frame_before, self._frame = self._frame, (message.session, message.frame_id)
            return self._frame != frame_before
        missed_before, self._missed = self._missed, (message.session, message.trigger_id)
        return message.trigger_id is not None and self._missed != missed_before

    def _left_s(self, message: Result) -> float:
        """How long a message still says what is true now; below 0 when it does not any more."""
        return -1.0 if message.sent_s is None else message.sent_s + oldest_s(self._period_s) - self.clock()

    def _fault(self) -> tuple[Fault, str | None]:
        if self._message is None:
            return Fault.NO_MESSAGE, "no message yet"
        if self._message.sent_s is None:
            return Fault.NO_MESSAGE, "the messages so far may have waited on the way"
        if not self.is_current(self._message):
            return Fault.SILENCE, f"no message for more than {oldest_s(self._period_s):.3g} s"
        reason = self._message.health.reason
        return (_fault_of(reason) if self._message.verdict is Verdict.FAULT else Fault.NONE), reason


def _fault_of(reason: str | None) -> Fault:
    """The stage that the pipeline names at the beginning of a reason."""
    stage = (reason or "").partition(":")[0]
    stages = {"camera": Fault.CAMERA, "inference": Fault.INFERENCE, "trigger": Fault.TRIGGER}
    return stages.get(stage, Fault.LINE)


Listener = Callable[[CameraState, Result], None]


class Feed(Closeable):
    """Receives messages in a thread of its own, from `start` on, and hands them to the cameras' states.

    Args:
        subscriber: Where they come from, every one of them; closed with the feed.
        cameras: States by camera name; messages of others are passed over.
        listener: Called in the thread with each own result; must return at once.

    Attributes:
        beats: Turns of the thread, at least 20 a second; a number that stands still means that the bridge hangs.
    """

    def __init__(
        self,
        subscriber: ResultSubscriber,
        cameras: Sequence[CameraState],
        listener: Listener = lambda state, result: None,
    ) -> None:
        self.beats = 0
        self._subscriber, self._listener = subscriber, listener
        self._cameras: Mapping[str, CameraState] = {state.camera: state for state in cameras}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fbft-feed", daemon=True)

    @property
    def is_alive(self) -> bool:
        """False once the thread has ended, by `close` or by a bug."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Begin to receive."""
        self._thread.start()

    def close(self) -> None:
        """End the thread and leave the publisher; may be called twice."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(JOIN_TIMEOUT_S)
        self._subscriber.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self.beats += 1
            self._turn()

    def _turn(self) -> None:
        try:
            message = self._subscriber.receive(TURN_S)
        except MessageError as error:
            _logger.warning("%s", error)
            return
        state = None if message is None else self._cameras.get(message.camera)
        if message is not None and state is not None and (result := state.receive(message)) is not None:
            self._listener(state, result)
