"""A camera in, the frames of it that wait for their inspection out.

Before inference the newest frame wins: a frame that a newer one overtakes is dropped as `replaced`; behind a hardware
trigger, where each frame is a part, up to 8 wait in order. Dates never go back and never lie ahead. Whatever happens
to the camera stays here. Knows nothing about engines, results or messages.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

from fbft_edge.cameras import Camera, CountsRefused, Triggerable, incomplete_of, lost_of
from fbft_edge.clock import now_ns, wait_for
from fbft_edge.errors import ArgumentError, FbftError
from fbft_edge.frames.frame import Frame
from fbft_edge.line.inference import Acquisition
from fbft_edge.line.status import reason_of
from fbft_edge.line.trigger import Request, SoftwareTrigger
from fbft_edge.messages.ledger import Ledger
from fbft_edge.names import TRIGGERS
from fbft_edge.ranges import TRIGGER_TIMEOUT_S

CAMERA_RETRY_S = 0.01  # a camera under watch waits by itself; pictures that are refused must not pile up behind a wait
HARDWARE_QUEUE_FRAMES = 8

_logger = logging.getLogger(__name__)


class Intake:
    """Reads one camera in one thread, and lets any other take what waits.

    Args:
        camera: Where frames come from; closed by `close`.
        ledger: Where frames are counted as captured or replaced, triggers as missed, and pictures that are no frames.
        trigger: As of `fbft_edge.line.station.Station`.
        trigger_timeout_s: A software trigger that brings no frame for so long is missed.

    Attributes:
        error: Why the camera brings no frames right now, or None.
        failure: What ended `run` before its time, or None.

    Raises:
        ArgumentError: A trigger setting is unusable.
    """

    def __init__(self, camera: Camera, ledger: Ledger, trigger: str, trigger_timeout_s: float) -> None:
        if trigger not in TRIGGERS:
            raise ArgumentError(f"camera {camera.name!r}: no trigger {trigger!r}; use {', '.join(TRIGGERS)}")
        if trigger_timeout_s not in TRIGGER_TIMEOUT_S:
            raise ArgumentError(
                f"camera {camera.name!r}: trigger_timeout_s cannot be {trigger_timeout_s:g}; use {TRIGGER_TIMEOUT_S} s"
            )
        self._camera, self._ledger, self._trigger_name = camera, ledger, trigger
        self._trigger = SoftwareTrigger(camera.name, trigger_timeout_s) if trigger == "software" else None
        self._log = logging.LoggerAdapter(_logger, {"camera": camera.name})
        self.error: str | None = None
        self.failure: BaseException | None = None
        self._lock = threading.Lock()
        self._waiting: deque[Acquisition] = deque()
        self._most_waiting = HARDWARE_QUEUE_FRAMES if trigger == "hardware" else 1
        self._stopping = threading.Event()
        self._is_finished = self._has_source_ended = False
        self._last_captured_ns = 0

    @property
    def is_free(self) -> bool:
        """True when frames come by themselves, and not because a trigger asked for them."""
        return self._trigger_name == "free"

    @property
    def has_ended(self) -> bool:
        """True when the source has ended, and no trigger still waits for its answer."""
        return self._has_source_ended and (self._trigger is None or not self._trigger.is_pending)

    def run(self, wake: Callable[[], None]) -> None:
        """Read frames until the source ends or `close`: the work of one thread.

        Args:
            wake: Called whenever a frame waits.
        """
        try:
            self._read_frames(wake)
        except BaseException as error:
            self.failure = error
            self._report(error)
        self._has_source_ended = True

    def close(self) -> None:
        """Give the camera back and wake the thread that waits in it; what the camera raises is logged."""
        self._stopping.set()
        try:
            self._camera.close()
        except Exception:
            self._log.exception("the camera cannot be closed")

    def finish(self) -> None:
        """Let nothing be taken any more, and let go what still comes."""
        with self._lock:
            self._is_finished = True

    @property
    def has_waiting(self) -> bool:
        """True when a frame waits."""
        with self._lock:
            return bool(self._waiting) and not self._is_finished

    def is_overtaken(self, captured_before_ns: int) -> bool:
        """True when a younger frame waits behind the next one, and that was captured before then."""
        with self._lock:
            return len(self._waiting) > 1 and self._waiting[0].frame.captured_ns < captured_before_ns

    def take(self) -> Acquisition | None:
        """The frame that waits longest, which then waits no more; None when there is none."""
        with self._lock:
            return None if self._is_finished or not self._waiting else self._waiting.popleft()

    def trigger(self, trigger_id: str | None, deadline_ns: int | None = None, part_id: str | None = None) -> None:
        """Ask for one acquisition; see `fbft_edge.line.station.Station.trigger`."""
        if self._trigger is None:
            raise ArgumentError(
                f"camera {self._camera.name!r} runs with trigger {self._trigger_name!r}, not by command; "
                'set trigger = "software" for it'
            )
        request = self._trigger.ask(trigger_id, now_ns(), deadline_ns, part_id)
        try:
            if isinstance(self._camera, Triggerable):
                self._camera.trigger()
        except BaseException:
            self._trigger.withdraw(request)
            raise

    def miss_trigger(self, at_ns: int) -> Request | None:
        """The software trigger that no frame has answered in time, once; None when there is none."""
        request = None if self._trigger is None else self._trigger.miss(at_ns)
        if request is not None:
            self._ledger.miss_triggers()
        return request

    def answer_trigger(self, request: Request | None) -> None:
        """A software trigger was answered; the next one may come."""
        if self._trigger is not None:
            self._trigger.answer(request)

    def count_unseen(self) -> None:
        """Enter what the camera says of pictures that became no frame; behind a hardware trigger each was a part."""
        camera = self._camera
        num_lost = incomplete_of(camera) + lost_of(camera)
        num_refused = camera.refused if isinstance(camera, CountsRefused) else 0
        num_new = self._ledger.note_unseen(num_lost, num_refused)
        if self._trigger_name == "hardware":
            self._ledger.miss_triggers(num_new)

    def _read_frames(self, wake: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                frame = self._camera.read()
            except Exception as error:
                self._report(error)
                wait_for(self._stopping, CAMERA_RETRY_S)
                continue
            if frame is None:
                return
            self.error = None
            if self._offer(frame):
                wake()

    def _report(self, error: BaseException) -> None:
        reason = reason_of("camera", error)
        if reason != self.error:
            self._log.error("%s", reason, exc_info=None if isinstance(error, FbftError) else error)
        self.error = reason

    def _offer(self, frame: Frame) -> bool:
        """Let a frame wait; False when it is let go because no trigger asked for it."""
        captured_ns = min(max(frame.captured_ns, self._last_captured_ns), now_ns())
        if captured_ns != frame.captured_ns:
            frame = dataclasses.replace(frame, captured_ns=captured_ns)
        self._last_captured_ns = captured_ns
        request = None if self._trigger is None else self._trigger.acquire(frame)
        if self._trigger is not None and request is None:
            return False
        self._line_up(Acquisition(frame, request, time.monotonic_ns()))
        return True

    def _line_up(self, acquisition: Acquisition) -> None:
        with self._lock:
            if self._is_finished:
                return
            self._ledger.capture()
            if len(self._waiting) == self._most_waiting:
                self._waiting.popleft()
                self._ledger.drop("replaced")
            self._waiting.append(acquisition)
