"""Whether a picture has colour, and how much of it is black or white, is told in every pixel format."""

from __future__ import annotations

import numpy as np
import pytest

from fbft_edge.frames.frame import Pixels
from fbft_edge.frames.pixel_format import PixelFormat, frame_array_shape, pixel_dtype
from fbft_edge.frames.statistics import Look, black_and_white, has_colour

SIZE = (170, 64)
CHANNELS = (PixelFormat.RGB8, PixelFormat.BGR8)


def mono(pixel_format: PixelFormat) -> Pixels:
    """What a mono camera sees, as the format can carry it."""
    shape, dtype = frame_array_shape(pixel_format, *SIZE), pixel_dtype(pixel_format)
    pixels = np.random.default_rng(0).integers(0, 256, shape[:2]).astype(dtype)
    if pixel_format is PixelFormat.NV12:
        pixels[SIZE[0] :] = 128
    return np.dstack([pixels] * 3) if len(shape) == 3 else pixels


@pytest.mark.parametrize("pixel_format", [*CHANNELS, PixelFormat.NV12, PixelFormat.MONO8, PixelFormat.MONO16])
def test_the_picture_of_a_mono_camera_has_no_colour(pixel_format: PixelFormat) -> None:
    assert not has_colour(mono(pixel_format), pixel_format)


@pytest.mark.parametrize("pixel_format", [*CHANNELS, PixelFormat.NV12])
@pytest.mark.parametrize("place", [0, -1])
def test_one_level_in_one_channel_of_one_pixel_is_colour(pixel_format: PixelFormat, place: int) -> None:
    pixels = mono(pixel_format)
    (pixels[SIZE[0] :] if pixel_format is PixelFormat.NV12 else pixels).flat[place] ^= 1
    assert has_colour(pixels, pixel_format)


@pytest.mark.parametrize("pixel_format", [each for each in PixelFormat if each.value.startswith("bayer")])
def test_a_bayer_pattern_has_colour(pixel_format: PixelFormat) -> None:
    assert has_colour(mono(pixel_format), pixel_format)


def test_a_grey_thing_before_a_colour_camera_has_colour() -> None:
    noise = np.random.default_rng(0).normal(0, 0.5, (*SIZE, 3))
    assert has_colour(np.asarray(np.rint(128 + noise), np.uint8))


@pytest.mark.parametrize("pixel_format", PixelFormat)
@pytest.mark.parametrize(("level", "expected"), [(0, (1.0, 0.0)), (128, (0.0, 0.0)), (255, (0.0, 1.0))])
def test_shares_of_black_and_white_are_on_one_scale(
    pixel_format: PixelFormat, level: int, expected: tuple[float, float]
) -> None:
    shape, dtype = frame_array_shape(pixel_format, *SIZE), pixel_dtype(pixel_format)
    value = 16 + level * 219 // 255 if pixel_format is PixelFormat.NV12 else level
    found = black_and_white(np.full(shape, value * (257 if dtype == np.uint16 else 1), dtype), pixel_format)
    assert (found["black"], found["white"]) == expected


@pytest.mark.parametrize(
    ("look", "pixel_format", "is_refused"),
    [
        (True, PixelFormat.MONO8, True),
        (True, PixelFormat.BAYER_RG8, False),
        (True, PixelFormat.BGR8, False),
        (False, PixelFormat.BAYER_RG8, True),
        (False, PixelFormat.MONO16, False),
        (False, PixelFormat.NV12, False),
        (None, PixelFormat.MONO8, False),
        (None, PixelFormat.BAYER_RG8, False),
    ],
)
def test_a_pixel_format_is_refused_only_where_it_cannot_look_like_nominal_images(
    look: bool | None, pixel_format: PixelFormat, is_refused: bool
) -> None:
    assert (Look(has_colour=look).objection_to_format("camera", pixel_format) is not None) is is_refused
