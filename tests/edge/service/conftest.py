"""What tests of the service share: messages as the pipeline would report them, by a real writer and ledger."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from fbft_edge.clock import now_ns
from fbft_edge.frames.frame import Detection, Frame, Uint8, Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.published import Inspected, Published
from fbft_edge.messages.writing import MessageWriter, encode_detection, encode_no_detection

SHA256 = "ab" * 32
THRESHOLD = 0.5
OK = Health("ok")


class MessageSource:
    """One camera's messages, each a real one."""

    def __init__(self, camera: str) -> None:
        self.camera, self.ledger = camera, Ledger()
        self._writer = MessageWriter("hall-3", camera, THRESHOLD, SHA256)
        self._count = 0

    def fresh(
        self,
        score: float = 0.1,
        pixels: Uint8 | None = None,
        health: Health | None = None,
        latency_ns: int = 30_000_000,
    ) -> Published:
        pixels = np.zeros((8, 8, 3), np.uint8) if pixels is None else pixels
        self.ledger.capture()
        frame = Frame(self.camera, self._count, now_ns() - latency_ns, pixels)
        detection = Detection(score, score, np.zeros(pixels.shape[:2], bool), (), score > THRESHOLD)
        encoded = encode_detection(frame, detection)
        published_ns, ledger, health = (
            frame.captured_ns + latency_ns,
            self.ledger.publish_fresh(),
            health or Health("ok"),
        )
        parts = self._writer.write(encoded, encoded.verdict, published_ns, ledger, health)
        inspected = Inspected(frame, detection, 2_000_000, 20_000_000, 700_000)
        return self._published(parts, encoded.verdict, health, published_ns, inspected)

    def stale(self) -> Published:
        self.ledger.publish_stale()
        return self._repeat(Verdict.STALE, Health("ok"))

    def fault(self, reason: str) -> Published:
        self.ledger.publish_fault()
        return self._repeat(Verdict.FAULT, Health("fault", reason))

    def _repeat(self, verdict: Verdict, health: Health) -> Published:
        published_ns = now_ns()
        parts = self._writer.write(encode_no_detection(), verdict, published_ns, self.ledger.snapshot(), health)
        return self._published(parts, verdict, health, published_ns, None)

    def _published(
        self, parts: list[bytes], verdict: Verdict, health: Health, published_ns: int, fresh: Inspected | None
    ) -> Published:
        self._count += 1
        ledger = self.ledger.snapshot()
        return Published(self.camera, self._count - 1, parts, verdict, health, ledger, published_ns, 40_000, fresh)


@pytest.fixture
def messages() -> Callable[[str], MessageSource]:
    """Makes a source of one camera's messages."""
    return MessageSource
