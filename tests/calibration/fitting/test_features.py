"""Cached features are the teacher's own, of patches that lie on the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fbft_calibration.data.nominal import NominalSet, scan_nominal
from fbft_calibration.fitting import feature_cache
from fbft_calibration.fitting.feature_cache import FeatureCache
from fbft_calibration.fitting.features import cut_tiles, on_frame
from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.tiling import TilePlan
from fbft_export.graph import PatchDistanceModel


@pytest.fixture(scope="module")
def nominal(nominal_folder: Path) -> NominalSet:
    return scan_nominal(nominal_folder)


@pytest.mark.parametrize("size", [(140, 182), (100, 112), (64, 64), (113, 300)])
def test_patches_are_inside_when_they_hold_a_pixel_of_the_frame(size: tuple[int, int]) -> None:
    plan = TilePlan(TileGeometry(112, 14, 2), *size)
    expected = [
        [top + 14 * row < size[0] and left + 14 * column < size[1] for row in range(8) for column in range(8)]
        for top, left in plan.origins_px()
    ]
    np.testing.assert_array_equal(on_frame(plan), expected)


@pytest.fixture
def cache(small_model: PatchDistanceModel, small_bundle: Bundle, tmp_path: Path) -> FeatureCache:
    return FeatureCache(tmp_path / "cache", small_model, small_bundle.tile)


def test_features_are_those_of_the_teacher(
    nominal: NominalSet, small_model: PatchDistanceModel, small_bundle: Bundle, cache: FeatureCache
) -> None:
    image = nominal.images[0]
    f_j, f_k = cache.sample([image], 0)
    with torch.inference_mode():
        tiles = torch.from_numpy(cut_tiles(TilePlan(small_bundle.tile, *image.size), image.read()))
        expected_j, expected_k = (part.flatten(0, 1) for part in small_model.features(tiles))
    similarity = [torch.cosine_similarity(a.float(), b).min() for a, b in ((f_j, expected_j), (f_k, expected_k))]
    assert min(similarity) > 0.99


def test_rows_of_both_features_match_when_only_a_share_is_kept(
    nominal: NominalSet, cache: FeatureCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_j, whole_k = cache.sample(nominal.images[:2], 0)
    monkeypatch.setattr(feature_cache, "_MAX_BYTES_IN_MEMORY", 2 * 50 * 2 * 2 * 384)
    f_j, f_k = cache.sample(nominal.images[:2], 0)
    place = [int((whole_j == row).all(dim=1).nonzero()[0]) for row in f_j]
    assert len(f_j) == 100
    assert torch.equal(whole_k[place], f_k)
