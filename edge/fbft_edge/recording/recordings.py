"""One recording: a frame with what was published about it in, the files of a folder out, and back.

A recording is a folder `DATE/CAMERA/TIME-VERDICT-SESSION-SEQUENCE` of three files: `frame.png`, the camera's own
pixels, bit for bit; `mask.png`, white where a defect is; `recording.json`, the pixel format, the engine and the
message's topic and header. Date and time are of the capture, UTC. PNG holds every pixel format without loss: colour
as colour, 16-bit gray as 16-bit gray, Bayer patterns and NV12 planes as gray pictures of their raw samples. Knows
nothing about when recordings are made and how long they are kept.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np

from fbft_edge.errors import FbftError, RecordingError
from fbft_edge.frames.frame import Bool, Detection, Frame, Pixels, Uint8, Verdict
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat, frame_array_shape, require_pixels
from fbft_edge.messages.header import Header
from fbft_edge.messages.reading import MAX_HEADER_BYTES, MAX_MASK_BYTES, Result, decode_message
from fbft_edge.messages.writing import encode_mask
from fbft_edge.names import NAME_PATTERN, size_text
from fbft_edge.plain_file import read_plain
from fbft_edge.strict_json import json_from_bytes, members, typed

SCHEMA = "fbft.recording/1"
FRAME_FILE = "frame.png"
MASK_FILE = "mask.png"
ABOUT_FILE = "recording.json"
FILES = frozenset({FRAME_FILE, MASK_FILE, ABOUT_FILE})
MAX_FRAME_BYTES = 2**30

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_NAME = re.compile(r"\d\d-\d\d-\d\d\.\d{3}-(ok|anomalous)-[0-9a-f]{8}-\d{1,19}")
# 5 MP of colour, noisy, one core: 0.32 s with runs only, 0.44 s with zlib's fastest search, and smaller.
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
# Signature, length and type of the first chunk, width, height.
_PNG_HEAD = struct.Struct(">8s4x4sII")
_PNG_MASK = [cv2.IMWRITE_PNG_BILEVEL, 1]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a recording lies below the folder of all recordings; places sort by time of capture.

    Attributes:
        date: Its first folder.
        name: Its own.
        camera: The one between them.
    """

    date: str
    name: str
    camera: str

    @property
    def is_anomalous(self) -> bool:
        """True when the verdict was."""
        return "-anomalous-" in self.name

    @property
    def path(self) -> Path:
        """Relative to the folder of all recordings."""
        return Path(self.date, self.camera, self.name)


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that was read.

    Attributes:
        path: Its folder.
        frame: As the camera sent it.
        result: What was published about it.
        detection: The same as a detection; its peak is that of the regions, 0 when there is none.
        engine: What inferred, in words.
    """

    path: Path
    frame: Frame
    result: Result
    detection: Detection
    engine: str


@dataclass(frozen=True, slots=True)
class _About:
    """What `recording.json` says; the header is that of the message."""

    topic: str
    pixel_format: str
    engine: str
    header: Header


def is_place(date: str, camera: str, name: str) -> bool:
    """Whether these are names that a recording's folders have."""
    return bool(_DATE.fullmatch(date) and NAME_PATTERN.fullmatch(camera) and _NAME.fullmatch(name))


def temporary_name(name: str) -> str:
    """What a recording is called until it is whole, and once it is not any more."""
    return f".{name}.partial"


def place_of(frame: Frame, is_anomalous: bool, session: str, sequence: int) -> Place:
    """Where a frame's recording lies; no two messages share one."""
    date, time = date_and_time(frame.captured_ns)
    verdict = "anomalous" if is_anomalous else "ok"
    return Place(date, f"{time}-{verdict}-{session[:8]}-{sequence}", frame.camera)


def date_and_time(timestamp_ns: int) -> tuple[str, str]:
    """The date, and hours, minutes, seconds and milliseconds, UTC, as they stand in a place."""
    seconds, rest_ns = divmod(timestamp_ns, 10**9)
    moment = datetime.fromtimestamp(seconds, timezone.utc)
    return f"{moment:%Y-%m-%d}", f"{moment:%H-%M-%S}.{rest_ns // 10**6:03d}"


def recording_files(frame: Frame, mask: Bool, topic: bytes, header: bytes, engine: str) -> dict[str, bytes]:
    """The contents of a recording's files by name, what makes it a recording last.

    Args:
        frame: As the camera sent it.
        mask: (height, width) bool of the same frame.
        topic: Part 1 of the message.
        header: Part 2 of the message.
        engine: What inferred, in words.
    """
    about = {"schema": SCHEMA, "topic": topic.decode(), "pixel_format": frame.pixel_format.value, "engine": engine}
    return {
        FRAME_FILE: encoded_pixels(frame.pixels, frame.pixel_format),
        MASK_FILE: _encoded(mask.astype(np.uint8) * 255, _PNG_MASK),
        ABOUT_FILE: f'{json.dumps(about)[:-1]}, "header": {header.decode()}}}\n'.encode(),
    }


def encoded_pixels(pixels: Pixels, pixel_format: PixelFormat) -> bytes:
    """One frame as a PNG file; `decoded_pixels` gives back the same bits."""
    return _encoded(_swapped(pixels) if pixel_format is PixelFormat.RGB8 else pixels, _PNG)


def decoded_pixels(encoded: bytes, pixel_format: PixelFormat, size: tuple[int, int]) -> Pixels:
    """The frame in a PNG file; nothing is unpacked before the file says that it has that (height, width).

    Raises:
        FbftError: The bytes are not a picture, or not one of that pixel format and size.
    """
    rows, columns = frame_array_shape(pixel_format, *size)[:2]
    pixels = _decoded(encoded, rows, columns)
    require_pixels(pixels, FrameLayout(*size, pixel_format))
    return _swapped(pixels) if pixel_format is PixelFormat.RGB8 else pixels


def find_recordings(path: Path) -> list[Path]:
    """Folders of the recordings at or below a path, in order of their names.

    Raises:
        RecordingError: There is none.
    """
    found = sorted(file.parent for file in path.rglob(ABOUT_FILE) if not file.parent.name.startswith("."))
    if not found:
        raise RecordingError(f"{path} holds no recording; name the recorder's folder, a day or a camera in it")
    return found


def read_recording(path: Path) -> Recording:
    """Read one recording, strictly.

    Raises:
        RecordingError: A file is missing, damaged or contradicts another.
    """
    try:
        about = _read_about(path / ABOUT_FILE)
        if about.header.mask is None:
            raise RecordingError("its header is about no frame")
        size = about.header.mask.height, about.header.mask.width
        mask = np.asarray(_decoded(read_plain(path / MASK_FILE, MAX_MASK_BYTES, follow=True), *size) > 0)
        if mask.ndim != 2:
            raise RecordingError(f"its mask has {mask.shape[2]} channels, a mask has one")
        header = msgspec.json.encode(about.header)
        result = decode_message([about.topic.encode(), header, encode_mask(mask)])
        pixel_format = _pixel_format(about.pixel_format)
        pixels = decoded_pixels(read_plain(path / FRAME_FILE, MAX_FRAME_BYTES, follow=True), pixel_format, size)
        if result.frame_id is None or result.captured_ns is None or result.score is None:
            raise RecordingError("its header is about no frame")
        frame = Frame(result.camera, result.frame_id, result.captured_ns, pixels, pixel_format)
        peak = result.peak
        if peak is None:  # written before messages told it
            peak = max((region.peak for region in result.regions), default=0.0)
        is_anomalous = result.verdict is Verdict.ANOMALOUS
        where, why = result.peak_xy, result.decided_by
        detection = Detection(result.score, peak, mask, result.regions, is_anomalous, peak_xy=where, decided_by=why)
        return Recording(path, frame, result, detection, about.engine)
    except (FbftError, OSError, ValueError) as error:
        raise RecordingError(f"{path} is not a whole recording: {error}; remove it, or copy it again") from error


def _swapped(pixels: Pixels) -> Uint8:
    """RGB for BGR, and the other way round."""
    return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), np.uint8)


def _encoded(pixels: Pixels, parameters: list[int]) -> bytes:
    done, encoded = cv2.imencode(".png", pixels, parameters)
    if not done:
        raise RecordingError(f"OpenCV cannot write {pixels.dtype} pixels of shape {pixels.shape} as PNG")
    return bytes(encoded.tobytes())


def _decoded(encoded: bytes, rows: int, columns: int) -> Pixels:
    """Unpack a PNG file that says it has so many rows and columns, and no other: a small file may unpack to much."""
    signature, kind, width, height = _PNG_HEAD.unpack_from(encoded.ljust(_PNG_HEAD.size))
    if (signature, kind) != (b"\x89PNG\r\n\x1a\n", b"IHDR"):
        raise RecordingError(f"{len(encoded)} bytes that are no PNG picture")
    if (height, width) != (rows, columns):
        raise RecordingError(
            f"a picture of {size_text((height, width))} in the place of one of {size_text((rows, columns))}"
        )
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise RecordingError(f"{len(encoded)} bytes that are no readable picture")
    return np.asarray(pixels)


def _read_about(file: Path) -> _About:
    contents = members(json_from_bytes(read_plain(file, 2 * MAX_HEADER_BYTES, follow=True)))
    if (schema := contents.get("schema")) != SCHEMA:
        raise RecordingError(f"schema {schema!r:.40}, this version reads {SCHEMA!r}")
    return typed(contents, _About)


def _pixel_format(value: str) -> PixelFormat:
    try:
        return PixelFormat(value)
    except ValueError:
        raise RecordingError(f"pixel format {value!r:.40}, this version reads {', '.join(PixelFormat)}") from None
