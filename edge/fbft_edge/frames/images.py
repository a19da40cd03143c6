"""Image files to (height, width, 3) uint8 RGB pixels, and back.

Every part of the project reads images here, so that fitting and inspecting see the same pixels.
Knows nothing about tiles or models.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from fbft_edge.errors import ImageError
from fbft_edge.frames.frame import Uint8

# What a JPEG file can have, as overlays and previews are; and the largest mask of a message, 0.8 GB as colour.
MAX_SIDE_PX = 65_500
MAX_PIXELS = 1 << 28
IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


def image_paths(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted by name.

    Raises:
        ImageError: The folder does not exist, or holds no image.
    """
    if not folder.is_dir():
        raise ImageError(f"{folder} is not a folder; name a folder of images")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ImageError(f"{folder} holds no image; expected files ending in {', '.join(sorted(IMAGE_SUFFIXES))}")
    return paths


def read_image(path: Path | str) -> Uint8:
    """Read one image.

    Gray becomes three equal channels, transparency is dropped, orientation tags are honoured, and 16-bit
    values are divided by 257 (the full range 0 to 65535 becomes 0 to 255; nothing is stretched).

    Returns:
        (height, width, 3) uint8 RGB, C-contiguous, owned by the caller.

    Raises:
        ImageError: The file cannot be read as an image.
    """
    try:
        encoded = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}; check the path and its permissions") from error
    return decode_image(encoded, str(path))


def decode_image(encoded: Uint8, name: str) -> Uint8:
    """Decode the bytes of an image file; `name` stands in the error message.

    Raises:
        ImageError: The bytes are not a complete image, or one that is too large.
    """
    try:
        pixels = cv2.imdecode(encoded, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH) if encoded.size else None
    except cv2.error as error:
        if "CV_IO_MAX_IMAGE" in str(error):  # OpenCV's own limits, above ours
            raise _too_large(name) from error
        pixels = None
    if pixels is None:
        raise ImageError(f"{name} ({encoded.size} bytes) is not a readable image; remove it or write it again")
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_SIDE_PX or height * width > MAX_PIXELS:
        raise _too_large(f"{name} ({height}x{width} pixels)")
    return rgb8_from_bgr(pixels, name)


def rgb8_from_bgr(pixels: np.ndarray, name: str) -> Uint8:
    """8 or 16-bit BGR pixels to 8-bit RGB.

    Raises:
        ImageError: The pixels are neither uint8 nor uint16.
    """
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    if pixels.dtype != np.uint8:
        raise ImageError(f"{name} has {pixels.dtype} pixels; convert it to 8 or 16-bit integers")
    return np.ascontiguousarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def _too_large(name: str) -> ImageError:
    return ImageError(
        f"{name} is too large; cut it into images of at most {MAX_SIDE_PX} pixels a side and {MAX_PIXELS} in all"
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
            f"{MAX_SIDE_PX} pixels a side"
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
