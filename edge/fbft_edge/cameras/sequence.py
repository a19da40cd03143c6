"""What every camera shares: frames numbered, stamped and held to one size, and a pace to deliver them at.

Knows nothing about where pixels come from.
"""

from __future__ import annotations

import threading
import time

from fbft_edge.clock import now_ns, wait_for
from fbft_edge.errors import CameraError
from fbft_edge.frames.frame import Frame, Pixels
from fbft_edge.frames.pixel_format import PixelFormat, frame_size
from fbft_edge.names import MAX_SIDE_PX, size_text


class FrameSequence:
    """Makes frames of one camera from pixels of one size.

    Attributes:
        name: The camera's name.
        size: Height and width of every frame.
        pixel_format: Of every frame.
        count: Frames made so far, and so the next `frame_id`.

    Raises:
        CameraError: The frames are larger than any that can be published.
    """

    def __init__(self, name: str, size: tuple[int, int], pixel_format: PixelFormat = PixelFormat.RGB8) -> None:
        if max(size) > MAX_SIDE_PX:
            raise CameraError(
                f"camera {name!r} sends {size_text(size)}, a frame has at most {MAX_SIDE_PX} a side; set it to "
                "shorter frames (fewer lines of a line-scan camera), a region of interest or binning"
            )
        self.name = name
        self.size = size
        self.pixel_format = pixel_format
        self.count = 0

    def frame(self, pixels: Pixels, captured_ns: int | None = None) -> Frame:
        """Number and stamp a picture.

        Args:
            pixels: Of the sequence's pixel format, C-contiguous; the frame takes the memory over.
            captured_ns: When it was taken, on the session clock; None for now.

        Raises:
            CameraError: The pixels have another size than the sequence.
        """
        self.require(frame_size(pixels, self.pixel_format), self.pixel_format)
        frame = Frame(
            self.name, self.count, now_ns() if captured_ns is None else captured_ns, pixels, self.pixel_format
        )
        self.count += 1
        return frame

    def require(self, size: tuple[int, int], pixel_format: PixelFormat | None) -> None:
        """Accept pictures of the sequence's size and pixel format only; None stands for a format that is not read.

        Raises:
            CameraError: It is another one; the sequence goes on when the old one comes back.
        """
        if (size, pixel_format) != (self.size, self.pixel_format):
            raise CameraError(
                f"camera {self.name!r} sends {layout_text(size, pixel_format)} after {self.count} frames of "
                f"{layout_text(self.size, self.pixel_format)}; set the camera back to that"
            )


def layout_text(size: tuple[int, int], pixel_format: PixelFormat | None) -> str:
    """A frame's size and pixel format as messages name them."""
    what = pixel_format.value if pixel_format else "a format that is not read"
    return f"{size_text(size)} of {what}"


class SequenceCamera:
    """What cameras that hold a `FrameSequence` say of their frames."""

    _sequence: FrameSequence

    @property
    def name(self) -> str:
        """The camera's name."""
        return self._sequence.name

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every frame."""
        return self._sequence.size

    @property
    def pixel_format(self) -> PixelFormat:
        """Layout of every frame's pixels."""
        return self._sequence.pixel_format


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
        return not wait_for(self._ended, due_s - time.monotonic())

    def end(self) -> None:
        """Let a waiting thread go, within 50 ms, and nobody wait again."""
        self._ended.set()
