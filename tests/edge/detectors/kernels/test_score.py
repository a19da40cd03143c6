"""The kernel, its twin and the CPU path give the same score and peak."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.detectors.judge import image_score
from fbft_edge.detectors.kernels import twins
from fbft_edge.detectors.kernels.frame_kernels import FrameKernels, Launch
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.frames.frame import Float32
from fbft_edge.frames.pixel_format import PixelFormat

Arrays = dict[str, NDArray[Any]]
ArraysFor = Callable[[FrameKernels], Arrays]
Run = Callable[[Launch, Mapping[str, NDArray[Any]]], None]

WRITTEN = ("histogram_counts", "histogram_residuals", "row_peaks", "result")
HOST_SETTINGS = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
# One octave of the histogram has 256 bins.
BIN_WIDTH = 1 / 256


def kernels_for(height: int, width: int) -> FrameKernels:
    return FrameKernels(TilePlan(TileGeometry(56, 14, 1), height, width), PixelFormat.RGB8, 0.5, with_map=True)


def copied(arrays: Arrays) -> Arrays:
    return {name: array.copy() for name, array in arrays.items()}


def filled(kernels: FrameKernels, arrays: Arrays) -> Arrays:
    """Arrays whose histogram and row peaks are of a map of gamma distributed distances."""
    with np.errstate(invalid="ignore"):
        twins.map_and_mask(kernels, arrays)
    return arrays


def scored(kernels: FrameKernels, arrays: Arrays, distances: Float32 | float) -> tuple[Float32, Float32]:
    """Result and map of some distances."""
    arrays["distances"][...] = distances
    twins.score(kernels, filled(kernels, arrays))
    return arrays["result"], arrays["map"]


@HOST_SETTINGS
@given(st.integers(1, 1300), st.integers(1, 130))
def test_kernel_and_twin_write_the_same(run_on_host: Run, arrays_for: ArraysFor, height: int, width: int) -> None:
    kernels = kernels_for(height, width)
    arrays = filled(kernels, arrays_for(kernels))
    expected = copied(arrays)
    twins.score(kernels, expected)
    run_on_host(kernels.score_launch, arrays)
    for name in WRITTEN:
        np.testing.assert_array_equal(arrays[name], expected[name], err_msg=name)


def test_kernel_and_twin_add_counts_of_large_frames(run_on_host: Run, arrays_for: ArraysFor) -> None:
    kernels = kernels_for(40, 50)
    arrays = arrays_for(kernels)
    arrays["histogram_counts"][...] = np.arange(4096) * 128
    arrays["histogram_residuals"][...] = np.arange(4096, dtype=np.uint64) * 128 * 20_001
    expected = copied(arrays)
    kernels.top_count = 2_000_003
    twins.score(kernels, expected)
    launch = kernels.score_launch
    run_on_host(dataclasses.replace(launch, arguments=(*launch.arguments[:-1], np.uint32(2_000_003))), arrays)
    assert arrays["result"][0] == expected["result"][0]


def test_the_score_is_the_mean_of_the_top_values_but_for_a_part_of_one_bin(arrays_for: ArraysFor) -> None:
    kernels = kernels_for(240, 300)
    arrays = arrays_for(kernels)
    (score, _), anomaly_map = scored(kernels, arrays, arrays["distances"].copy())
    exact = image_score(anomaly_map)
    assert exact * (1 - BIN_WIDTH) < score <= exact * (1 + 1e-7)


def test_a_constant_map_is_scored_exactly(arrays_for: ArraysFor) -> None:
    kernels = kernels_for(1, 1)
    (score, _), anomaly_map = scored(kernels, arrays_for(kernels), 0.73)
    assert score == anomaly_map[0, 0]


def test_the_peak_is_the_maps_largest_value(arrays_for: ArraysFor) -> None:
    kernels = kernels_for(240, 300)
    arrays = arrays_for(kernels)
    (_, peak), anomaly_map = scored(kernels, arrays, arrays["distances"].copy())
    assert peak == anomaly_map.max()


def test_a_map_of_zeros_scores_zero(arrays_for: ArraysFor) -> None:
    kernels = kernels_for(60, 70)
    assert scored(kernels, arrays_for(kernels), 0.0)[0].tolist() == [0.0, 0.0]


def test_the_largest_possible_distance_is_in_range(arrays_for: ArraysFor) -> None:
    kernels = kernels_for(600, 600)
    (score, _), anomaly_map = scored(kernels, arrays_for(kernels), 4.0)
    assert score == pytest.approx(image_score(anomaly_map), rel=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_a_number_is_seen_in_the_peak(run_on_host: Run, arrays_for: ArraysFor, value: float) -> None:
    kernels = kernels_for(60, 70)
    arrays = arrays_for(kernels)
    arrays["distances"][0, 0, 0] = value
    run_on_host(kernels.map_launch, arrays)
    run_on_host(kernels.score_launch, arrays)
    assert not np.isfinite(arrays["result"][1])


def test_accumulators_are_zero_for_the_next_frame(run_on_host: Run, arrays_for: ArraysFor) -> None:
    kernels = kernels_for(60, 70)
    arrays = filled(kernels, arrays_for(kernels))
    run_on_host(kernels.score_launch, arrays)
    assert not any(arrays[name].any() for name in WRITTEN[:3])


def test_a_second_frame_scores_as_the_first(run_on_host: Run, arrays_for: ArraysFor) -> None:
    kernels = kernels_for(60, 70)
    arrays, results = arrays_for(kernels), []
    for _ in range(2):
        run_on_host(kernels.map_launch, arrays)
        run_on_host(kernels.score_launch, arrays)
        results.append(arrays["result"].tolist())
    assert results[0] == results[1]
