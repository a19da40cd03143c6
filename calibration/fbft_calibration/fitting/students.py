"""Students fitted to cached teacher features.

Knows nothing about images, tiles or thresholds.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from fbft_calibration.fitting.features import native_autocast
from fbft_edge.progress import SILENT, Progress
from fbft_export.students import Students, cosine_loss

_CHECK_EVERY = 50
_VALIDATION_PATCHES = 8192


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How students are fitted.

    Attributes:
        steps: Most optimiser steps; the learning rate falls to zero over them along a cosine.
        batch_patches: Patches per step.
        learning_rate: Adam's, at the start; the paper has 1e-3 (docs/log.md says why not here).
        patience: Checks (one every 50 steps) without a better validation loss before stopping early.
        seed: Of initial weights, split and batches.
    """

    steps: int = 600
    batch_patches: int = 4096
    learning_rate: float = 3e-3
    patience: int = 4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class FitResult:
    """Fitted students and how they got there.

    Attributes:
        students: With the weights of the best validation loss.
        losses: (step, training loss, validation loss) at every check.
    """

    students: Students
    losses: tuple[tuple[int, float, float], ...]


def fit_students(f_j: torch.Tensor, f_k: torch.Tensor, settings: FitSettings, progress: Progress = SILENT) -> FitResult:
    """Fit both students; a tenth of the patches, at most 8192, is held out to know when to stop.

    Args:
        f_j: (patches, embed_dim) features after block j.
        f_k: (patches, embed_dim) features after block k, matching rows.
        settings: How.
        progress: Shown how far it is.
    """
    torch.manual_seed(settings.seed)
    order = torch.randperm(len(f_j))
    held_out = min(_VALIDATION_PATCHES, max(1, len(f_j) // 10))
    validation = f_j[order[:held_out]].float(), f_k[order[:held_out]].float()
    students = Students(f_j.shape[1])
    losses: list[tuple[int, float, float]] = []
    best, best_state = float("inf"), copy.deepcopy(students.state_dict())
    taken = _steps(students, f_j, f_k, order[held_out:], settings)
    for step, train_loss in enumerate(progress.track(taken, "fitting students", settings.steps), start=1):
        if step % _CHECK_EVERY and step != settings.steps:
            continue
        loss = _validation_loss(students, *validation)
        losses.append((step, train_loss, loss))
        if loss < best:
            best, best_state = loss, copy.deepcopy(students.state_dict())
        elif _is_stuck(losses, settings.patience):
            break
    students.load_state_dict(best_state)
    return FitResult(students.eval(), tuple(losses))


def _steps(
    students: Students, f_j: torch.Tensor, f_k: torch.Tensor, rows: torch.Tensor, settings: FitSettings
) -> Iterator[float]:
    """Take one optimiser step after another; yields each training loss."""
    optimizer = torch.optim.Adam(students.parameters(), lr=settings.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.steps)
    for _ in range(settings.steps):
        batch = rows[torch.randint(len(rows), (min(settings.batch_patches, len(rows)),))]
        with native_autocast():
            loss = _loss(students, f_j[batch].float(), f_k[batch].float())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        optimizer.step()
        schedule.step()
        yield float(loss.detach())


def _loss(students: Students, f_j: torch.Tensor, f_k: torch.Tensor) -> torch.Tensor:
    estimate_k, estimate_j = students(f_j, f_k)
    return cosine_loss(estimate_k.float(), f_k) + cosine_loss(estimate_j.float(), f_j)


def _validation_loss(students: Students, f_j: torch.Tensor, f_k: torch.Tensor) -> float:
    with torch.inference_mode(), native_autocast():
        return float(_loss(students, f_j, f_k))


def _is_stuck(losses: list[tuple[int, float, float]], patience: int) -> bool:
    recent = [loss for _, _, loss in losses[-patience:]]
    before = [loss for _, _, loss in losses[:-patience]]
    return bool(before) and min(recent) >= min(before)
