"""From an anomaly map to score, mask, regions and whether they are anomalous: `judge`, one for every detector.

A pixel threshold that no nominal image passes lies near the peak of most defects: what exceeds it says where they are,
but hardly how large. Regions are therefore drawn out to half of the frame's peak, the width at which a blurred spot is
usually measured, but not into what nominal images reach, too. A defect far above the threshold ends at the threshold.

Knows nothing about how the map was made.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np

from fbft_edge.bundle.manifest import Thresholds
from fbft_edge.bundle.notes import LEAST_OF_NOMINAL
from fbft_edge.errors import MapError
from fbft_edge.frames.frame import MAX_REGIONS, Bool, DecidedBy, Detection, Float32, Region
from fbft_edge.frames.pixel_format import Window

TOP_FRACTION = 0.001
OUTLINE_OF_PEAK = 0.5
MapOfWindow = Callable[[Window], Float32]
PeakAt = Callable[[], tuple[int, int]]
Sharpen = Callable[[Bool, MapOfWindow], Bool]
_SAMPLE_STRIDE = 16
_FIRST_REACH_PX = 32


def judge(
    score: float,
    peak: float,
    size: tuple[int, int],
    flagged: Callable[[], Bool],
    map_of: MapOfWindow,
    peak_at: PeakAt,
    thresholds: Thresholds,
    sharpen: Sharpen | None = None,
) -> Detection:
    """What a map says about its frame: flagged where it exceeds the pixel threshold, outlined, sharpened, in regions.

    Wherever the map lies, only what is needed of it is asked for: nothing while nothing is flagged.

    Args:
        score: `image_score` of the map.
        peak: Its largest value.
        size: (height, width) of the map.
        flagged: Makes the mask of `is_flagged`, (height, width) bool; not called where the peak is not flagged.
        map_of: The map of a window, (rows, columns) float32; asked for around what is flagged.
        peak_at: Where the largest value lies, x and y; not called where the peak is flagged, as the map there says it.
        thresholds: Where `ok` ends.
        sharpen: Redraws a mask that is not empty, given the map of windows; the verdict stays as it is.

    Returns:
        Its arrays are its own, unless `flagged` or `sharpen` keeps them.

    Raises:
        MapError: Score or peak is not a number, so that no verdict can stand on the map.
    """
    require_numbers(score, peak)
    decided = decided_by(score, peak, thresholds)
    is_bad = decided is not None
    if not is_flagged(peak, thresholds):
        return Detection(score, peak, np.zeros(size, np.bool_), (), is_bad, peak_xy=peak_at(), decided_by=decided)
    mask = flagged()
    peak_xy = peak_in(map_of, bounding_window(mask))
    mask = outlined(mask, peak, thresholds, map_of)
    if sharpen is not None:
        mask = sharpen(mask, map_of)
    window = bounding_window(mask)
    regions = find_regions(np.ascontiguousarray(mask[window.part]), map_of(window), (window.left, window.top))
    return Detection(score, peak, mask, regions, is_bad, peak_xy=peak_xy, decided_by=decided)


def judge_map(anomaly_map: Float32, thresholds: Thresholds, sharpen: Sharpen | None = None) -> Detection:
    """`judge` of a map that is at hand as a whole.

    Args:
        anomaly_map: (height, width) float32.
        thresholds: See `judge`.
        sharpen: See `judge`.

    Raises:
        MapError: The map holds values that are not numbers, on which no verdict can stand.
    """
    peak = float(anomaly_map.max())
    require_numbers(peak, float(anomaly_map.min()))

    def flagged() -> Bool:
        return np.asarray(is_flagged(anomaly_map, thresholds))

    def map_of(window: Window) -> Float32:
        found: Float32 = anomaly_map[window.part]
        return found

    height, width = anomaly_map.shape

    def peak_at() -> tuple[int, int]:
        return peak_in(map_of, Window(0, 0, height, width))

    return judge(image_score(anomaly_map), peak, (height, width), flagged, map_of, peak_at, thresholds, sharpen)


def peak_in(map_of: MapOfWindow, window: Window) -> tuple[int, int]:
    """Where in the frame the largest map value of a window lies, x and y; of equal ones the first in reading order."""
    row, column = divmod(int(map_of(window).argmax()), window.right - window.left)
    return window.left + column, window.top + row


def is_anomalous(score: float, peak: float, thresholds: Thresholds) -> bool:
    """The verdict of a map with this score and this largest value."""
    return decided_by(score, peak, thresholds) is not None


def decided_by(score: float, peak: float, thresholds: Thresholds) -> DecidedBy | None:
    """Which threshold makes a map with this score and this largest value anomalous; None when none does."""
    by_pixel = bool(is_flagged(peak, thresholds))
    if score > thresholds.image:
        return "both" if by_pixel else "image"
    return "pixel" if by_pixel else None


def is_flagged(value: float | Float32, thresholds: Thresholds) -> Bool | np.bool_:
    """Whether map values exceed the pixel threshold; compared as float32, for maps and their peaks are."""
    found: Bool | np.bool_ = np.asarray(value, np.float32) > np.float32(thresholds.pixel)
    return found


def require_numbers(*values: float) -> None:
    """Accept what was found in a map: its score, its extremes.

    Raises:
        MapError: One is not a number or not finite, so that no verdict can stand on the map.
    """
    if not all(map(math.isfinite, values)):
        raise MapError("the engine's map holds values that are not numbers; export again with --precision f32")


def require_plausible(score: float, peak: float, least_score: float) -> None:
    """Accept the score and peak of a frame that an engine may have seen.

    Args:
        score: Of the frame.
        peak: Largest value of its map.
        least_score: `fbft_edge.bundle.notes.Notes.least_score`.

    Raises:
        MapError: The score lies far below that of every nominal image, so that no verdict can stand on it.
    """
    if score < least_score or peak < 0:
        raise MapError(
            f"the engine says score {score:.4g} and peak {peak:.4g}, calibration never saw less than "
            f"{least_score / LEAST_OF_NOMINAL:.4g}, and below {least_score:.4g} no verdict is believed; start again, "
            "and when it lasts export the bundle again and run fbft-edge doctor"
        )


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


def outline_level(peak: float, thresholds: Thresholds) -> float:
    """The map value down to which flagged regions reach: half of the frame's peak, within the thresholds.

    Args:
        peak: Largest value of the frame's map.
        thresholds: `pixel` is the most; `outline` the least, and where there is none nothing reaches out.
    """
    if thresholds.outline is None:
        return thresholds.pixel
    return min(thresholds.pixel, max(thresholds.outline, OUTLINE_OF_PEAK * peak))


def outlined(flagged: Bool, peak: float, thresholds: Thresholds, map_of: MapOfWindow) -> Bool:
    """Flagged pixels, and those around them, connected to them (8 neighbours), where the map exceeds `outline_level`.

    Args:
        flagged: (height, width) bool, where the map exceeds the pixel threshold.
        peak: Largest value of the frame's map.
        thresholds: See `outline_level`.
        map_of: The anomaly map of a window, (rows, columns) float32; asked for around what is flagged, further out
            as far as the regions reach, and not at all where they reach no further than the pixel threshold.

    Returns:
        (height, width) bool; `flagged` itself where nothing is to be added.
    """
    level = outline_level(peak, thresholds)
    if level >= thresholds.pixel or not flagged.any():
        return flagged
    found = np.zeros(flagged.shape, np.bool_)
    box, reach_px = bounding_window(flagged), _FIRST_REACH_PX
    while True:
        window = _widened(box, reach_px, flagged.shape)
        near = flagged[window.part]
        part = parts_that_touch((map_of(window) > level) | near, near)
        if not _goes_on(part, window, flagged.shape):
            found[window.part] = part
            return found
        reach_px *= 2


def bounding_window(mask: Bool) -> Window:
    """The smallest window around what a mask holds, at least one pixel."""
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    return Window(top, left, top + max(height, 1), left + max(width, 1))


def parts_that_touch(parts: Bool, others: Bool) -> Bool:
    """Connected components (8 neighbours) of `parts` with a pixel in `others`; `parts` itself when all have."""
    count, labels = cv2.connectedComponents(parts.view(np.uint8), connectivity=8)
    kept = np.zeros(count, np.bool_)
    kept[labels[parts & others]] = True
    return parts if kept[1:].all() else np.asarray(kept[labels], np.bool_)


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
    # Through the sum of positions, a whole number, so that a part of a frame gives the frame's centroid bit for bit.
    x, y = ((round(mean * area) + area * start) / area for mean, start in zip(centroid, origin_xy, strict=True))
    return Region(box_xyxy=(left, top, left + width, top + height), area_px=area, peak=peak, centroid_xy=(x, y))


def _widened(box: Window, reach_px: int, shape: tuple[int, int]) -> Window:
    top, left = max(box.top - reach_px, 0), max(box.left - reach_px, 0)
    return Window(top, left, min(box.bottom + reach_px, shape[0]), min(box.right + reach_px, shape[1]))


def _goes_on(part: Bool, window: Window, shape: tuple[int, int]) -> bool:
    """Whether what was found in a window reaches a side of it beyond which the frame goes on."""
    sides = (
        (window.top > 0, part[0]),
        (window.left > 0, part[:, 0]),
        (window.bottom < shape[0], part[-1]),
        (window.right < shape[1], part[:, -1]),
    )
    return any(is_inside and bool(side.any()) for is_inside, side in sides)
