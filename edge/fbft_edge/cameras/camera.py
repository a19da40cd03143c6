"""What every camera can do; knows nothing about kinds of cameras."""

from __future__ import annotations

from typing import Protocol

from fbft_edge.errors import CameraError
from fbft_edge.frames.frame import Frame
from fbft_edge.frames.pixel_format import PixelFormat


class Camera(Protocol):
    """A source of frames of one size and pixel format.

    A camera whose shutter can be released by software has a second method, which may be called while another thread
    waits in `read`:

        def trigger(self) -> bool: ...

    It releases the shutter and returns True; False when the camera does not wait for that. `WatchedCamera` has it for
    every camera, and passes it on to those that have it.
    """

    @property
    def name(self) -> str:
        """The camera's name in the message topic."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every frame."""
        ...

    @property
    def pixel_format(self) -> PixelFormat:
        """Layout of every frame's pixels."""
        ...

    def read(self) -> Frame | None:
        """Wait for the next frame; None at the end of a finite source, or once closed.

        After an error it may be called again.

        Raises:
            SourceLostError: The source is gone, and every further call says so.
            CameraError: There is no frame this time: a wrong size, an unreadable file; the next call goes on behind it.
        """
        ...

    def close(self) -> None:
        """Give the source back; may be called twice, and while another thread waits in `read`."""
        ...


class SourceLostError(CameraError):
    """A camera stopped delivering for good; only opening it again can help."""
