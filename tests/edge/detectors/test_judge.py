"""Score and regions of a map are those of the plain definitions, whatever the map."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fbft_edge.bundle.manifest import Thresholds
from fbft_edge.detectors.judge import (
    decided_by,
    find_regions,
    image_score,
    is_anomalous,
    judge,
    judge_map,
    outline_level,
    outlined,
)
from fbft_edge.frames.frame import MAX_REGIONS, Bool, Float32, Region
from fbft_edge.frames.pixel_format import Window

THRESHOLDS = Thresholds(0.4, 0.6, 0.01, 0.01, 0.05, 100, outline=0.1)
ndimage = pytest.importorskip("scipy.ndimage", reason="regions are compared with SciPy's")

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=150)
MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=24))


def sorted_score(anomaly_map: Float32) -> float:
    ordered = np.sort(anomaly_map, axis=None)[::-1]
    return float(ordered[: max(1, anomaly_map.size // 1000)].mean(dtype=np.float64))


def labelled(mask: Bool, anomaly_map: Float32) -> set[Region]:
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    found = set()
    for label, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels == label
        y, x = ndimage.center_of_mass(inside)
        box = columns.start, rows.start, columns.stop, rows.stop
        found.add(Region(box, int(inside.sum()), float(anomaly_map[inside].max()), (round(x, 6), round(y, 6))))
    assert len(found) == count
    return found


def rounded(regions: tuple[Region, ...]) -> set[Region]:
    return {
        Region(r.box_xyxy, r.area_px, r.peak, (round(r.centroid_xy[0], 6), round(r.centroid_xy[1], 6))) for r in regions
    }


def random_map(shape: tuple[int, int], seed: int = 0) -> Float32:
    return np.random.default_rng(seed).random(shape, np.float32)


# The score


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.integers(0, 2**32 - 1), st.sampled_from([0, 1, 3, 1000]))
def test_the_score_is_the_mean_of_the_top_thousandth(shape: tuple[int, int], seed: int, levels: int) -> None:
    anomaly_map = random_map(shape, seed)
    if levels:
        anomaly_map = np.round(anomaly_map * levels) / np.float32(levels)
    assert image_score(anomaly_map) == pytest.approx(sorted_score(anomaly_map), rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(hnp.arrays(np.float32, SHAPES, elements=st.floats(0, 4, width=32)))
def test_the_score_is_exact_with_ties_and_constant_maps(anomaly_map: Float32) -> None:
    assert image_score(anomaly_map) == pytest.approx(sorted_score(anomaly_map), rel=1e-12)


@pytest.mark.parametrize("period", [2, 8, 16, 32])
def test_large_values_between_the_sampled_pixels_still_count(period: int) -> None:
    anomaly_map = random_map((400, 400)) / 2
    anomaly_map.reshape(-1)[1::period] += 1
    assert image_score(anomaly_map) == pytest.approx(sorted_score(anomaly_map), rel=1e-12)


def test_large_values_only_on_the_sampled_pixels_are_not_overrated() -> None:
    anomaly_map = random_map((400, 400)) / 2
    anomaly_map.reshape(-1)[::160] += 1
    assert image_score(anomaly_map) == pytest.approx(sorted_score(anomaly_map), rel=1e-12)


def test_scoring_leaves_the_map_as_it_was() -> None:
    anomaly_map = random_map((60, 70))
    before = anomaly_map.copy()
    image_score(anomaly_map)
    np.testing.assert_array_equal(anomaly_map, before)


# Regions


@settings(max_examples=150, deadline=None)
@given(MASKS, st.integers(0, 999))
def test_regions_are_the_components_under_eight_neighbours(mask: Bool, seed: int) -> None:
    anomaly_map = random_map(mask.shape, seed)
    assert rounded(find_regions(mask, anomaly_map)) == labelled(mask, anomaly_map)


@given(MASKS, st.integers(0, 999))
def test_regions_come_largest_peak_first(mask: Bool, seed: int) -> None:
    peaks = [region.peak for region in find_regions(mask, random_map(mask.shape, seed))]
    assert peaks == sorted(peaks, reverse=True)


@given(MASKS)
def test_the_order_of_regions_with_equal_peaks_never_changes(mask: Bool) -> None:
    flat = np.ones(mask.shape, np.float32)
    assert find_regions(mask, flat) == find_regions(np.asfortranarray(mask).copy(order="C"), flat)


def test_no_mask_pixel_means_no_region() -> None:
    assert find_regions(np.zeros((50, 60), bool), random_map((50, 60))) == ()


def test_no_more_regions_than_the_limit_are_reported() -> None:
    mask = np.zeros((200, 200), bool)
    mask[1::4, 1::4] = True
    assert len(find_regions(mask, random_map((200, 200)))) == MAX_REGIONS


def test_the_region_of_the_largest_map_value_is_always_kept() -> None:
    mask, anomaly_map = np.zeros((200, 200), bool), np.full((200, 200), 0.5, np.float32)
    mask[1::6, 1::6] = mask[1::6, 2::6] = True
    mask[100, 199] = True
    anomaly_map[100, 199] = 4
    assert find_regions(mask, anomaly_map)[0].peak == 4


# Outlines


def smooth_map(shape: tuple[int, int], seed: int, sigma: float) -> Float32:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(shape), sigma)
    found: Float32 = ((noise - noise.min()) / max(float(np.ptp(noise)), 1e-9)).astype(np.float32)
    return found


def reaching_out(flagged: Bool, anomaly_map: Float32, level: float) -> Bool:
    labels, _ = ndimage.label((anomaly_map > level) | flagged, np.ones((3, 3)))
    return np.asarray(np.isin(labels, np.unique(labels[flagged])) & (labels > 0))


@settings(max_examples=100, deadline=None)
@given(SHAPES, st.integers(0, 2**32 - 1), st.floats(0, 40), st.floats(0, 1), st.floats(0, 1))
def test_regions_reach_as_far_as_the_map_exceeds_the_level(
    shape: tuple[int, int], seed: int, sigma: float, threshold: float, share: float
) -> None:
    anomaly_map = smooth_map(shape, seed, sigma)
    flagged, peak = anomaly_map > threshold, float(anomaly_map.max())
    thresholds = dataclasses.replace(THRESHOLDS, pixel=threshold, outline=share * threshold)
    found = outlined(flagged, peak, thresholds, lambda window: anomaly_map[window.part])
    np.testing.assert_array_equal(found, reaching_out(flagged, anomaly_map, outline_level(peak, thresholds)))


def test_a_defect_just_above_the_threshold_is_drawn_at_half_of_its_peak() -> None:
    y, x = np.mgrid[:200, :300]
    spot = np.exp(-((x - 150) ** 2 + (y - 100) ** 2) / (2 * 20.0**2)).astype(np.float32)
    thresholds = dataclasses.replace(THRESHOLDS, pixel=0.95)
    found = outlined(spot > 0.95, 1.0, thresholds, lambda window: spot[window.part])
    half_width_px = 20 * np.sqrt(2 * np.log(2))
    assert int(found.sum()) == pytest.approx(np.pi * half_width_px**2, rel=0.01)


def test_a_defect_far_above_the_threshold_is_drawn_at_the_threshold() -> None:
    assert outline_level(3.0, THRESHOLDS) == THRESHOLDS.pixel


def test_no_outline_goes_where_nominal_images_go() -> None:
    assert outline_level(0.7, dataclasses.replace(THRESHOLDS, outline=0.45)) == 0.45


def test_a_bundle_without_outlines_draws_what_exceeds_its_threshold() -> None:
    assert outline_level(0.7, dataclasses.replace(THRESHOLDS, outline=None)) == THRESHOLDS.pixel


def test_only_what_lies_around_a_region_is_asked_for() -> None:
    anomaly_map = np.zeros((2000, 3000), np.float32)
    anomaly_map[1000:1010, 1500:1700] = 0.6
    anomaly_map[1004, 1504] = 1.0
    asked: list[int] = []

    def map_of(window: Window) -> Float32:
        part = anomaly_map[window.part]
        asked.append(part.size)
        return part

    found = outlined(anomaly_map > 0.9, 1.0, dataclasses.replace(THRESHOLDS, pixel=0.9), map_of)
    np.testing.assert_array_equal(found, anomaly_map > 0.5)
    assert sum(asked) < anomaly_map.size / 10


@pytest.mark.parametrize("peak", [0.5, 3.0], ids=["nothing flagged", "far above the threshold"])
def test_where_nothing_is_to_be_added_the_map_is_not_asked_for(peak: float) -> None:
    def map_of(window: Window) -> Float32:
        raise AssertionError(window)

    flagged = np.zeros((30, 40), np.bool_)
    flagged[10:12, 20:23] = peak > THRESHOLDS.pixel
    np.testing.assert_array_equal(outlined(flagged, peak, THRESHOLDS, map_of), flagged)


# The verdict


@settings(max_examples=150, deadline=None)
@given(SHAPES, st.integers(0, 2**32 - 1), st.floats(0, 40), st.floats(0, 1.1), st.floats(0, 1.1), st.floats(0, 1))
def test_a_map_is_judged_by_the_plain_definitions_whole_or_in_windows(
    shape: tuple[int, int], seed: int, sigma: float, image: float, pixel: float, share: float
) -> None:
    """Whole, as the host has it; packed bits and windows, as the device sends them."""
    anomaly_map = smooth_map(shape, seed, sigma)
    thresholds = dataclasses.replace(THRESHOLDS, image=image, pixel=pixel, outline=share * pixel)
    score, peak, flagged = image_score(anomaly_map), float(anomaly_map.max()), anomaly_map > np.float32(pixel)
    packed = np.packbits(flagged, axis=1)
    row, column = divmod(int(anomaly_map.argmax()), shape[1])
    highest = column, row

    found = judge_map(anomaly_map, thresholds)
    from_windows = judge(
        score,
        peak,
        shape,
        lambda: np.unpackbits(packed, axis=1, count=shape[1]).view(np.bool_),
        lambda window: anomaly_map[window.part].copy(),
        lambda: highest,
        thresholds,
    )

    mask = reaching_out(flagged, anomaly_map, outline_level(peak, thresholds))
    np.testing.assert_array_equal(found.mask, mask)
    np.testing.assert_array_equal(from_windows.mask, mask)
    assert found.regions == from_windows.regions
    assert set(found.regions) == set(find_regions(mask, anomaly_map))
    assert found.is_anomalous == from_windows.is_anomalous == (score > image or flagged.any())
    assert (found.score, found.peak) == (from_windows.score, from_windows.peak) == (score, peak)
    assert found.peak_xy == from_windows.peak_xy == highest
    reasons = {(True, True): "both", (True, False): "image", (False, True): "pixel", (False, False): None}
    assert found.decided_by == from_windows.decided_by == reasons[score > image, bool(flagged.any())]


def test_nothing_of_a_map_is_asked_for_while_nothing_is_flagged() -> None:
    def nothing(*_: object) -> Bool:
        raise AssertionError

    size, at = (30, 40), (7, 9)
    found = judge(0.5, THRESHOLDS.pixel, size, nothing, nothing, lambda: at, THRESHOLDS, nothing)  # type: ignore[arg-type]
    assert (found.is_anomalous, found.mask.shape, bool(found.mask.any()), found.regions) == (True, (30, 40), False, ())
    assert (found.peak_xy, found.decided_by) == (at, "image")


@pytest.mark.parametrize("pixel", [0.1, 0.3, 0.7, 1 / 3])
def test_a_peak_at_the_pixel_threshold_is_nominal_however_that_rounds(pixel: float) -> None:
    thresholds = dataclasses.replace(THRESHOLDS, image=4.0, pixel=pixel)
    at, above = np.float32(pixel), np.nextafter(np.float32(pixel), np.float32(4))
    assert [is_anomalous(0.0, float(peak), thresholds) for peak in (at, above)] == [False, True]
    assert [bool(judge_map(np.full((9, 9), peak, np.float32), thresholds).regions) for peak in (at, above)] == [
        False,
        True,
    ]


def test_a_score_at_the_image_threshold_is_nominal_and_above_it_either_threshold_decides_alone() -> None:
    thresholds = dataclasses.replace(THRESHOLDS, image=0.5, pixel=0.75)
    above = float(np.nextafter(0.5, 1))
    found = [decided_by(score, peak, thresholds) for score in (0.5, above) for peak in (0.75, 0.8)]
    assert found == [None, "pixel", "image", "both"]


def test_sharpening_redraws_what_is_flagged_and_leaves_the_verdict() -> None:
    anomaly_map = np.zeros((30, 40), np.float32)
    anomaly_map[10:14, 20:24] = 1
    drawn = np.zeros((30, 40), np.bool_)
    drawn[11:13, 21:22] = True
    found = judge_map(anomaly_map, THRESHOLDS, lambda mask, map_of: drawn & mask)
    assert ([region.box_xyxy for region in found.regions], found.is_anomalous) == ([(21, 11, 22, 13)], True)
