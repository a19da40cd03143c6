"""Tiles cover the frame, overlap as asked, and their patch grids join without a trace."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.detectors.tiling import LEAST_TILE_PATCHES, MOST_TILE_PATCHES, TilePlan, best_tile_px, patch_grid
from fbft_edge.frames.frame import Float32, Uint8

LENGTHS = st.integers(64, 8192)
GEOMETRIES = st.builds(
    lambda side, patch_px, overlap: TileGeometry(side * patch_px, patch_px, min(overlap, side // 2)),
    st.integers(8, 40),
    st.sampled_from([8, 14, 16]),
    st.integers(0, 6),
)


def starts(plan: TilePlan) -> tuple[list[int], list[int]]:
    """First patch rows and first patch columns of the tiles."""
    patch_px = plan.geometry.patch_px
    tops, lefts = zip(*plan.origins_px(), strict=True)
    return sorted({top // patch_px for top in tops}), sorted({left // patch_px for left in lefts})


def cut(plan: TilePlan, pixels: Uint8) -> Uint8:
    side = plan.geometry.tile_px
    tiles = np.empty((plan.num_tiles, side, side, 3), np.uint8)
    plan.cut(pixels, tiles)
    return tiles


def patch_means(pictures: Uint8, patch_px: int) -> Float32:
    """(n, rows, columns) mean of the first channel of each patch."""
    count, height, width = pictures.shape[:3]
    shape = count, height // patch_px, patch_px, width // patch_px, patch_px
    return pictures[..., 0].astype(np.float32).reshape(shape).mean(axis=(2, 4))


def gradient(height: int, width: int) -> Uint8:
    rows, columns = np.arange(height)[:, None], np.arange(width)[None, :]
    plane = 255 * (0.6 * rows / height + 0.4 * columns / width)
    return np.repeat(plane.astype(np.uint8)[..., None], 3, axis=2)


def random_frame(height: int, width: int) -> Uint8:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


@settings(max_examples=60, deadline=None)
@given(GEOMETRIES, LENGTHS, LENGTHS)
def test_every_patch_of_every_frame_lies_on_a_tile(geometry: TileGeometry, height: int, width: int) -> None:
    plan = TilePlan(geometry, height, width)
    side = geometry.tile_patches
    covered = [{start + i for start in axis for i in range(side)} for axis in starts(plan)]
    assert all(set(range(length)) <= found for length, found in zip(plan.grid, covered, strict=True))


@settings(max_examples=60, deadline=None)
@given(GEOMETRIES, LENGTHS, LENGTHS)
def test_the_patch_grid_covers_every_pixel(geometry: TileGeometry, height: int, width: int) -> None:
    rows, columns = TilePlan(geometry, height, width).grid
    spare = rows * geometry.patch_px - height, columns * geometry.patch_px - width
    assert 0 <= min(spare) <= max(spare) < geometry.patch_px


@settings(max_examples=60, deadline=None)
@given(GEOMETRIES, LENGTHS, LENGTHS)
def test_neighbouring_tiles_overlap_at_least_as_asked(geometry: TileGeometry, height: int, width: int) -> None:
    plan = TilePlan(geometry, height, width)
    overlaps = [geometry.tile_patches - gap for axis in starts(plan) for gap in np.diff(axis)]
    assert all(overlap >= geometry.overlap_patches for overlap in overlaps)


@settings(max_examples=60, deadline=None)
@given(GEOMETRIES, LENGTHS, LENGTHS)
def test_no_tile_reaches_beyond_a_frame_that_is_larger_than_it(geometry: TileGeometry, height: int, width: int) -> None:
    plan = TilePlan(geometry, height, width)
    ends = [axis[-1] + geometry.tile_patches for axis in starts(plan)]
    assert ends == [max(length, geometry.tile_patches) for length in plan.grid]


@settings(max_examples=60, deadline=None)
@given(GEOMETRIES, LENGTHS)
def test_no_tile_could_be_spared(geometry: TileGeometry, length: int) -> None:
    plan = TilePlan(geometry, length, 64)
    side, overlap = geometry.tile_patches, geometry.overlap_patches
    count = len(starts(plan)[0])
    assert count == 1 or (count - 1) * (side - overlap) + overlap < plan.grid[0]


@settings(max_examples=30, deadline=None)
@given(GEOMETRIES, st.integers(64, 2000), st.integers(64, 2000))
def test_stitching_a_constant_gives_the_constant(geometry: TileGeometry, height: int, width: int) -> None:
    plan = TilePlan(geometry, height, width)
    side = geometry.tile_patches
    stitched = plan.stitch(np.full((plan.num_tiles, side, side), 3.0, np.float32))
    np.testing.assert_allclose(stitched, np.full(plan.grid, 3.0), rtol=1e-6)


def test_the_largest_frame_stitches_a_constant_to_the_constant() -> None:
    plan = TilePlan(TileGeometry(518, 14, 2), 8192, 8192)
    stitched = plan.stitch(np.ones((plan.num_tiles, 37, 37), np.float32))
    np.testing.assert_allclose(stitched, np.ones((586, 586)), rtol=1e-6)


@settings(max_examples=30, deadline=None)
@given(GEOMETRIES, st.integers(64, 900), st.integers(64, 900))
def test_stitched_tiles_of_a_gradient_are_the_patch_means_of_the_frame(
    geometry: TileGeometry, height: int, width: int
) -> None:
    plan, pixels, patch_px = TilePlan(geometry, height, width), gradient(height, width), geometry.patch_px
    stitched = plan.stitch(patch_means(cut(plan, pixels), patch_px))
    rows, columns = height // patch_px, width // patch_px
    whole = patch_means(pixels[None, : rows * patch_px, : columns * patch_px], patch_px)[0]
    np.testing.assert_allclose(stitched[:rows, :columns], whole, rtol=1e-5, atol=1e-4)


STRIPS = [(64, 64), (64, 8192), (8192, 64), (1, 1), (1, 113), (111, 113), (1037, 1035)]


@pytest.mark.parametrize("size", STRIPS)
@pytest.mark.parametrize("overlap", [0, 1, 2, 7])
def test_the_weights_of_the_tiles_on_every_patch_sum_to_one(size: tuple[int, int], overlap: int) -> None:
    plan = TilePlan(TileGeometry(112, 14, overlap), *size)
    total = np.zeros((max(plan.grid[0], 8), max(plan.grid[1], 8)))
    for row, row_weights in zip(plan.row_starts, plan.row_weights, strict=True):
        for column, column_weights in zip(plan.column_starts, plan.column_weights, strict=True):
            total[row : row + 8, column : column + 8] += np.outer(row_weights, column_weights)
    np.testing.assert_allclose(total, 1, rtol=1e-6)


@pytest.mark.parametrize("size", STRIPS)
@pytest.mark.parametrize("seed", range(3))
def test_a_stitched_patch_never_leaves_the_range_of_its_tiles(size: tuple[int, int], seed: int) -> None:
    plan = TilePlan(TileGeometry(112, 14, 3), *size)
    distances = np.random.default_rng(seed).random((plan.num_tiles, 8, 8), np.float32)
    padded = max(plan.grid[0], 8), max(plan.grid[1], 8)
    low, high = np.full(padded, np.inf, np.float32), np.zeros(padded, np.float32)
    for tile, (top, left) in zip(distances, plan.origins_px(), strict=True):
        window = np.s_[top // 14 : top // 14 + 8, left // 14 : left // 14 + 8]
        np.minimum(low[window], tile, out=low[window])
        np.maximum(high[window], tile, out=high[window])
    stitched, (rows, columns) = plan.stitch(distances), plan.grid
    assert (stitched >= low[:rows, :columns] - 1e-6).all()
    assert (stitched <= high[:rows, :columns] + 1e-6).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_tile_weighs_least_where_its_border_is(seed: int) -> None:
    random = np.random.default_rng(seed)
    plan = TilePlan(TileGeometry(112, 14, int(random.integers(1, 4))), *random.integers(300, 2000, 2).tolist())
    first, *_, last = plan.row_weights
    assert (np.diff(first) <= 1e-6).all()
    assert (np.diff(last) >= -1e-6).all()


@pytest.mark.parametrize("size", [(64, 8192), (8192, 64)])
def test_a_strip_is_cut_into_tiles_that_show_all_of_it(size: tuple[int, int]) -> None:
    plan, pixels = TilePlan(TileGeometry(112, 14, 2), *size), random_frame(*size)
    back = np.zeros_like(pixels)
    for tile, (top, left) in zip(cut(plan, pixels), plan.origins_px(), strict=True):
        height, width = min(112, size[0] - top), min(112, size[1] - left)
        back[top : top + height, left : left + width] = tile[:height, :width]
    np.testing.assert_array_equal(back, pixels)


@pytest.mark.parametrize("size", [(64, 64), (100, 333), (112, 112), (113, 111), (500, 97)])
def test_tiles_show_the_frame_and_beyond_it_its_replicated_edge(size: tuple[int, int]) -> None:
    plan, pixels = TilePlan(TileGeometry(112, 14, 2), *size), random_frame(*size)
    bottom, right = (max(length * 14, 112) - px for length, px in zip(plan.grid, size, strict=True))
    padded = np.pad(pixels, ((0, bottom), (0, right), (0, 0)), mode="edge")
    expected = [padded[top : top + 112, left : left + 112] for top, left in plan.origins_px()]
    np.testing.assert_array_equal(cut(plan, pixels), expected)


def test_a_plan_keeps_nothing_of_the_frame_before() -> None:
    plan = TilePlan(TileGeometry(112, 14, 2), 100, 333)
    cut(plan, random_frame(100, 333))
    np.testing.assert_array_equal(cut(plan, np.full((100, 333, 3), 7, np.uint8)), 7)


def test_cutting_leaves_the_frame_as_it_was() -> None:
    pixels = random_frame(100, 333)
    before = pixels.copy()
    cut(TilePlan(TileGeometry(112, 14, 2), 100, 333), pixels)
    np.testing.assert_array_equal(pixels, before)


def test_a_stitched_grid_is_the_callers_own() -> None:
    plan = TilePlan(TileGeometry(112, 14, 2), 140, 182)
    first = plan.stitch(np.zeros((plan.num_tiles, 8, 8), np.float32))
    plan.stitch(np.ones((plan.num_tiles, 8, 8), np.float32))
    np.testing.assert_array_equal(first, 0)


@pytest.mark.parametrize(("scale", "size"), [(0.5, (150, 101)), (2.0, (600, 404)), (0.333, (100, 67))])
def test_the_scale_resizes_the_frame_before_it_is_cut(scale: float, size: tuple[int, int]) -> None:
    plan, pixels = TilePlan(TileGeometry(112, 14, 2, scale), 300, 202), random_frame(300, 202)
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(pixels, size[::-1], interpolation=method)
    unscaled = TilePlan(TileGeometry(112, 14, 2), *size)
    np.testing.assert_array_equal(cut(plan, pixels), cut(unscaled, resized))


@settings(max_examples=40, deadline=None)
@given(LENGTHS, LENGTHS, st.integers(0, 6), st.sampled_from([192, 384, 768, 1024]))
def test_the_best_tile_costs_least_of_all(height: int, width: int, overlap: int, embed_dim: int) -> None:
    def flops(side: int) -> int:
        plan = TilePlan(TileGeometry(side * 14, 14, overlap), height, width)
        return plan.num_tiles * (24 * side**2 * embed_dim**2 + 4 * side**4 * embed_dim)

    best = best_tile_px(patch_grid((height, width), 14), 14, overlap, embed_dim)
    assert flops(best // 14) == min(flops(side) for side in range(LEAST_TILE_PATCHES, MOST_TILE_PATCHES + 1))
