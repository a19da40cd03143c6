"""The kernel, its twin and the CPU path make the same grid, map, mask, row maxima and histogram."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.detectors.anomaly_map import MapOperator
from fbft_edge.detectors.kernels import twins
from fbft_edge.detectors.kernels.frame_kernels import FrameKernels, Launch
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.frames.frame import Float32
from fbft_edge.frames.pixel_format import PixelFormat

Arrays = dict[str, NDArray[Any]]
ArraysFor = Callable[[FrameKernels], Arrays]
Run = Callable[[Launch, Mapping[str, NDArray[Any]]], None]

WRITTEN = ("grid", "map", "mask", "row_peaks", "histogram_counts", "histogram_residuals")
THRESHOLD = 0.45
# (tile, patch, overlap, scale) and a frame size: overlaps of two and more tiles, one tile beyond the frame, small and
# large patches, scales on both sides of 1.
CASES = [
    (TileGeometry(56, 14, 2), (141, 200)),
    (TileGeometry(56, 14, 0), (112, 257)),
    (TileGeometry(56, 14, 3), (100, 129)),
    (TileGeometry(112, 14, 4), (65, 30)),
    (TileGeometry(64, 8, 3), (97, 130)),
    (TileGeometry(128, 16, 2), (150, 161)),
    (TileGeometry(24, 4, 1), (70, 131)),
    (TileGeometry(12, 2, 1), (20, 24)),
    (TileGeometry(96, 32, 1), (200, 90)),
    (TileGeometry(56, 14, 1, scale=0.5), (200, 260)),
    (TileGeometry(56, 14, 1, scale=0.3), (200, 260)),
    (TileGeometry(64, 8, 2, scale=2.0), (70, 131)),
]
HOST_SETTINGS = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
EXTREMES = st.sampled_from([np.nan, np.inf, 0.0, -0.0, 1e-30, 2.0**-14, 4.0, 5.0])


def kernels_for(geometry: TileGeometry, size: tuple[int, int], threshold: float = THRESHOLD) -> FrameKernels:
    return FrameKernels(TilePlan(geometry, *size), PixelFormat.RGB8, threshold, with_map=True)


def twin_of(kernels: FrameKernels, arrays: Arrays) -> Arrays:
    """What the twin writes; `arrays` stays as it is."""
    mine = {**arrays, **{name: arrays[name].copy() for name in WRITTEN}}
    twins.map_and_mask(kernels, mine)
    return mine


def bits(array: NDArray[Any]) -> NDArray[np.uint8]:
    """Raw bytes, so that NaN equals NaN; all NaNs are one."""
    if array.dtype == np.float32:
        array = np.where(np.isnan(array), np.float32(np.nan), array)
    return np.ascontiguousarray(array).view(np.uint8)


def assert_same(found: Arrays, expected: Arrays) -> None:
    for name in WRITTEN:
        np.testing.assert_array_equal(bits(found[name]), bits(expected[name]), err_msg=name)


@pytest.mark.parametrize(("geometry", "size"), CASES)
def test_kernel_and_twin_write_the_same(
    run_on_each_host: Run, arrays_for: ArraysFor, geometry: TileGeometry, size: tuple[int, int]
) -> None:
    kernels = kernels_for(geometry, size)
    arrays = arrays_for(kernels)
    expected = twin_of(kernels, arrays)
    run_on_each_host(kernels.map_launch, arrays)
    assert_same(arrays, expected)


@HOST_SETTINGS
@given(
    st.integers(1, 9), st.sampled_from([4, 7, 8, 14, 16]), st.integers(0, 4), st.integers(1, 160), st.integers(1, 300)
)
def test_kernel_and_twin_agree_on_any_geometry(
    run_on_host: Run, arrays_for: ArraysFor, side: int, patch_px: int, overlap: int, height: int, width: int
) -> None:
    kernels = kernels_for(TileGeometry(side * patch_px, patch_px, min(overlap, side - 1)), (height, width))
    arrays = arrays_for(kernels)
    expected = twin_of(kernels, arrays)
    run_on_host(kernels.map_launch, arrays)
    assert_same(arrays, expected)


@HOST_SETTINGS
@given(st.lists(st.tuples(st.integers(0, 10**6), EXTREMES), min_size=1, max_size=20))
def test_kernel_and_twin_agree_on_extreme_distances(
    run_on_host: Run, arrays_for: ArraysFor, extremes: list[tuple[int, float]]
) -> None:
    kernels = kernels_for(*CASES[0])
    arrays = arrays_for(kernels)
    for place, value in extremes:
        arrays["distances"].reshape(-1)[place % arrays["distances"].size] = value
    with np.errstate(invalid="ignore"):
        expected = twin_of(kernels, arrays)
    run_on_host(kernels.map_launch, arrays)
    assert_same(arrays, expected)


def test_without_a_map_buffer_all_else_is_the_same(run_on_host: Run, arrays_for: ArraysFor) -> None:
    with_map = kernels_for(*CASES[0])
    without_map = FrameKernels(with_map.plan, PixelFormat.RGB8, THRESHOLD)
    arrays, expected = arrays_for(without_map), arrays_for(with_map)
    run_on_host(without_map.map_launch, arrays)
    run_on_host(with_map.map_launch, expected)
    assert_same({**arrays, "map": expected["map"]}, expected)


def test_histograms_of_several_launches_add_up(run_on_host: Run, arrays_for: ArraysFor) -> None:
    kernels = kernels_for(*CASES[0])
    arrays = arrays_for(kernels)
    run_on_host(kernels.map_launch, arrays)
    once = arrays["histogram_residuals"].copy()
    run_on_host(kernels.map_launch, arrays)
    np.testing.assert_array_equal(arrays["histogram_residuals"], 2 * once)


@pytest.mark.parametrize(("geometry", "size"), CASES)
def test_the_twin_stitches_what_the_cpu_stitches_bit_for_bit(
    arrays_for: ArraysFor, geometry: TileGeometry, size: tuple[int, int]
) -> None:
    kernels = kernels_for(geometry, size)
    arrays = arrays_for(kernels)
    np.testing.assert_array_equal(twin_of(kernels, arrays)["grid"], kernels.plan.stitch(arrays["distances"]))


def cpu_map(kernels: FrameKernels, distances: Float32) -> Float32:
    plan = kernels.plan
    anomaly_map = np.empty(plan.frame_size, np.float32)
    operator = MapOperator(plan.grid, plan.geometry.patch_px, plan.scaled_size, plan.frame_size)
    operator.apply(plan.stitch(distances), anomaly_map)
    return anomaly_map


# The CPU sums in another order.
@pytest.mark.parametrize(("geometry", "size"), CASES)
def test_the_twins_map_is_the_cpus_but_for_rounding(
    arrays_for: ArraysFor, geometry: TileGeometry, size: tuple[int, int]
) -> None:
    kernels = kernels_for(geometry, size)
    arrays = arrays_for(kernels)
    np.testing.assert_allclose(twin_of(kernels, arrays)["map"], cpu_map(kernels, arrays["distances"]), rtol=2e-6)


@pytest.mark.parametrize(("geometry", "size"), CASES)
def test_the_mask_begins_with_the_bytes_of_packbits(
    arrays_for: ArraysFor, geometry: TileGeometry, size: tuple[int, int]
) -> None:
    kernels = kernels_for(geometry, size)
    written = twin_of(kernels, arrays_for(kernels))
    expected = np.packbits(written["map"] > np.float32(THRESHOLD), axis=1)
    np.testing.assert_array_equal(written["mask"].view(np.uint8)[:, : expected.shape[1]], expected)


def test_bits_beyond_the_width_are_zero(run_on_host: Run, arrays_for: ArraysFor) -> None:
    kernels = kernels_for(*CASES[0], threshold=-1.0)
    arrays = arrays_for(kernels)
    run_on_host(kernels.map_launch, arrays)
    assert np.unpackbits(arrays["mask"].view(np.uint8), axis=1).sum() == 141 * 200


def test_nothing_is_above_an_infinite_threshold(run_on_host: Run, arrays_for: ArraysFor) -> None:
    kernels = kernels_for(*CASES[0], threshold=np.inf)
    arrays = arrays_for(kernels)
    run_on_host(kernels.map_launch, arrays)
    assert not arrays["mask"].any()


def test_row_peaks_are_the_rows_largest_values(run_on_host: Run, arrays_for: ArraysFor) -> None:
    kernels = kernels_for(*CASES[0])
    arrays = arrays_for(kernels)
    run_on_host(kernels.map_launch, arrays)
    np.testing.assert_array_equal(arrays["row_peaks"], arrays["map"].max(axis=1))


def test_a_nan_reaches_the_row_peaks(run_on_host: Run, arrays_for: ArraysFor) -> None:
    kernels = kernels_for(*CASES[0])
    arrays = arrays_for(kernels)
    arrays["distances"][0, 0, 0] = np.nan
    run_on_host(kernels.map_launch, arrays)
    assert np.isnan(arrays["row_peaks"]).any()
