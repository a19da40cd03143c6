"""A bundle as a detector to refine: its engine for the map, its teacher and students in torch for the energy.

Knows nothing about how masks are refined.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from fbft_calibration.fitting.features import native_autocast
from fbft_edge.bundle.reading import PROTOTYPES, STUDENTS, Bundle
from fbft_edge.closeable import Closeable
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.judge import require_numbers
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.detectors.sharpener import LEAST_THRESHOLD
from fbft_edge.errors import TeacherError
from fbft_edge.frames.frame import Detection, Float32, Uint8
from fbft_edge.frames.pixel_format import layout_of
from fbft_export.graph import PatchDistanceModel
from fbft_export.prototypes import load_prototypes
from fbft_export.students import load_students
from fbft_export.teacher import load_teacher

MOST_TILES = 16


class BundleDetector(Closeable):
    """See `fbft_calibration.refinement.detector.RefinableDetector`. The energy is the sum of patch distances.

    Args:
        bundle: With thresholds.
        weights: Local teacher weights, or None for the teacher's own.

    Raises:
        BundleError: The bundle has no thresholds, or prototypes of another patch distance.
        TeacherError: The teacher cannot be had, or its weights are not those that the bundle was fitted with.
    """

    def __init__(self, bundle: Bundle, weights: Path | None = None) -> None:
        self._threshold = max(bundle.require_thresholds().pixel, LEAST_THRESHOLD)
        self._geometry = bundle.tile
        self._model = _model_of(bundle, weights)
        self._detectors = DetectorPool(partial(OpenVinoDetector, bundle))

    def patch_px(self, height: int, width: int) -> float:
        """See `RefinableDetector`."""
        return self._geometry.patch_px / self._geometry.scale

    def relative_map(self, pixels: Uint8) -> Float32:
        """See `RefinableDetector`."""
        return self.relative(self.map_of(pixels))

    def map_of(self, pixels: Uint8) -> Float32:
        """The engine's anomaly map, (height, width) float32, owned by the caller.

        Raises:
            MapError: It holds values that are not numbers.
        """
        found = np.array(self._detectors.of(layout_of(pixels)).map_of(pixels), np.float32)
        require_numbers(float(found.min()), float(found.max()))
        return found

    def relative(self, anomaly_map: Float32) -> Float32:
        """A map in units of the pixel threshold, as `relative_map` has it."""
        return np.asarray(anomaly_map / self._threshold, np.float32)

    def detect(self, pixels: Uint8) -> Detection:
        """What the engine says about a picture before refinement, with its map.

        Raises:
            MapError: The map holds values that are not numbers.
        """
        anomaly_map = self.map_of(pixels)
        detector = self._detectors.of(layout_of(pixels))
        return replace(detector.judge(anomaly_map), anomaly_map=anomaly_map)

    def energy(self, image: torch.Tensor, weights: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """See `RefinableDetector`. Only tiles with weights are inferred, on a grid drawn anew."""
        scale, side, patch = self._geometry.scale, self._geometry.tile_px, self._geometry.patch_px
        if scale != 1:
            size = [max(patch, round(length * scale)) for length in weights.shape]
            image = functional.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
            weights = functional.interpolate(weights[None, None], size, mode="area")[0, 0]
        shift = torch.randint(0, patch, (2,), generator=generator).tolist()
        image = functional.pad(image[None], (side,) * 4, mode="replicate")[0]
        weights = functional.pad(weights, (side,) * 4)
        corners = _corners(weights, side, patch, shift)
        tiles = torch.stack([image[:, top : top + side, left : left + side] for top, left in corners])
        shares = torch.stack([weights[top : top + side, left : left + side] for top, left in corners])
        with native_autocast():
            distances = self._distances(tiles.permute(0, 2, 3, 1) * 255)
        return torch.as_tensor((distances * functional.avg_pool2d(shares[:, None], patch)[:, 0]).sum())

    def _distances(self, tiles: torch.Tensor) -> torch.Tensor:
        """Patch distances; beyond `MOST_TILES` activations are computed again on the way back instead of being kept."""
        if len(tiles) <= MOST_TILES:
            return torch.as_tensor(self._model(tiles))
        starts = range(0, len(tiles), MOST_TILES)
        parts = [checkpoint(self._model, tiles[start : start + MOST_TILES], use_reentrant=False) for start in starts]
        return torch.cat(parts)

    def close(self) -> None:
        """Give the engines' memory back."""
        self._detectors.close()


def _corners(weights: torch.Tensor, side: int, patch: int, shift: list[int]) -> list[tuple[int, int]]:
    """(top, left) of the tiles that hold a weight, on a grid around all of them, moved by `shift` px."""
    starts = []
    for axis, moved in enumerate(shift):
        used = torch.nonzero(weights.amax(dim=1 - axis) > 0)
        first, stop = int(used[0]), int(used[-1]) + 1
        count = -(-(stop - first + patch) // side)
        start = (first + stop - count * side - patch) // 2 + moved
        most = weights.shape[axis] - side
        starts.append([min(max(start + index * side, 0), most) for index in range(count)])
    corners = [(top, left) for top in starts[0] for left in starts[1]]
    return [(top, left) for top, left in corners if weights[top : top + side, left : left + side].any()]


def _model_of(bundle: Bundle, weights: Path | None) -> PatchDistanceModel:
    teacher = load_teacher(
        bundle.teacher.name, tile_px=bundle.tile.tile_px, blocks=bundle.teacher.blocks, weights=weights
    )
    if teacher.weights_sha256 != bundle.teacher.weights_sha256:
        raise TeacherError(
            f"the weights of {teacher.name} at hand ({teacher.weights_sha256[:12]}) are not those that {bundle.path} "
            f"was fitted with ({bundle.teacher.weights_sha256[:12]}); name their file with --weights"
        )
    prototypes = load_prototypes(bundle.file(PROTOTYPES)) if PROTOTYPES in bundle.files else None
    model = PatchDistanceModel(teacher, load_students(bundle.file(STUDENTS)), prototypes)
    return model.requires_grad_(False)
