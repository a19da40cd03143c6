"""OpenCV's sources as cameras: devices and video files.

Knows nothing about the URI that named them.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

# Both are read when the first source is opened: FFmpeg's own lines off, and 5 s for a silent device.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "5")

import cv2
import numpy as np

from fbft_edge.cameras.camera import SourceLostError
from fbft_edge.cameras.sequence import FrameSequence, Pace, SequenceCamera
from fbft_edge.errors import CameraError
from fbft_edge.frames.frame import Frame, Pixels
from fbft_edge.frames.images import without_surrogates
from fbft_edge.frames.pixel_format import PixelFormat, size_text
from fbft_edge.ranges import FPS

# OpenCV 4.6, as Debian 12 has it, has the one; OpenCV 5 the other.
_set_log_level: Callable[[int], int] = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_SILENT = 0


class Capture(Protocol):
    """What reads a source; `cv2.VideoCapture` is one."""

    def read(self) -> tuple[bool, Any]:
        """Wait for the next picture: whether there is one, and its pixels."""
        ...

    def release(self) -> None:
        """Give the source back; may be called twice."""
        ...


class LiveCamera(SequenceCamera):
    """A source that delivers when it wants to.

    Args:
        source: Where it is, for messages.
        name: The camera's name.
        capture: What reads it; None when it cannot be opened.

    Raises:
        CameraError: It cannot be opened, or delivers no frame.
    """

    def __init__(self, source: str, name: str, capture: Capture | None) -> None:
        self._label = f"camera {name!r} at {without_password(source)}"
        self._lock = threading.Lock()
        self._is_closed = False
        if capture is None:
            raise CameraError(f"{self._label} cannot be opened; {self._remedy()}")
        self._capture = capture
        pixels = self._next()
        pixel_format = _pixel_format(pixels)
        if pixel_format is None:
            raise CameraError(
                f"{self._label} sends arrays of shape {pixels.shape} and type {pixels.dtype}, which are not read; "
                "convert to BGR, GRAY8 or GRAY16_LE"
            )
        self._sequence = FrameSequence(name, pixels.shape[:2], pixel_format)

    def read(self) -> Frame | None:
        """Wait for the next frame; None once closed.

        Raises:
            SourceLostError: The source stopped delivering.
            CameraError: A frame of another size or pixel format came.
        """
        with self._lock:
            if self._is_closed:
                return None
            pixels = self._next()
            self._sequence.require(pixels.shape[:2], _pixel_format(pixels))
            return self._sequence.frame(pixels)

    def close(self) -> None:
        """Give the source back, once a `read` in progress has ended."""
        with self._lock:
            self._is_closed = True
            self._capture.release()

    def _next(self) -> Pixels:
        pixels = _frame(self._capture)
        if pixels is None:
            self._capture.release()
            raise SourceLostError(f"{self._label} delivers no frame; {self._remedy()}")
        return pixels

    def _remedy(self) -> str:
        return "check its cable, its power, and that no other program has it open"


class DeviceCamera(LiveCamera):
    """A Video4Linux device such as /dev/video0.

    Args:
        path: The device.
        name: The camera's name.
        width: Columns of a frame to ask for; OpenCV asks for 640 by itself.
        height: Rows of a frame to ask for; OpenCV asks for 480 by itself.
        fps: Frames per second to ask for.
        fourcc: Layout to ask for, as `v4l2-ctl --list-formats-ext` names it: `MJPG` reaches sizes that raw pixels
            are too slow for.

    Raises:
        CameraError: There is no such device, it delivers no frame, or frames of another size.
    """

    def __init__(
        self,
        path: str,
        name: str,
        width: int | None = None,
        height: int | None = None,
        fps: int | None = None,
        fourcc: str | None = None,
    ) -> None:
        if not Path(path).exists():
            present = ", ".join(sorted(str(device) for device in Path("/dev").glob("video*"))) or "none"
            raise CameraError(f"camera {name!r}: no device {path}; present: {present}; plug it in or name another")
        asked = {
            cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*fourcc) if fourcc else None,
            cv2.CAP_PROP_FRAME_WIDTH: width,
            cv2.CAP_PROP_FRAME_HEIGHT: height,
            cv2.CAP_PROP_FPS: fps,
        }
        parameters = {key: value for key, value in asked.items() if value is not None}
        super().__init__(path, name, open_capture(path, cv2.CAP_V4L2, parameters))
        if (height or self.size[0], width or self.size[1]) != self.size:
            self.close()
            raise CameraError(
                f"camera {name!r}: {path} sends {size_text(self.size)} where "
                f"{width or 'any'}x{height or 'any'} was asked for; v4l2-ctl -d {path} --list-formats-ext shows them"
            )


class VideoFileCamera(SequenceCamera):
    """Plays a video file at its own frame rate, like a live camera.

    Args:
        path: The file.
        name: The camera's name.
        loop: Start again after the last frame.

    Raises:
        CameraError: The file is missing or is not a video with a frame rate.
    """

    def __init__(self, path: str, name: str, loop: bool = False) -> None:
        if not Path(path).is_file():
            hint = f"write folder://{path} for images" if Path(path).is_dir() else "check the path"
            raise CameraError(f"camera {name!r}: {path} is not a file; {hint}")
        capture = open_capture(path, cv2.CAP_FFMPEG, {})
        self._ahead = _frame(capture) if capture is not None else None
        if capture is None or self._ahead is None:
            raise CameraError(f"camera {name!r}: {path} is not a readable video; play it with ffplay to see why")
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        if rate_hz not in FPS:
            raise CameraError(f"camera {name!r}: {path} has {rate_hz:g} frames per second; write it again at 1 to 1000")
        self._path, self._loop, self._capture = path, loop, capture
        self._lock = threading.Lock()
        self._pace = Pace(rate_hz)
        self._sequence = FrameSequence(name, self._ahead.shape[:2], PixelFormat.BGR8)

    def read(self) -> Frame | None:
        """Wait for the next frame to be due; None after the last one, or once closed.

        Raises:
            CameraError: The file's frames changed size, or it cannot be started again.
        """
        if self._ahead is None or not self._pace.wait():
            return None
        with self._lock:
            pixels, self._ahead = self._ahead, self._next()
        return self._sequence.frame(pixels)

    def close(self) -> None:
        """Wake a waiting `read`, which then returns None, and close the file."""
        self._pace.end()
        with self._lock:
            self._loop = False
            self._capture.release()

    def _next(self) -> Pixels | None:
        pixels = _frame(self._capture)
        if pixels is None and self._loop:
            self._capture, pixels = self._rewound()
        return pixels

    def _rewound(self) -> tuple[cv2.VideoCapture, Pixels]:
        capture = open_capture(self._path, cv2.CAP_FFMPEG, {})
        pixels = _frame(capture) if capture is not None else None
        if capture is None or pixels is None:
            raise CameraError(f"camera {self.name!r}: {self._path} cannot be started again; check that it is there")
        return capture, pixels


def without_password(url: str) -> str:
    """A URL or pipeline fit for a message: user name and password replaced by `***`."""
    shown = re.sub(r"\b(user-pw|password)=\S+", r"\1=***", url)
    # Behind `user:` a password may hold `/`, whatever the standard says.
    return re.sub(r"//(?:[^/?@\s]*:[^?\s]*|[^/]*)@", "//***@", shown)


def open_capture(source: str, backend: int, parameters: Mapping[int, int]) -> cv2.VideoCapture | None:
    """A source opened by OpenCV, with values of its properties; None when that cannot be.

    Raises:
        CameraError: Its name is not UTF-8.
    """
    if without_surrogates(source) != source:
        raise CameraError(f"{without_password(source)!r} is not UTF-8, which OpenCV cannot open; rename it")
    level = _set_log_level(_SILENT)
    try:
        capture = cv2.VideoCapture(source, backend, [number for pair in parameters.items() for number in pair])
    finally:
        _set_log_level(level)
    return capture if capture.isOpened() else None


def _frame(capture: Capture) -> Pixels | None:
    done, pixels = capture.read()
    return np.ascontiguousarray(pixels) if done else None


def _pixel_format(pixels: Pixels) -> PixelFormat | None:
    return _PIXEL_FORMATS.get((pixels.dtype.name, *pixels.shape[2:]))


_PIXEL_FORMATS = {
    ("uint8", 3): PixelFormat.BGR8,
    ("uint8",): PixelFormat.MONO8,
    ("uint16",): PixelFormat.MONO16,
}
