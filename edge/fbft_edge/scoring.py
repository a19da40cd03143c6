"""From an anomaly map to score, mask and regions.

Knows nothing about how the map was made.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from fbft_edge.errors import MapError
from fbft_edge.frame import Bool, Float32, Region

TOP_FRACTION = 0.001
MAX_REGIONS = 256
_SAMPLE_STRIDE = 16


def require_numbers(*values: float) -> None:
    """Accept what was found in a map: its score, its extremes.

    Raises:
        MapError: One is not a number or not finite, so that no verdict can stand on the map.
    """
    if not all(map(math.isfinite, values)):
        raise MapError("the engine's map holds values that are not numbers; export again with --precision f32")


def image_score(anomaly_map: Float32) -> float:
    """Mean of the top 0.1 % of the map's pixels, at least one of them.

    Args:
        anomaly_map: (height, width) float32.
    """
    flat = anomaly_map.reshape(-1)
    count = max(1, int(flat.size * TOP_FRACTION))
    candidates = _candidates(flat, count)
    return float(np.partition(candidates, candidates.size - count)[-count:].mean(dtype=np.float64))


def _candidates(flat: Float32, count: int) -> Float32:
    """Values that certainly include the `count` largest: those above a bound guessed from a sample."""
    sample = flat[::_SAMPLE_STRIDE]
    rank = min(sample.size, 2 * count // _SAMPLE_STRIDE + 16)
    bound = np.partition(sample, sample.size - rank)[-rank]
    candidates = flat[flat >= bound]
    return candidates if candidates.size >= count else flat


def find_regions(mask: Bool, anomaly_map: Float32, origin_xy: tuple[int, int] = (0, 0)) -> tuple[Region, ...]:
    """Connected components (8 neighbours) of a mask, the largest peaks first.

    Args:
        mask: (height, width) bool.
        anomaly_map: (height, width) float32, for the peaks.
        origin_xy: Where in the frame both begin, when they are a part of it.

    Returns:
        At most `MAX_REGIONS` regions.
    """
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=8)
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, np.asarray(labels[mask], np.intp), anomaly_map[mask])
    order = np.argsort(-peaks[1:], kind="stable")[:MAX_REGIONS] + 1
    return tuple(_region(stats[label], centroids[label], float(peaks[label]), origin_xy) for label in order)


def _region(stat: np.ndarray, centroid: np.ndarray, peak: float, origin_xy: tuple[int, int]) -> Region:
    left, top, width, height, area = (int(value) for value in stat)
    left, top = left + origin_xy[0], top + origin_xy[1]
    return Region(
        box_xyxy=(left, top, left + width, top + height),
        area_px=area,
        peak=peak,
        centroid_xy=(float(centroid[0]) + origin_xy[0], float(centroid[1]) + origin_xy[1]),
    )
