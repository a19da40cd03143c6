"""Sharpening redraws what is flagged along the frame's edges; it adds no region, loses none, and changes no verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.judge import outline_level
from fbft_edge.detectors.sharpening import (
    CELL_PX,
    MARGIN_PX,
    agreement,
    filled_in,
    neighbourhood,
    same_regions,
    sharpened,
    sharpened_picture,
    windows_around,
)
from fbft_edge.frames.frame import Bool, Float32, Uint8
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat, Window

REACH_PX = 28.0
SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def blobs(seed: int, size: tuple[int, int], share: float = 0.1) -> tuple[Bool, Float32]:
    """A mask of a few smooth regions, and a map that exceeds 1 there."""
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.float32).reshape(size)
    threshold = max(float(np.quantile(smooth, 1 - share)), 1e-6)
    relative = np.asarray(smooth.clip(0) / threshold, np.float32)
    return relative > 1, relative


def texture(seed: int, size: tuple[int, int]) -> Uint8:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def labels_of(mask: Bool) -> np.ndarray:
    return np.asarray(cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[1])


def overlap(found: Bool, expected: Bool) -> float:
    return float((found & expected).sum() / (found | expected).sum())


# Regions


def assert_same_regions(found: Bool, flagged: Bool) -> None:
    kept, added = labels_of(flagged), labels_of(found)
    assert set(kept[found]) | {0} == set(kept.ravel()) | {0}
    assert set(added[flagged]) | {0} == set(added.ravel()) | {0}


@given(SIZES, st.integers(0, 10**6), st.floats(0.001, 0.9), st.floats(0, 60))
@settings(max_examples=150, deadline=None)
def test_every_flagged_region_is_still_there_and_nothing_else(
    size: tuple[int, int], seed: int, share: float, reach_px: float
) -> None:
    mask, relative = blobs(seed, size, share)
    assert_same_regions(sharpened(texture(seed, size), mask, relative, reach_px), mask)


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("size", [(1, 1), (1, 50), (3, 2), (64, 64), (97, 161)])
def test_a_region_without_a_picture_of_it_stays_as_it_is(size: tuple[int, int], level: int) -> None:
    """On a plain frame the guess is the frame, so there is no difference to follow."""
    mask, relative = blobs(1, size)
    mask[0, 0] = True
    plain = np.full((*size, 3), level, np.uint8)
    np.testing.assert_array_equal(sharpened(plain, mask, relative, REACH_PX), mask)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 45), (120, 200)])
def test_a_region_that_is_the_whole_frame_stays_in_it(size: tuple[int, int]) -> None:
    mask = np.ones(size, np.bool_)
    assert sharpened(texture(0, size), mask, np.full(size, 2, np.float32), REACH_PX).all()


def test_without_ground_to_fill_in_from_the_mask_stays() -> None:
    pixels = np.full((200, 200, 3), 200, np.uint8)
    pixels[70:130, 70:130] = 20
    mask = np.zeros((200, 200), np.bool_)
    mask[50:150, 50:150] = True
    relative = np.where(mask, 1.5, 0.5).astype(np.float32)
    assert (sharpened(pixels, mask, relative, 80.0) == mask).all()
    assert overlap(sharpened(pixels, mask, relative, 28.0), pixels[..., 0] == 20) > 0.8


@pytest.mark.parametrize("corner", [(0, 0), (0, -12), (-12, 0), (-12, -12), (40, 0)])
def test_a_region_at_the_border_is_redrawn_there(corner: tuple[int, int]) -> None:
    pixels = np.full((90, 130, 3), 200, np.uint8)
    defect = np.zeros((90, 130), np.bool_)
    top, left = corner[0] % 90, corner[1] % 130
    defect[top : top + 12, left : left + 12] = True
    pixels[defect] = 40
    mask = neighbourhood(defect, 8)
    relative = np.where(mask, 1.5, 0.5).astype(np.float32)
    found = sharpened(pixels, mask, relative, REACH_PX)
    assert overlap(found, defect) > 1.5 * overlap(mask, defect)


def test_a_huge_frame_with_a_small_region_is_redrawn_only_there() -> None:
    pixels, mask = np.full((3000, 5000, 3), 90, np.uint8), np.zeros((3000, 5000), np.bool_)
    mask[2000:2030, 4000:4030] = True
    pixels[2010:2020, 4010:4020] = 250
    found = sharpened(pixels, mask, np.where(mask, 2, 0.5).astype(np.float32), REACH_PX)
    assert (int(found.sum()), bool(found[2010:2020, 4010:4020].all())) == (pytest.approx(144, abs=60), True)


def test_nothing_flagged_is_nothing_looked_at() -> None:
    class Unseen:
        def __getattr__(self, name: str) -> Any:
            pytest.fail(f"{name} was asked for")

    assert not sharpened_picture(Unseen(), np.zeros((50, 60), np.bool_), REACH_PX).any()


def test_the_mask_and_the_frame_are_not_written_to() -> None:
    pixels, (mask, relative) = texture(3, (80, 90)), blobs(3, (80, 90))
    for array in (pixels, mask, relative):
        array.flags.writeable = False
    assert not np.shares_memory(sharpened(pixels, mask, relative, REACH_PX), mask)


# What is gained


def coarse_flag(defect: Bool) -> tuple[Bool, Float32]:
    """A map as patches make it: blurred far over the rim."""
    relative = np.asarray(3 * cv2.GaussianBlur(defect.astype(np.float32), (0, 0), 12), np.float32)
    return relative > 1, relative


@pytest.mark.parametrize("contrast", [0, 12], ids=["plain", "textured"])
@pytest.mark.parametrize("side_px", [24, 60, 110])
def test_a_sharp_defect_is_outlined_better_than_by_patches(side_px: int, contrast: int) -> None:
    generator = np.random.default_rng(side_px)
    ground = 150 + contrast * np.asarray(cv2.GaussianBlur(generator.normal(size=(300, 320, 3)), (0, 0), 1)) * 3
    defect = np.zeros((300, 320), np.bool_)
    defect[90 : 90 + side_px, 100 : 100 + side_px // 2] = True
    pixels = np.where(defect[..., None], ground - 90, ground).clip(0, 255).astype(np.uint8)
    mask, relative = coarse_flag(neighbourhood(defect, 8))
    assert overlap(sharpened(pixels, mask, relative, REACH_PX), defect) > 1.2 * overlap(mask, defect)


# Windows


@given(SIZES, st.integers(0, 10**6), st.floats(0.001, 0.5), st.floats(0, 30))
@settings(max_examples=100, deadline=None)
def test_every_neighbourhood_is_whole_in_one_window_and_no_two_overlap(
    size: tuple[int, int], seed: int, share: float, reach_px: float
) -> None:
    size = 5 * size[0], 5 * size[1]
    mask, _ = blobs(seed, size, share)
    seen = np.zeros(size, np.int32)
    for number, window in enumerate(windows_around(mask, reach_px), 1):
        assert not seen[window.part].any()
        seen[window.part] = number
        assert window.top % CELL_PX == window.left % CELL_PX == 0
    near = labels_of(neighbourhood(mask, reach_px + MARGIN_PX - 1))
    for label in range(1, near.max() + 1):
        assert seen[near == label].min() == seen[near == label].max() > 0


@pytest.mark.parametrize("seed", range(4))
def test_windows_show_what_the_whole_frame_shows(seed: int) -> None:
    size = (400, 520)
    mask, relative = blobs(seed, size, 0.01)
    pixels = np.asarray(cv2.GaussianBlur(texture(seed, size), (0, 0), 5), np.uint8)
    near = neighbourhood(mask, REACH_PX)
    residual = np.linalg.norm(pixels - filled_in(pixels, near), axis=2).astype(np.float32)
    expected = same_regions(agreement(residual, near, relative) > 1, mask)
    assert overlap(sharpened(pixels, mask, relative, REACH_PX), expected) > 0.97


# The filled-in picture


@given(SIZES, st.integers(0, 10**6), st.floats(0.001, 0.99))
@settings(max_examples=100, deadline=None)
def test_what_is_filled_in_lies_between_what_is_shown(size: tuple[int, int], seed: int, share: float) -> None:
    hidden, _ = blobs(seed, size, share)
    hidden[0, 0] = False
    pixels = texture(seed, size)
    found, shown = filled_in(pixels, hidden), pixels[~hidden]
    np.testing.assert_array_equal(found[~hidden], shown)
    assert (found >= shown.min(axis=0) - 0.1).all()
    assert (found <= shown.max(axis=0) + 0.1).all()


def test_where_everything_is_hidden_the_guess_is_black() -> None:
    assert not filled_in(texture(0, (20, 30)), np.ones((20, 30), np.bool_)).any()


def test_agreement_is_measured_against_each_neighbourhoods_own_mean() -> None:
    near = np.zeros((40, 90), np.bool_)
    near[10:30, 10:30] = near[10:30, 50:80] = True
    residual = np.zeros((40, 90), np.float32)
    residual[10:30, 10:30], residual[10:30, 50:80] = 3, 100
    inside = agreement(residual, near, np.full((40, 90), 2, np.float32))
    assert (inside[20, 20], inside[20, 65], inside[0, 0]) == (
        pytest.approx(inside[20, 65], rel=0.05),
        inside[20, 65],
        0,
    )


# The detector


@pytest.fixture(scope="module")
def bundle(bright_bundle: Callable[..., Bundle]) -> Bundle:
    return bright_bundle()


def bright_part() -> Uint8:
    pixels = np.full((126, 140, 3), 60, np.uint8)
    pixels[30:75, 50:100] = 240
    return pixels


def test_a_verdict_never_changes_by_sharpening(bundle: Bundle) -> None:
    sharp, coarse = (OpenVinoDetector(bundle, FrameLayout(126, 140), "f32", sharpen=each) for each in (True, False))
    dark = np.full((126, 140, 3), 60, np.uint8)
    for pixels in (dark, bright_part()):
        found, expected = sharp.detect(pixels), coarse.detect(pixels)
        assert (found.is_anomalous, found.score, found.peak) == (
            expected.is_anomalous,
            expected.score,
            expected.peak,
        )


def test_a_detector_sharpens_only_where_that_is_asked_for(bundle: Bundle) -> None:
    sharp, coarse = (OpenVinoDetector(bundle, FrameLayout(126, 140), "f32", sharpen=each) for each in (True, False))
    defect = (bright_part() > 200).all(axis=2)
    found, expected = sharp.detect(bright_part()), coarse.detect(bright_part())
    assert overlap(found.mask, defect) > overlap(expected.mask, defect)
    level = outline_level(expected.peak, bundle.require_thresholds())
    np.testing.assert_array_equal(expected.mask, coarse.map_of(bright_part()) > level)


def test_regions_are_those_of_the_sharpened_mask_with_peaks_of_the_map(bundle: Bundle) -> None:
    detector = OpenVinoDetector(bundle, FrameLayout(126, 140), "f32", sharpen=True)
    detection = detector.detect(bright_part())
    anomaly_map = detector.map_of(bright_part())
    assert [(region.area_px, region.peak) for region in detection.regions] == [
        (int(detection.mask.sum()), float(anomaly_map[detection.mask].max()))
    ]


@pytest.mark.parametrize("pixel_format", [PixelFormat.BGR8, PixelFormat.MONO8, PixelFormat.NV12, PixelFormat.BAYER_GR8])
def test_frames_of_every_pixel_format_are_sharpened(bundle: Bundle, pixel_format: PixelFormat) -> None:
    gray = np.ascontiguousarray(bright_part()[..., 0])
    pixels = {
        PixelFormat.BGR8: bright_part(),
        PixelFormat.NV12: np.concatenate([gray, np.full((63, 140), 128, np.uint8)]),
    }.get(pixel_format, gray)
    defect = gray > 200
    sharp, coarse = (
        OpenVinoDetector(bundle, FrameLayout(126, 140, pixel_format), "f32", sharpen=each).detect(pixels).mask
        for each in (True, False)
    )
    assert overlap(sharp, defect) > overlap(coarse, defect)


def test_a_pixel_threshold_of_zero_flags_and_sharpens_without_complaint(bundle: Bundle) -> None:
    open_to_all = dataclasses.replace(bundle, thresholds=dataclasses.replace(bundle.require_thresholds(), pixel=0.0))
    assert OpenVinoDetector(open_to_all, FrameLayout(126, 140), "f32", sharpen=True).detect(bright_part()).mask.any()


def test_a_window_cuts_its_part() -> None:
    assert np.arange(20).reshape(4, 5)[Window(1, 2, 3, 4).part].tolist() == [[7, 8], [12, 13]]
