"""What a fit is told. Knows nothing about how it is done."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fbft_calibration.fitting.students import FitSettings
from fbft_export.teacher import OFFLINE_TEACHER


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """What `fit` is told.

    Attributes:
        teacher: Name of the teacher.
        weights: Local weights, or None for the teacher's own.
        blocks: (j, k), or None for the teacher's own.
        scale: `1` for native pixels, a factor, or `518px` for the longer side.
        tile_px: Side of a tile, or None for the cheapest for the frame size.
        overlap_patches: Least overlap of neighbouring tiles.
        held_out: Fraction of the images that thresholds are found on.
        false_alarm_rate: Asked of the thresholds.
        precision: Of the OpenVINO engine; None is the machine's own.
        mixed_sizes: Use nominal images of every size.
        students: How they are fitted.
        prototypes: Most nominal prototypes; 0 for none, and the paper's patch distance.
    """

    teacher: str = OFFLINE_TEACHER
    weights: Path | None = None
    blocks: tuple[int, int] | None = None
    scale: str = "1"
    tile_px: int | None = None
    overlap_patches: int = 1
    held_out: float = 1 / 3
    false_alarm_rate: float = 0.01
    precision: str | None = None
    mixed_sizes: bool = False
    students: FitSettings = field(default_factory=FitSettings)
    prototypes: int = 1024
