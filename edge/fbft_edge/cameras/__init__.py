"""Cameras: a URI goes in, numbered and timestamped frames of one size and pixel format come out.

Knows nothing about detectors, rates of publishing or messages.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

from fbft_edge.cameras.folder import FolderCamera
from fbft_edge.cameras.synthetic import SyntheticCamera
from fbft_edge.cameras.video import DeviceCamera, StreamCamera, VideoFileCamera, without_password
from fbft_edge.errors import CameraError
from fbft_edge.frame import Frame
from fbft_edge.pixel_format import PixelFormat

__all__ = ["Camera", "open_camera"]


class Camera(Protocol):
    """A source of frames of one size and pixel format."""

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

        After an error it may be called again: a source that comes back delivers again.

        Raises:
            CameraError: The source stopped delivering, or its frames changed size.
        """
        ...

    def close(self) -> None:
        """Give the source back; may be called twice, and while another thread waits in `read`."""
        ...


def open_camera(uri: str, name: str = "camera") -> Camera:
    """Open a camera and learn its frame size.

    | uri | source |
    | --- | --- |
    | `0` | the device /dev/video0 |
    | `v4l2:///dev/video0` | a device by path |
    | `rtsp://...`, `rtsps://...` | a network stream, passed on as it stands |
    | `clip.mp4`, `file:///clip.mp4?loop=true` | a video file at its own frame rate |
    | `folder:///images?fps=5&loop=true` | the image files of a folder, sorted by name |
    | `synthetic://?fps=30&height=1036&width=1036&seed=0&defect_every=3` | drawn parts, some with defects |

    What follows `://` is a path, relative without a leading slash, percent-encoded (`%3F` for `?`).

    Raises:
        CameraError: Nothing is there, or the URI is not understood.
    """
    if uri.isdecimal():
        return DeviceCamera(f"/dev/video{int(uri)}", name)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return VideoFileCamera(uri, name)
    if scheme in ("rtsp", "rtsps"):
        return StreamCamera(uri, name)
    if scheme in ("gige", "csi"):
        raise CameraError(
            f"{without_password(uri)}: {scheme} cameras need OpenCV built with GStreamer, which this version does not "
            "use yet; bridge the camera to rtsp:// or v4l2://"
        )
    if scheme not in _SOURCES:
        raise CameraError(
            f"{without_password(uri)}: no camera kind {scheme!r}; use an index, {', '.join(_SOURCES)} or rtsp"
        )
    target, _, query = rest.partition("?")
    source, parsers = _SOURCES[scheme]
    return source(unquote(target), name, **_options(uri, query, parsers))


def _options(uri: str, query: str, parsers: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    options = {}
    for option, text in parse_qsl(query, keep_blank_values=True):
        if option not in parsers:
            known = f"it has {', '.join(parsers)}" if parsers else "it has none"
            raise CameraError(f"{uri}: unknown option {option!r}; {known}")
        try:
            options[option] = parsers[option](text)
        except ValueError as error:
            raise CameraError(f"{uri}: {option}={text!r} is not usable; {error}") from None
    return options


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("use true or false")
    return text == "true"


def _rate(text: str) -> float:
    rate_hz = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
    if not 0.01 <= rate_hz <= 1000:
        raise ValueError("use a number of frames per second from 0.01 to 1000")
    return rate_hz


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or len(text) > 12 or not low <= int(text) <= high:
            raise ValueError(f"use a whole number from {low} to {high}")
        return int(text)

    return parse


_SOURCES: dict[str, tuple[Callable[..., Camera], Mapping[str, Callable[[str], Any]]]] = {
    "v4l2": (DeviceCamera, {}),
    "file": (VideoFileCamera, {"loop": _flag}),
    "folder": (FolderCamera, {"fps": _rate, "loop": _flag}),
    "synthetic": (
        SyntheticCamera,
        {
            "fps": _rate,
            "height": _integer(64, 8192),
            "width": _integer(64, 8192),
            "seed": _integer(0, 2**32 - 1),
            "defect_every": _integer(0, 1000),
        },
    ),
}
