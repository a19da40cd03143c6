"""Two plain MLPs, the distance between directions, and the loss of the paper."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from fbft_export.students import (
    Students,
    cosine_loss,
    load_students,
    patch_distance,
    save_students,
    unit_distance,
)

EMBED_DIM = 12
NAMES = {
    f"{side}_student.{layer}.{kind}"
    for side in ("forward", "backward")
    for layer in (0, 2, 4)
    for kind in ("weight", "bias")
}


def vectors(seed: int, count: int = 30) -> torch.Tensor:
    return torch.randn(count, EMBED_DIM, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def students() -> Students:
    torch.manual_seed(0)
    return Students(EMBED_DIM)


def test_the_file_holds_exactly_the_names_of_the_contract(students: Students, tmp_path: Path) -> None:
    save_students(students, tmp_path / "students.safetensors")
    with safe_open(tmp_path / "students.safetensors", "pt") as stored:
        assert set(stored.keys()) == NAMES


def test_students_survive_the_file(students: Students, tmp_path: Path) -> None:
    save_students(students, tmp_path / "students.safetensors")
    loaded = load_students(tmp_path / "students.safetensors")
    torch.testing.assert_close(loaded(vectors(1), vectors(2)), students(vectors(1), vectors(2)), rtol=0, atol=0)


def test_a_student_is_three_linear_layers_with_gelu_between(students: Students) -> None:
    weights = students.state_dict()
    signal = vectors(1)
    for layer in (0, 2, 4):
        signal = signal @ weights[f"forward_student.{layer}.weight"].T + weights[f"forward_student.{layer}.bias"]
        signal = signal if layer == 4 else signal * (1 + torch.erf(signal / 2**0.5)) / 2
    torch.testing.assert_close(students(vectors(1), vectors(2))[0], signal)


def test_the_backward_student_estimates_f_j_from_f_k(students: Students) -> None:
    expected = students.backward_student(vectors(2))
    torch.testing.assert_close(students(vectors(1), vectors(2))[1], expected)


def test_every_patch_is_estimated_on_its_own(students: Students) -> None:
    whole = patch_distance(students, vectors(1), vectors(2))
    order = torch.randperm(30)
    torch.testing.assert_close(patch_distance(students, vectors(1)[order], vectors(2)[order]), whole[order])


@given(st.integers(0, 999), st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_distance_is_that_of_directions_whatever_the_lengths(seed: int, a: float, b: float) -> None:
    estimate, actual = vectors(seed), vectors(seed + 1)
    torch.testing.assert_close(
        unit_distance(a * estimate, b * actual), unit_distance(estimate, actual), rtol=1e-4, atol=1e-5
    )


def test_the_distance_of_equal_directions_is_zero_and_of_opposite_ones_two() -> None:
    distances = torch.stack([unit_distance(vectors(1), 3 * vectors(1)), unit_distance(vectors(1), -vectors(1))])
    torch.testing.assert_close(distances, torch.tensor([[0.0], [2.0]]).expand(2, 30), atol=1e-6, rtol=0)


@given(st.integers(0, 999))
def test_patch_distance_lies_between_zero_and_four(seed: int) -> None:
    torch.manual_seed(seed)
    found = patch_distance(Students(EMBED_DIM), 9 * vectors(seed), vectors(seed + 1))
    assert bool(((found >= 0) & (found <= 4)).all())


def test_patch_distance_is_the_product_of_both_distances(students: Students) -> None:
    f_j, f_k = vectors(1), vectors(2)
    estimate_k, estimate_j = students(f_j, f_k)
    expected = [
        torch.dist(a / a.norm(), b / b.norm()) * torch.dist(c / c.norm(), d / d.norm())
        for a, b, c, d in zip(estimate_k, f_k, estimate_j, f_j, strict=True)
    ]
    torch.testing.assert_close(patch_distance(students, f_j, f_k), torch.stack(expected))


def test_one_perfect_estimate_makes_the_distance_zero(students: Students) -> None:
    f_j = vectors(1)
    found = patch_distance(students, f_j, students.forward_student(f_j))
    torch.testing.assert_close(found, torch.zeros(30), atol=1e-6, rtol=0)


def test_a_feature_of_length_zero_gives_no_nan(students: Students) -> None:
    assert bool(patch_distance(students, torch.zeros(3, EMBED_DIM), torch.zeros(3, EMBED_DIM)).isfinite().all())


def test_the_loss_is_one_minus_the_mean_cosine() -> None:
    a, b = vectors(1), vectors(2)
    cosines = [float(x @ y / (x.norm() * y.norm())) for x, y in zip(a, b, strict=True)]
    assert float(cosine_loss(a, b)) == pytest.approx(1 - sum(cosines) / 30, abs=1e-6)


def test_the_loss_and_the_distance_agree() -> None:
    a, b = vectors(1), vectors(2)
    assert float(cosine_loss(a, b)) == pytest.approx(float((unit_distance(a, b) ** 2 / 2).mean()), abs=1e-6)
