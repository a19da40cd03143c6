"""A bundle's energy can be followed downhill from any frame size, and costs what its weights cover."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="refinement needs the extra calibration")

from fbft_calibration.refinement import bundle_detector  # noqa: E402
from fbft_calibration.refinement.bundle_detector import BundleDetector, _corners  # noqa: E402
from fbft_calibration.refinement.command import BundleRefiner  # noqa: E402
from fbft_calibration.refinement.f2pad import refine  # noqa: E402
from fbft_edge.bundle.reading import Bundle  # noqa: E402
from fbft_edge.detectors.host import OpenVinoDetector  # noqa: E402
from fbft_edge.errors import BundleError, FbftError, MapError, TeacherError  # noqa: E402
from fbft_edge.frames.frame import Uint8  # noqa: E402
from fbft_edge.frames.pixel_format import FrameLayout  # noqa: E402
from fbft_edge.synthetic import render_part  # noqa: E402

SIZE = (140, 182)


@pytest.fixture(scope="module")
def detector(small_bundle: Bundle) -> Iterator[BundleDetector]:
    with BundleDetector(small_bundle) as detector:
        yield detector


@pytest.fixture(scope="module")
def defective() -> Uint8:
    return render_part(600, *SIZE, (30.0,)).pixels


def slope(detector: BundleDetector, pixels: Uint8, window: tuple[slice, slice], seed: int = 0) -> torch.Tensor:
    image = (torch.from_numpy(pixels).permute(2, 0, 1) / 255).requires_grad_(True)
    weights = torch.zeros(pixels.shape[:2])
    weights[window] = 1
    energy = detector.energy(image, weights, torch.Generator().manual_seed(seed))
    (found,) = torch.autograd.grad(energy, image)
    return found


def test_only_tiles_with_weights_are_inferred(detector: BundleDetector, defective: Uint8) -> None:
    found = slope(detector, defective, (slice(5, 20), slice(0, 12)))
    assert torch.isfinite(found).all()
    assert found[:, :20, :12].abs().max() > 0
    assert found[:, :, 12 + 112 :].abs().max() == 0


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (20, 90), (140, 30)])
@pytest.mark.parametrize("scale", [1.0, 0.6, 1.7])
def test_frames_of_any_size_have_a_finite_slope(small_bundle: Bundle, size: tuple[int, int], scale: float) -> None:
    bundle = replace(small_bundle, tile=replace(small_bundle.tile, scale=scale))
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
    with BundleDetector(bundle) as detector:
        found = slope(detector, pixels, (slice(None), slice(None)))
        assert detector.patch_px(*size) == pytest.approx(14 / scale)
    assert found.shape == (3, *size)
    assert torch.isfinite(found).all()


def test_a_single_colour_has_a_finite_slope(detector: BundleDetector) -> None:
    assert torch.isfinite(slope(detector, np.zeros((60, 60, 3), np.uint8), (slice(9), slice(9)))).all()


def test_the_grid_is_drawn_from_the_generator_alone(detector: BundleDetector, defective: Uint8) -> None:
    window = slice(40, 80), slice(40, 80)
    first, again, other = (slope(detector, defective, window, seed) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_many_tiles_have_the_same_slope_as_few(
    detector: BundleDetector, defective: Uint8, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = slice(None), slice(None)
    at_once = slope(detector, defective, everything)
    monkeypatch.setattr(bundle_detector, "MOST_TILES", 2)
    in_parts = slope(detector, defective, everything)
    assert (in_parts - at_once).norm() < 0.02 * at_once.norm()  # bf16 keeps 8 bits


@settings(max_examples=80, deadline=None)
@given(data=st.data(), side=st.sampled_from([28, 56, 112]))
def test_tiles_cover_every_weighted_pixel_exactly_once(data: st.DataObject, side: int) -> None:
    height, width = data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))
    top, left = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    bottom, right = data.draw(st.integers(top + 1, height)), data.draw(st.integers(left + 1, width))
    shift = [data.draw(st.integers(0, 13)), data.draw(st.integers(0, 13))]
    weights = torch.zeros(height + 2 * side, width + 2 * side)
    weights[side + top : side + bottom, side + left : side + right] = 1
    times = torch.zeros_like(weights)
    for row, column in _corners(weights, side, 14, shift):
        assert min(row, column) >= 0
        assert times[row : row + side, column : column + side].shape == (side, side)
        times[row : row + side, column : column + side] += 1
    assert (times[weights > 0] == 1).all()


def test_what_the_map_flags_is_what_the_line_flags(
    detector: BundleDetector, small_bundle: Bundle, defective: Uint8
) -> None:
    line = OpenVinoDetector(small_bundle, FrameLayout(*SIZE))
    expected = line.detect(defective)
    line.close()
    found = detector.detect(defective)
    assert expected.mask.any()
    assert np.array_equal(detector.relative_map(defective) > 1, expected.mask)
    assert (found.score, found.peak, found.regions) == (expected.score, expected.peak, expected.regions)


def test_a_bundle_refines_its_own_detection(detector: BundleDetector, defective: Uint8) -> None:
    refinement = refine(detector, defective)
    assert np.isfinite(refinement.energies).all()
    assert refinement.mask.any()
    assert not np.array_equal(refinement.mask, refinement.flagged)


def test_score_and_verdict_stay_whatever_engine_detected(small_bundle: Bundle, defective: Uint8) -> None:
    with BundleRefiner(small_bundle) as refiner:
        with_map = refiner.detect(defective)
        refined, without_map = (
            refiner.refined(defective, each) for each in (with_map, replace(with_map, anomaly_map=None))
        )
    assert np.array_equal(refined.mask, without_map.mask)
    assert sum(region.area_px for region in refined.regions) == refined.mask.sum()
    assert (refined.score, refined.peak, refined.is_anomalous) == (with_map.score, with_map.peak, with_map.is_anomalous)


def test_a_map_that_is_not_finite_is_refused(
    detector: BundleDetector, defective: Uint8, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenVinoDetector, "map_of", lambda *_: np.full(SIZE, np.nan, np.float32))
    with pytest.raises(MapError):
        detector.detect(defective)


def test_a_pixel_threshold_of_0_flags_what_is_above(small_bundle: Bundle, defective: Uint8) -> None:
    thresholds = replace(small_bundle.require_thresholds(), pixel=0.0)
    with BundleDetector(replace(small_bundle, thresholds=thresholds)) as detector:
        assert np.isfinite(detector.relative_map(defective)).all()


@pytest.mark.parametrize("error", [BundleError, TeacherError])
def test_what_cannot_be_refined_is_refused(small_bundle: Bundle, error: type[FbftError], tmp_path: Path) -> None:
    teacher = replace(small_bundle.teacher, weights_sha256="0" * 64)
    bundles = {
        BundleError: replace(small_bundle, thresholds=None),
        TeacherError: replace(small_bundle, teacher=teacher),
    }
    with pytest.raises(error):
        BundleDetector(bundles[error])
