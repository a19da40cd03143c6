"""Every pixel format becomes RGB by the stated arithmetic, and frames of another shape are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbft_edge.errors import ArgumentError, BundleError
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.pixel_format import (
    FrameLayout,
    PixelFormat,
    Window,
    frame_array_shape,
    frame_size,
    layout_of,
    pixel_dtype,
    require_pixels,
    rgb_from_pixels,
    rgb_lattice,
    rgb_of_window,
)

BAYER = [each for each in PixelFormat if each.value.startswith("bayer")]


def flat_mosaic(pixel_format: PixelFormat, red: int, green: int, blue: int) -> Uint8:
    """8x10 mosaic of one colour; the 2x2 cell follows from the name."""
    first = pixel_format.value[6:8]
    second = {"rg": "gb", "gr": "bg", "gb": "rg", "bg": "gr"}[first]
    levels = {"r": red, "g": green, "b": blue}
    cell = [[levels[letter] for letter in row] for row in (first, second)]
    return np.tile(np.array(cell, np.uint8), (4, 5))


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_a_frame_has_the_size_it_was_made_for(pixel_format: PixelFormat) -> None:
    pixels = np.zeros(frame_array_shape(pixel_format, 48, 64), pixel_dtype(pixel_format))
    assert frame_size(pixels, pixel_format) == (48, 64)
    assert layout_of(pixels, pixel_format) == FrameLayout(48, 64, pixel_format)


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_every_format_becomes_rgb_of_the_frame_size(pixel_format: PixelFormat) -> None:
    pixels = np.zeros(frame_array_shape(pixel_format, 48, 64), pixel_dtype(pixel_format))
    rgb = rgb_from_pixels(pixels, pixel_format)
    assert (rgb.shape, rgb.dtype) == ((48, 64, 3), np.uint8)


def test_rgb_is_not_copied() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    assert np.shares_memory(rgb_from_pixels(pixels, PixelFormat.RGB8), pixels)


def test_bgr_is_rgb_the_other_way_round() -> None:
    pixels = np.array([[[1, 2, 3]]], np.uint8)
    assert rgb_from_pixels(pixels, PixelFormat.BGR8).tolist() == [[[3, 2, 1]]]


def test_sixteen_bits_are_divided_by_257_and_rounded() -> None:
    pixels = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = (pixels.astype(int) + 128) // 257
    np.testing.assert_array_equal(rgb_from_pixels(pixels, PixelFormat.MONO16)[..., 1], expected)


# BT.601, limited range: black, white, and the primary red.
@pytest.mark.parametrize(
    ("yuv", "rgb"), [((16, 128, 128), (0, 0, 0)), ((235, 128, 128), (255, 255, 255)), ((81, 90, 240), (254, 0, 0))]
)
def test_nv12_is_limited_range_bt601(yuv: tuple[int, int, int], rgb: tuple[int, int, int]) -> None:
    pixels = np.array([[yuv[0]] * 2, [yuv[0]] * 2, yuv[1:]], np.uint8)
    assert rgb_from_pixels(pixels, PixelFormat.NV12)[0, 0].tolist() == list(rgb)


@pytest.mark.parametrize("pixel_format", BAYER)
@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_a_mosaic_of_one_colour_has_that_colour_everywhere(
    pixel_format: PixelFormat, colour: tuple[int, int, int]
) -> None:
    rgb = rgb_from_pixels(flat_mosaic(pixel_format, *colour), pixel_format)
    assert (rgb == colour).all()


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_a_frame_of_the_stated_shape_is_accepted(pixel_format: PixelFormat) -> None:
    pixels = np.zeros(frame_array_shape(pixel_format, 4, 6), pixel_dtype(pixel_format))
    require_pixels(pixels, FrameLayout(4, 6, pixel_format))


@pytest.mark.parametrize(("shape", "dtype"), [((4, 7), np.uint8), ((4, 6, 3), np.uint8), ((4, 6), np.uint16)])
def test_a_frame_of_another_shape_or_type_is_refused(shape: tuple[int, ...], dtype: type) -> None:
    with pytest.raises(BundleError, match="mono8 frames of 6x4 pixels"):
        require_pixels(np.zeros(shape, dtype), FrameLayout(4, 6, PixelFormat.MONO8))


@pytest.mark.parametrize("size", [(5, 6), (4, 7)])
def test_nv12_frames_have_even_sides(size: tuple[int, int]) -> None:
    with pytest.raises(ArgumentError, match=f"not {size[1]}x{size[0]} pixels"):
        frame_array_shape(PixelFormat.NV12, *size)


@pytest.mark.parametrize("pixel_format", BAYER)
def test_a_mosaic_smaller_than_its_filter_is_refused(pixel_format: PixelFormat) -> None:
    with pytest.raises(ArgumentError, match="at least 3x3 pixels, not 8x2 pixels"):
        frame_array_shape(pixel_format, 2, 8)


@pytest.mark.parametrize("pixel_format", PixelFormat)
@given(st.integers(0, 10**6))
def test_a_window_is_converted_as_the_whole_frame_is(pixel_format: PixelFormat, seed: int) -> None:
    generator = np.random.default_rng(seed)
    height, width = (int(length) * 2 for length in generator.integers(2, 12, 2))
    dtype = pixel_dtype(pixel_format)
    pixels = generator.integers(0, np.iinfo(dtype).max, frame_array_shape(pixel_format, height, width), dtype)
    (top, bottom), (left, right) = (np.sort(generator.choice(each + 1, 2, False)) for each in (height, width))
    window = Window(int(top), int(left), int(bottom), int(right))
    np.testing.assert_array_equal(
        rgb_of_window(pixels, pixel_format, window), rgb_from_pixels(pixels, pixel_format)[window.part]
    )


@pytest.mark.parametrize("size", [(4, 4), (6, 40), (50, 64), (48, 66)])
@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_a_lattice_has_the_frames_colours_at_its_points(pixel_format: PixelFormat, size: tuple[int, int]) -> None:
    """On colours that change slowly, so that demosaicing from neighbouring points changes little."""
    dtype = pixel_dtype(pixel_format)
    shape = frame_array_shape(pixel_format, *size)
    slope = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) * (np.iinfo(dtype).max // 255)
    pixels = np.broadcast_to(100 * (np.iinfo(dtype).max // 255) + slope, shape).astype(dtype)
    expected = rgb_from_pixels(pixels, pixel_format)[::8, ::8].astype(int)
    found = rgb_lattice(pixels, pixel_format, 8).astype(int)
    assert (found.shape, bool(abs(found - expected).max() <= 8)) == (expected.shape, True)
