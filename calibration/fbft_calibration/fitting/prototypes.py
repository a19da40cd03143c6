"""Nominal prototypes found in cached teacher features: spherical k-means.

Knows nothing about images, students or thresholds.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from fbft_edge.progress import SILENT, Progress
from fbft_export.prototypes import Prototypes

_SAMPLE_PATCHES = 65536
_PATCHES_EACH = 24
_ROUNDS = 10


def find_prototypes(f_k: torch.Tensor, count: int, seed: int, progress: Progress = SILENT) -> Prototypes | None:
    """Centres of the nominal features' directions.

    Args:
        f_k: (patches, embed_dim) features after block k.
        count: How many are wanted; at most one for 24 patches is found.
        seed: Of the sample and the first centres.
        progress: Shown how far it is.

    Returns:
        None when none is wanted.
    """
    if not count:
        return None
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(f_k), generator=generator)[:_SAMPLE_PATCHES]
    features = functional.normalize(f_k[chosen].float(), dim=-1)
    centres = features[: max(1, min(count, len(features) // _PATCHES_EACH))].clone()
    for _ in progress.track(range(_ROUNDS), "finding prototypes"):
        nearest = torch.cat([(part @ centres.T).argmax(dim=-1) for part in torch.split(features, 4096)])
        sums = torch.zeros_like(centres).index_add_(0, nearest, features)
        is_used = torch.bincount(nearest, minlength=len(centres)) > 0
        centres = torch.where(is_used[:, None], functional.normalize(sums, dim=-1), centres)
    return Prototypes(centres).eval()
