"""Nominal prototypes: the directions that features of good parts have after block k.

The students learn how a patch changes between two blocks, and can be right about a patch that no good part has; the
distance to the nearest prototype says whether one has it. Knows nothing about teacher or students.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional

from fbft_edge.errors import BundleError
from fbft_export.tensor_file import write_tensors

# What `fbft_export.graph` makes of them: stored with them, since a bundle's thresholds fit no other.
PATCH_DISTANCE = "sqrt(d_F d_B) d_N"
_UNNAMED_DISTANCE = "sqrt(d_F d_B) d_N^2"  # before it was stored


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
    write_tensors({"prototypes": prototypes.vectors.numpy()}, path, {"patch_distance": PATCH_DISTANCE})


def load_prototypes(path: Path) -> Prototypes:
    """Read what `save_prototypes` wrote.

    Raises:
        BundleError: They were made for another patch distance, and so were the thresholds that stand beside them.
    """
    with safe_open(path, "pt") as stored:
        distance = (stored.metadata() or {}).get("patch_distance", _UNNAMED_DISTANCE)
        if distance != PATCH_DISTANCE:
            raise BundleError(
                f"{path} is for the patch distance {distance}, and so are the bundle's thresholds; this version "
                f"computes {PATCH_DISTANCE}: inspect with the bundle as it is, or fit the bundle again"
            )
        return Prototypes(stored.get_tensor("prototypes")).eval()
