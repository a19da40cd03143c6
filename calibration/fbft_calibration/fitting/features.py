"""A nominal image's tiles in, the teacher's features of its patches out.

Knows nothing about students or thresholds, and keeps nothing; `feature_cache` does.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import numpy as np
import torch

from fbft_edge.detectors.host import native_precision
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.frames.frame import Bool, Uint8
from fbft_export.graph import PatchDistanceModel


def native_autocast() -> AbstractContextManager[None]:
    """bf16 matrix products where the CPU has them, float32 elsewhere."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=native_precision() == "bf16")


def image_features(model: PatchDistanceModel, plan: TilePlan, pixels: Uint8) -> torch.Tensor:
    """The teacher's features of the patches that lie on the frame.

    Args:
        model: Its teacher.
        plan: Of the image's size.
        pixels: (height, width, 3) uint8 RGB.

    Returns:
        (2, patches, embed_dim) bfloat16: f_j, then f_k, rows in the order of `on_frame`.
    """
    tiles = cut_tiles(plan, pixels)
    with torch.inference_mode(), native_autocast():
        pairs = [model.features(torch.from_numpy(tile[None])) for tile in tiles]
    rows = torch.from_numpy(np.flatnonzero(on_frame(plan)))
    return torch.stack([torch.cat([pair[side].flatten(0, 1) for pair in pairs])[rows].bfloat16() for side in (0, 1)])


def cut_tiles(plan: TilePlan, pixels: Uint8) -> Uint8:
    """(num_tiles, tile_px, tile_px, 3) uint8 tiles of one image, owned by the caller."""
    side = plan.geometry.tile_px
    tiles = np.empty((plan.num_tiles, side, side, 3), np.uint8)
    plan.cut(pixels, tiles)
    return tiles


def on_frame(plan: TilePlan) -> Bool:
    """(num_tiles, patches) bool: which patches of each tile lie on the frame rather than on its padding."""
    side, patch_px = plan.geometry.tile_patches, plan.geometry.patch_px
    rows, columns = plan.grid
    offsets = np.arange(side)
    return np.stack(
        [
            np.logical_and.outer(top // patch_px + offsets < rows, left // patch_px + offsets < columns).ravel()
            for top, left in plan.origins_px()
        ]
    )
