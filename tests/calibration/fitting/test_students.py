"""Fitting learns what can be learnt, the same from the same seed, and stops when nothing is gained."""

from __future__ import annotations

import pytest
import torch

from fbft_calibration.fitting.students import FitResult, FitSettings, fit_students
from fbft_export.students import cosine_loss

EMBED_DIM = 16


def pair(count: int = 2000, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of which each is a linear map of the other."""
    generator = torch.Generator().manual_seed(seed)
    f_j = torch.randn(count, EMBED_DIM, generator=generator)
    return f_j.bfloat16(), (f_j @ torch.randn(EMBED_DIM, EMBED_DIM, generator=generator)).bfloat16()


def fitted(steps: int = 200, seed: int = 0, **changed: float) -> FitResult:
    settings = FitSettings(steps=steps, seed=seed, batch_patches=256, **changed)
    return fit_students(*pair(), settings)


def weights(result: FitResult) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in result.students.state_dict().values()])


def loss_of(result: FitResult, f_j: torch.Tensor, f_k: torch.Tensor) -> float:
    with torch.inference_mode():
        estimate_k, estimate_j = result.students(f_j.float(), f_k.float())
        return float(cosine_loss(estimate_k, f_k.float()) + cosine_loss(estimate_j, f_j.float()))


def test_the_loss_falls() -> None:
    losses = [loss for _, _, loss in fitted().losses]
    assert losses[-1] < 0.7 * losses[0]


def test_fitted_students_know_features_that_they_have_not_seen() -> None:
    f_j, f_k = pair(4000)
    settings = FitSettings(steps=200, batch_patches=256)
    result = fit_students(f_j[:2000], f_k[:2000], settings)
    assert loss_of(result, f_j[2000:], f_k[2000:]) < 1.0  # 2 before any step


def test_the_same_seed_gives_the_same_weights() -> None:
    assert torch.equal(weights(fitted(60, seed=3)), weights(fitted(60, seed=3)))


def test_another_seed_gives_other_weights() -> None:
    assert not torch.equal(weights(fitted(60, seed=3)), weights(fitted(60, seed=4)))


def test_fitting_leaves_the_global_seed_of_others_out_of_it() -> None:
    torch.manual_seed(1)
    first = weights(fitted(5))
    torch.manual_seed(2)
    assert torch.equal(weights(fitted(5)), first)


def test_fitting_that_gains_nothing_stops_early() -> None:
    result = fitted(5000, learning_rate=0.0, patience=2)
    assert [step for step, _, _ in result.losses] == [50, 100, 150]


def test_the_students_are_those_of_the_best_check() -> None:
    result = fitted(400, learning_rate=0.3)
    f_j, f_k = pair()
    torch.manual_seed(0)
    held_out = torch.randperm(2000)[:200]
    best = min(loss for _, _, loss in result.losses)
    assert loss_of(result, f_j[held_out], f_k[held_out]) == pytest.approx(best, abs=0.02)


@pytest.mark.parametrize("steps", [1, 49, 50, 51, 100])
def test_the_last_step_is_always_checked(steps: int) -> None:
    assert fitted(steps).losses[-1][0] == steps


def test_fitted_students_are_ready_to_use() -> None:
    assert not fitted(1).students.training


def test_every_loss_is_finite_with_as_few_patches_as_one_small_image_has() -> None:
    f_j, f_k = pair(9)
    result = fit_students(f_j, f_k, FitSettings(steps=3))
    assert bool(torch.tensor(result.losses).isfinite().all())
