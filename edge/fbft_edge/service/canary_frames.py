"""Messages in, the newest frames with what was said about them out: what a new model is tried on.

Nominal frames stay before anomalous ones, and memory is bounded. Knows nothing about models.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fbft_edge.frames.frame import Frame
from fbft_edge.messages.published import Published

FRAMES_PER_CAMERA = 8
BYTES_PER_CAMERA = 64 << 20


@dataclass(frozen=True, slots=True)
class CanaryFrame:
    """A frame, and what the model of its time said about it."""

    frame: Frame
    score: float
    is_anomalous: bool


class CanaryFrames:
    """Keeps the newest frames of each camera, as an observer of the line.

    Args:
        most: Frames of each camera.
        most_bytes: Pixels of each camera; one frame is kept in any case.
    """

    def __init__(self, most: int = FRAMES_PER_CAMERA, most_bytes: int = BYTES_PER_CAMERA) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: dict[str, tuple[deque[CanaryFrame], deque[CanaryFrame]]] = {}

    def published(self, message: Published) -> None:
        """See `fbft_edge.messages.published.Observer`; frames are referred to, not copied."""
        if (fresh := message.fresh) is None:
            return
        nominal, anomalous = self._kept.setdefault(message.camera, (deque(), deque()))
        detection = fresh.detection
        kept = CanaryFrame(fresh.frame, detection.score, detection.is_anomalous)
        (anomalous if detection.is_anomalous else nominal).append(kept)
        most = max(1, min(self._most, self._most_bytes // fresh.frame.pixels.nbytes))
        while len(nominal) + len(anomalous) > most:
            (anomalous or nominal).popleft()

    def frames(self) -> list[CanaryFrame]:
        """What is kept of every camera, nominal ones first, newest first."""
        kept = list(self._kept.values())
        nominal = [frame for frames, _ in kept for frame in reversed(list(frames))]
        return nominal + [frame for _, frames in kept for frame in reversed(list(frames))]
