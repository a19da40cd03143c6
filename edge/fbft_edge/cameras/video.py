"""OpenCV's sources as cameras: devices, network streams and video files.

Knows nothing about the URI that named them.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path

# Both are read when the first source is opened: FFmpeg's own lines off, and 5 s for a silent device.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "5")

import cv2
import numpy as np

from fbft_edge.cameras.sequence import FrameSequence, Pace, SequenceCamera
from fbft_edge.errors import CameraError
from fbft_edge.frame import Frame, Uint8
from fbft_edge.opencv_text import without_surrogates
from fbft_edge.pixel_format import PixelFormat

STREAM_TIMEOUT_MS = 5000


class LiveCamera(SequenceCamera):
    """A source that delivers when it wants to, read through OpenCV.

    After an error the next `read` opens the source again, so that a camera that was unplugged comes back.

    Args:
        source: What OpenCV opens.
        name: The camera's name.
        backend: OpenCV's number of the library that reads the source.
        parameters: Pairs of OpenCV property and value to open it with.

    Raises:
        CameraError: It cannot be opened, or delivers no frame.
    """

    def __init__(self, source: str, name: str, backend: int, parameters: tuple[int, ...] = ()) -> None:
        self._source = source
        self._label = f"camera {name!r} at {without_password(source)}"
        self._backend = backend
        self._parameters = parameters
        self._lock = threading.Lock()
        self._is_closed = False
        self._capture: cv2.VideoCapture | None = None
        self._sequence = FrameSequence(name, self._next().shape[:2], PixelFormat.BGR8)

    def read(self) -> Frame | None:
        """Wait for the next frame; None once closed.

        Raises:
            CameraError: The source cannot be opened again, stopped delivering, or changed its frame size.
        """
        with self._lock:
            return None if self._is_closed else self._sequence.frame(self._next())

    def close(self) -> None:
        """Give the source back, once a `read` in progress has ended."""
        with self._lock:
            self._is_closed = True
            self._release()

    def _next(self) -> Uint8:
        if self._capture is None:
            self._capture = _opened(self._source, self._backend, self._parameters)
        if self._capture is None:
            raise CameraError(f"{self._label} cannot be opened; {self._remedy()}")
        pixels = _bgr_frame(self._capture)
        if pixels is None:
            self._release()
            raise CameraError(f"{self._label} delivers no frame; {self._remedy()}")
        return pixels

    def _release(self) -> None:
        if self._capture is not None:
            self._capture.release()
        self._capture = None

    def _remedy(self) -> str:
        return "check its cable, its power, and that no other program has it open"


class DeviceCamera(LiveCamera):
    """A Video4Linux device such as /dev/video0.

    Raises:
        CameraError: There is no such device, or it delivers no frame.
    """

    def __init__(self, path: str, name: str) -> None:
        if not Path(path).exists():
            present = ", ".join(sorted(str(device) for device in Path("/dev").glob("video*"))) or "none"
            raise CameraError(f"camera {name!r}: no device {path}; present: {present}; plug it in or name another")
        super().__init__(path, name, cv2.CAP_V4L2)


class StreamCamera(LiveCamera):
    """A network stream.

    Raises:
        CameraError: Nobody answers there within 5 s, or no frame comes.
    """

    def __init__(self, url: str, name: str) -> None:
        timeouts = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
        parameters = tuple(value for timeout in timeouts for value in (timeout, STREAM_TIMEOUT_MS))
        super().__init__(url, name, cv2.CAP_FFMPEG, parameters)

    def _remedy(self) -> str:
        return f"waited up to {STREAM_TIMEOUT_MS // 1000} s; check address, password and network (try ffplay)"


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
        capture = _opened(path, cv2.CAP_FFMPEG, ())
        self._ahead = _bgr_frame(capture) if capture is not None else None
        if capture is None or self._ahead is None:
            raise CameraError(f"camera {name!r}: {path} is not a readable video; play it with ffplay to see why")
        rate_hz = capture.get(cv2.CAP_PROP_FPS)
        if not 0.01 <= rate_hz <= 1000:
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

    def _next(self) -> Uint8 | None:
        pixels = _bgr_frame(self._capture)
        if pixels is None and self._loop:
            self._capture, pixels = self._rewound()
        return pixels

    def _rewound(self) -> tuple[cv2.VideoCapture, Uint8]:
        capture = _opened(self._path, cv2.CAP_FFMPEG, ())
        pixels = _bgr_frame(capture) if capture is not None else None
        if capture is None or pixels is None:
            raise CameraError(f"camera {self.name!r}: {self._path} cannot be started again; check that it is there")
        return capture, pixels


def without_password(url: str) -> str:
    """A URL fit for a message: user name and password replaced by `***`."""
    return re.sub(r"//[^/]*@", "//***@", url)


def _opened(source: str, backend: int, parameters: tuple[int, ...]) -> cv2.VideoCapture | None:
    if without_surrogates(source) != source:
        raise CameraError(f"{without_password(source)!r} is not UTF-8, which OpenCV cannot open; rename it")
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(source, backend, list(parameters))
    finally:
        cv2.utils.logging.setLogLevel(level)
    return capture if capture.isOpened() else None


def _bgr_frame(capture: cv2.VideoCapture) -> Uint8 | None:
    done, bgr = capture.read()
    return np.ascontiguousarray(bgr) if done else None
