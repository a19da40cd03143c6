"""Capture, infer and publish side by side: one message per period, whatever camera and detector do.

    camera -> [newest frame] -> detector -> [finished result] -> tick -> publisher

Before inference the newest frame wins: a frame that a newer one overtakes is dropped as `replaced`. After
inference nothing is ever lost: the inference thread hands its result over and waits until a tick has taken it, so
an anomalous result can not be overwritten by the ok one behind it. A frame begins when the detector has room for it:
a CPU takes one at a time, a GPU copies the next while it infers the last.

Tick k is due at t0 + k * period on the monotonic clock, so lateness never adds up. When the process was held
up past several ticks, the late ones are sent at once, one after the other: the count of messages stays exact,
the first of them carries the result that was waiting and the others are stale. A tick publishes

- a result that came since the last tick: `ok` or `anomalous`, or `fault` when its inspection failed;
- else, while the camera is in error: `fault`;
- else `stale`, the last result again, or no result when there was none yet.

Masks, previews and the result's share of the header are encoded in the inference thread; a tick joins a few
short strings and sends. Knows nothing about sockets and files.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import NoReturn, Protocol

from fbft_edge.cameras import Camera
from fbft_edge.clock import now_ns
from fbft_edge.detectors import Detector
from fbft_edge.durations import Durations
from fbft_edge.errors import ArgumentError, FbftError
from fbft_edge.frame import Detection, Frame, Verdict
from fbft_edge.ledger import Ledger, LedgerSnapshot
from fbft_edge.message import (
    EncodedResult,
    Health,
    MessageWriter,
    encode_detection,
    encode_no_detection,
    printable,
)
from fbft_edge.slot import Slot

CAMERA_RETRY_S = 1.0
SILENCE_NS = 5_000_000_000
JOIN_TIMEOUT_S = 30.0
SWITCH_INTERVAL_S = 0.0005

_logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Where messages go."""

    def send(self, parts: Sequence[bytes]) -> None:
        """Send the parts of one message, without ever waiting."""
        ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What does not change while a pipeline runs.

    Attributes:
        fps: Messages per second.
        site: Names the place in the topic.
        image_threshold: Scores above it are anomalous.
        bundle_sha256: Identifies the bundle.
        duration_s: End after so long; None to go on until the camera ends or `stop` is called.
        with_preview: Add a small JPEG of the frame to every result.

    Raises:
        ArgumentError: A setting is out of its range.
    """

    fps: float
    site: str
    image_threshold: float
    bundle_sha256: str
    duration_s: float | None = None
    with_preview: bool = False

    def __post_init__(self) -> None:
        if not 0.01 <= self.fps <= 1000:
            raise ArgumentError(f"cannot publish {self.fps:g} messages per second; use --fps from 0.01 to 1000")
        if self.duration_s is not None and not 0 < self.duration_s <= 1e9:
            raise ArgumentError(f"cannot run for {self.duration_s:g} s; use --duration above 0, up to 1e9")


@dataclass(frozen=True, slots=True)
class Status:
    """What the last message said; `latency_ms` is from capture to publishing, of the last inspected frame."""

    verdict: Verdict
    score: float | None
    latency_ms: float | None
    health: Health
    ledger: LedgerSnapshot


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run amounted to.

    Attributes:
        session: UUID of the run.
        ledger: The final totals.
        elapsed_s: From the start to the end.
        inspected_hz: Frames inspected and published per second.
        deviation_ms: How far ticks were sent from their due time: 50th and 99th percentile and maximum.
        latency_ms: From capture to publishing: 50th and 99th percentile and maximum.
        priority: What the system granted the publishing thread: `real-time`, `nice -10` or `normal`.
    """

    session: str
    ledger: LedgerSnapshot
    elapsed_s: float
    inspected_hz: float
    deviation_ms: tuple[float, float, float]
    latency_ms: tuple[float, float, float]
    priority: str


class Pipeline:
    """Runs one camera through one detector to one publisher.

    Args:
        camera: Where frames come from; closed by `stop`.
        detector: Inspects them; stays open.
        publisher: Where messages go; stays open.
        settings: Rate, names and thresholds.

    Attributes:
        session: UUID of the run, in every message.

    Raises:
        ArgumentError: A name cannot stand in a topic.
    """

    def __init__(self, camera: Camera, detector: Detector, publisher: Sender, settings: Settings) -> None:
        self._camera, self._detector, self._publisher, self._settings = camera, detector, publisher, settings
        self._writer = MessageWriter(settings.site, camera.name, settings.image_threshold, settings.bundle_sha256)
        self.session = self._writer.session
        duration_s = settings.duration_s
        self._num_ticks = None if duration_s is None else max(1, round(duration_s * settings.fps))
        self._ledger = Ledger()
        self._frames: Slot[Frame] = Slot()
        self._results: Slot[EncodedResult] = Slot()
        self._free = threading.Semaphore(detector.frames_in_flight)
        self._begun: SimpleQueue[tuple[Frame, Callable[[], Detection]] | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._camera_error: str | None = None
        self._inference_error: str | None = None
        self._last = encode_no_detection()
        self._last_result_ns = time.monotonic_ns()
        self._last_latency_ms: float | None = None
        self._verdict, self._health = Verdict.STALE, Health("ok")
        self._deviations = Durations(bin_ns=10_000, num_bins=10_000)
        self._latencies = Durations(bin_ns=1_000_000, num_bins=60_000)
        self._priority = "normal"
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"fbft-{work.__name__[1:]}", daemon=True)
            for work in (self._publish, self._infer, self._begin, self._capture)
        ]

    def start(self) -> None:
        """Start the threads; the first tick is due at once."""
        self._switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()
        self._start_ns = time.monotonic_ns()
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the duration is over, the camera has ended or publishing failed; False on timeout."""
        return self._stopping.wait(timeout_s)

    def stop(self) -> Summary:
        """End the run; frames in flight are counted as `shutdown`.

        Raises:
            Exception: Whatever ended the publishing thread before its time.
        """
        self._stopping.set()
        elapsed_s = (time.monotonic_ns() - self._start_ns) / 1e9
        self._frames.close()
        self._results.close()
        self._free.release()
        self._camera.close()
        for thread in self._threads:
            thread.join(JOIN_TIMEOUT_S)
        sys.setswitchinterval(self._switch_interval_s)
        gc.unfreeze()
        self._ledger.drop_all("shutdown")
        if self._failure is not None:
            raise self._failure
        return self._summary(elapsed_s)

    def status(self) -> Status:
        """What the last message said."""
        return Status(self._verdict, self._last.score, self._last_latency_ms, self._health, self._ledger.snapshot())

    def _guard(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            self._failure = error
            self._stopping.set()

    def _capture(self) -> None:
        while not self._stopping.is_set():
            try:
                frame = self._camera.read()
            except Exception as error:
                self._report_camera_error(error)
                self._stopping.wait(CAMERA_RETRY_S)
                continue
            if frame is None:
                break
            self._camera_error = None
            self._ledger.capture()
            if self._frames.replace(frame) is not None:
                self._ledger.drop("replaced")
        self._frames.close()

    def _report_camera_error(self, error: Exception) -> None:
        reason = _reason("camera", error)
        if reason != self._camera_error:
            _logger.error("%s", reason, exc_info=None if isinstance(error, FbftError) else error)
        self._camera_error = reason

    def _begin(self) -> None:
        try:
            while self._free.acquire() and (frame := self._frames.take()) is not None and not self._stopping.is_set():
                self._begun.put((frame, self._begun_detection(frame)))
        finally:
            self._begun.put(None)

    def _begun_detection(self, frame: Frame) -> Callable[[], Detection]:
        try:
            return self._detector.begin(frame.pixels)
        except Exception as error:
            return partial(_raise, error)

    def _infer(self) -> None:
        while (begun := self._begun.get()) is not None and not self._stopping.is_set():
            self._results.hand_over(self._inspected(*begun))
            self._free.release()
        self._stopping.set()

    def _inspected(self, frame: Frame, detection: Callable[[], Detection]) -> EncodedResult:
        try:
            return encode_detection(frame, detection(), self._settings.with_preview)
        except Exception as error:
            reason = _reason("inference", error)
            _logger.error("%s", reason, exc_info=None if isinstance(error, FbftError) else error)
            return encode_no_detection(frame, reason)

    def _publish(self) -> None:
        self._priority = _raise_priority()
        start_ns = time.monotonic_ns()
        tick = 0
        while tick != self._num_ticks:
            due_ns = start_ns + round(tick * 1e9 / self._settings.fps)
            if self._stopping.wait((due_ns - time.monotonic_ns()) / 1e9):
                return
            self._tick()
            self._deviations.add(abs(time.monotonic_ns() - due_ns))
            tick += 1
        self._stopping.set()

    def _tick(self) -> None:
        fresh = self._results.poll()
        published_ns = now_ns()
        if fresh is None:
            result, ledger = self._nothing_new()
        elif fresh.error is not None:
            result, ledger = self._failed(fresh)
        else:
            result, ledger = self._arrived(fresh, published_ns)
        self._publisher.send(self._writer.write(result, self._verdict, published_ns, ledger, self._health))

    def _arrived(self, fresh: EncodedResult, published_ns: int) -> tuple[EncodedResult, LedgerSnapshot]:
        self._last, self._last_result_ns, self._inference_error = fresh, time.monotonic_ns(), None
        if fresh.captured_ns is not None:
            latency_ns = max(0, published_ns - fresh.captured_ns)
            self._latencies.add(latency_ns)
            self._last_latency_ms = latency_ns / 1e6
        self._verdict, self._health = fresh.verdict, self._lesser_health()
        return fresh, self._ledger.publish_fresh()

    def _failed(self, fresh: EncodedResult) -> tuple[EncodedResult, LedgerSnapshot]:
        self._inference_error = fresh.error
        self._verdict, self._health = Verdict.FAULT, Health("fault", fresh.error)
        self._ledger.drop("inference_error")
        return fresh, self._ledger.publish_fault()

    def _nothing_new(self) -> tuple[EncodedResult, LedgerSnapshot]:
        if (camera_error := self._camera_error) is not None:
            self._verdict, self._health = Verdict.FAULT, Health("fault", camera_error)
            return encode_no_detection(), self._ledger.publish_fault()
        self._verdict, self._health = Verdict.STALE, self._lesser_health()
        return self._last, self._ledger.publish_stale()

    def _lesser_health(self) -> Health:
        silence_ns = time.monotonic_ns() - self._last_result_ns
        silence = f"no new result for {silence_ns / 1e9:.0f} s" if silence_ns > SILENCE_NS else None
        reason = self._camera_error or self._inference_error or silence
        return Health("ok") if reason is None else Health("degraded", reason)

    def _summary(self, elapsed_s: float) -> Summary:
        ledger = self._ledger.snapshot()
        return Summary(
            self.session,
            ledger,
            elapsed_s,
            ledger.published_fresh / elapsed_s,
            _percentiles(self._deviations),
            _percentiles(self._latencies),
            self._priority,
        )


def _raise(error: Exception) -> NoReturn:
    raise error


def _reason(stage: str, error: Exception) -> str:
    kind = "" if isinstance(error, FbftError) else f"{type(error).__name__}: "
    return printable(f"{stage}: {kind}{error}")


def _percentiles(durations: Durations) -> tuple[float, float, float]:
    return durations.quantile_ms(0.5), durations.quantile_ms(0.99), durations.max_ms


def _raise_priority() -> str:
    """Ask the system to prefer the calling thread; returns what was granted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        return "real-time"
    except (AttributeError, OSError):
        pass
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), -10)
        return "nice -10"
    except OSError:
        return "normal"
