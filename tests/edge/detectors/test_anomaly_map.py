"""The banded map operator is the reference formula: bilinear upsampling, then eight zero-padded box passes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbft_edge.detectors.anomaly_map import MapOperator, PeakFinder, axis_operator
from fbft_edge.frames.frame import Float32

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
    operator_of(distances.shape, patch_px, scaled_size, frame_size).apply(distances, out)
    return out


operator_of = lru_cache(maxsize=8)(MapOperator)


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


# What the operator is at every size, from one pixel to an 8192 px strip


STRIPS = [(64, 64), (64, 8192), (8192, 64), (63, 65), (1, 1), (1, 500), (13, 15), (1037, 211)]


def grid_of(size: tuple[int, int], patch_px: int = 14) -> tuple[int, int]:
    return -(-size[0] // patch_px), -(-size[1] // patch_px)


def eight_convolutions(axis: Float32, patch_px: int, length: int) -> Float32:
    """One axis by the letter: patch values at patch centres, lines between them, then eight moving means."""
    centres = (np.arange(len(axis)) + 0.5) * patch_px - 0.5
    line = np.interp(np.arange(len(axis) * patch_px), centres, axis)
    for width in (5, 5, 5, 5, 5, 7, 7, 7):
        line = np.convolve(line, np.full(width, 1 / width), mode="full")[width // 2 :][: len(line)]
    return line[:length]


@pytest.mark.parametrize("size", STRIPS)
@pytest.mark.parametrize("seed", range(3))
def test_a_map_of_rows_times_columns_is_eight_convolutions_along_each(size: tuple[int, int], seed: int) -> None:
    random, (rows, columns) = np.random.default_rng(seed), grid_of(size)
    down, across = random.random(rows, np.float32), random.random(columns, np.float32)
    expected = np.outer(eight_convolutions(down, 14, size[0]), eight_convolutions(across, 14, size[1]))
    np.testing.assert_allclose(made_map(np.outer(down, across), 14, size, size), expected, rtol=2e-5)


@pytest.mark.parametrize("size", STRIPS)
@pytest.mark.parametrize("seed", range(3))
def test_the_map_is_linear(size: tuple[int, int], seed: int) -> None:
    one, other = random_grid(*grid_of(size), seed), random_grid(*grid_of(size), seed + 100)
    a, b = np.random.default_rng(seed).uniform(0.1, 3, 2).astype(np.float32)
    mixed = made_map(a * one + b * other, 14, size, size)
    np.testing.assert_allclose(
        mixed, a * made_map(one, 14, size, size) + b * made_map(other, 14, size, size), rtol=1e-5
    )


@pytest.mark.parametrize("size", [(64, 64), (56, 8204), (1036, 210), (14, 14)])
def test_a_part_lying_the_other_way_round_gets_the_map_the_other_way_round(size: tuple[int, int]) -> None:
    whole = size[0] // 14 * 14, size[1] // 14 * 14
    distances = random_grid(*grid_of(whole))
    turned = made_map(np.ascontiguousarray(distances[::-1, ::-1]), 14, whole, whole)
    np.testing.assert_allclose(turned[::-1, ::-1], made_map(distances, 14, whole, whole), rtol=1e-5)


@pytest.mark.parametrize("size", STRIPS)
@pytest.mark.parametrize("seed", range(4))
def test_any_part_of_a_map_is_that_part_of_the_whole_map(size: tuple[int, int], seed: int) -> None:
    random, distances = np.random.default_rng(seed), random_grid(*grid_of(size), seed)
    operator, whole = operator_of(grid_of(size), 14, size, size), made_map(distances, 14, size, size)
    tops, lefts = np.sort(random.integers(0, size[0] + 1, 2)), np.sort(random.integers(0, size[1] + 1, 2))
    top, left = min(tops[0], size[0] - 1), min(lefts[0], size[1] - 1)
    part = np.full((max(tops[1] - top, 1), max(lefts[1] - left, 1)), np.nan, np.float32)
    operator.apply(distances, part, int(top), int(left))
    # Another number of columns may be summed in another order.
    expected = whole[top : top + part.shape[0], left : left + part.shape[1]]
    np.testing.assert_allclose(part, expected, rtol=2e-6)


@pytest.mark.parametrize("size", STRIPS)
def test_one_bad_patch_is_brightest_where_it_lies_and_dark_far_away(size: tuple[int, int]) -> None:
    distances = np.zeros(grid_of(size), np.float32)
    row, column = distances.shape[0] // 2, distances.shape[1] // 2
    distances[row, column] = 1
    found = made_map(distances, 14, size, size)
    peak_row, peak_column = np.unravel_index(found.argmax(), found.shape)
    assert (peak_row // 14, peak_column // 14) == (row, column)
    # Bilinear interpolation and the box passes reach 40 px beyond a patch.
    near = np.zeros(size, bool)
    near[max(row * 14 - 40, 0) : row * 14 + 54, max(column * 14 - 40, 0) : column * 14 + 54] = True
    assert not found[~near].any()


@pytest.mark.parametrize("size", STRIPS)
def test_the_flops_of_a_map_are_few_a_pixel(size: tuple[int, int]) -> None:
    operator = MapOperator(grid_of(size), 14, size, size)
    (rows, columns), (height, width) = grid_of(size), size
    at_least = 2 * (rows * width + height * width)
    # A block of 112 rows takes at most 13 patches; a whole matrix product would take all of them.
    assert at_least <= operator.flops <= 13 * at_least
    assert operator.flops <= 2 * (rows * width * columns + height * width * rows)


@settings(max_examples=40, deadline=None)
@given(PATCH_PX, st.integers(3, 30), st.integers(3, 30), st.data(), st.sampled_from([1.0, 0.6, 1.7]))
def test_the_place_of_the_peak_is_found_without_the_map(
    patch_px: int, rows: int, columns: int, data: st.DataObject, scale: float
) -> None:
    """A hot patch in noise, at any place, the corners included."""
    distances = 0.2 * random_grid(rows, columns)
    distances[data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))] = 1
    scaled = rows * patch_px, columns * patch_px
    frame = round(scaled[0] / scale), round(scaled[1] / scale)
    whole = made_map(distances, patch_px, scaled, frame)

    window = PeakFinder(operator_of((rows, columns), patch_px, scaled, (rows, columns)), frame).window(distances)

    assert whole[window.part].max() == whole.max()
    assert whole[window.part].size <= 16 * (patch_px / scale + 2) ** 2
