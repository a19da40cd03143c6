"""One camera of a line: its frames, its ledger, and its message of each period.

    camera -> intake -> [waiting] -> inference -> [results] -> tick -> saying -> message

After inference nothing is ever lost: a result waits until a tick has taken it, and until then no more frames of the
station begin than the engine takes at once. What waits before it is the intake's (`fbft_edge.line.intake`), what a
message says is worked out in `fbft_edge.line.saying`.

Masks, previews and the result's share of the header are encoded by the thread that infers; a tick joins a few short
strings. Knows nothing about other cameras, sockets or the grid.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace

from fbft_edge.cameras import Camera
from fbft_edge.clock import now_ns
from fbft_edge.errors import FbftError
from fbft_edge.frames.frame import Verdict
from fbft_edge.line.durations import Durations
from fbft_edge.line.inference import Acquisition, Inspection
from fbft_edge.line.intake import Intake
from fbft_edge.line.saying import Finished, Memory, Period, Said, said_in, too_late
from fbft_edge.line.settings import Settings, late_after_by_rule
from fbft_edge.line.status import LineState, Status, Summary, reason_of
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger, LedgerSnapshot
from fbft_edge.messages.published import Inspected, Published
from fbft_edge.messages.writing import MessageWriter, encode_bundle, encode_detection, encode_no_detection

_logger = logging.getLogger(__name__)


class Station:
    """Runs one camera; `fbft_edge.line.pipeline.Pipeline` gives it threads, an engine and ticks.

    Args:
        camera: Where frames come from; closed by `close`.
        settings: Of the line.
        trigger: `free`: every frame is offered to the engine. `software`: only frames that `trigger` asks for, the
            others are let go before the ledger. `hardware`: every frame is a part, and a picture that the camera
            counts as lost, incomplete or refused is a missed trigger.
        trigger_timeout_s: A software trigger that brings no frame for so long is missed.

    Attributes:
        name: The camera's name.
        session: UUID of the run, in every message.

    Raises:
        ArgumentError: A name cannot stand in a topic, or a trigger setting is unusable.
    """

    def __init__(
        self, camera: Camera, settings: Settings, trigger: str = "free", trigger_timeout_s: float = 1.0
    ) -> None:
        self.name, self._settings, self._ledger = camera.name, settings, Ledger()
        self._last_inferred_ns = 0
        self._intake = Intake(camera, self._ledger, trigger, trigger_timeout_s)
        self._log = logging.LoggerAdapter(_logger, {"camera": self.name})
        self._writer = MessageWriter(settings.site, self.name)
        self.session = self._writer.session
        if settings.late_after_s is None:
            self.limit_age(late_after_by_rule(settings.fps, 1, 0.0))
        self._wake: Callable[[], None] = _nothing
        self._ended: Callable[[], None] = _nothing
        self._lock = threading.Lock()
        self._results: deque[Finished] = deque()
        self._with_engine = 0
        self._is_closed = False
        self._memory = Memory()
        self._last_result_ns = time.monotonic_ns()
        self._last_latency_ms: float | None = None
        self._verdict, self._health = Verdict.STALE, Health("ok")
        self._deviations = Durations(bin_ns=10_000, num_bins=10_000)
        self._latencies = Durations(bin_ns=1_000_000, num_bins=60_000)

    def attach(self, wake: Callable[[], None], ended: Callable[[], None]) -> None:
        """Name who is to know of new frames and taken results, and of the end of the source."""
        self._wake, self._ended = wake, ended

    def limit_age(self, late_after_s: float) -> None:
        """Give no verdict about frames older than that; 0: about any."""
        self._settings = replace(self._settings, late_after_s=late_after_s)

    @property
    def has_ended(self) -> bool:
        """True when the source has ended and everything that came of it was published."""
        return self._intake.has_ended and self._ledger.snapshot().in_flight == 0

    @property
    def failure(self) -> BaseException | None:
        """What ended the capturing thread before its time, or None."""
        return self._intake.failure

    def trigger(
        self, trigger_id: str | None = None, deadline_ns: int | None = None, part_id: str | None = None
    ) -> None:
        """Ask for one acquisition: the first frame captured from now on is inspected.

        The identifiers come back in the one message that answers: a verdict, or a fault. It may be called from any
        thread.

        Args:
            trigger_id: 1 to 64 printable characters of ASCII.
            deadline_ns: On the session clock; later the trigger is refused.
            part_id: Of the part that it is about, 1 to 64 printable characters of ASCII.

        Raises:
            ArgumentError: The deadline is over, the last trigger is not answered yet, an identifier cannot stand in a
                message, or the camera does not wait for software triggers.
            CameraError: The camera did not take the command to release its shutter.
        """
        self._intake.trigger(trigger_id, deadline_ns, part_id)

    def capture(self) -> None:
        """Read frames until the source ends or the station is closed: the work of one thread."""
        self._intake.run(self._wake)
        self._ended()

    def close(self) -> None:
        """Give the camera back and wake the thread that waits in it; what the camera raises is logged."""
        self._intake.close()

    def finish(self) -> None:
        """Count what is still in flight as `shutdown`; what comes later is let go."""
        self._intake.finish()
        self._intake.count_unseen()
        with self._lock:
            self._is_closed = True
            self._ledger.drop_all("shutdown")

    def status(self) -> Status:
        """What the last message said."""
        last = self._memory.last
        score = None if last is None else last.score
        return Status(self._verdict, score, self._last_latency_ms, self._health, self._ledger.snapshot())

    def summary(self, elapsed_s: float, priority: str) -> Summary:
        """What the run amounted to."""
        ledger = self._ledger.snapshot()
        inspected_hz = ledger.published_fresh / elapsed_s
        deviation_ms, latency_ms = self._deviations.percentiles_ms, self._latencies.percentiles_ms
        return Summary(self.session, ledger, elapsed_s, inspected_hz, deviation_ms, latency_ms, priority)

    # Inferring: `fbft_edge.line.inference.Client`

    def is_ready(self, most: int) -> bool:
        """See `fbft_edge.line.inference.Client`."""
        with self._lock:
            return self._with_engine < most and self._intake.has_waiting

    def take(self) -> Acquisition | None:
        """See `fbft_edge.line.inference.Client`.

        A frame that is too late already only takes its turn. So does one that would be too late once inspected, when a
        younger one waits behind it: else an engine that does not keep up with a hardware trigger would inspect every
        part and answer about none.
        """
        limit_ns = round((self._settings.late_after_s or 0.0) * 1e9)
        with self._lock:
            is_overtaken = self._intake.is_overtaken(now_ns() - limit_ns + self._last_inferred_ns)
            if (acquisition := self._intake.take()) is None:
                return None
            self._with_engine += 1
            age_ns = now_ns() - acquisition.frame.captured_ns
            if limit_ns == 0 or (age_ns <= limit_ns and not is_overtaken):
                return acquisition
            about = too_late(acquisition.frame, age_ns)
            refusal = f"inference: {about} before its inspection, the limit is {limit_ns / 1e9:.4g} s"
            return replace(acquisition, refusal=refusal)

    def deliver(self, inspection: Inspection) -> None:
        """See `fbft_edge.line.inference.Client`; encodes what was found."""
        finished = self._encoded(inspection)
        if inspection.acquisition.refusal is None:
            self._last_inferred_ns = inspection.ended_ns - inspection.begun_ns
        with self._lock:
            if not self._is_closed:
                self._results.append(finished)

    def _encoded(self, inspection: Inspection) -> Finished:
        acquisition, found = inspection.acquisition, inspection.found
        model = inspection.model
        bundle = encode_bundle(model.image_threshold, model.bundle_sha256, model.pixel_threshold)
        trigger_id, part_id, frame = acquisition.trigger_id, acquisition.part_id, acquisition.frame
        if (refusal := acquisition.refusal) is not None:
            late = encode_no_detection(frame, refusal, trigger_id, bundle, part_id)
            return Finished(acquisition, late, None, "too_late")
        try:
            if isinstance(found, Exception):
                raise found
            result = encode_detection(frame, found, self._settings.with_preview, trigger_id, bundle, part_id)
        except Exception as error:
            reason = reason_of("inference", error)
            self._log.error("%s", reason, exc_info=None if isinstance(error, FbftError) else error)
            return Finished(acquisition, encode_no_detection(frame, reason, trigger_id, bundle, part_id), None)
        waited_ns = inspection.begun_ns - acquisition.arrived_ns
        inferred_ns = inspection.ended_ns - inspection.begun_ns
        encoded_ns = time.monotonic_ns() - inspection.ended_ns
        return Finished(acquisition, result, Inspected(frame, found, waited_ns, inferred_ns, encoded_ns))

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
        self._intake.count_unseen()
        published_ns = now_ns()
        period = self._period(finished, published_ns, line)
        said = said_in(period, self._memory, self._settings)
        if period.missed is not None:
            self._log.error("%s", said.health.reason)
        ledger = self._counted(said)
        self._memory, self._verdict, self._health = said.memory, said.verdict, said.health
        sequence = self._writer.sequence
        parts = self._writer.write(said.result, said.verdict, published_ns, ledger, said.health)
        send(parts)
        deviation_ns = abs(time.monotonic_ns() - due_ns)
        self._deviations.add(deviation_ns)
        return Published(
            self.name, sequence, parts, said.verdict, said.health, ledger, published_ns, deviation_ns, said.fresh
        )

    def _poll(self) -> Finished | None:
        with self._lock:
            if not self._results:
                return None
            self._with_engine -= 1
            finished = self._results.popleft()
        self._wake()
        return finished

    def _period(self, finished: Finished | None, published_ns: int, line: LineState) -> Period:
        missed = None
        if finished is not None:
            self._intake.answer_trigger(finished.acquisition.request)
        else:
            missed = self._intake.miss_trigger(published_ns)
        silence_ns = time.monotonic_ns() - self._last_result_ns if self._intake.is_free else 0
        return Period(published_ns, line, finished, missed, self._intake.error, self.has_ended, silence_ns)

    def _counted(self, said: Said) -> LedgerSnapshot:
        if said.dropped is not None:
            self._ledger.drop(said.dropped)
        if said.kind == "stale":
            return self._ledger.publish_stale()
        if said.kind == "fault":
            return self._ledger.publish_fault()
        if said.age_ns is not None:
            self._last_result_ns = time.monotonic_ns()
            self._latencies.add(said.age_ns)
            self._last_latency_ms = said.age_ns / 1e6
        return self._ledger.publish_fresh()


def _nothing() -> None: ...
