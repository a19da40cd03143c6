"""Messages in, recordings of the frames behind them on disk: every anomalous one, and a share of the nominal.

A thread of its own encodes and writes. When it does not keep up, or nothing can be written, recordings are dropped
and counted; messages never wait. Knows nothing about cameras, detectors or sockets.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from fbft_edge.clock import wait_for
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import Bool, Frame, Verdict
from fbft_edge.messages.published import Published
from fbft_edge.ranges import NOMINAL_EVERY, RECORDINGS_DAYS, RECORDINGS_GIB
from fbft_edge.recording.folder import RecordingFolder
from fbft_edge.recording.recordings import Place, place_of, recording_files
from fbft_edge.recording.retention import DAY_NS, Retention
from fbft_edge.strict_json import json_from_bytes

QUEUE_BYTES = 256 << 20
RETRY_S = 5.0
ADVICE_S = 10.0
LOOK_EVERY_S = 3600.0
CLOSE_TIMEOUT_S = 30.0

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecorderSettings:
    """What is kept, and how long.

    Attributes:
        max_gib: Most that the files of all recordings take together.
        max_days: Older ones go; 0 for no limit.
        nominal_every: Keep one of so many nominal frames of each camera, the first to begin with; 0 for none.
        queue_bytes: Most that frames take while they wait to be written, the one being written among them; nominal
            ones get half of it. When nothing else waits, a frame of any size may.

    Raises:
        ArgumentError: A setting is out of its range.
    """

    max_gib: float = 10.0
    max_days: float = 30.0
    nominal_every: int = 0
    queue_bytes: int = QUEUE_BYTES

    def __post_init__(self) -> None:
        if self.max_gib not in RECORDINGS_GIB:
            raise ArgumentError(f"cannot keep {self.max_gib:g} GiB of recordings; use max_gib {RECORDINGS_GIB}")
        if self.max_days not in RECORDINGS_DAYS:
            raise ArgumentError(f"cannot keep recordings for {self.max_days:g} days; use max_days {RECORDINGS_DAYS}")
        if self.nominal_every not in NOMINAL_EVERY:
            raise ArgumentError(
                f"cannot keep one of {self.nominal_every} nominal frames; use nominal_every {NOMINAL_EVERY}"
            )


@dataclass(frozen=True, slots=True)
class RecorderCounts:
    """What a recorder did so far.

    Attributes:
        recorded: Recordings that it wrote.
        dropped: Recordings that were to be made and were not.
        removed: Recordings that went for newer ones or for their age, and nominal ones that found no room.
        waiting_bytes: Frames in memory, waiting to be written.
        stored_bytes: All recordings on disk; what others did to the folder is seen once an hour.
    """

    recorded: int
    dropped: int
    removed: int
    waiting_bytes: int
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A frame with what was published about it."""

    frame: Frame
    mask: Bool
    topic: bytes
    header: bytes
    is_anomalous: bool

    @property
    def num_bytes(self) -> int:
        return self.frame.pixels.nbytes + self.mask.nbytes + len(self.header)

    def encoded(self, engine: str) -> tuple[Place, dict[str, bytes]]:
        """Where the recording goes, and its files."""
        header = json_from_bytes(self.header)
        place = place_of(self.frame, self.is_anomalous, header["session"], header["sequence"])
        return place, recording_files(self.frame, self.mask, self.topic, self.header, engine)


class Recorder:
    """Keeps the frames behind messages; see `fbft_edge.messages.published.Observer`.

    Args:
        folder: This process's alone; made if it does not exist.
        settings: What is kept, and how long.
        engine: What infers, in words; stands in every recording.
        retry_s: How long to wait after the file system refused something; frames queue up meanwhile.

    Attributes:
        engine: As given; may be set when another engine takes over.

    Raises:
        RecordingError: The folder cannot be used.
    """

    def __init__(self, folder: Path, settings: RecorderSettings, engine: str, retry_s: float = RETRY_S) -> None:
        self.engine = engine
        self._settings, self._retry_s = settings, retry_s
        self._folder = RecordingFolder(folder)
        self._retention = Retention(self._folder, int(settings.max_gib * 2**30), int(settings.max_days * DAY_NS))
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        # Each number has one thread that changes it: the publishing one counts in, the recorder's counts out.
        self._accepted_bytes = self._overflowed = 0
        self._finished_bytes = self._failed = self._recorded = 0
        self._nominal: Counter[str] = Counter()
        self._last_drop: tuple[int, str] | None = None
        self._problem: str | None = None
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._work, name="fbft-recorder", daemon=True)
        self._thread.start()

    def published(self, message: Published) -> None:
        """See `fbft_edge.messages.published.Observer`; frame and mask are referred to, not copied."""
        fresh = message.fresh
        is_anomalous = message.verdict is Verdict.ANOMALOUS
        if fresh is None or self._closing.is_set() or not (is_anomalous or self._is_kept_nominal(message.camera)):
            return
        topic, header = message.parts[:2]
        waiting = _Waiting(fresh.frame, fresh.detection.mask, topic, header, is_anomalous)
        limit = self._settings.queue_bytes // (1 if is_anomalous else 2)
        queued = self._accepted_bytes - self._finished_bytes
        if queued and queued + waiting.num_bytes > limit:
            self._overflowed += 1
            self._last_drop = time.monotonic_ns(), "frames come faster than they are written"
            return
        self._accepted_bytes += waiting.num_bytes
        self._queue.put(waiting)

    def advice(self) -> str | None:
        """Why recordings are being dropped, or are about to be; None when they are not."""
        problem, last_drop = self._problem, self._last_drop
        if problem is None and last_drop is not None and time.monotonic_ns() - last_drop[0] < ADVICE_S * 1e9:
            problem = last_drop[1]
        return None if problem is None else f"recorder: {problem}; {self._overflowed + self._failed} recordings dropped"

    @property
    def counts(self) -> RecorderCounts:
        """What it did so far."""
        return RecorderCounts(
            recorded=self._recorded,
            dropped=self._overflowed + self._failed,
            removed=self._retention.removed,
            waiting_bytes=self._accepted_bytes - self._finished_bytes,
            stored_bytes=self._retention.stored_bytes,
        )

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> None:
        """Write what waits, trying once, and end; may be called twice."""
        self._closing.set()
        self._queue.put(None)
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            _logger.error("%s takes no more recordings; %d bytes of frames are lost", *self._left())

    def _left(self) -> tuple[Path, int]:
        return self._folder.path, self.counts.waiting_bytes

    def _is_kept_nominal(self, camera: str) -> bool:
        every = self._settings.nominal_every
        self._nominal[camera] += 1
        return every > 0 and (self._nominal[camera] - 1) % every == 0

    def _work(self) -> None:
        self._insist(self._folder.clear_temporaries)
        look_s = 0.0
        while True:
            if time.monotonic() >= look_s:
                self._insist(self._retention.look)
                look_s = time.monotonic() + LOOK_EVERY_S
            try:
                waiting = self._queue.get(timeout=max(0.0, look_s - time.monotonic()))
            except Empty:
                continue
            if waiting is None:
                break
            self._keep(waiting)
            self._finished_bytes += waiting.num_bytes
        self._folder.close()

    def _keep(self, waiting: _Waiting) -> None:
        try:
            place, files = waiting.encoded(self.engine)
            is_kept = self._insist(partial(self._retention.keep, place, files))
        except Exception as error:
            _logger.exception("a frame of camera %s cannot be recorded", waiting.frame.camera)
            self._drop(f"a frame cannot be recorded ({type(error).__name__}: {error})")
            return
        self._recorded += bool(is_kept)
        if is_kept is None:
            self._drop("the disk refuses them")
        elif waiting.is_anomalous and not is_kept:
            num_mb = sum(map(len, files.values())) / 1e6
            self._drop(f"{num_mb:.1f} MB of one recording are more than max_gib = {self._settings.max_gib:g}")

    def _insist(self, action: Callable[[], _T]) -> _T | None:
        """Do what the file system may refuse, until it does not; None when the recorder closes before."""
        while True:
            try:
                result = action()
            except OSError as error:
                self._report(f"{self._folder.path}: {error.strerror or error}")
                if wait_for(self._closing, self._retry_s):
                    return None
            else:
                self._report(None)
                return result

    def _report(self, problem: str | None) -> None:
        if problem != self._problem:
            text = f"recorder: {problem}" if problem else "recorder: writes again"
            _logger.log(logging.ERROR if problem else logging.INFO, "%s", text)
        self._problem = problem

    def _drop(self, cause: str) -> None:
        self._failed += 1
        self._last_drop = time.monotonic_ns(), cause
