"""The kernel, its twin and the CPU path cut the same tiles from every pixel format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.detectors.kernels import twins
from fbft_edge.detectors.kernels.frame_kernels import FrameKernels, Launch
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.pixel_format import PixelFormat, rgb_from_pixels

Arrays = dict[str, NDArray[Any]]
ArraysFor = Callable[[FrameKernels], Arrays]
Run = Callable[[Launch, Mapping[str, NDArray[Any]]], None]

# Tiles whose rows are multiples of 4 pixels, of 2 and odd; larger than the frame; a scale of each kind.
GEOMETRIES = [
    TileGeometry(56, 14, 1),
    TileGeometry(70, 14, 2),
    TileGeometry(35, 7, 1),
    TileGeometry(252, 14, 4),
    TileGeometry(48, 8, 2, scale=0.5),
    TileGeometry(56, 14, 1, scale=0.37),
    TileGeometry(80, 16, 1, scale=1.4),
]
SIZES = st.tuples(st.integers(3, 150), st.integers(3, 150))
HOST_SETTINGS = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def kernels_for(
    geometry: TileGeometry, size: tuple[int, int], pixel_format: PixelFormat, pitch: int | None = None
) -> FrameKernels:
    return FrameKernels(TilePlan(geometry, *size), pixel_format, 0.5, pitch=pitch)


def twin_of(kernels: FrameKernels, arrays: Arrays) -> Uint8:
    """Tiles by the twin; `arrays` stays as it is."""
    mine = {**arrays, "tiles": np.empty_like(arrays["tiles"])}
    twins.frame_to_tiles(kernels, mine)
    return mine["tiles"]


def cpu_tiles(kernels: FrameKernels, arrays: Arrays) -> Uint8:
    tiles = np.empty_like(arrays["tiles"])
    kernels.plan.cut(rgb_from_pixels(arrays["frame"], kernels.pixel_format), tiles)
    return tiles


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=lambda each: f"{each.tile_px}px-x{each.scale}")
@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_kernel_and_twin_write_the_same_tiles(
    run_on_host: Run, arrays_for: ArraysFor, pixel_format: PixelFormat, geometry: TileGeometry
) -> None:
    kernels = kernels_for(geometry, (94, 118), pixel_format)
    arrays = arrays_for(kernels)
    run_on_host(kernels.tiles_launch, arrays)
    np.testing.assert_array_equal(arrays["tiles"], twin_of(kernels, arrays))


@HOST_SETTINGS
@given(st.sampled_from(GEOMETRIES), SIZES, st.sampled_from(PixelFormat))
def test_kernel_and_twin_agree_on_frames_of_any_size(
    run_on_host: Run, arrays_for: ArraysFor, geometry: TileGeometry, size: tuple[int, int], pixel_format: PixelFormat
) -> None:
    even = (size[0] & ~1, size[1] & ~1) if pixel_format is PixelFormat.NV12 else size
    kernels = kernels_for(geometry, even, pixel_format)
    arrays = arrays_for(kernels)
    run_on_host(kernels.tiles_launch, arrays)
    np.testing.assert_array_equal(arrays["tiles"], twin_of(kernels, arrays))


@pytest.mark.parametrize("width", [4, 6, 8])
@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_narrow_frames_are_not_read_beyond_their_end(
    run_on_host: Run, arrays_for: ArraysFor, pixel_format: PixelFormat, width: int
) -> None:
    kernels = kernels_for(GEOMETRIES[0], (6, width), pixel_format)
    arrays = arrays_for(kernels)
    run_on_host(kernels.tiles_launch, arrays)
    np.testing.assert_array_equal(arrays["tiles"], twin_of(kernels, arrays))


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_a_pitch_changes_no_tile(run_on_host: Run, arrays_for: ArraysFor, pixel_format: PixelFormat) -> None:
    dense = kernels_for(GEOMETRIES[1], (62, 90), pixel_format)
    pitched = kernels_for(GEOMETRIES[1], (62, 90), pixel_format, pitch=346)
    arrays, gapped = arrays_for(dense), arrays_for(pitched)
    rows = arrays["frame"].reshape(len(arrays["frame"]), -1).view(np.uint8)
    gapped["frame"][:, : rows.shape[1]] = rows
    run_on_host(pitched.tiles_launch, gapped)
    np.testing.assert_array_equal(gapped["tiles"], twin_of(dense, arrays))


def test_a_twin_reads_rows_with_a_pitch(arrays_for: ArraysFor) -> None:
    kernels = kernels_for(GEOMETRIES[0], (62, 90), PixelFormat.MONO16, pitch=200)
    arrays = arrays_for(kernels)
    dense = np.ascontiguousarray(arrays["frame"][:, :180]).view(np.uint16)
    expected = cpu_tiles(kernels, {**arrays, "frame": dense})
    np.testing.assert_array_equal(twin_of(kernels, arrays), expected)


@pytest.mark.parametrize("geometry", [each for each in GEOMETRIES if each.scale <= 1], ids=lambda each: str(each.scale))
@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_the_twin_cuts_what_the_cpu_cuts_bit_for_bit(
    arrays_for: ArraysFor, pixel_format: PixelFormat, geometry: TileGeometry
) -> None:
    kernels = kernels_for(geometry, (190, 246), pixel_format)
    arrays = arrays_for(kernels)
    np.testing.assert_array_equal(twin_of(kernels, arrays), cpu_tiles(kernels, arrays))


# OpenCV 5 keeps bicubic weights in float32, and 0.4 % of the values differ at most; OpenCV 4 rounds them to 11 bits,
# and up to 8 % do.
@pytest.mark.parametrize("scale", [1.1, 1.5, 2.0, 3.0])
def test_enlarged_tiles_seldom_stray_from_the_cpu_and_by_one_level_only(arrays_for: ArraysFor, scale: float) -> None:
    kernels = kernels_for(TileGeometry(56, 14, 1, scale), (90, 122), PixelFormat.RGB8)
    arrays = arrays_for(kernels)
    strays = np.abs(twin_of(kernels, arrays).astype(int) - cpu_tiles(kernels, arrays))
    assert (strays > 0).mean() < (0.1 if strays.max() <= 1 else 0)
