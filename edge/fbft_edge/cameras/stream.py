"""Network streams as cameras, read through PyAV.

OpenCV scales a frame of another size to that of the first, and does not tell: a camera that is set to another size in
mid-stream would be judged. Imports PyAV when a stream is opened. Knows nothing about the URI that named it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from fbft_edge.cameras.camera import SourceLostError
from fbft_edge.cameras.sequence import FrameSequence, SequenceCamera
from fbft_edge.cameras.video import without_password
from fbft_edge.errors import CameraError
from fbft_edge.frame import Frame, Pixels, Uint8
from fbft_edge.opencv_text import without_surrogates
from fbft_edge.pixel_format import PixelFormat

TIMEOUT_S = 5
# TCP, as firewalls let it through and nothing is lost; what came in part is not decoded.
OPTIONS = {"rtsp_transport": "tcp", "fflags": "discardcorrupt"}


class StreamCamera(SequenceCamera):
    """A network stream.

    Args:
        url: As FFmpeg takes it, `rtsp://user:password@host/path`.
        name: The camera's name.

    Raises:
        CameraError: Nobody answers there within 5 s, or no frame comes.
    """

    def __init__(self, url: str, name: str) -> None:
        import av

        self._label = f"camera {name!r} at {without_password(url)}"
        self._lock = threading.Lock()
        self._is_closed = False
        if without_surrogates(url) != url:
            raise CameraError(f"{self._label} is not UTF-8; rename it")
        try:
            self._container = av.open(url, options=OPTIONS, timeout=TIMEOUT_S)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise CameraError(f"{self._label} cannot be opened; {_REMEDY}") from error
        self._frames = self._decoded(av)
        pixels = self._next()
        self._sequence = FrameSequence(name, pixels.shape[:2], PixelFormat.BGR8)

    def read(self) -> Frame | None:
        """Wait for the next frame; None once closed.

        Raises:
            SourceLostError: The source stopped delivering.
            CameraError: A frame of another size came.
        """
        with self._lock:
            if self._is_closed:
                return None
            pixels = self._next()
            return self._sequence.frame(pixels)

    def close(self) -> None:
        """Give the source back, once a `read` in progress has ended."""
        with self._lock:
            self._is_closed = True
            self._container.close()

    def _next(self) -> Pixels:
        pixels = next(self._frames, None)
        if pixels is None:
            self._container.close()
            raise SourceLostError(f"{self._label} delivers no frame; {_REMEDY}")
        return pixels

    def _decoded(self, av: Any) -> Iterator[Pixels]:
        """Whole pictures until the stream ends or falls silent; packets that cannot be decoded are left out."""
        try:
            for packet in self._container.demux(video=0):
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    continue
                yield from (_pixels(frame) for frame in frames if not frame.is_corrupt)
        except (av.FFmpegError, OSError, IndexError):
            return


def _pixels(frame: Any) -> Uint8:
    """(height, width, 3) uint8 BGR at the frame's own size."""
    return np.ascontiguousarray(frame.to_ndarray(format="bgr24"), np.uint8)


_REMEDY = f"waited up to {TIMEOUT_S} s; check address, password and network (try ffplay)"
