"""How well one binary mask fits another: IoU, Dice and boundary F-score.

Definitions: IoU |A and B| / |A or B|, Dice 2 |A and B| / (|A| + |B|), boundary F the harmonic mean of the shares of
either outline that lie within a tolerance of the other's (Csurka et al., "What is a good evaluation measure for
semantic segmentation?", BMVC 2013; the tolerance is theirs). Knows nothing about detectors or data sets.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from fbft_edge.frames.frame import Bool, Float32

BOUNDARY_TOLERANCE = 0.0075  # of the image's diagonal


@dataclass(frozen=True, slots=True)
class MaskFit:
    """Each in [0, 1]; 1 where the masks are equal, empty ones too.

    Attributes:
        iou: Intersection over union.
        dice: Dice coefficient, the F-score of pixels.
        boundary_f: F-score of the outlines.
    """

    iou: float
    dice: float
    boundary_f: float


def mask_fit(found: Bool, truth: Bool) -> MaskFit:
    """How well a mask fits the truth.

    Args:
        found: (height, width) bool.
        truth: (height, width) bool.
    """
    if np.array_equal(found, truth):
        return MaskFit(1.0, 1.0, 1.0)
    both, either = int(np.count_nonzero(found & truth)), int(np.count_nonzero(found | truth))
    return MaskFit(both / either, 2 * both / (both + either), _boundary_f(found, truth))


def _boundary_f(found: Bool, truth: Bool) -> float:
    tolerance = BOUNDARY_TOLERANCE * float(np.hypot(*truth.shape))
    outlines = [_outline(mask) for mask in (found, truth)]
    if not all(outline.any() for outline in outlines):
        return 0.0
    precision = float((_distance_to(outlines[1])[outlines[0]] <= tolerance).mean())
    recall = float((_distance_to(outlines[0])[outlines[1]] <= tolerance).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _outline(mask: Bool) -> Bool:
    """Pixels of a mask with a neighbour (of 4) outside it; the image's border is not outside."""
    levels = np.pad(mask.astype(np.uint8), 1, mode="edge")
    inner = cv2.erode(levels, cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3)))[1:-1, 1:-1]
    return np.asarray(mask & (inner == 0))


def _distance_to(outline: Bool) -> Float32:
    return np.asarray(cv2.distanceTransform((~outline).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)
