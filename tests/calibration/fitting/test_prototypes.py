"""Prototypes stand where nominal features are, as many as the features support, the same from the same seed."""

from __future__ import annotations

import pytest
import torch

from fbft_calibration.fitting.prototypes import find_prototypes
from fbft_export.prototypes import Prototypes


def clusters(count: int, each: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """(count, 32) directions far from each other, and (count * each, 32) features near them, of any length."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.linalg.qr(torch.randn(32, 32, generator=generator))[0][:count]
    features = centres.repeat_interleave(each, 0) + 0.02 * torch.randn(count * each, 32, generator=generator)
    return centres, (features * (1 + torch.rand(len(features), 1, generator=generator))).bfloat16()


def found(features: torch.Tensor, count: int, seed: int = 0) -> Prototypes:
    prototypes = find_prototypes(features, count, seed)
    assert prototypes is not None
    return prototypes


@pytest.mark.parametrize("seed", range(3))
def test_every_kind_of_nominal_feature_has_one_near_it(seed: int) -> None:
    centres, features = clusters(12, 200, seed)
    assert float(found(features, 96, seed)(centres).max()) < 0.005


def test_what_no_good_part_has_is_far_from_all() -> None:
    centres, features = clusters(12, 200)
    others = torch.linalg.qr(torch.cat([centres, torch.randn(20, 32)]).T)[0].T[12:]
    prototypes = found(features, 96)
    assert float(prototypes(others).min()) > 0.7
    assert float(prototypes(features.float()).mean()) < 0.02


@pytest.mark.parametrize(("patches", "wanted", "count"), [(4000, 64, 64), (400, 64, 16), (64, 64, 2), (5, 64, 1)])
def test_few_patches_make_few_prototypes(patches: int, wanted: int, count: int) -> None:
    features = torch.randn(patches, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    vectors = found(features, wanted).vectors
    assert vectors.shape == (count, 32)
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(count))


def test_more_prototypes_come_nearer() -> None:
    features = torch.randn(6000, 32, generator=torch.Generator().manual_seed(1)).bfloat16()
    means = [float(found(features, count)(features.float()).mean()) for count in (8, 64, 512)]
    assert means == sorted(means, reverse=True)


def test_the_same_seed_finds_the_same() -> None:
    _, features = clusters(12, 200)
    torch.testing.assert_close(found(features, 50, 3).vectors, found(features, 50, 3).vectors, rtol=0, atol=0)


def test_none_are_found_where_none_are_wanted() -> None:
    assert find_prototypes(clusters(2, 20)[1], 0, 0) is None


def test_equal_features_are_no_trouble() -> None:
    vectors = found(torch.ones(800, 32).bfloat16(), 64).vectors
    assert bool(vectors.isfinite().all())
