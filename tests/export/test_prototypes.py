"""Prototypes say how far a feature is from all that good parts have shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open

from fbft_edge.bundle import GRAPH, PROTOTYPES, Bundle
from fbft_export.graph import PatchDistanceModel
from fbft_export.prototypes import Prototypes, load_prototypes, save_prototypes
from fbft_export.students import patch_distance

EMBED_DIM = 16


def directions(count: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(count, EMBED_DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


def random_tiles(seed: int) -> torch.Tensor:
    return torch.randint(0, 256, (2, 112, 112, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("seed", range(4))
def test_the_distance_is_that_to_the_nearest(seed: int) -> None:
    vectors, features = directions(40, seed), 3 * directions(25, 100 + seed)
    expected = torch.cdist(torch.nn.functional.normalize(features, dim=-1), vectors).amin(dim=-1) ** 2 / 2
    torch.testing.assert_close(Prototypes(vectors)(features), expected, rtol=1e-4, atol=1e-5)


def test_what_good_parts_have_is_no_distance_away() -> None:
    vectors = directions(40, 1)
    assert float(Prototypes(vectors)(7 * vectors).abs().max()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_distances_survive_few_digits(dtype: torch.dtype) -> None:
    vectors = directions(40, 1)
    near = torch.nn.functional.normalize(vectors + 0.3 * directions(40, 2), dim=-1)
    exact = Prototypes(vectors)(near)
    rough = Prototypes(vectors).to(dtype)(near.to(dtype)).float()
    assert float((rough - exact).abs().max()) < 0.1 * float(exact.mean())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    prototypes = Prototypes(directions(8, 1))
    save_prototypes(prototypes, tmp_path / PROTOTYPES)
    torch.testing.assert_close(load_prototypes(tmp_path / PROTOTYPES).vectors, prototypes.vectors, rtol=0, atol=0)
    assert (tmp_path / PROTOTYPES).stat().st_mode & 0o044


def test_a_bundle_holds_unit_vectors_of_its_teachers_length(small_bundle: Bundle) -> None:
    with safe_open(small_bundle.file(PROTOTYPES), "np") as stored:
        vectors = stored.get_tensor("prototypes")
    assert (vectors.shape[1], vectors.dtype) == (small_bundle.teacher.embed_dim, np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


def test_the_patch_distance_is_the_students_mean_times_the_squared_distance_to_a_prototype(
    small_model: PatchDistanceModel,
) -> None:
    prototypes = small_model.prototypes
    assert prototypes is not None
    tiles = random_tiles(1)
    with torch.inference_mode():
        f_j, f_k = (part.flatten(0, 1) for part in small_model.features(tiles))
        nearest = torch.cdist(torch.nn.functional.normalize(f_k, dim=-1), prototypes.vectors).amin(dim=-1)
        expected = patch_distance(small_model.students, f_j, f_k).sqrt() * nearest**2
        torch.testing.assert_close(small_model(tiles).flatten(), expected, rtol=1e-3, atol=1e-4)


def test_without_prototypes_it_is_the_papers(small_model: PatchDistanceModel) -> None:
    tiles = random_tiles(2)
    with torch.inference_mode():
        found = PatchDistanceModel(small_model.teacher, small_model.students)(tiles)
        expected = patch_distance(small_model.students, *small_model.features(tiles))
    torch.testing.assert_close(found.flatten(), expected.flatten())


def test_the_graph_names_their_one_matrix_product(small_bundle: Bundle) -> None:
    nodes = onnx.load(small_bundle.file(GRAPH)).graph.node
    assert [node.op_type for node in nodes if node.name.startswith("prototypes/")].count("Gemm") == 1
