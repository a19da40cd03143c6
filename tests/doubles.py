"""Stand-ins for what a line is made of: a camera, a detector, a sender, an observer, and messages without a line.

Each does as a test tells it and keeps what became of it. They know nothing about any one test.
"""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
import zmq
from waiting import wait_until

from fbft_edge.clock import now_ns
from fbft_edge.detectors.model import DetectorPool, Model
from fbft_edge.frames.frame import Detection, Frame, Pixels, Region, Verdict
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.published import Inspected, Published
from fbft_edge.messages.reading import Result, decode_message
from fbft_edge.messages.writing import EncodedResult, MessageWriter, encode_detection, encode_no_detection
from fbft_edge.progress import Silence, Tone

SIZE = (8, 12)
SHA256 = "ab" * 32
THRESHOLD = 0.5
BAD, BROKEN = 150, 200
_T = TypeVar("_T")

Answer = int | BaseException | None
"""What one read of a camera brings: a frame of that level, an error to raise, None for the end."""


class FakeCamera:
    """Delivers what a test pushes; between that nothing, or what it is told for each read, at a pace.

    Args:
        name: The camera's name.
        every_s: Seconds before each read of its own; None for none, so that a read waits for what is pushed.
        answers: What reads of its own bring, or a function of the read's number that says so.

    Attributes:
        reads: How many reads of its own began.
        delivered: How many frames were delivered; their numbers are their ids.
    """

    size, pixel_format = SIZE, PixelFormat.RGB8

    def __init__(
        self, name: str = "press-1", every_s: float | None = None, answers: Answer | Callable[[int], Answer] = 10
    ) -> None:
        self.name, self._every_s = name, every_s
        self._answers = answers if callable(answers) else lambda number: answers
        self.reads = self.delivered = 0
        self._pushed: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.closed = threading.Event()

    def push(self, *answers: Answer) -> None:
        for answer in answers:
            self._pushed.put(answer)

    def read(self) -> Frame | None:
        answer = self._pushed.get() if self._every_s is None or not self._pushed.empty() else self._own(self._every_s)
        if self.closed.is_set() or answer is None:
            return None
        if isinstance(answer, BaseException):
            raise answer
        return self.frame(answer)

    def _own(self, pause_s: float) -> Answer:
        answer = self._answers(self.reads)
        self.reads += 1
        return None if self.closed.wait(pause_s) else answer

    def frame(self, level: int, size: tuple[int, int] = SIZE) -> Frame:
        """The next frame, of one level throughout."""
        self.delivered += 1
        return Frame(self.name, self.delivered - 1, self.now_ns(), np.full((*size, 3), level, np.uint8))

    def now_ns(self) -> int:
        return now_ns()

    def close(self) -> None:
        self.closed.set()
        self._pushed.put(None)


class FakeDetector:
    """Calls frames above level 100 anomalous, cannot inspect those of level 200, and waits while its gate is shut.

    Args:
        seconds: What an inspection takes.
        score: What it says of every frame; None for the level, in [0, 1].

    Attributes:
        gate: Inspections wait while it is clear.
        entered: Set by the first inspection.
        inspected: How many were carried out.
        closed: How often it was closed.
    """

    frames_in_flight = 1

    def __init__(self, seconds: float = 0.0, score: float | None = None) -> None:
        self._seconds, self._score = seconds, score
        self.gate, self.entered = threading.Event(), threading.Event()
        self.gate.set()
        self.inspected = self.closed = 0

    def begin(self, pixels: Pixels) -> Callable[[], Detection]:
        return partial(self.detect, pixels)

    def detect(self, pixels: Pixels) -> Detection:
        level = int(pixels.flat[0])
        self.entered.set()
        self.gate.wait()
        time.sleep(self._seconds)
        assert not self.closed
        self.inspected += 1
        if level == BROKEN:
            raise RuntimeError("out of memory")
        is_bad = level > 100
        mask = np.zeros(pixels.shape[:2], bool)
        mask[0, 0] = is_bad
        regions = (Region((0, 0, 1, 1), 1, 1.0, (0.0, 0.0)),) if is_bad else ()
        return Detection(level / 255 if self._score is None else self._score, 1.0, mask, regions, is_bad)

    def close(self) -> None:
        self.closed += 1


def model_of(detector: FakeDetector, sha256: str = SHA256) -> Model:
    """A model that has one detector for frames of every layout."""
    return Model(DetectorPool(lambda layout: detector, most=None), THRESHOLD, sha256)


class Sent:
    """Keeps every message that would have gone out; breaks instead of sending one if it is told to.

    Args:
        breaks_at: How many messages go out before; None for all.
    """

    def __init__(self, breaks_at: int | None = None) -> None:
        self._breaks_at = breaks_at
        self.messages: list[list[bytes]] = []

    def send(self, parts: Sequence[bytes]) -> None:
        if len(self.messages) == self._breaks_at:
            raise zmq.ZMQError(zmq.ENOTSUP)
        self.messages.append(list(parts))

    def results(self, camera: str | None = None) -> list[Result]:
        """What was sent so far, of one camera or of all."""
        decoded = [decode_message(parts) for parts in tuple(self.messages)]
        return [result for result in decoded if camera in (None, result.camera)]

    @property
    def headers(self) -> list[dict[str, object]]:
        return [json.loads(parts[1]) for parts in self.messages]

    def wait_for(self, is_it: Callable[[Result], object], camera: str = "press-1") -> Result:
        """The first message of which something is true, once there is one."""
        seen = 0

        def look() -> list[Result]:
            nonlocal seen
            new = [decode_message(parts) for parts in self.messages[seen:]]
            seen += len(new)
            return [result for result in new if result.camera == camera and is_it(result)]

        try:
            return wait_until(look, f"a message of {camera}")[0]
        except AssertionError as error:
            last = [(result.verdict.value, result.health) for result in self.results(camera)[-20:]]
            raise AssertionError(f"{error}; the last of {len(self.messages)} messages: {last}") from None


class Observing:
    """Keeps what it is told; raises at one message if it is told to.

    Args:
        raises_at: The number of that message, from 1.
    """

    def __init__(self, raises_at: int | None = None) -> None:
        self._raises_at = raises_at
        self.told: list[Published] = []

    def __repr__(self) -> str:
        return f"Observing({self._raises_at})"

    def published(self, message: Published) -> None:
        self.told.append(message)
        if len(self.told) == self._raises_at:
            raise OSError(28, "No space left on device")


class MessageSource:
    """One camera's messages as a line would tell its observers, by a real writer and ledger."""

    def __init__(self, camera: str = "press-1", image_threshold: float = THRESHOLD, sha256: str = SHA256) -> None:
        self.camera, self.ledger, self.count = camera, Ledger(), 0
        self._writer = MessageWriter("hall-3", camera, image_threshold, sha256)

    def fresh(
        self,
        score: float = 0.1,
        pixels: Pixels | None = None,
        health: Health | None = None,
        latency_ns: int = 30_000_000,
    ) -> Published:
        """About a new frame; anomalous above the threshold."""
        pixels = np.zeros((8, 8, 3), np.uint8) if pixels is None else pixels
        frame = Frame(self.camera, self.count, now_ns() - latency_ns, pixels)
        detection = Detection(score, score, np.zeros(pixels.shape[:2], bool), (), score > THRESHOLD)
        return self.about(frame, detection, health, frame.captured_ns + latency_ns)

    def about(
        self, frame: Frame, detection: Detection, health: Health | None = None, published_ns: int | None = None
    ) -> Published:
        """About a frame and what was found in it."""
        self.ledger.capture()
        self.ledger.publish_fresh()
        encoded = encode_detection(frame, detection)
        inspected = Inspected(frame, detection, 2_000_000, 20_000_000, 700_000)
        return self._published(encoded, encoded.verdict, health or Health("ok"), published_ns, inspected)

    def stale(self) -> Published:
        self.ledger.publish_stale()
        return self._published(encode_no_detection(), Verdict.STALE, Health("ok"))

    def fault(self, reason: str) -> Published:
        self.ledger.publish_fault()
        return self._published(encode_no_detection(), Verdict.FAULT, Health("fault", reason))

    def _published(
        self,
        encoded: EncodedResult,
        verdict: Verdict,
        health: Health,
        published_ns: int | None = None,
        fresh: Inspected | None = None,
    ) -> Published:
        published_ns = now_ns() if published_ns is None else published_ns
        ledger = self.ledger.snapshot()
        parts = self._writer.write(encoded, verdict, published_ns, ledger, health)
        self.count += 1
        return Published(self.camera, self.count - 1, parts, verdict, health, ledger, published_ns, 40_000, fresh)


class Said(Silence):
    """A `Progress` that keeps what it is told.

    Attributes:
        lines: What was said.
        work: By what was worked through, how many items it had; of work without a length none.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.work: dict[str, int | None] = {}

    def say(self, text: str, tone: Tone = "plain") -> None:
        self.lines.append(text)

    def track(self, items: Iterable[_T], what: str, total: int | None = None) -> Iterator[_T]:
        self.work[what] = total if total is not None else len(items) if isinstance(items, Sequence) else None
        return iter(items)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)
