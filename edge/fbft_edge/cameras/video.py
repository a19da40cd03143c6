"""Sources that deliver when they want to, and those of them that OpenCV reads: devices.

Knows nothing about the URI that named them.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

# Both are read when the first source is opened: FFmpeg's own lines off, and 5 s for a silent device.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", "5")

import cv2
import numpy as np

from fbft_edge.cameras.camera import COMPRESSED, SENSOR, Repetition, SourceLostError
from fbft_edge.cameras.decoding import Picture
from fbft_edge.cameras.sequence import FrameSequence, SequenceCamera
from fbft_edge.cameras.source_clock import DriverClock
from fbft_edge.errors import CameraError
from fbft_edge.frames.frame import Frame, Pixels
from fbft_edge.frames.images import without_surrogates
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.names import size_text

# OpenCV 4.6, as Debian 12 has it, has the one; OpenCV 5 the other.
_set_log_level: Callable[[int], int] = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
_SILENT = 0
# Longer than between two key frames of most cameras.
FIRST_PICTURE_S = 30.0
# GStreamer's "no time" is 2 ** 64 - 1.
_NO_STAMP_NS = 1 << 62


class Capture(Protocol):
    """What reads a source."""

    def read(self) -> Picture | None:
        """Wait for the next picture; None when the source delivers no more."""
        ...

    def release(self) -> None:
        """Give the source back; may be called twice."""
        ...


class OpenCvCapture:
    """A source that OpenCV reads.

    Args:
        capture: Opened.
        dated: When a picture was taken, on the session clock, from what the source stamped it with, nanoseconds.
    """

    def __init__(self, capture: cv2.VideoCapture, dated: Callable[[int], int | None]) -> None:
        self._capture, self._dated = capture, dated
        self._last_ns = 0

    def read(self) -> Picture | None:
        """See `Capture`."""
        pixels: Any
        done, pixels = self._capture.read()
        if not done:
            return None
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        has_stamp = self._last_ns < stamp_ns < _NO_STAMP_NS
        self._last_ns = max(self._last_ns, stamp_ns) if stamp_ns < _NO_STAMP_NS else self._last_ns
        return Picture(np.ascontiguousarray(pixels), self._dated(stamp_ns) if has_stamp else None, None)

    def release(self) -> None:
        """See `Capture`."""
        self._capture.release()

    @property
    def fourcc(self) -> str:
        """What a device sends, before OpenCV converts it: four characters, as `v4l2-ctl` names it."""
        return (int(self._capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little").decode("latin-1")


class LiveCamera(SequenceCamera):
    """A source that delivers when it wants to.

    Args:
        source: Where it is, for messages.
        name: The camera's name.
        capture: What reads it; None when it cannot be opened.

    Raises:
        CameraError: It cannot be opened, or delivers no frame.
    """

    frozen_by = COMPRESSED

    def __init__(self, source: str, name: str, capture: Capture | None) -> None:
        self._label = f"camera {name!r} at {without_password(source)}"
        self._lock = threading.Lock()
        self._is_closed = False
        if capture is None:
            raise CameraError(f"{self._label} cannot be opened; {self._remedy()}")
        self._capture = capture
        pixels = self._first()
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
            CameraError: A frame of another size or pixel format came, or one that must not be judged.
        """
        with self._lock:
            if self._is_closed:
                return None
            pixels, taken_ns = self._next()
            self._sequence.require(pixels.shape[:2], _pixel_format(pixels))
            return self._sequence.frame(pixels, taken_ns)

    def close(self) -> None:
        """Give the source back, once a `read` in progress has ended."""
        with self._lock:
            self._is_closed = True
            self._capture.release()

    def _first(self) -> Pixels:
        """The first picture that is whole: who comes in the middle of a stream waits for its next key frame."""
        due_s = time.monotonic() + FIRST_PICTURE_S
        while True:
            try:
                return self._next()[0]
            except SourceLostError:
                raise
            except CameraError:
                if time.monotonic() > due_s:
                    self._capture.release()
                    raise

    def _next(self) -> tuple[Pixels, int | None]:
        picture = self._capture.read()
        if picture is None:
            self._capture.release()
            raise SourceLostError(f"{self._label} delivers no frame; {self._remedy()}")
        return whole_pixels(picture, self._label), picture.taken_ns

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
        capture = open_capture(path, cv2.CAP_V4L2, parameters, DriverClock().dated)
        super().__init__(path, name, capture)
        self.frozen_by = COMPRESSED if capture is None else repetition_of(capture.fourcc)
        if (height or self.size[0], width or self.size[1]) != self.size:
            self.close()
            raise CameraError(
                f"camera {name!r}: {path} sends {size_text(self.size)} where "
                f"{width or 'any'}x{height or 'any'} was asked for; v4l2-ctl -d {path} --list-formats-ext shows them"
            )


def repetition_of(fourcc: str) -> Repetition:
    """Which repetition shows that a device is frozen, by what it sends; what is not known may be compressed."""
    return SENSOR if fourcc in _RAW else COMPRESSED


def without_password(url: str) -> str:
    """A URL or pipeline fit for a message: user name and password replaced by `***`."""
    shown = re.sub(r"\b(user-pw|password)=\S+", r"\1=***", url)
    # Behind `user:` a password may hold `/`, whatever the standard says.
    return re.sub(r"//(?:[^/?@\s]*:[^?\s]*|[^/]*)@", "//***@", shown)


def open_capture(
    source: str, backend: int, parameters: Mapping[int, int], dated: Callable[[int], int | None]
) -> OpenCvCapture | None:
    """A source opened by OpenCV, with values of its properties; None when that cannot be.

    Raises:
        CameraError: Its name is not UTF-8.
    """
    require_utf8(source)
    level = _set_log_level(_SILENT)
    try:
        capture = cv2.VideoCapture(source, backend, [number for pair in parameters.items() for number in pair])
    finally:
        _set_log_level(level)
    return OpenCvCapture(capture, dated) if capture.isOpened() else None


def require_utf8(source: str) -> None:
    """Accept only addresses and paths that what reads them can open.

    Raises:
        CameraError: It is not UTF-8.
    """
    if without_surrogates(source) != source:
        raise CameraError(f"{without_password(source)!r} is not UTF-8, which cannot be opened; rename it")


def whole_pixels(picture: Picture, label: str) -> Pixels:
    """The pixels of a picture that may be judged.

    Raises:
        CameraError: It must not be.
    """
    if picture.pixels is None:
        raise CameraError(
            f"{label} sends pictures that cannot be trusted ({picture.refusal}); they are refused until the next key "
            "frame; check the network and the camera's load, and set its key frame interval to 1 s or less"
        )
    return picture.pixels


def _pixel_format(pixels: Pixels) -> PixelFormat | None:
    return _PIXEL_FORMATS.get((pixels.dtype.name, *pixels.shape[2:]))


# Of Video4Linux: YUV, grey, RGB, and Bayer patterns.
_RAW = (
    *("YUYV", "UYVY", "YVYU", "VYUY", "NV12", "NV21", "YU12", "YV12", "422P", "GREY", "Y10 ", "Y12 ", "Y16 "),
    *("BGR3", "RGB3", "BGR4", "RGB4", "BA81", "GBRG", "GRBG", "RGGB"),
)
_PIXEL_FORMATS = {
    ("uint8", 3): PixelFormat.BGR8,
    ("uint8",): PixelFormat.MONO8,
    ("uint16",): PixelFormat.MONO16,
}
