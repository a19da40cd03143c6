"""Cameras: a URI goes in, numbered and timestamped frames of one size and pixel format come out.

Knows nothing about detectors, rates of publishing or messages.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

from fbft_edge.cameras.camera import (
    Camera,
    CountsIncomplete,
    CountsLost,
    CountsRefused,
    Live,
    SourceLostError,
    Triggerable,
    incomplete_of,
    lost_of,
)
from fbft_edge.cameras.folder import FolderCamera
from fbft_edge.cameras.gige import GigeCamera
from fbft_edge.cameras.gstreamer import CsiCamera, GStreamerCamera
from fbft_edge.cameras.stream import StreamCamera
from fbft_edge.cameras.synthetic import SyntheticCamera
from fbft_edge.cameras.video import DeviceCamera, without_password
from fbft_edge.cameras.video_file import VideoFileCamera
from fbft_edge.cameras.watched import WatchedCamera
from fbft_edge.errors import CameraError
from fbft_edge.extras import require_extra
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.ranges import FPS

__all__ = [
    "Camera",
    "CountsIncomplete",
    "CountsLost",
    "CountsRefused",
    "Live",
    "SourceLostError",
    "Triggerable",
    "WatchedCamera",
    "camera_opener",
    "incomplete_of",
    "known_pixel_format",
    "known_size",
    "local_path",
    "lost_of",
    "open_camera",
    "open_watched_camera",
]


def open_watched_camera(
    uri: str,
    name: str = "camera",
    frozen_after: int | None = None,
    black_below: float | None = None,
    white_above: float | None = None,
    wait: bool = False,
    expected_size: tuple[int, int] | None = None,
    latency_s: float = 0.0,
) -> WatchedCamera:
    """Open a camera for a line: it comes back whenever it is lost, and refuses pictures that must not be judged.

    Args:
        uri: As of `open_camera`.
        name: The camera's name.
        frozen_after: As of `WatchedCamera`.
        black_below: As of `WatchedCamera`.
        white_above: As of `WatchedCamera`.
        wait: The camera need not be there yet.
        expected_size: The only (height, width) that is accepted; needed to wait for a camera that is not there.
        latency_s: How long before the date that the source gives it a picture was taken.

    Raises:
        CameraError: The URI is not understood; or nothing is there, or it has another size, and it is not waited for.
        ArgumentError: A limit is out of its range, or an optional part of the installation is missing.
    """
    limits = frozen_after, black_below, white_above
    return WatchedCamera(camera_opener(uri, name), name, *limits, wait, expected_size, latency_s)


def open_camera(uri: str, name: str = "camera") -> Camera:
    """Open a camera and learn its frame size; once lost it stays so (`open_watched_camera` brings it back).

    | uri | source |
    | --- | --- |
    | `0` | the device /dev/video0 |
    | `v4l2:///dev/video0?width=1920&height=1080&fps=30&fourcc=MJPG` | a device by path |
    | `rtsp://...`, `rtsps://...` | a network stream, passed on as it stands |
    | `gige://SERIAL?trigger=software&exposure_us=5000&gain=0&fps=20&pixel_format=Mono8` | a GigE Vision camera |
    | `csi://0?width=1920&height=1080&fps=30` | a Jetson's sensor |
    | `gstreamer:PIPELINE`, `gstreamer://PIPELINE` | a GStreamer pipeline, as it stands or percent-encoded |
    | `clip.mp4`, `file:///clip.mp4?loop=true` | a video file at its own frame rate |
    | `folder:///images?fps=5&loop=true` | the image files of a folder, sorted by name |
    | `synthetic://?fps=30&height=1036&width=1036&seed=0&defect_every=3` | drawn parts, some with defects |

    What follows `://` is a path, relative without a leading slash, percent-encoded (`%3F` for `?`).

    Raises:
        CameraError: Nothing is there, or the URI is not understood.
    """
    return camera_opener(uri, name)()


def camera_opener(uri: str, name: str = "camera") -> Callable[[], Camera]:
    """Understand a URI of `open_camera`, and open nothing yet; what is returned does that.

    Raises:
        CameraError: The URI is not understood.
        ArgumentError: What reads such sources is not installed.
    """
    return _understood(uri, name)


def _understood(uri: str, name: str) -> partial[Any]:
    """A camera's class, with what the URI says as its arguments."""
    if uri.isdecimal():
        return partial(DeviceCamera, f"/dev/video{int(uri)}", name)
    if uri.startswith("gstreamer:") and not uri.startswith("gstreamer://"):
        return partial(GStreamerCamera, uri.removeprefix("gstreamer:"), name)
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return partial(VideoFileCamera, uri, name)
    if scheme in ("rtsp", "rtsps"):
        require_extra("rtsp", f"{without_password(uri)}: a network stream")
        return partial(StreamCamera, uri, name)
    if scheme == "gstreamer":
        return partial(GStreamerCamera, unquote(rest), name)
    if scheme not in _SOURCES:
        raise CameraError(
            f"{without_password(uri)}: no camera kind {scheme!r}; use an index, rtsp, gstreamer, "
            f"{' or '.join((', '.join(_SOURCES)).rsplit(', ', 1))}"
        )
    target, _, query = rest.partition("?")
    source, parsers = _SOURCES[scheme]
    return partial(source, unquote(target), name, **_options(without_password(uri), query, parsers))


def known_size(uri: str) -> tuple[int, int] | None:
    """Height and width of the frames that a camera is going to send, found without any hardware or network.

    Files are read; of a device, what is asked of it counts.

    Returns:
        None where the camera alone can say it, or where its files are not there yet.

    Raises:
        CameraError: The URI is not understood, or its files cannot be read.
        ArgumentError: What reads them is not installed.
    """
    opener = _understood(uri, "camera")
    if opener.func in (FolderCamera, VideoFileCamera):
        path = local_path(uri)
        if path is None or not path.exists():
            return None
        camera: Camera = opener()
        camera.close()
        return camera.size
    asked = inspect.signature(opener.func).bind(*opener.args, **opener.keywords)
    asked.apply_defaults()
    height, width = asked.arguments.get("height"), asked.arguments.get("width")
    return None if height is None or width is None else (height, width)


def known_pixel_format(uri: str) -> PixelFormat | None:
    """The pixel format that a camera is asked for; None where the URI does not say it, or in words that are not read.

    Raises:
        CameraError: The URI is not understood.
        ArgumentError: What reads such sources is not installed.
    """
    options = _understood(uri, "camera").keywords
    if options.get("fourcc") == "GREY":
        return PixelFormat.MONO8
    names = {each.value.replace("_", ""): each for each in PixelFormat}
    return names.get(str(options.get("pixel_format", "")).lower())


def local_path(uri: str) -> Path | None:
    """What must be there for a camera to open, as far as it is on this machine's disk."""
    scheme, separator, rest = uri.partition("://")
    if uri.isdecimal():
        return Path(f"/dev/video{int(uri)}")
    if separator:
        return Path(unquote(rest.partition("?")[0])) if scheme in ("v4l2", "file", "folder") else None
    return None if uri.startswith("gstreamer:") else Path(uri)


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
    if rate_hz not in FPS:
        raise ValueError(f"use a number of frames per second {FPS}")
    return rate_hz


def _number(low: float, high: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not re.fullmatch(r"\d{1,12}(\.\d{1,12})?", text) or not low <= float(text) <= high:
            raise ValueError(f"use a number from {low:g} to {high:g}")
        return float(text)

    return parse


def _word(pattern: str, example: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"use a name such as {example}")
        return text

    return parse


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or len(text) > 12 or not low <= int(text) <= high:
            raise ValueError(f"use a whole number from {low} to {high}")
        return int(text)

    return parse


_SOURCES: dict[str, tuple[Callable[..., Camera], Mapping[str, Callable[[str], Any]]]] = {
    "v4l2": (
        DeviceCamera,
        {
            "width": _integer(1, 65535),
            "height": _integer(1, 65535),
            "fps": _integer(1, 1000),
            "fourcc": _word(r"[A-Z0-9]{4}", "MJPG"),
        },
    ),
    "gige": (
        GigeCamera,
        {
            "trigger": _word(r"\w{1,64}", "free, software or Line1"),
            "exposure_us": _number(0.001, 1e9),
            "gain": _number(0, 1e6),
            "fps": _rate,
            "pixel_format": _word(r"\w{1,64}", "Mono8 or BayerRG8"),
        },
    ),
    "csi": (CsiCamera, {"width": _integer(64, 8192), "height": _integer(64, 8192), "fps": _rate}),
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
