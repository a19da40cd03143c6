"""What every camera shares: frames numbered, stamped and held to one size, and a pace to deliver them at.

Knows nothing about where pixels come from.
"""

from __future__ import annotations

import threading
import time

from fbft_edge.clock import now_ns
from fbft_edge.errors import CameraError
from fbft_edge.frame import Frame, Uint8


class FrameSequence:
    """Makes frames of one camera from pixels of one size.

    Attributes:
        name: The camera's name.
        size: Height and width of every frame.
        count: Frames made so far, and so the next `frame_id`.
    """

    def __init__(self, name: str, size: tuple[int, int]) -> None:
        self.name = name
        self.size = size
        self.count = 0

    def frame(self, pixels: Uint8) -> Frame:
        """Number and stamp a picture that was taken now.

        Args:
            pixels: (height, width, 3) uint8 RGB, C-contiguous; the frame takes the memory over.

        Raises:
            CameraError: The pixels have another size than the sequence.
        """
        height, width = pixels.shape[:2]
        if (height, width) != self.size:
            raise CameraError(
                f"camera {self.name!r} sends {height}x{width} pixels after {self.count} frames "
                f"of {self.size[0]}x{self.size[1]}; set the source to one size and start again"
            )
        frame = Frame(self.name, self.count, now_ns(), pixels)
        self.count += 1
        return frame


class Pace:
    """An absolute schedule: step n is due n / rate_hz after the first wait, however late a step was taken."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._start_s: float | None = None
        self._steps = 0
        self._ended = threading.Event()

    def wait(self) -> bool:
        """Wait until the next step is due; False once ended."""
        if self._start_s is None:
            self._start_s = time.monotonic()
        due_s = self._start_s + self._steps / self._rate_hz
        self._steps += 1
        return not self._ended.wait(due_s - time.monotonic())

    def end(self) -> None:
        """Wake a waiting thread, and let nobody wait again."""
        self._ended.set()
