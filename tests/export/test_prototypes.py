"""Prototypes say how far a feature is from all that good parts have shown."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from fbft_edge.bundle.reading import GRAPH, PROTOTYPES, Bundle
from fbft_edge.errors import BundleError
from fbft_export.graph import PatchDistanceModel
from fbft_export.prototypes import Prototypes, load_prototypes, save_prototypes
from fbft_export.students import Students, patch_distance

EMBED_DIM = 16


def directions(count: int, seed: int) -> torch.Tensor:
    vectors = torch.randn(count, EMBED_DIM, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=-1)


class Perfect(nn.Module):
    """Students that are never wrong."""

    def forward(self, f_j: torch.Tensor, f_k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return f_k.detach(), f_j.detach()


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


@pytest.mark.parametrize("metadata", [None, {"patch_distance": "sqrt(d_F d_B) d_N^2"}], ids=["none", "another"])
def test_prototypes_of_another_patch_distance_are_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"prototypes": directions(8, 1)}, tmp_path / PROTOTYPES, metadata)
    with pytest.raises(BundleError, match="fit the bundle again"):
        load_prototypes(tmp_path / PROTOTYPES)


def test_a_bundle_holds_unit_vectors_of_its_teachers_length(small_bundle: Bundle) -> None:
    with safe_open(small_bundle.file(PROTOTYPES), "np") as stored:
        vectors = stored.get_tensor("prototypes")
    assert (vectors.shape[1], vectors.dtype) == (small_bundle.teacher.embed_dim, np.float32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-4)


def test_the_patch_distance_is_the_students_mean_times_the_distance_to_a_prototype(
    small_model: PatchDistanceModel,
) -> None:
    prototypes = small_model.prototypes
    assert prototypes is not None
    tiles = random_tiles(1)
    with torch.inference_mode():
        f_j, f_k = (part.flatten(0, 1) for part in small_model.features(tiles))
        nearest = torch.cdist(torch.nn.functional.normalize(f_k, dim=-1), prototypes.vectors).amin(dim=-1)
        expected = patch_distance(small_model.students, f_j, f_k).sqrt() * nearest
        torch.testing.assert_close(small_model(tiles).flatten(), expected, rtol=1e-3, atol=1e-4)


def test_without_prototypes_it_is_the_papers(small_model: PatchDistanceModel) -> None:
    tiles = random_tiles(2)
    with torch.inference_mode():
        found = PatchDistanceModel(small_model.teacher, small_model.students)(tiles)
        expected = patch_distance(small_model.students, *small_model.features(tiles))
    torch.testing.assert_close(found.flatten(), expected.flatten())


@pytest.mark.parametrize("is_near", [False, True], ids=["far", "at a prototype"])
@pytest.mark.parametrize("is_foreseen", [False, True], ids=["unforeseen", "foreseen"])
def test_the_gradient_is_finite_where_distances_are_zero(
    small_model: PatchDistanceModel, is_foreseen: bool, is_near: bool
) -> None:
    tiles = random_tiles(3).float().requires_grad_()
    prototypes = small_model.prototypes
    if is_near:
        _, f_k = small_model.features(tiles.detach())
        prototypes = Prototypes(nn.functional.normalize(f_k.flatten(0, 1), dim=-1))
    students = cast(Students, Perfect()) if is_foreseen else small_model.students
    distances = PatchDistanceModel(small_model.teacher, students, prototypes)(tiles)
    distances.sum().backward()
    assert tiles.grad is not None
    assert (bool(tiles.grad.isfinite().all()), float(distances.detach().min()) < 1e-3) == (True, is_foreseen or is_near)


def test_the_graph_names_their_one_matrix_product(small_bundle: Bundle) -> None:
    nodes = onnx.load(small_bundle.file(GRAPH)).graph.node
    assert [node.op_type for node in nodes if node.name.startswith("prototypes/")].count("Gemm") == 1
