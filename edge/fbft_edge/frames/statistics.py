"""What a picture is like as a whole: pixels in, five numbers out, for calibration and for the line alike.

Knows nothing about parts, defects or drift.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from fbft_edge.frames.frame import Float32, Pixels
from fbft_edge.frames.pixel_format import PixelFormat, frame_size, is_colour_format, rgb_from_pixels

NUM_SAMPLES = 16_384
# Odd, so that rows of either kind of a Bayer pattern are looked at.
ROW_STEP = 17
# Of 255. Black: a sixteenth of the range holds a sensor's black level and its noise, and all of 12 bits in 16. White:
# what compression leaves of a saturated sensor's 255.
BLACK_BELOW, WHITE_FROM = 16, 252
# Of a black or white picture: a clock in the picture, or hot pixels, may be left.
NEARLY_ALL = 0.99
_NO_CHROMA = 128
_ROWS_AT_ONCE = 4
_PER_PIXEL = (PixelFormat.RGB8, PixelFormat.BGR8, PixelFormat.MONO8, PixelFormat.MONO16)


@dataclass(frozen=True, slots=True)
class Look:
    """What pictures of one product have in common; the defaults where that is not known.

    Attributes:
        has_colour: All have, or none has; None where it may be either.
        may_be_black: They are nearly all black.
        may_be_white: They are nearly all white.
    """

    has_colour: bool | None = None
    may_be_black: bool = False
    may_be_white: bool = False

    def objection(self, source: str, pixels: Pixels, pixel_format: PixelFormat, row_step: int = 1) -> str | None:
        """Why a picture cannot be one of the product's, by its colour; None when nothing speaks against it.

        Args:
            source: Names the picture, or what sent it.
            pixels: Of the shape and type that the pixel format has.
            pixel_format: How to read them.
            row_step: Look for colour where there should be none in each so-manieth row only: a colour camera has it in
                all of them.
        """
        if self.has_colour is None:
            return None
        found = has_colour(pixels, pixel_format, 1 if self.has_colour else row_step)
        return None if found is self.has_colour else self._wrong_colour(source)

    def objection_to_format(self, source: str, pixel_format: PixelFormat) -> str | None:
        """The same of a source, as far as its pixel format says what it sends."""
        found = is_colour_format(pixel_format)
        return None if self.has_colour is None or found in (None, self.has_colour) else self._wrong_colour(source)

    def _wrong_colour(self, source: str) -> str:
        if self.has_colour:
            return (
                f"{source} is mono: the three channels of every pixel are equal, and the bundle was fitted on colour "
                "images; put the colour camera back (one in night mode is mono, too), or fit again with images of this "
                "one"
            )
        return (
            f"{source} has colour, and the bundle was fitted on mono images, in which the three channels of every "
            "pixel are equal; put the mono camera back, set the pixel format to mono, or fit again with images of this "
            "one"
        )


def picture_statistics(pixels: Pixels, pixel_format: PixelFormat = PixelFormat.RGB8) -> dict[str, float]:
    """Light, colour and focus of a picture, from a grid of about `NUM_SAMPLES` of its pixels and their neighbours.

    A 5 MP frame takes 2 ms, and 8 ms where all of it has to be converted first (NV12 and Bayer), on one busy core.

    Args:
        pixels: Of the shape and type that the pixel format has, at least 2x2 pixels.
        pixel_format: How to read them.

    Returns:
        `level`: mean of all channels, 0 to 255. `contrast`: standard deviation of the pixels' level. `sharpness`: mean
        difference of neighbouring pixels, in units of the contrast, so that it is the same in any light. `red` and
        `blue`: the channel's share of all light, 0 to 1. Rounded, so that equal pictures give equal numbers.
    """
    if pixel_format not in _PER_PIXEL:
        pixels, pixel_format = rgb_from_pixels(pixels, pixel_format), PixelFormat.RGB8
    rows, columns = pixels.shape[0] - 1, pixels.shape[1] - 1
    # Odd, so that the grid meets every position of JPEG's blocks.
    step = max(1, math.isqrt(rows * columns // NUM_SAMPLES)) | 1
    here, right, below = (
        _rgb(pixels[top : top + rows : step, left : left + columns : step], pixel_format)
        for top, left in ((0, 0), (0, 1), (1, 0))
    )
    red, green, blue = (float(mean) for mean in here.mean(axis=(0, 1), dtype=np.float64))
    light = red + green + blue
    level = here.mean(axis=2)
    contrast = float(level.std(dtype=np.float64))
    change = (_difference(level, right) + _difference(level, below)) / 2
    return {
        "level": round(light / 3, 2),
        "contrast": round(contrast, 2),
        "sharpness": round(change / contrast, 4) if contrast else 0.0,
        "red": round(red / light, 4) if light else round(1 / 3, 4),
        "blue": round(blue / light, 4) if light else round(1 / 3, 4),
    }


def mean_level(pixels: Pixels, pixel_format: PixelFormat) -> float:
    """Mean of every 17th row, 0 to 255: of all channels, of the luma for NV12.

    66 us on 5 MP BGR, 23 us on 5 MP mono.
    """
    height, _ = frame_size(pixels, pixel_format)
    means = cv2.mean(pixels[:height:ROW_STEP])
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    return sum(means[:channels]) / channels / _scale(pixel_format)


def black_and_white(pixels: Pixels, pixel_format: PixelFormat = PixelFormat.RGB8) -> dict[str, float]:
    """How much of a picture is without light, or has as much as can be shown, in every 17th row.

    Returns:
        `black`: share of values below `BLACK_BELOW` of 255; `white`: of those from `WHITE_FROM` on. Of all
        channels and Bayer colours alike; of the luma for NV12, where 16 is black and 235 white.
    """
    height, _ = frame_size(pixels, pixel_format)
    values, scale = pixels[:height:ROW_STEP], _scale(pixel_format)
    black_below, white_from = BLACK_BELOW * scale, WHITE_FROM * scale
    if pixel_format is PixelFormat.NV12:
        black_below, white_from = round(16 + BLACK_BELOW * 219 / 255), round(16 + WHITE_FROM * 219 / 255)
    return {
        "black": np.count_nonzero(values < black_below) / values.size,
        "white": np.count_nonzero(values >= white_from) / values.size,
    }


def has_colour(pixels: Pixels, pixel_format: PixelFormat = PixelFormat.RGB8, row_step: int = 1) -> bool:
    """Whether the channels of any pixel differ, if only by one level.

    Those of a mono camera are equal, however its pictures travel. Those of a colour camera differ somewhere, whatever
    it looks at: each channel has noise of its own.

    Args:
        pixels: Of the shape and type that the pixel format has.
        pixel_format: How to read them. Mono formats have no colour, Bayer patterns always.
        row_step: Look at each so-manieth row only.
    """
    if (known := is_colour_format(pixel_format)) is not None:
        return known
    height, _ = frame_size(pixels, pixel_format)
    if pixel_format is PixelFormat.NV12:
        return any(bool(np.any(rows != _NO_CHROMA)) for rows in _parts(pixels[height::row_step]))
    return any(bool(np.any(rows[..., :2] != rows[..., 1:])) for rows in _parts(pixels[::row_step]))


def _parts(pixels: Pixels) -> Iterator[Pixels]:
    """A few rows after the other, so that the first ones may decide."""
    return (pixels[top : top + _ROWS_AT_ONCE] for top in range(0, len(pixels), _ROWS_AT_ONCE))


def _scale(pixel_format: PixelFormat) -> int:
    return 257 if pixel_format is PixelFormat.MONO16 else 1


def _rgb(part: Pixels, pixel_format: PixelFormat) -> Float32:
    return rgb_from_pixels(part.copy(), pixel_format).astype(np.float32)


def _difference(level: Float32, neighbours: Float32) -> float:
    return float(np.abs(neighbours.mean(axis=2) - level).mean(dtype=np.float64))
