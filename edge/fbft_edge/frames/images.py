"""Image files to (height, width, 3) uint8 RGB pixels, and back.

Every part of the project reads images here, so that fitting and inspecting see the same pixels.
Knows nothing about tiles or models.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np

from fbft_edge.errors import ImageError
from fbft_edge.frames.file_formats import Levels, stated_levels, unreadable
from fbft_edge.frames.frame import Pixels, Uint8
from fbft_edge.names import MAX_SIDE_PX, size_text

# What a JPEG file can have, as sheets of pictures are.
MAX_WRITTEN_SIDE_PX = 65_500
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
_WHITE_16_BIT = 65_535
_DARK_BELOW = 256 // 8


def image_paths(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name.

    Raises:
        ImageError: The folder does not exist, or holds no image.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder; name a folder of images")
    paths = images_in(folder)
    if not paths:
        raise ImageError(f"{folder} holds no image; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return paths


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name; perhaps none."""
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)


def images_below(folder: Path) -> list[Path]:
    """Image files in folders of a folder, whatever the depth, sorted by path; perhaps none."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.parent != folder and path.suffix.lower() in IMAGE_SUFFIXES and not path.is_dir()
    )


def read_image(path: Path | str) -> Uint8:
    """Read the one image that a file holds.

    Gray becomes three equal channels, transparency is dropped and orientation tags are honoured. From 0 to the white
    that the file states (`maxval` of PGM and PPM, `MaxSampleValue` of TIFF), else to the largest value of its 8 or 16
    bits, becomes 0 to 255; nothing is stretched. A TIFF in which 0 is white is turned round.

    Returns:
        (height, width, 3) uint8 RGB, C-contiguous, owned by the caller.

    Raises:
        ImageError: The file cannot be read as an image, or holds several: pages, or frames of an animation.
    """
    return decode_image(file_bytes(path), str(path))


def file_bytes(path: Path | str) -> Uint8:
    """The bytes of a file, for `decode_image`.

    Raises:
        ImageError: It cannot be read.
    """
    try:
        return np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from error


def decode_image(encoded: Uint8, name: str) -> Uint8:
    """Decode the bytes of an image file; `name` stands in the error message.

    Raises:
        ImageError: The bytes are not one complete image, or one that is too large.
    """
    levels = stated_levels(encoded.data, name)
    return _rgb8(_decoded(encoded, name), levels)


def peak_of_dark_16_bit(path: Path, pixels: Uint8) -> int | None:
    """Largest value in a 16-bit file that uses less than an eighth of its range; None for all others.

    Args:
        path: The file.
        pixels: What `read_image` made of it.

    Raises:
        ImageError: The file is no longer what it was.
    """
    if pixels.max() >= _DARK_BELOW:
        return None
    encoded = file_bytes(path)
    values = _decoded(encoded, str(path))
    is_full_range = stated_levels(encoded.data, str(path)).white in (None, _WHITE_16_BIT)
    return dark_peak(values) if is_full_range else None


def dark_peak(values: Pixels) -> int | None:
    """Largest of values that are 16-bit and use less than an eighth of their range; None for all others."""
    peak = int(values.max())
    return peak if values.dtype == np.uint16 and peak // 257 < _DARK_BELOW else None


def about_dark_16_bit(peaks: Mapping[Path, int]) -> str:
    """A line about such files: 10 or 12 bits are often kept in 16, and then nearly black.

    Args:
        peaks: Largest value by file; at least one.
    """
    path, peak = max(peaks.items(), key=lambda entry: entry[1])
    return (
        f"{len(peaks)} 16-bit images are very dark: none has a value above {peak} of 65535 ({path.name}); multiply "
        "their values to fill 16 bits (12 bits: by 16), on the line too, or use 8 bits"
    )


def about_dark_camera(peak: int) -> str:
    """A line about a camera whose 16-bit pictures have no value above `peak`."""
    return (
        f"16-bit pictures are very dark: none of their values is above {peak} of 65535; let the camera fill 16 bits "
        "(12 bits: multiplied by 16), as nominal images do, or set it to 8 bits"
    )


def _decoded(encoded: Uint8, name: str) -> Pixels:
    """(height, width, 3) BGR of 8 or 16 bits, levels as the file has them."""
    try:
        pixels: Any = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if encoded.size else None
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):  # OpenCV's own limits, above ours
            raise _too_large(name) from error
        pixels = None
    if pixels is None:
        raise unreadable(encoded.size, name)
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_SIDE_PX:
        raise _too_large(f"{name} ({size_text((height, width))})")
    if pixels.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name} has {pixels.dtype} pixels; convert it to 8 or 16-bit integers")
    return cast("Pixels", pixels)


def _rgb8(pixels: Pixels, levels: Levels) -> Uint8:
    """8 or 16-bit BGR pixels to 8-bit RGB, white at 255."""
    full = int(np.iinfo(pixels.dtype).max)
    is_converted = levels.white is not None and levels.white > full  # 16 bits that the decoder made 8 of
    white = full if levels.white is None or is_converted else levels.white
    if levels.is_inverted and not is_converted:
        pixels = cast("Pixels", np.asarray(white - np.minimum(pixels, white), pixels.dtype))
    if white != 255 or pixels.dtype != np.uint8:
        pixels = np.asarray(cv2.convertScaleAbs(pixels, alpha=255 / white), np.uint8)
    return np.ascontiguousarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _too_large(name: str) -> ImageError:
    return ImageError(
        f"{name} is too large; cut it into images of at most {MAX_SIDE_PX} pixels a side, as a line takes them"
    )


def write_image(path: Path, pixels: Uint8) -> None:
    """Write (height, width, 3) RGB or (height, width) gray uint8 pixels; the suffix chooses the format.

    Raises:
        ImageError: The file cannot be written.
    """
    bgr = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    try:
        done, encoded = cv2.imencode(without_surrogates(path.suffix), bgr)
    except cv2.error:
        done = False
    if not done:
        raise ImageError(
            f"{path}: OpenCV cannot write {pixels.shape} pixels as {path.suffix!r}; use .png, or .jpg of at most "
            f"{MAX_WRITTEN_SIDE_PX} pixels a side"
        )
    try:
        path.write_bytes(encoded.tobytes())
    except OSError as error:
        raise ImageError(f"{path} cannot be written: {error.strerror}; free space or choose another folder") from error


def without_surrogates(text: str) -> str:
    """The text with `?` for what is left of bytes that are not UTF-8, on which OpenCV 5 ends the process.

    Python hands such bytes of a file name or an argument on as lone surrogates.
    """
    return text.encode(errors="replace").decode()
