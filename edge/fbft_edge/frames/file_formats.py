"""The bytes of an image file in; what the file says about itself out: that it holds one picture, and what is white.

Decoders give the first picture of several and do not heed every statement about levels. What is said here is heeded,
or the file is refused. Knows nothing about decoding.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fbft_edge.errors import ImageError

FORMATS = "BMP, JPEG, PBM, PGM, PNG, PPM, TIFF and WebP"

_MOST_COUNTED = 65_536
# Name and value of each, separated by white space in which a comment may stand.
_NETPBM_HEADER = re.compile(rb"P([1-6])" + 3 * rb"(?:(?:\s|#[^\r\n]*[\r\n])+(\d{1,9}))")
_BITMAP_HEADER = re.compile(rb"P([14])" + 2 * rb"(?:(?:\s|#[^\r\n]*[\r\n])+(\d{1,9}))")
_LONGEST_HEADER = 1 << 16
# In compressed data 0xFF stands before 0 and restart marks only.
_JPEG_MARKER = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_JPEG_START, _JPEG_END, _JPEG_SCAN = b"\xff\xd8\xff", 0xD9, 0xDA
_JPEG_FRAME_HEADERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_TIFF_HEADS = {b"II*\0": ("<", False), b"MM\0*": (">", False), b"II+\0": ("<", True), b"MM\0+": (">", True)}
_TIFF_INTEGERS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MAX_SAMPLE_VALUE, _SUB_DIRECTORIES, _SAMPLE_FORMAT = 258, 262, 281, 330, 339


@dataclass(frozen=True, slots=True)
class Levels:
    """How the values that the decoder gives are to be read.

    Attributes:
        white: The value of white; None for the largest that the decoded type has.
        is_inverted: White is 0, and the decoder leaves that to the reader.
    """

    white: int | None = None
    is_inverted: bool = False


def stated_levels(data: memoryview, name: str) -> Levels:
    """What an image file says about its levels.

    Args:
        data: The whole file.
        name: Stands in the error message.

    Raises:
        ImageError: It holds several pictures, is of a format that is not read, or says what cannot be heeded.
    """
    head = bytes(data[:12])
    try:
        if head[:4] in _TIFF_HEADS:
            return _levels_of_tiff(data, name)
        if head[:1] == b"P":
            return _levels_of_netpbm(data, name)
        _require_one(_num_pictures(data, head), name)
    except struct.error as error:
        raise unreadable(len(data), name) from error
    return Levels()


def unreadable(num_bytes: int, name: str) -> ImageError:
    """What is said of a file that is no image, or a damaged one."""
    return ImageError(
        f"{name} ({num_bytes} bytes) is not a readable image; remove it or write it again ({FORMATS} are read)"
    )


def _num_pictures(data: memoryview, head: bytes) -> int:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return _pictures_of_png(data)
    if head.startswith(b"RIFF") and head[8:] == b"WEBP":
        return max(1, sum(kind == b"ANMF" for kind in _webp_chunks(data)))
    if head.startswith(_JPEG_START):
        return _pictures_of_jpeg(data)
    if head.startswith(b"BM"):
        return 1
    raise struct.error("no format that is read")


def _require_one(number: int, name: str) -> None:
    if number != 1:
        raise ImageError(
            f"{name} holds {number} pictures, of which only the first would be inspected; write each to a file of "
            "its own (magick FILE part-%03d.png does that), thumbnails and previews left out"
        )


def _pictures_of_png(data: memoryview) -> int:
    """Frames of an animation, and the picture for viewers that show none where it is no frame."""
    kinds: list[bytes] = []
    offset = 8
    while offset + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, offset)
        if kind in (b"acTL", b"fcTL") or (kind == b"IDAT" and kind not in kinds):
            kinds.append(kind)
        offset += 12 + length
    if b"IDAT" not in kinds or b"acTL" not in kinds:
        return 1
    is_default_a_frame = b"fcTL" in kinds[: kinds.index(b"IDAT")]
    return kinds.count(b"fcTL") + (0 if is_default_a_frame else 1)


def _webp_chunks(data: memoryview) -> Iterator[bytes]:
    offset = 12
    while offset + 8 <= len(data):
        kind, length = struct.unpack_from("<4sI", data, offset)
        yield kind
        offset += 8 + length + length % 2


def _pictures_of_jpeg(data: memoryview) -> int:
    """Pictures one behind the other that are not smaller than the first: stereo, bursts, motion JPEG.

    Phones append a smaller preview or gain map, which belongs to the picture.
    """
    start, first_area, number = 0, None, 0
    while True:
        area, end = _jpeg_picture(data, start)
        if first_area is None:
            first_area = area
        number += area is not None and first_area is not None and area >= first_area
        found = _find(data, _JPEG_START, end)
        if found is None:
            return max(1, number)
        start = found


def _jpeg_picture(data: memoryview, start: int) -> tuple[int | None, int]:
    """Pixels of the picture that begins there, None where that is not said, and where it ends at the earliest."""
    area, offset = None, start + 2
    while (found := _JPEG_MARKER.search(data, offset)) is not None:
        marker, offset = found.group()[1], found.end()
        if marker == _JPEG_END:
            return area, offset
        if offset + 2 > len(data) or marker == _JPEG_START[1]:
            break
        if marker in _JPEG_FRAME_HEADERS and offset + 7 <= len(data):
            height, width = struct.unpack_from(">HH", data, offset + 3)
            area = height * width
        offset += struct.unpack_from(">H", data, offset)[0]
    return area, offset


def _find(data: memoryview, wanted: bytes, start: int) -> int | None:
    found = re.compile(re.escape(wanted)).search(data, start)
    return found.start() if found else None


def _levels_of_netpbm(data: memoryview, name: str) -> Levels:
    header = _netpbm_header(data, 0)
    if header is None:
        raise unreadable(len(data), name)
    kind, white, _ = header
    number, offset = 0, 0
    while kind > 3 and number < _MOST_COUNTED and (header := _netpbm_header(data, offset)) is not None:
        number, offset = number + 1, header[2]
    _require_one(max(1, number), name)
    return Levels(white)


def _netpbm_header(data: memoryview, offset: int) -> tuple[int, int | None, int] | None:
    """Kind from 1 to 6, value of white (None for bitmaps), and where a raw picture ends; None for no header."""
    head = bytes(data[offset : offset + _LONGEST_HEADER])
    start = len(head) - len(head.lstrip()) if offset else 0
    if (bitmap := _BITMAP_HEADER.match(head, start)) is not None:
        kind, width, height = map(int, bitmap.groups())
        return kind, None, offset + bitmap.end() + 1 + (width + 7) // 8 * height
    if (found := _NETPBM_HEADER.match(head, start)) is None:
        return None
    kind, width, height, white = map(int, found.groups())
    if not 0 < white < 1 << 16:
        return None
    samples = width * height * (3 if kind == 6 else 1)
    return kind, white, offset + found.end() + 1 + samples * (1 if white < 1 << 8 else 2)


def _levels_of_tiff(data: memoryview, name: str) -> Levels:
    tiff = _Tiff(data)
    _require_one(tiff.num_pages(), name)
    tags = tiff.directory(tiff.first)[0]
    bits = tags.get(_BITS_PER_SAMPLE, (1,))[0]
    if (kind := tags.get(_SAMPLE_FORMAT, (1,))[0]) != 1:
        what = {2: "signed integers", 3: "floating-point numbers"}.get(kind, "values of an unknown kind")
        raise ImageError(f"{name} has {what} of {bits} bits as pixels; convert it to unsigned 8 or 16-bit integers")
    if bits not in range(9, 17):
        return Levels()
    full = (1 << bits) - 1
    white = tags.get(_MAX_SAMPLE_VALUE, (full,))[0]
    if white not in ((1 << depth) - 1 for depth in range(8, bits + 1)):
        raise ImageError(
            f"{name} says that its largest value is {white} of {full} (TIFF tag MaxSampleValue), which may stand for "
            f"white or for its brightest pixel; write it without that tag, with values that fill {bits} bits"
        )
    # The decoder moves 10, 12 and 14 bits up to the top of 16.
    return Levels(white << (16 - bits), tags.get(_PHOTOMETRIC, (1,))[0] == 0)


class _Tiff:
    """The directories of a TIFF or BigTIFF file; one that lies outside of the file is a struct.error."""

    def __init__(self, data: memoryview) -> None:
        self._data = data
        self._order, self._is_big = _TIFF_HEADS[bytes(data[:4])]
        self._offset = "Q" if self._is_big else "I"
        (self.first,) = self._unpacked(self._offset, 8 if self._is_big else 4)

    def directory(self, start: int) -> tuple[dict[int, tuple[int, ...]], int]:
        """Integers by tag, and where the next directory is; 0 for none."""
        count_kind, entry = ("Q", 20) if self._is_big else ("H", 12)
        (count,) = self._unpacked(count_kind, start)
        first = start + struct.calcsize("=" + count_kind)
        (following,) = self._unpacked(self._offset, first + entry * count)
        tags: dict[int, tuple[int, ...]] = {}
        for offset in range(first, first + entry * count, entry):
            tag, kind, length = self._unpacked("HH" + self._offset, offset)
            if kind in _TIFF_INTEGERS and 0 < length <= _MOST_COUNTED:
                values = f"{length}{_TIFF_INTEGERS[kind]}"
                where = offset + (12 if self._is_big else 8)
                if struct.calcsize("=" + values) > struct.calcsize("=" + self._offset):
                    (where,) = self._unpacked(self._offset, where)
                tags[tag] = self._unpacked(values, where)
        return tags, following

    def num_pages(self) -> int:
        """Directories, those inside of others too; one that cannot be read counts."""
        waiting, seen = [self.first], set[int]()
        while waiting and len(seen) < _MOST_COUNTED:
            start = waiting.pop()
            if start == 0 or start in seen:
                continue
            seen.add(start)
            try:
                tags, following = self.directory(start)
            except struct.error:
                continue
            waiting += [*tags.get(_SUB_DIRECTORIES, ()), following]
        return len(seen)

    def _unpacked(self, values: str, offset: int) -> tuple[int, ...]:
        if offset > len(self._data):  # more than unpack_from takes, perhaps
            raise struct.error("outside of the file")
        return struct.unpack_from(self._order + values, self._data, offset)
