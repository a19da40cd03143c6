"""What the pipeline tells about each message that it sent, and to whom: recorder, metrics, drift, watchdog.

Knows nothing about what they do with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from fbft_edge.frames.frame import Detection, Frame, Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import LedgerSnapshot


@dataclass(frozen=True, slots=True)
class Inspected:
    """A frame with what was found in it.

    Attributes:
        frame: As the camera sent it; nobody writes to it.
        detection: What the detector says.
        waited_ns: From the frame's arrival to the start of its inference.
        inferred_ns: From there to the detection.
        encoded_ns: From there to the encoded result.
    """

    frame: Frame
    detection: Detection
    waited_ns: int
    inferred_ns: int
    encoded_ns: int


@dataclass(frozen=True, slots=True)
class Published:
    """One message that was sent.

    Attributes:
        camera: The camera's name.
        sequence: Of the message.
        parts: The message itself: topic, header, mask and, if there is one, preview.
        verdict: What it says.
        health: With its reason.
        ledger: The totals with this message.
        published_ns: When it was sent, on the session clock.
        deviation_ns: How far from its due time.
        fresh: The frame that it is about when it is the first to say so; None when it repeats or says fault.
    """

    camera: str
    sequence: int
    parts: Sequence[bytes]
    verdict: Verdict
    health: Health
    ledger: LedgerSnapshot
    published_ns: int
    deviation_ns: int
    fresh: Inspected | None


class Observer(Protocol):
    """Whoever wants to know about messages."""

    def published(self, message: Published) -> None:
        """Take note, within microseconds and without raising: this is the publishing thread."""
        ...
