"""How a camera lays out its pixels: arrays as they arrive in, (height, width, 3) uint8 RGB out, whole or in part.

The CPU path; `kernels/frame_to_tiles.cu` does the same arithmetic on a GPU, bit for bit. Knows nothing about cameras
or tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
from numpy.typing import NDArray

from fbft_edge.errors import ArgumentError, BundleError
from fbft_edge.names import size_text

Uint8 = NDArray[np.uint8]
Pixels = Uint8 | NDArray[np.uint16]


class PixelFormat(str, Enum):
    """Layouts that are read; Bayer patterns by GenICam's names, the first row of the 2x2 cell.

    `NV12` is BT.601 with limited range: a plane of luma, then one of interleaved chroma at half the height and width.
    """

    RGB8 = "rgb8"
    BGR8 = "bgr8"
    MONO8 = "mono8"
    MONO16 = "mono16"
    NV12 = "nv12"
    BAYER_RG8 = "bayer_rg8"
    BAYER_GR8 = "bayer_gr8"
    BAYER_GB8 = "bayer_gb8"
    BAYER_BG8 = "bayer_bg8"


_CONVERSIONS = {
    PixelFormat.BGR8: cv2.COLOR_BGR2RGB,
    PixelFormat.MONO8: cv2.COLOR_GRAY2RGB,
    PixelFormat.MONO16: cv2.COLOR_GRAY2RGB,
    PixelFormat.NV12: cv2.COLOR_YUV2RGB_NV12,
    # OpenCV names Bayer patterns by the second row from the second column on.
    PixelFormat.BAYER_RG8: cv2.COLOR_BayerBG2RGB,
    PixelFormat.BAYER_GR8: cv2.COLOR_BayerGB2RGB,
    PixelFormat.BAYER_GB8: cv2.COLOR_BayerGR2RGB,
    PixelFormat.BAYER_BG8: cv2.COLOR_BayerRG2RGB,
}
_COLOUR = (PixelFormat.RGB8, PixelFormat.BGR8)
_MONO = (PixelFormat.MONO8, PixelFormat.MONO16)
# Demosaicing looks one pixel to every side.
_LEAST_BAYER_PX = 3


@dataclass(frozen=True, slots=True)
class FrameLayout:
    """What frames that one detector takes have in common: their size in pixels and their pixel format."""

    height: int
    width: int
    pixel_format: PixelFormat = PixelFormat.RGB8

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a frame, in pixels; bottom and right are exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def part(self) -> tuple[slice, slice]:
        """Cuts it out of an array of shape (height, width, ...)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)


def pixel_dtype(pixel_format: PixelFormat) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
    """Type of one sample."""
    return np.dtype(np.uint16) if pixel_format is PixelFormat.MONO16 else np.dtype(np.uint8)


def frame_array_shape(pixel_format: PixelFormat, height: int, width: int) -> tuple[int, ...]:
    """Shape of the array that holds one frame of (height, width) pixels.

    Returns:
        (height, width, 3) for colour, (height * 3 / 2, width) for NV12, (height, width) for mono and Bayer.

    Raises:
        ArgumentError: The format has no frames of that size.
    """
    if pixel_format is PixelFormat.NV12:
        if height % 2 or width % 2:
            raise ArgumentError(
                f"nv12 frames have even sides, not {size_text((height, width))}; set the camera to an even size"
            )
        return height * 3 // 2, width
    if _is_bayer(pixel_format) and min(height, width) < _LEAST_BAYER_PX:
        raise ArgumentError(
            f"{pixel_format.value} frames have at least {_LEAST_BAYER_PX}x{_LEAST_BAYER_PX} pixels, not "
            f"{size_text((height, width))}; set the camera to a larger size"
        )
    return (height, width, 3) if pixel_format in _COLOUR else (height, width)


def frame_size(pixels: Pixels, pixel_format: PixelFormat) -> tuple[int, int]:
    """(height, width) of a frame in pixels."""
    height, width = pixels.shape[:2]
    return (height * 2 // 3, width) if pixel_format is PixelFormat.NV12 else (height, width)


def layout_of(pixels: Pixels, pixel_format: PixelFormat = PixelFormat.RGB8) -> FrameLayout:
    """The layout of a frame in a pixel format."""
    return FrameLayout(*frame_size(pixels, pixel_format), pixel_format)


def require_pixels(pixels: Pixels, layout: FrameLayout) -> None:
    """Accept only frames of a layout.

    Raises:
        BundleError: The array has another shape or type.
    """
    shape, dtype = frame_array_shape(layout.pixel_format, *layout.size), pixel_dtype(layout.pixel_format)
    if pixels.shape != shape or pixels.dtype != dtype:
        raise BundleError(
            f"a frame of shape {pixels.shape} and type {pixels.dtype} reached a detector for "
            f"{layout.pixel_format.value} frames of {size_text(layout.size)}, which have shape {shape} and type "
            f"{dtype}; set the camera to that size and format, or start again with its own"
        )


def rgb_from_pixels(pixels: Pixels, pixel_format: PixelFormat) -> Uint8:
    """Convert one frame.

    16-bit values are divided by 257 and rounded (the full range 0 to 65535 becomes 0 to 255); Bayer patterns are
    interpolated bilinearly, the border taking its neighbours' colours.

    Args:
        pixels: Of the shape `frame_array_shape` and the type `pixel_dtype`.
        pixel_format: How to read them.

    Returns:
        (height, width, 3) uint8 RGB; `pixels` itself where it is that already.
    """
    if pixel_format is PixelFormat.RGB8:
        return pixels.view(np.uint8)
    if pixel_format is PixelFormat.MONO16:
        pixels = np.asarray(cv2.convertScaleAbs(pixels, alpha=1 / 257), np.uint8)
    return np.asarray(cv2.cvtColor(pixels, _CONVERSIONS[pixel_format]), np.uint8)


def rgb_of_window(pixels: Pixels, pixel_format: PixelFormat, window: Window) -> Uint8:
    """Convert a part of one frame, bit for bit as the whole frame would be.

    Args:
        pixels: The whole frame.
        pixel_format: How to read it.
        window: Inside the frame.

    Returns:
        (rows, columns, 3) uint8 RGB, possibly a view of `pixels`.
    """
    if pixel_format in (*_COLOUR, *_MONO):
        return rgb_from_pixels(pixels[window.part], pixel_format)
    height, width = frame_size(pixels, pixel_format)
    (top, bottom), (left, right) = _cell_span(window.top, window.bottom), _cell_span(window.left, window.right)
    rows, columns = np.arange(top, min(bottom, height)), np.arange(left, min(right, width))
    rgb = rgb_from_pixels(_chosen(pixels, pixel_format, rows, columns), pixel_format)
    return rgb[window.top - top : window.bottom - top, window.left - left : window.right - left]


def rgb_lattice(pixels: Pixels, pixel_format: PixelFormat, step_px: int) -> Uint8:
    """Colours of a frame at every so many pixels.

    Args:
        pixels: The whole frame.
        pixel_format: How to read it. Of Bayer patterns the 2x2 cell there is read, its missing colours interpolated.
        step_px: Distance along both axes, even.

    Returns:
        (rows, columns, 3) uint8 RGB, the top left pixel first; possibly a view of `pixels`.
    """
    if pixel_format in (*_COLOUR, *_MONO):
        return rgb_from_pixels(pixels[::step_px, ::step_px], pixel_format)
    height, width = frame_size(pixels, pixel_format)
    if min(height, width) <= step_px:
        return rgb_from_pixels(pixels, pixel_format)[::step_px, ::step_px]
    rows, columns = (np.flatnonzero(np.arange(length) % step_px < 2) for length in (height, width))
    return rgb_from_pixels(_chosen(pixels, pixel_format, rows, columns), pixel_format)[::2, ::2]


def _cell_span(start: int, stop: int) -> tuple[int, int]:
    """Whole 2x2 cells around a span, with one more on each side, for demosaicing; from 0 on."""
    return max(0, start // 2 * 2 - 2), stop + stop % 2 + 2


def _chosen(pixels: Pixels, pixel_format: PixelFormat, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Pixels:
    """Some rows and columns of a Bayer or NV12 frame, whole 2x2 cells of it, as a frame of that format."""
    if pixel_format is PixelFormat.NV12:
        height = frame_size(pixels, pixel_format)[0]
        rows = np.concatenate([rows, height + rows[::2] // 2])
    return pixels[rows][:, columns]


def is_colour_format(pixel_format: PixelFormat) -> bool | None:
    """Whether pictures of a format have colour; None for those in which a mono camera can send equal channels."""
    if pixel_format in _MONO:
        return False
    return True if _is_bayer(pixel_format) else None


def _is_bayer(pixel_format: PixelFormat) -> bool:
    return pixel_format.value.startswith("bayer")
