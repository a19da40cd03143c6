"""A table of taps is the matrix it stands for, and OpenCV's resize; from a single pixel to an 8192 px strip."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.detectors.anomaly_map import axis_operator
from fbft_edge.detectors.kernels.frame_kernels import FrameKernels
from fbft_edge.detectors.kernels.taps import Taps, banded_taps, resize_taps
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.frames.frame import Float32
from fbft_edge.frames.pixel_format import PixelFormat

SHRUNK = [
    (2, 1),
    (64, 32),
    (64, 63),
    (65, 32),
    (1036, 518),
    (1036, 777),
    (999, 333),
    (8192, 64),
    (8192, 8191),
    (100, 1),
]
ENLARGED = [(1, 2), (2, 3), (3, 100), (64, 65), (64, 128), (333, 999), (518, 777), (1024, 8192)]


def dense(taps: Taps, inputs: int) -> Float32:
    """The (outputs, inputs) matrix that taps stand for."""
    matrix = np.zeros((len(taps.starts), inputs), np.float32)
    for output, (start, weights) in enumerate(zip(taps.starts, taps.weights, strict=True)):
        matrix[output, start : start + taps.width] += weights
    return matrix


def banded(seed: int, outputs: int, inputs: int, run: int) -> Float32:
    """A random matrix whose rows are short runs that move right, some of their weights zero."""
    random = np.random.default_rng(seed)
    matrix = np.zeros((outputs, inputs), np.float32)
    for row, start in enumerate(np.sort(random.integers(0, inputs, outputs))):
        weights = random.uniform(0.1, 1, random.integers(1, run + 1)) * random.integers(0, 2)
        matrix[row, start] = 0.5
        stop = min(start + len(weights), inputs)
        matrix[row, start:stop] += weights[: stop - start]
    return matrix


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
def test_taps_are_the_matrix_they_were_made_from(seed: int, outputs: int, inputs: int, run: int) -> None:
    matrix = banded(seed, outputs, inputs, run)
    np.testing.assert_array_equal(dense(banded_taps(matrix), inputs), matrix)


@settings(deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60), st.integers(1, 9))
def test_no_tap_reads_beside_its_inputs(seed: int, outputs: int, inputs: int, run: int) -> None:
    taps = banded_taps(banded(seed, outputs, inputs, run))
    assert taps.starts.min() >= 0
    assert taps.starts.max() + taps.width <= inputs


def test_taps_are_no_wider_than_the_longest_run() -> None:
    matrix = np.zeros((3, 9), np.float32)
    matrix[0, 0], matrix[1, 2:5], matrix[2, 8] = 1, 0.25, 1
    taps = banded_taps(matrix)
    assert (taps.width, taps.starts.tolist()) == (3, [0, 2, 6])


@pytest.mark.parametrize(
    ("patches", "patch_px", "scaled_px", "frame_px"),
    [(1, 14, 1, 1), (1, 14, 14, 14), (5, 14, 64, 64), (74, 14, 1036, 1036), (586, 14, 8192, 8192), (9, 8, 71, 142)],
)
def test_the_taps_of_the_map_are_its_band_matrix(patches: int, patch_px: int, scaled_px: int, frame_px: int) -> None:
    operator = axis_operator(patches, patch_px, scaled_px, frame_px)
    taps = banded_taps(operator)
    np.testing.assert_array_equal(dense(taps, patches), operator)
    assert taps.width <= max(5, int(np.count_nonzero(operator, axis=1).max()))


def opencv(source: int, target: int, is_shrinking: bool) -> Float32:
    """The matrix of OpenCV's resize along one axis: what it makes of all unit vectors side by side."""
    method = cv2.INTER_AREA if is_shrinking else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.eye(source, dtype=np.float32), (source, target), interpolation=method), np.float32)


@pytest.mark.parametrize(("source", "target"), [size for size in SHRUNK if size[0] <= 1036])
def test_shrinking_is_opencvs_area_resize(source: int, target: int) -> None:
    found = dense(resize_taps(source, target, is_shrinking=True), source)
    np.testing.assert_allclose(found, opencv(source, target, is_shrinking=True), atol=2e-6)


@pytest.mark.parametrize(("source", "target"), [size for size in ENLARGED if size[0] <= 518])
def test_enlarging_is_opencvs_bicubic_resize(source: int, target: int) -> None:
    found = dense(resize_taps(source, target, is_shrinking=False), source)
    np.testing.assert_allclose(found, opencv(source, target, is_shrinking=False), atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 300), st.floats(0.01, 1))
def test_shrinking_by_any_factor_is_opencvs_area_resize(source: int, factor: float) -> None:
    target = max(1, round(source * factor))
    found = dense(resize_taps(source, target, is_shrinking=True), source)
    np.testing.assert_allclose(found, opencv(source, target, is_shrinking=True), atol=2e-6)


@pytest.mark.parametrize(
    ("source", "target", "is_shrinking"), [(*size, True) for size in SHRUNK] + [(*size, False) for size in ENLARGED]
)
def test_a_flat_picture_stays_flat_at_every_size(source: int, target: int, is_shrinking: bool) -> None:
    taps = resize_taps(source, target, is_shrinking)
    # OpenCV leaves out shares below a thousandth of a pixel; no grey level changes by that.
    np.testing.assert_array_equal(np.rint(255 * taps.weights.sum(axis=1)), 255)
    assert (len(taps.starts), taps.starts.min() >= 0, taps.starts.max() + taps.width <= source) == (target, True, True)


@pytest.mark.parametrize("length", [1, 2, 64, 1037, 8192])
@pytest.mark.parametrize("is_shrinking", [True, False])
def test_a_resize_to_the_same_length_changes_nothing(length: int, is_shrinking: bool) -> None:
    taps = resize_taps(length, length, is_shrinking)
    at = taps.starts[:, None] + np.arange(taps.width)
    own = (at == np.arange(length)[:, None]).astype(np.float32)
    np.testing.assert_allclose(taps.weights, own, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (3, 3), (64, 64), (63, 65), (64, 8192), (8192, 64), (1035, 1037)])
@pytest.mark.parametrize("scale", [1.0, 0.37])
def test_every_table_of_a_frame_points_into_its_source(size: tuple[int, int], scale: float) -> None:
    plan = TilePlan(TileGeometry(112, 14, 2, scale), *size)
    tables = FrameKernels(plan, PixelFormat.RGB8, 0.5).tables
    sources = {"map_row": plan.grid[0], "map_column": plan.grid[1], "resize_row": size[0], "resize_column": size[1]}
    for name, length in sources.items():
        if f"{name}_starts" in tables:
            starts, weights = tables[f"{name}_starts"], tables[f"{name}_weights"]
            width = weights.size // starts.size
            assert (starts.min() >= 0, starts.max() + width <= length) == (True, True), name
    side = plan.geometry.tile_patches
    last = tables["row_offsets"].max() + tables["column_offsets"].max()
    assert last < plan.num_tiles * side**2
    # What tiles a cell is made of, and with what shares.
    for axis in ("row", "column"):
        shares = np.where(tables[f"{axis}_offsets"] >= 0, tables[f"{axis}_shares"], 0)
        np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
