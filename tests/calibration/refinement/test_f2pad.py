"""Refinement redraws what is flagged: it adds no region, loses none, and ends with finite values on any image."""

from __future__ import annotations

import gc
import resource
from collections.abc import Callable
from dataclasses import dataclass, field

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="refinement needs the extra calibration")

from fbft_calibration.refinement.f2pad import Refinement, RefineSettings, refine  # noqa: E402
from fbft_edge.frames.frame import Bool, Float32, Uint8  # noqa: E402

SIZES = st.tuples(st.integers(1, 70), st.integers(1, 70))
GREY = 0.35


def far_from_grey(image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return ((image - GREY).square().sum(dim=0) * weights).sum()


@dataclass
class Scripted:
    """A detector of few lines: its map is given, its energy any function."""

    relative: Float32
    function: Callable[[torch.Tensor, torch.Tensor, torch.Generator], torch.Tensor] = far_from_grey
    patch: float = 6.0
    images: list[torch.Tensor] = field(default_factory=list)

    def patch_px(self, height: int, width: int) -> float:
        return self.patch

    def relative_map(self, pixels: Uint8) -> Float32:
        return self.relative

    def energy(self, image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        self.images.append(image.detach())
        return self.function(image, weights, generator)


def blunt_map(size: tuple[int, int], *spots: tuple[int, int, int]) -> Float32:
    """A map of cones that exceeds 1 within each spot's radius: (row, column, radius)."""
    rows, columns = np.indices(size)
    reach = [2 - np.hypot(rows - y, columns - x) / radius for y, x, radius in spots]
    return np.max([np.zeros(size), *reach], axis=0).astype(np.float32)


def noise_map(seed: int, size: tuple[int, int]) -> Float32:
    noise = np.random.default_rng(seed).normal(size=size).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), 3), np.float32).reshape(size)
    return smooth / max(float(np.quantile(smooth, 0.85)), 1e-6)


def texture(seed: int, size: tuple[int, int]) -> Uint8:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def labels_of(mask: Bool) -> np.ndarray:
    return np.asarray(cv2.connectedComponents(mask.view(np.uint8), connectivity=8)[1])


def assert_same_regions(refinement: Refinement) -> None:
    before, after = labels_of(refinement.flagged), labels_of(refinement.mask)
    both = refinement.flagged & refinement.mask
    assert set(np.unique(after)) - {0} == set(np.unique(after[both])), "a region was added"
    assert set(np.unique(before)) - {0} == set(np.unique(before[both])), "a region was lost"


def overlap(found: Bool, expected: Bool) -> float:
    return float((found & expected).sum() / (found | expected).sum())


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), size=SIZES, patch=st.sampled_from([0.5, 3.0, 14.0]))
def test_no_region_is_added_and_none_is_lost(seed: int, size: tuple[int, int], patch: float) -> None:
    refinement = refine(Scripted(noise_map(seed, size), patch=patch), texture(seed, size))
    assert_same_regions(refinement)
    assert np.isfinite(refinement.anomaly).all()
    assert (refinement.anomaly >= 0).all()


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), size=SIZES)
def test_a_detector_whose_gradient_is_noise_adds_no_region(seed: int, size: tuple[int, int]) -> None:
    def noise(image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return (image * torch.randn(image.shape, generator=generator) * 1e6).sum()

    assert_same_regions(refine(Scripted(noise_map(seed, size), noise), texture(seed, size)))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 5), (64, 48)])
@pytest.mark.parametrize("level", [0, 90, 255])
@pytest.mark.parametrize("radius", [3, 20])
def test_an_image_without_any_contrast_keeps_its_mask(size: tuple[int, int], level: int, radius: int) -> None:
    relative = blunt_map(size, (size[0] // 2, size[1] // 2, radius))
    refinement = refine(Scripted(relative), np.full((*size, 3), level, np.uint8))
    assert (refinement.mask == refinement.flagged).all()
    assert np.isfinite(refinement.anomaly).all()
    assert np.isfinite(refinement.energies).all()


def test_without_ground_to_fill_in_from_the_mask_stays() -> None:
    pixels = np.full((60, 60, 3), 200, np.uint8)
    pixels[20:40, 20:40] = 20
    refinement = refine(Scripted(blunt_map((60, 60), (30, 30, 15)), patch=30.0), pixels)
    assert (refinement.mask == refinement.flagged).all()


def test_an_image_as_opencv_turns_it_around_is_taken() -> None:
    pixels, relative = texture(3, (40, 50)), blunt_map((40, 50), (20, 20, 6))
    pixels.flags.writeable = False
    turned = refine(Scripted(relative), np.ascontiguousarray(pixels[..., ::-1])[..., ::-1])
    assert (turned.mask == refine(Scripted(relative), pixels).mask).all()


def test_what_lies_deep_within_a_defect_stays_and_its_rim_is_redrawn() -> None:
    pixels = np.full((120, 120, 3), 90, np.uint8)
    pixels[40:80, 40:80] = 200
    pixels[55:65, 55:65] = 90  # looks like the ground, but lies in the middle of the defect
    relative = blunt_map((120, 120), (60, 60, 30))
    mask = refine(Scripted(relative, patch=6.0), pixels).mask
    assert mask[55:65, 55:65].all()
    assert not refine(Scripted(relative, patch=6.0), pixels, RefineSettings(core_patches=9.0)).mask[58:62, 58:62].any()


@pytest.mark.parametrize("number", [1, 3, 9])
def test_the_detector_is_asked_at_most_once_for_each_iteration(number: int) -> None:
    detector = Scripted(noise_map(1, (50, 60)))
    refinement = refine(detector, texture(1, (50, 60)), RefineSettings(iterations=number))
    assert len(detector.images) == len(refinement.energies) <= number


def test_what_is_not_flagged_costs_nothing() -> None:
    detector = Scripted(np.ones((50, 60), np.float32))
    refinement = refine(detector, texture(1, (50, 60)))
    assert (detector.images, refinement.energies, bool(refinement.mask.any())) == ([], (), False)


@pytest.mark.parametrize("size", [(1, 1), (40, 56)])
def test_a_region_may_cover_the_whole_image(size: tuple[int, int]) -> None:
    refinement = refine(Scripted(np.full(size, 1.5, np.float32)), texture(3, size))
    assert refinement.flagged.all()
    assert_same_regions(refinement)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_energies_that_are_no_numbers_end_it_without_harm(value: float) -> None:
    def broken(image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return (image * weights).sum() * value

    detector = Scripted(noise_map(4, (50, 60)), broken)
    refinement = refine(detector, texture(4, (50, 60)))
    assert len(detector.images) == 1
    assert_same_regions(refinement)
    assert np.isfinite(refinement.anomaly).all()


@pytest.mark.parametrize("slope", [0.0, 1e-30, 1e30])
def test_slopes_of_any_size_leave_finite_values(slope: float) -> None:
    def steep(image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return (image * weights).sum() * slope

    refinement = refine(Scripted(noise_map(4, (50, 60)), steep), texture(4, (50, 60)))
    assert_same_regions(refinement)
    assert np.isfinite(refinement.anomaly).all()


def test_a_map_with_values_that_are_no_numbers_adds_nothing() -> None:
    relative = blunt_map((50, 60), (20, 20, 6))
    relative[30:, 40:] = np.nan
    refinement = refine(Scripted(relative), texture(4, (50, 60)))
    assert not refinement.mask[30:, 40:].any()


def test_the_same_seed_gives_the_same_mask() -> None:
    def drawn(image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        return (image * torch.rand(image.shape, generator=generator) * weights).sum()

    def once(seed: int) -> Refinement:
        detector = Scripted(noise_map(7, (50, 60)), drawn)
        return refine(detector, texture(7, (50, 60)), RefineSettings(seed=seed))

    first, again, other = once(5), once(5), once(6)
    assert np.array_equal(first.mask, again.mask)
    assert (first.energies, first.energies == other.energies) == (again.energies, False)


def test_the_image_and_the_map_stay_as_they_are() -> None:
    pixels, relative = texture(1, (50, 60)), noise_map(1, (50, 60))
    given_pixels, given_map = pixels.copy(), relative.copy()
    refine(Scripted(relative), pixels)
    assert np.array_equal(pixels, given_pixels)
    assert np.array_equal(relative, given_map)


def test_the_detector_is_shown_the_whole_image_unchanged_but_around_what_is_flagged() -> None:
    pixels = texture(2, (90, 120))
    detector = Scripted(blunt_map((90, 120), (20, 25, 5)))
    refine(detector, pixels)
    for image in detector.images:
        shown = image.permute(1, 2, 0).numpy() * 255
        assert np.allclose(shown[40:], pixels[40:], atol=1e-3)
        assert np.allclose(shown[:, 45:], pixels[:, 45:], atol=1e-3)


@pytest.mark.parametrize("place", [(40, 50), (0, 0), (79, 99)])
def test_a_blunt_mask_becomes_the_defect(place: tuple[int, int]) -> None:
    rows, columns = np.indices((80, 100))
    defect = np.hypot(rows - place[0], columns - place[1]) < 9
    pixels = np.full((80, 100, 3), 90, np.uint8)
    pixels[defect] = (210, 60, 40)
    refinement = refine(Scripted(blunt_map((80, 100), (*place, 16))), pixels)
    assert overlap(refinement.mask, defect) > 0.2 + overlap(refinement.flagged, defect)


def test_one_small_spot_in_a_huge_image_takes_little_memory() -> None:
    """The floor is the image as float32, once as it is, once explained, once as its gradient: 144 MB each."""
    size = (3000, 4000)
    pixels = np.full((*size, 3), 90, np.uint8)
    pixels[1500:1512, 2000:2012] = 220
    relative = np.zeros(size, np.float32)
    relative[1490:1522, 1990:2022] = 1.5
    gc.collect()
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refinement = refine(Scripted(relative, lambda image, *_: image[:, 1400:1600, 1900:2100].square().sum()), pixels)
    assert refinement.mask[1500:1512, 2000:2012].all()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 1.5e6
