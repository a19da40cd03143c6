"""Messages in, the newest frames with what was said about them out: what a new model is tried on.

Nominal and anomalous frames are kept apart, so that neither push the other out, and memory is bounded. Knows nothing
about models.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fbft_edge.frames.frame import Frame
from fbft_edge.messages.published import Published

FRAMES_OF_A_KIND = 6
BYTES_OF_A_KIND = 32 << 20


@dataclass(frozen=True, slots=True)
class CanaryFrame:
    """A frame, and what the model of its time said about it."""

    frame: Frame
    score: float
    is_anomalous: bool


class CanaryFrames:
    """Keeps the newest frames of each camera, as an observer of the line.

    Args:
        most: Frames of each camera that were ok, and as many that were anomalous.
        most_bytes: Pixels of each camera that were ok, and as many anomalous; one frame of either is kept in any case.
    """

    def __init__(self, most: int = FRAMES_OF_A_KIND, most_bytes: int = BYTES_OF_A_KIND) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._kept: dict[tuple[bool, str], deque[CanaryFrame]] = {}

    def published(self, message: Published) -> None:
        """See `fbft_edge.messages.published.Observer`; frames are referred to, not copied."""
        if (fresh := message.fresh) is None:
            return
        detection = fresh.detection
        kept = self._kept.setdefault((detection.is_anomalous, message.camera), deque())
        kept.append(CanaryFrame(fresh.frame, detection.score, detection.is_anomalous))
        while len(kept) > max(1, min(self._most, self._most_bytes // fresh.frame.pixels.nbytes)):
            kept.popleft()

    def forget(self) -> None:
        """Keep none of the frames: another model says other things, perhaps about another product."""
        self._kept = {}

    def frames(self) -> list[CanaryFrame]:
        """What is kept of every camera, nominal ones first, newest first."""
        kept = [list(frames) for _, frames in sorted(self._kept.copy().items(), key=lambda entry: entry[0][0])]
        return [frame for frames in kept for frame in reversed(frames)]
