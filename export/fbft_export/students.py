"""The students: two shallow MLPs, one from f_j to f_k and one back.

Knows nothing about the teacher but the length of its feature vectors.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

from fbft_export.tensor_file import write_tensors


def _student(embed_dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(embed_dim, embed_dim),
        nn.GELU(),
        nn.Linear(embed_dim, embed_dim),
        nn.GELU(),
        nn.Linear(embed_dim, embed_dim),
    )


class Students(nn.Module):
    """Forward and backward student; each patch on its own, no norm, dropout or residual."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.forward_student = _student(embed_dim)
        self.backward_student = _student(embed_dim)

    def forward(self, f_j: torch.Tensor, f_k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Estimates of f_k (from f_j) and of f_j (from f_k), shapes unchanged: (..., embed_dim)."""
        return self.forward_student(f_j), self.backward_student(f_k)


def cosine_loss(estimate: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """1 - mean cosine similarity of matching vectors, (..., embed_dim) each; a scalar in [0, 2]."""
    return 1 - functional.cosine_similarity(estimate, actual, dim=-1).mean()


def unit_distance(estimate: torch.Tensor, actual: torch.Tensor) -> torch.Tensor:
    """Distance between the directions of matching vectors, (..., embed_dim) each; (...) in [0, 2]."""
    difference: torch.Tensor = torch.linalg.vector_norm(
        functional.normalize(estimate, dim=-1) - functional.normalize(actual, dim=-1), dim=-1
    )
    return difference


def patch_distance(students: Students, f_j: torch.Tensor, f_k: torch.Tensor) -> torch.Tensor:
    """The paper's: product of forward and backward distance, (..., embed_dim) features to (...) in [0, 4]."""
    estimate_k, estimate_j = students(f_j, f_k)
    return unit_distance(estimate_k, f_k) * unit_distance(estimate_j, f_j)


def save_students(students: Students, path: Path) -> None:
    """Write `forward_student.{0,2,4}.{weight,bias}` and the same of the backward student."""
    write_tensors({name: tensor.numpy() for name, tensor in students.state_dict().items()}, path)


def load_students(path: Path) -> Students:
    """Read what `save_students` wrote."""
    state = load_file(path)
    students = Students(state["forward_student.0.weight"].shape[1])
    students.load_state_dict(state)
    return students.eval()
