"""Connected components of masks, with the histogram bins of their pixels; small enough to keep for a whole data set.

Knows nothing about scores, images or figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import cv2
import numpy as np
from numpy.typing import NDArray

from fbft_calibration.metrics.curves import Float64, Int64
from fbft_edge.frames.frame import Bool

MOST_KEPT = 16_384

Int32 = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Components:
    """Connected components (8 neighbours) of the ground truth of one image, or of many.

    Attributes:
        area: (components,) int64 pixels.
        is_found: (components,) bool, the detector's mask touches it.
        image: (components,) int64 index of its image.
        kept: (components,) int64, how many of its pixels `bins` holds: all, or `MOST_KEPT` at equidistant ranks.
        bins: (sum of kept,) int32 bins of the pixels' map values, component after component, rising in each.
    """

    area: Int64
    is_found: Bool
    image: Int64
    kept: Int64
    bins: Int32

    def __len__(self) -> int:
        return len(self.area)

    @property
    def diameter_px(self) -> Float64:
        """(components,) float64 diameters of discs of the components' areas."""
        return disc_diameter(self.area)

    def overlap(self, chosen: Bool, num_bins: int) -> Float64:
        """(num_bins,) float64: share of a component's pixels in each bin, averaged over the chosen components."""
        weights = np.repeat(chosen / (self.kept * chosen.sum()), self.kept)
        return np.asarray(np.bincount(self.bins, weights, minlength=num_bins), np.float64)

    def thinning_error(self, chosen: Bool) -> float:
        """The most by which thinning moves the mean share of the chosen components above any threshold."""
        return float((self.area > self.kept)[chosen].mean()) / (2 * MOST_KEPT)


def components_of(truth: Bool, bins: Int32, mask: Bool, image: int) -> Components:
    """Take the components of one image's ground truth.

    Args:
        truth: (height, width) bool.
        bins: (height, width) int32 histogram bins of the map values, not negative.
        mask: (height, width) bool, the detector's.
        image: Index of the image.
    """
    count, labels = cv2.connectedComponents(np.ascontiguousarray(truth).view(np.uint8), connectivity=8)
    owner = labels[truth].astype(np.int64) - 1
    area = np.bincount(owner, minlength=count - 1)
    is_found = np.bincount(owner[mask[truth]], minlength=count - 1) > 0
    keys = (owner << 32) | bins[truth]
    keys.sort()
    kept, thin = _thinned((keys & 0xFFFFFFFF).astype(np.int32), area)
    return Components(area, is_found, np.full(len(area), image, np.int64), kept, thin)


def joined(parts: Sequence[Components]) -> Components:
    """Components of many images as one."""
    empty = np.zeros(0, np.int64)
    whole = [Components(empty, empty.astype(np.bool_), empty, empty, empty.astype(np.int32)), *parts]
    return Components(*(np.concatenate([getattr(part, name.name) for part in whole]) for name in fields(Components)))


def untouched_areas(mask: Bool, truth: Bool) -> Int64:
    """(regions,) int64 areas of the mask's components (8 neighbours) that touch no pixel of the truth."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        np.ascontiguousarray(mask).view(np.uint8), connectivity=8
    )
    untouched = np.ones(count, np.bool_)
    untouched[0] = False
    untouched[labels[truth]] = False
    return np.asarray(stats[untouched, cv2.CC_STAT_AREA], np.int64)


def disc_diameter(area: Int64) -> Float64:
    """Diameters of discs of the same areas."""
    return np.asarray(np.sqrt(area * (4 / np.pi)), np.float64)


def _thinned(bins: Int32, area: Int64) -> tuple[Int64, Int32]:
    """How many pixels are kept of each component, and which: the middles of `MOST_KEPT` equal shares of its ranks."""
    if not (area > MOST_KEPT).any():
        return area, bins
    middles = 2 * np.arange(MOST_KEPT, dtype=np.int64) + 1
    parts = [
        part if len(part) <= MOST_KEPT else part[middles * len(part) // (2 * MOST_KEPT)]
        for part in np.split(bins, np.cumsum(area)[:-1])
    ]
    return np.minimum(area, MOST_KEPT), np.concatenate(parts)
