"""Nominal prototypes: the directions that features of good parts have after block k.

The students learn how a patch changes between two blocks, and can be right about a patch that no good part has; the
distance to the nearest prototype says whether one has it. Knows nothing about teacher or students.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional


class Prototypes(nn.Module):
    """Unit vectors, (count, embed_dim) float32, and how far a feature is from them."""

    vectors: torch.Tensor
    ones: torch.Tensor

    def __init__(self, vectors: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("vectors", vectors)
        self.register_buffer("ones", torch.ones(len(vectors)))

    def forward(self, f_k: torch.Tensor) -> torch.Tensor:
        """Cosine distance to the nearest prototype, (patches, embed_dim) features to (patches,) in [0, 2].

        One matrix product with a bias, since 1 - similarity keeps its digits in bf16 and float16 only where the
        difference is taken before it is rounded.
        """
        return torch.addmm(self.ones, functional.normalize(f_k, dim=-1), -self.vectors.T).amin(dim=-1)


def save_prototypes(prototypes: Prototypes, path: Path) -> None:
    """Write `prototypes`, (count, embed_dim) float32."""
    save_file({"prototypes": prototypes.vectors.contiguous()}, path)
    path.chmod(0o644)  # safetensors writes 0600, and the line may run as another user


def load_prototypes(path: Path) -> Prototypes:
    """Read what `save_prototypes` wrote."""
    return Prototypes(load_file(path)["prototypes"]).eval()
