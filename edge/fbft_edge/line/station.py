"""One camera of a line: its frames, its ledger, and what its message of each period says.

    camera -> [newest frame] -> inference -> [results] -> tick -> message

Before inference the newest frame wins: a frame that a newer one overtakes is dropped as `replaced`; behind a hardware
trigger, where each frame is a part, up to 8 wait in order. After inference nothing is ever lost: a result waits until
a tick has taken it, and until then no more frames of the station begin than the engine takes at once.

A message says, whatever comes first in this list:

- a result that came since the last tick: `ok` or `anomalous`, or `fault` when its inspection failed or took too long;
- a trigger that brought no frame: `fault`;
- the engine does not come back, or the camera is in error: `fault`;
- the last result again: with its verdict as long as that may be repeated, else `stale`. A fault ends the repeating.

Masks, previews and the result's share of the header are encoded by the thread that infers; a tick joins a few short
strings. Whatever happens to the camera stays here. Knows nothing about other cameras, sockets or the grid.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fbft_edge.cameras import Camera
from fbft_edge.clock import now_ns, wait_for
from fbft_edge.errors import ArgumentError, FbftError
from fbft_edge.frames.frame import Frame, Verdict
from fbft_edge.line.durations import Durations
from fbft_edge.line.inference import Acquisition, Inspection
from fbft_edge.line.settings import Settings
from fbft_edge.line.status import LineState, Status, Summary
from fbft_edge.line.trigger import Request, SoftwareTrigger
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger, LedgerSnapshot
from fbft_edge.messages.published import Inspected, Published
from fbft_edge.messages.writing import (
    EncodedResult,
    MessageWriter,
    encode_bundle,
    encode_detection,
    encode_no_detection,
)
from fbft_edge.names import TRIGGERS, printable
from fbft_edge.ranges import TRIGGER_TIMEOUT_S

CAMERA_RETRY_S = 0.01  # a camera under watch waits by itself; pictures that are refused must not pile up behind a wait
SILENCE_NS = 5_000_000_000
HARDWARE_QUEUE_FRAMES = 8
ENDED = "camera: its source has ended"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Finished:
    """An inspected frame whose result waits for its tick."""

    acquisition: Acquisition
    result: EncodedResult
    inspected: Inspected | None


@dataclass(frozen=True, slots=True)
class _Said:
    """What one message says."""

    result: EncodedResult
    verdict: Verdict
    health: Health
    ledger: LedgerSnapshot
    fresh: Inspected | None = None


class Station:
    """Runs one camera; `fbft_edge.line.pipeline.Pipeline` gives it threads, an engine and ticks.

    Args:
        camera: Where frames come from; closed by `close`.
        settings: Of the line.
        trigger: `free`: every frame is offered to the engine. `software`: only frames that `trigger` asks for, the
            others are let go before the ledger. `hardware`: every frame is a part, and a picture that the camera
            counts as `incomplete` is a missed trigger.
        trigger_timeout_s: A software trigger that brings no frame for so long is missed.

    Attributes:
        name: The camera's name.
        session: UUID of the run, in every message.
        failure: What ended the capturing thread before its time, or None.

    Raises:
        ArgumentError: A name cannot stand in a topic, or a trigger setting is unusable.
    """

    def __init__(
        self, camera: Camera, settings: Settings, trigger: str = "free", trigger_timeout_s: float = 1.0
    ) -> None:
        self.name = camera.name
        if trigger not in TRIGGERS:
            raise ArgumentError(f"camera {self.name!r}: no trigger {trigger!r}; use {', '.join(TRIGGERS)}")
        if trigger_timeout_s not in TRIGGER_TIMEOUT_S:
            raise ArgumentError(
                f"camera {self.name!r}: trigger_timeout_s cannot be {trigger_timeout_s:g}; use {TRIGGER_TIMEOUT_S} s"
            )
        self._camera, self._settings, self._trigger_name = camera, settings, trigger
        self._log = logging.LoggerAdapter(_logger, {"camera": self.name})
        self._trigger = SoftwareTrigger(self.name, trigger_timeout_s) if trigger == "software" else None
        self._writer = MessageWriter(settings.site, self.name)
        self.session = self._writer.session
        self.failure: BaseException | None = None
        self._wake: Callable[[], None] = _nothing
        self._ended: Callable[[], None] = _nothing
        self._ledger = Ledger()
        self._lock = threading.Lock()
        self._waiting: deque[Acquisition] = deque()
        self._most_waiting = HARDWARE_QUEUE_FRAMES if trigger == "hardware" else 1
        self._results: deque[_Finished] = deque()
        self._with_engine = 0
        self._stopping = threading.Event()
        self._is_closed = self._has_source_ended = False
        self._last_captured_ns = self._num_incomplete = 0
        self._camera_error: str | None = None
        self._last_error: str | None = None
        self._last: EncodedResult | None = None
        self._may_repeat = False
        self._last_result_ns = time.monotonic_ns()
        self._last_latency_ms: float | None = None
        self._verdict, self._health = Verdict.STALE, Health("ok")
        self._deviations = Durations(bin_ns=10_000, num_bins=10_000)
        self._latencies = Durations(bin_ns=1_000_000, num_bins=60_000)

    def attach(self, wake: Callable[[], None], ended: Callable[[], None]) -> None:
        """Name who is to know of new frames and taken results, and of the end of the source."""
        self._wake, self._ended = wake, ended

    @property
    def has_ended(self) -> bool:
        """True when the source has ended and everything that came of it was published."""
        if not self._has_source_ended or (self._trigger is not None and self._trigger.is_pending):
            return False
        return self._ledger.snapshot().in_flight == 0

    def trigger(self, trigger_id: str | None = None) -> None:
        """Ask for one acquisition: the first frame captured from now on is inspected.

        The identifier comes back in the one message that answers: a verdict, or a fault. It may be called from any
        thread.

        Raises:
            ArgumentError: The last trigger is not answered yet, the identifier cannot stand in a message, or the
                camera does not wait for software triggers.
            CameraError: The camera did not take the command to release its shutter.
        """
        if self._trigger is None:
            raise ArgumentError(
                f"camera {self.name!r} runs with trigger {self._trigger_name!r}, not by command; "
                'set trigger = "software" for it'
            )
        request = self._trigger.ask(trigger_id, now_ns())
        release: Callable[[], object] = getattr(self._camera, "trigger", _nothing)
        try:
            release()
        except BaseException:
            self._trigger.withdraw(request)
            raise

    def capture(self) -> None:
        """Read frames until the source ends or the station is closed: the work of one thread."""
        try:
            self._read_frames()
        except BaseException as error:
            self.failure = error
            self._report_camera_error(error)
        self._has_source_ended = True
        self._ended()

    def close(self) -> None:
        """Give the camera back and wake the thread that waits in it; what the camera raises is logged."""
        self._stopping.set()
        try:
            self._camera.close()
        except Exception:
            self._log.exception("the camera cannot be closed")

    def finish(self) -> None:
        """Count what is still in flight as `shutdown`; what comes later is let go."""
        with self._lock:
            self._is_closed = True
            self._ledger.drop_all("shutdown")

    def status(self) -> Status:
        """What the last message said."""
        score = None if self._last is None else self._last.score
        return Status(self._verdict, score, self._last_latency_ms, self._health, self._ledger.snapshot())

    def summary(self, elapsed_s: float, priority: str) -> Summary:
        """What the run amounted to."""
        ledger = self._ledger.snapshot()
        inspected_hz = ledger.published_fresh / elapsed_s
        deviation_ms, latency_ms = self._deviations.percentiles_ms, self._latencies.percentiles_ms
        return Summary(self.session, ledger, elapsed_s, inspected_hz, deviation_ms, latency_ms, priority)

    # Capturing

    def _read_frames(self) -> None:
        while not self._stopping.is_set():
            try:
                frame = self._camera.read()
            except Exception as error:
                self._report_camera_error(error)
                wait_for(self._stopping, CAMERA_RETRY_S)
                continue
            if frame is None:
                return
            self._camera_error = None
            if self._trigger_name == "hardware":
                self._count_incomplete()
            self._offer(frame)

    def _count_incomplete(self) -> None:
        num_incomplete: int = getattr(self._camera, "incomplete", 0)
        if num_incomplete > self._num_incomplete:
            self._ledger.miss_triggers(num_incomplete - self._num_incomplete)
            self._num_incomplete = num_incomplete

    def _report_camera_error(self, error: BaseException) -> None:
        reason = _reason("camera", error)
        if reason != self._camera_error:
            self._log.error("%s", reason, exc_info=None if isinstance(error, FbftError) else error)
        self._camera_error = reason

    def _offer(self, frame: Frame) -> None:
        captured_ns = min(max(frame.captured_ns, self._last_captured_ns), now_ns())
        if captured_ns != frame.captured_ns:
            frame = dataclasses.replace(frame, captured_ns=captured_ns)
        self._last_captured_ns = captured_ns
        request = None if self._trigger is None else self._trigger.acquire(frame)
        if self._trigger is not None and request is None:
            return
        self._line_up(Acquisition(frame, request, time.monotonic_ns()))
        self._wake()

    def _line_up(self, acquisition: Acquisition) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._ledger.capture()
            if len(self._waiting) == self._most_waiting:
                self._waiting.popleft()
                self._ledger.drop("replaced")
            self._waiting.append(acquisition)

    # Inferring: `fbft_edge.line.inference.Client`

    def is_ready(self, most: int) -> bool:
        """See `fbft_edge.line.inference.Client`."""
        with self._lock:
            return bool(self._waiting) and self._with_engine < most and not self._is_closed

    def take(self) -> Acquisition | None:
        """See `fbft_edge.line.inference.Client`."""
        with self._lock:
            if self._is_closed or not self._waiting:
                return None
            self._with_engine += 1
            return self._waiting.popleft()

    def deliver(self, inspection: Inspection) -> None:
        """See `fbft_edge.line.inference.Client`; encodes what was found."""
        finished = self._encoded(inspection)
        with self._lock:
            if not self._is_closed:
                self._results.append(finished)

    def _encoded(self, inspection: Inspection) -> _Finished:
        acquisition, found = inspection.acquisition, inspection.found
        bundle = encode_bundle(inspection.model.image_threshold, inspection.model.bundle_sha256)
        trigger_id, frame = acquisition.trigger_id, acquisition.frame
        try:
            if isinstance(found, Exception):
                raise found
            result = encode_detection(frame, found, self._settings.with_preview, trigger_id, bundle)
        except Exception as error:
            reason = _reason("inference", error)
            self._log.error("%s", reason, exc_info=None if isinstance(error, FbftError) else error)
            return _Finished(acquisition, encode_no_detection(frame, reason, trigger_id, bundle), None)
        waited_ns = inspection.begun_ns - acquisition.arrived_ns
        inferred_ns = inspection.ended_ns - inspection.begun_ns
        encoded_ns = time.monotonic_ns() - inspection.ended_ns
        return _Finished(acquisition, result, Inspected(frame, found, waited_ns, inferred_ns, encoded_ns))

    # Publishing

    def publish(self, send: Callable[[Sequence[bytes]], None], due_ns: int, line: LineState) -> Published:
        """Send this period's message.

        Args:
            send: Takes the parts.
            due_ns: When the message is due, on the monotonic clock.
            line: What else there is to say.

        Returns:
            The message, for observers.
        """
        finished = self._poll()
        published_ns = now_ns()
        said = self._said(finished, published_ns, line)
        self._verdict, self._health = said.verdict, said.health
        sequence = self._writer.sequence
        parts = self._writer.write(said.result, said.verdict, published_ns, said.ledger, said.health)
        send(parts)
        deviation_ns = abs(time.monotonic_ns() - due_ns)
        self._deviations.add(deviation_ns)
        return Published(
            self.name,
            sequence,
            parts,
            said.verdict,
            said.health,
            said.ledger,
            published_ns,
            deviation_ns,
            said.fresh,
        )

    def _poll(self) -> _Finished | None:
        with self._lock:
            if not self._results:
                return None
            self._with_engine -= 1
            finished = self._results.popleft()
        self._wake()
        return finished

    def _said(self, finished: _Finished | None, published_ns: int, line: LineState) -> _Said:
        if finished is not None:
            return self._about(finished, published_ns, line)
        if (request := None if self._trigger is None else self._trigger.miss(published_ns)) is not None:
            return self._missed(request, published_ns, line)
        if (fault := line.engine_fault or self._camera_error) is not None:
            return self._fault(encode_no_detection(bundle=line.bundle), fault)
        return self._repeat(published_ns, line)

    def _about(self, finished: _Finished, published_ns: int, line: LineState) -> _Said:
        if self._trigger is not None:
            self._trigger.answer(finished.acquisition.request)
        frame, result = finished.acquisition.frame, finished.result
        age_ns = max(0, published_ns - frame.captured_ns)
        if result.error is not None:
            return self._failed(result, result.error, "inference_error")
        if 0 < self._settings.late_after_s < age_ns / 1e9:
            limit = f"the limit is {self._settings.late_after_s:g} s"
            reason = f"inference: frame {frame.frame_id} was {age_ns / 1e9:.3f} s old with its result, {limit}"
            late = encode_no_detection(frame, reason, finished.acquisition.trigger_id, result.bundle)
            return self._failed(late, reason, "too_late")
        self._last, self._last_result_ns, self._last_error = result, time.monotonic_ns(), None
        self._may_repeat = True
        self._latencies.add(age_ns)
        self._last_latency_ms = age_ns / 1e6
        health, ledger = self._lesser_health(line), self._ledger.publish_fresh()
        return _Said(result, result.verdict, health, ledger, finished.inspected)

    def _failed(self, result: EncodedResult, reason: str, cause: str) -> _Said:
        self._last_error = reason
        self._ledger.drop(cause)
        return self._fault(result, reason)

    def _missed(self, request: Request, published_ns: int, line: LineState) -> _Said:
        reason = f"trigger: no frame within {(published_ns - request.asked_ns) / 1e9:.3f} s of {request}"
        self._log.error("%s", reason)
        self._last_error = reason
        self._ledger.miss_triggers()
        return self._fault(encode_no_detection(None, reason, request.trigger_id, line.bundle), reason)

    def _fault(self, result: EncodedResult, reason: str) -> _Said:
        self._may_repeat = False
        return _Said(result, Verdict.FAULT, Health("fault", reason), self._ledger.publish_fault())

    def _repeat(self, published_ns: int, line: LineState) -> _Said:
        last, health = self._last, self._lesser_health(line)
        if last is None:
            return _Said(encode_no_detection(bundle=line.bundle), Verdict.STALE, health, self._ledger.publish_stale())
        age_ns = published_ns - (last.captured_ns or 0)
        is_current = self._may_repeat and age_ns <= self._settings.stale_after_s * 1e9
        return _Said(last, last.verdict if is_current else Verdict.STALE, health, self._ledger.publish_stale())

    def _lesser_health(self, line: LineState) -> Health:
        reason = self._camera_error or self._last_error or self._silence() or line.advice
        return Health("ok") if reason is None else Health("degraded", reason)

    def _silence(self) -> str | None:
        if self.has_ended:
            return ENDED
        silence_ns = time.monotonic_ns() - self._last_result_ns
        is_silent = self._trigger_name == "free" and silence_ns > SILENCE_NS
        return f"no new result for {silence_ns / 1e9:.0f} s" if is_silent else None


def _reason(stage: str, error: BaseException) -> str:
    kind = "" if isinstance(error, FbftError) else f"{type(error).__name__}: "
    return printable(f"{stage}: {kind}{error}")


def _nothing() -> None: ...
