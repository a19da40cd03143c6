"""The sizes of nominal images and what a fit is told in; the teacher and how frames are cut into its tiles out.

Knows nothing about students or thresholds.
"""

from __future__ import annotations

from fbft_calibration.data.nominal import NominalSet
from fbft_calibration.fitting.settings import BundleSettings
from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.detectors.tiling import LEAST_TILE_PATCHES, TilePlan, best_tile_px, patch_grid
from fbft_edge.errors import ArgumentError
from fbft_edge.names import size_text
from fbft_edge.progress import Progress
from fbft_export.teacher import Teacher, load_teacher

_PROBE_TILE_PX = 224  # a multiple of every patch size from 7 to 32 that ViTs have


def teacher_and_geometry(
    nominal: NominalSet, settings: BundleSettings, progress: Progress
) -> tuple[Teacher, TileGeometry]:
    """The teacher, with its weights, and how frames of the most common size are cut for it.

    Raises:
        ArgumentError: Scale, tile or overlap do not fit the frames.
        TeacherError: The teacher cannot be had.
    """
    height, width = nominal.sizes[0]
    scale = scale_factor(settings.scale, height, width)
    # The patch size is the teacher's; a probe without weights tells it before the tile size is chosen.
    tile_px = _PROBE_TILE_PX if settings.tile_px is None else settings.tile_px
    probe = load_teacher(settings.teacher, tile_px=tile_px, blocks=settings.blocks, pretrained=False)
    grid = patch_grid((round(height * scale), round(width * scale)), probe.patch_px)
    if min(grid) < 2:
        raise ArgumentError(
            f"--scale {settings.scale} leaves {grid[1]}x{grid[0]} patches of {probe.patch_px} px; "
            "choose a larger scale, down to two patches a side"
        )
    most = (LEAST_TILE_PATCHES if settings.tile_px is None else tile_px // probe.patch_px) // 2
    if not 0 <= settings.overlap_patches <= most:
        raise ArgumentError(f"--overlap {settings.overlap_patches} does not fit; choose 0 to {most} patches")
    if settings.tile_px is None:
        tile_px = best_tile_px(grid, probe.patch_px, settings.overlap_patches, probe.embed_dim)
    geometry = TileGeometry(tile_px, probe.patch_px, settings.overlap_patches, scale)
    plan = TilePlan(geometry, height, width)
    progress.say(
        f"frames of {size_text((height, width))}, scale {scale:.4g}, {plan.num_tiles} tiles of {tile_px} px, "
        f"patch grid {plan.grid[1]}x{plan.grid[0]}"
    )
    return (
        load_teacher(settings.teacher, tile_px=tile_px, blocks=settings.blocks, weights=settings.weights),
        geometry,
    )


def scale_factor(scale: str, height: int, width: int) -> float:
    """`0.5` as it is; `518px` as the factor that brings the longer side there.

    Raises:
        ArgumentError: Neither.
    """
    try:
        factor = float(scale[:-2]) / max(height, width) if scale.endswith("px") else float(scale)
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 4:
        raise ArgumentError(f"--scale {scale!r} is neither a factor in (0, 4] nor a length such as 518px")
    return factor
