"""Teacher features of nominal images, computed once and kept in memory for fitting.

Knows nothing about students or thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch

from fbft_calibration.data.nominal import NominalImage
from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.detectors.host import native_precision
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.frames.frame import Bool, Uint8
from fbft_edge.progress import SILENT, Progress
from fbft_export.graph import PatchDistanceModel

_MAX_CACHE_BYTES = 2 << 30


def native_autocast() -> AbstractContextManager[None]:
    """bf16 matrix products where the CPU has them, float32 elsewhere."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=native_precision() == "bf16")


def teacher_features(
    model: PatchDistanceModel,
    images: Sequence[NominalImage],
    geometry: TileGeometry,
    seed: int,
    progress: Progress = SILENT,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of the images' patches; beyond 2 GiB an equal random share of each image.

    Returns:
        f_j and f_k, each (patches, embed_dim) bfloat16, matching rows.
    """
    generator = np.random.default_rng(seed)
    per_image = _MAX_CACHE_BYTES // (len(images) * 2 * 2 * model.teacher.embed_dim)
    parts = []
    plans: dict[tuple[int, int], TilePlan] = {}
    for image in progress.track(images, "teacher features"):
        plan = plans.setdefault(image.size, TilePlan(geometry, *image.size))
        parts.append(_image_features(model, cut_tiles(plan, image.read()), on_frame(plan), per_image, generator))
    return torch.cat([f_j for f_j, _ in parts]), torch.cat([f_k for _, f_k in parts])


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


def _image_features(
    model: PatchDistanceModel, tiles: Uint8, keep: Bool, most: int, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    chosen = np.flatnonzero(keep)
    if len(chosen) > most:
        chosen = np.sort(generator.choice(chosen, most, replace=False))
    with torch.inference_mode(), native_autocast():
        pairs = [model.features(torch.from_numpy(tile[None])) for tile in tiles]
    rows = torch.from_numpy(chosen)
    f_j, f_k = (torch.cat([pair[side].flatten(0, 1) for pair in pairs])[rows] for side in (0, 1))
    return f_j.bfloat16(), f_k.bfloat16()
