"""The banded map operator is the reference formula: bilinear upsampling, then eight zero-padded box passes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbft_edge.anomaly_map import MapOperator, axis_operator
from fbft_edge.frame import Float32

torch = pytest.importorskip("torch", reason="the reference formula is torch's")
functional = torch.nn.functional


def reference_map(
    distances: Float32, patch_px: int, scaled_size: tuple[int, int], frame_size: tuple[int, int]
) -> Float32:
    """The paper's formula in float64, then a bilinear resize to the frame."""
    grid = torch.from_numpy(distances).double()[None, None]
    size = [length * patch_px for length in distances.shape]
    image = functional.interpolate(grid, size=size, mode="bilinear", align_corners=False)
    for width in (5, 5, 5, 5, 5, 7, 7, 7):
        kernel = torch.full((1, 1, width, width), 1 / width**2, dtype=torch.float64)
        image = functional.conv2d(image, kernel, padding=width // 2)
    image = image[:, :, : scaled_size[0], : scaled_size[1]]
    if scaled_size != frame_size:
        image = functional.interpolate(image, size=frame_size, mode="bilinear", align_corners=False)
    return image[0, 0].numpy()


def made_map(distances: Float32, patch_px: int, scaled_size: tuple[int, int], frame_size: tuple[int, int]) -> Float32:
    out = np.full(frame_size, np.nan, np.float32)
    MapOperator(distances.shape, patch_px, scaled_size, frame_size).apply(distances, out)
    return out


def random_grid(rows: int, columns: int, seed: int = 0) -> Float32:
    return np.random.default_rng(seed).random((rows, columns), np.float32)


PATCH_PX = st.sampled_from([8, 14, 16])


@settings(max_examples=40, deadline=None)
@given(PATCH_PX, st.integers(1, 30), st.integers(1, 30), st.integers(0, 13), st.integers(0, 13), st.integers(0, 99))
def test_the_map_is_the_reference_formula(
    patch_px: int, rows: int, columns: int, spare_rows: int, spare_columns: int, seed: int
) -> None:
    distances = random_grid(rows, columns, seed)
    size = max(1, rows * patch_px - spare_rows), max(1, columns * patch_px - spare_columns)
    np.testing.assert_allclose(
        made_map(distances, patch_px, size, size), reference_map(distances, patch_px, size, size), rtol=1e-5
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 20), st.integers(2, 20), st.floats(0.2, 4), st.integers(0, 13))
def test_a_scaled_map_is_the_reference_formula_resized_to_the_frame(
    rows: int, columns: int, scale: float, spare: int
) -> None:
    distances = random_grid(rows, columns)
    scaled = rows * 14 - spare, columns * 14 - spare
    frame = round(scaled[0] / scale), round(scaled[1] / scale)
    np.testing.assert_allclose(
        made_map(distances, 14, scaled, frame), reference_map(distances, 14, scaled, frame), rtol=1e-5
    )


@pytest.mark.parametrize("patches", [1, 2, 3, 9, 74, 586])
def test_a_row_has_at_most_five_non_zeros_at_patch_14(patches: int) -> None:
    operator = axis_operator(patches, 14, patches * 14, patches * 14)
    assert np.count_nonzero(operator, axis=1).max() <= 5


def test_a_row_away_from_the_borders_sums_to_one() -> None:
    operator = axis_operator(20, 14, 280, 280)
    np.testing.assert_allclose(operator[19:-19].sum(axis=1), 1, rtol=1e-6)


def test_no_weight_is_negative() -> None:
    assert axis_operator(9, 14, 120, 77).min() >= 0


@pytest.mark.parametrize("frame", [(8192, 64), (64, 8192), (4000, 31)])
def test_the_longest_frame_is_mapped_like_any_other(frame: tuple[int, int]) -> None:
    scaled = (8192, 64) if frame[0] == 4000 else frame
    distances = random_grid(-(-scaled[0] // 14), -(-scaled[1] // 14))
    np.testing.assert_allclose(
        made_map(distances, 14, scaled, frame), reference_map(distances, 14, scaled, frame), rtol=1e-5
    )


def test_the_largest_frame_maps_a_constant_to_the_constant_away_from_its_borders() -> None:
    found = made_map(np.ones((586, 586), np.float32), 14, (8192, 8192), (8192, 8192))
    np.testing.assert_allclose(found[19:-19:7, 19:-19:7], 1, rtol=1e-5)


def test_a_map_of_zeros_is_zero() -> None:
    np.testing.assert_array_equal(made_map(np.zeros((10, 13), np.float32), 14, (140, 182), (140, 182)), 0)


def test_applying_twice_gives_the_same_map() -> None:
    operator = MapOperator((10, 13), 14, (140, 182), (140, 182))
    first, second = np.empty((140, 182), np.float32), np.empty((140, 182), np.float32)
    operator.apply(random_grid(10, 13, 1), first)
    operator.apply(random_grid(10, 13, 2), second)
    operator.apply(random_grid(10, 13, 1), second)
    np.testing.assert_array_equal(first, second)
