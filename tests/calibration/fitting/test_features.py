"""Cached features are the teacher's own, of patches that lie on the frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fbft_calibration.data.nominal import NominalSet, scan_nominal
from fbft_calibration.fitting import features
from fbft_calibration.fitting.features import cut_tiles, on_frame, teacher_features
from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.tiling import TilePlan


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


def test_features_are_those_of_the_teacher(
    nominal: NominalSet, small_model: torch.nn.Module, small_bundle: Bundle
) -> None:
    image = nominal.images[0]
    f_j, f_k = teacher_features(small_model, [image], small_bundle.tile, 0)
    with torch.inference_mode():
        tiles = torch.from_numpy(cut_tiles(TilePlan(small_bundle.tile, *image.size), image.read()))
        expected_j, expected_k = (part.flatten(0, 1) for part in small_model.features(tiles))
    similarity = [torch.cosine_similarity(a.float(), b).min() for a, b in ((f_j, expected_j), (f_k, expected_k))]
    assert min(similarity) > 0.99


def test_rows_of_both_features_match_when_only_a_share_is_kept(
    nominal: NominalSet, small_model: torch.nn.Module, small_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_j, whole_k = teacher_features(small_model, nominal.images[:2], small_bundle.tile, 0)
    monkeypatch.setattr(features, "_MAX_CACHE_BYTES", 2 * 50 * 2 * 2 * 384)
    f_j, f_k = teacher_features(small_model, nominal.images[:2], small_bundle.tile, 0)
    place = [int((whole_j == row).all(dim=1).nonzero()[0]) for row in f_j]
    assert len(f_j) == 100
    assert torch.equal(whole_k[place], f_k)
