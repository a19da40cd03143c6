"""Video files as cameras, read through PyAV at their own frame rate.

Imports PyAV when a file is opened. Knows nothing about the URI that named it.
"""

from __future__ import annotations

import threading
from pathlib import Path

from fbft_edge.cameras.decoding import Decoder, Picture
from fbft_edge.cameras.sequence import FrameSequence, Pace, SequenceCamera
from fbft_edge.cameras.video import require_utf8, whole_pixels
from fbft_edge.errors import CameraError
from fbft_edge.extras import require_extra
from fbft_edge.frames.frame import Frame
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.ranges import FPS


class VideoFileCamera(SequenceCamera):
    """Plays a video file at its own frame rate, like a live camera.

    Args:
        path: The file.
        name: The camera's name.
        loop: Start again after the last frame.

    Raises:
        ArgumentError: PyAV is not installed.
        CameraError: The file is missing or is not a video with a frame rate.
    """

    def __init__(self, path: str, name: str, loop: bool = False) -> None:
        require_extra("rtsp", f"{path}: a video file")
        require_utf8(path)
        if not Path(path).is_file():
            hint = f"write folder://{path} for images" if Path(path).is_dir() else "check the path"
            raise CameraError(f"camera {name!r}: {path} is not a file; {hint}")
        clip = _opened(path)
        if clip is None:
            raise CameraError(f"camera {name!r}: {path} is not a readable video; play it with ffplay to see why")
        if clip.rate_hz not in FPS:
            clip.close()
            raise CameraError(
                f"camera {name!r}: {path} has {clip.rate_hz:g} frames per second; write it again at 1 to 1000"
            )
        self._path, self._loop, self._clip = path, loop, clip
        self._label = f"camera {name!r} at {path}"
        self._lock = threading.Lock()
        self._pace = Pace(clip.rate_hz)
        self._sequence = FrameSequence(name, clip.size, PixelFormat.BGR8)

    def read(self) -> Frame | None:
        """Wait for the next frame to be due; None after the last one, or once closed.

        Raises:
            CameraError: The frame must not be judged or has another size, or the file cannot be started again.
        """
        if self._clip.ahead is None or not self._pace.wait():
            return None
        with self._lock:
            picture = self._clip.take()
            if self._clip.ahead is None and self._loop:
                self._clip = self._rewound()
        pixels = whole_pixels(picture, self._label)
        self._sequence.require(pixels.shape[:2], PixelFormat.BGR8)
        return self._sequence.frame(pixels)

    def close(self) -> None:
        """Wake a waiting `read`, which then returns None, and close the file."""
        self._pace.end()
        with self._lock:
            self._loop = False
            self._clip.close()

    def _rewound(self) -> _Clip:
        clip = _opened(self._path)
        if clip is None:
            raise CameraError(f"camera {self.name!r}: {self._path} cannot be started again; check that it is there")
        return clip


class _Clip:
    """A file from its first whole picture on, one picture ahead of the reader: the next one is there when it is due."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder, self.rate_hz = decoder, decoder.rate_hz
        self._pictures = decoder.pictures()
        first = next((picture for picture in self._pictures if picture.pixels is not None), None)
        self.ahead: Picture | None = first
        self.size = (0, 0) if first is None or first.pixels is None else first.pixels.shape[:2]

    def take(self) -> Picture:
        picture, self.ahead = self.ahead, next(self._pictures, None)
        if picture is None:
            raise CameraError("the file is closed")
        return picture

    def close(self) -> None:
        self._decoder.close()


def _opened(path: str) -> _Clip | None:
    """None when it has no picture that can be shown."""
    import av

    try:
        clip = _Clip(Decoder(path, {}, None))
    except (av.FFmpegError, OSError, ValueError, IndexError):
        return None
    if clip.ahead is None:
        clip.close()
        return None
    return clip
