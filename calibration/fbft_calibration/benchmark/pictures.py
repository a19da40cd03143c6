"""Test images and what was found in them in, the few strips of panels that a report shows out.

True defects are outlined in blue, what was found in amber; both lines lie just outside their pixels. Knows nothing
about figures or pages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from fbft_calibration.benchmark.result import InspectedImage, Picture
from fbft_edge.detectors.judge import find_regions
from fbft_edge.frames.drawing import heat
from fbft_edge.frames.frame import Bool, Detection, Float32, Region, Uint8
from fbft_edge.frames.images import write_image

HARDEST = "Defects that were hardest to find"
SUSPICIOUS = "Good parts that look most suspicious"
CLEAREST = "Defects that stand out most"
PANELS = ("whole picture", "close-up", "close-up with outlines", "anomaly map of the close-up")

_PANEL_PX = 300
_GAP_PX = 6
_LEAST_WINDOW_PX = 64
_LEAST_SCALE = 1e-12
_BLUE = (70, 140, 255)
_AMBER = (255, 176, 0)
_DARK = (12, 12, 14)
_WHITE = (255, 255, 255)

_Rank = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """A square part of a picture that may reach beyond its edges; left, top and side in its pixels."""

    left: int
    top: int
    side: int


@dataclass(slots=True)
class Album:
    """Keeps the strips of the few images that a report shows, however many it is offered.

    Attributes:
        full_scale: Map value of the brightest colour; None takes each picture's own peak.
        num_each: Strips in a group.
    """

    full_scale: float | None
    num_each: int = 3
    _kept: dict[str, list[tuple[_Rank, str, Uint8]]] = field(default_factory=dict)
    _count: int = 0

    def offer(
        self, pixels: Uint8, truth: Bool | None, detection: Detection, anomaly_map: Float32, image: InspectedImage
    ) -> None:
        """Take one image in where it is among the few.

        Args:
            pixels: (height, width, 3) uint8 RGB.
            truth: (height, width) bool, True where a defect is; None where the data set has no mask.
            detection: What was found.
            anomaly_map: (height, width) float32.
            image: What was said about it.
        """
        self._count += 1
        chosen = [
            (group, (*rank, -self._count)) for group, rank in _ranks(image) if self._is_among_the_few(group, rank)
        ]
        if chosen:
            full_scale = self.full_scale or max(detection.peak, _LEAST_SCALE)
            for group, rank in chosen:
                strip = picture_strip(pixels, truth, detection, anomaly_map, full_scale, shows_found=group == CLEAREST)
                kept = [*self._kept.get(group, []), (rank, _caption(image), strip)]
                self._kept[group] = sorted(kept, key=lambda entry: entry[0], reverse=True)[: self.num_each]

    def write(self, folder: Path, root: Path) -> tuple[Picture, ...]:
        """Write the strips as JPEG files into a folder below `root`, the most telling of each group first."""
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.jpg"):
            old.unlink()
        return tuple(self._written(folder, root))

    def _written(self, folder: Path, root: Path) -> Iterator[Picture]:
        shown: set[str] = set()
        for number, group in enumerate((HARDEST, SUSPICIOUS, CLEAREST), start=1):
            for place, (_, caption, strip) in enumerate(self._kept.get(group, []), start=1):
                if caption in shown:  # where few images are defective, the clearest are among the hardest
                    continue
                shown.add(caption)
                path = folder / f"{number}-{place}.jpg"
                write_image(path, strip)
                yield Picture(path.relative_to(root).as_posix(), group, caption)

    def _is_among_the_few(self, group: str, rank: _Rank) -> bool:
        kept = self._kept.get(group, [])
        return len(kept) < self.num_each or rank > kept[-1][0][: len(rank)]


def _ranks(image: InspectedImage) -> Iterator[tuple[str, _Rank]]:
    """Groups that an image can belong to, and how much it tells there."""
    if image.is_defective:
        located = 0.5 if image.is_located is None else float(image.is_located)
        found = float(image.is_flagged or False), located, image.score
        yield HARDEST, tuple(-value for value in found)
        yield CLEAREST, found
    else:
        yield SUSPICIOUS, (float(image.is_flagged or False), image.score)


def _caption(image: InspectedImage) -> str:
    return f"{image.file}: {verdict_in_words(image)}, score {image.score:.4g}"


def verdict_in_words(image: InspectedImage) -> str:
    """What the detector's verdict on an image is worth."""
    if image.is_flagged is None:
        return "no verdict"
    if not image.is_defective:
        return "false alarm" if image.is_flagged else "passed"
    if not image.is_flagged:
        return "missed"
    if image.is_located is None:
        return "flagged, no mask to say where"
    return "found" if image.is_located else "flagged, but not at the defect"


def picture_strip(
    pixels: Uint8,
    truth: Bool | None,
    detection: Detection,
    anomaly_map: Float32,
    full_scale: float,
    *,
    shows_found: bool = False,
) -> Uint8:
    """The panels of one image side by side, as `PANELS` names them.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        truth: (height, width) bool; None where the data set has no mask.
        detection: What was found.
        anomaly_map: (height, width) float32.
        full_scale: Map value of the brightest colour, above 0.
        shows_found: The close-up is of the largest defect that was touched, if there is one, rather than of what was
            not.

    Returns:
        (300, 1218, 3) uint8 RGB.
    """
    height, width = pixels.shape[:2]
    side = max(height, width)
    whole = Window((width - side) // 2, (height - side) // 2, side)
    window = _telling_window(truth, detection, anomaly_map, shows_found=shows_found)
    panels = [
        _framed(_marked(pixels, truth, detection.mask, whole), whole, window),
        _panel(pixels, window),
        _marked(pixels, truth, detection.mask, window),
        _panel(heat(pixels, anomaly_map, full_scale), window),
    ]
    gap = np.full((_PANEL_PX, _GAP_PX, 3), 255, np.uint8)
    parts = [part for panel in panels for part in (panel, gap)][:-1]
    return np.concatenate(parts, axis=1)


def _telling_window(truth: Bool | None, detection: Detection, anomaly_map: Float32, *, shows_found: bool) -> Window:
    """Around the largest true defect that was not touched, else the smallest that was, else the map's peak."""
    defects = find_regions(truth, anomaly_map) if truth is not None else ()
    untouched = [region for region in defects if not _touches(detection.mask, truth, region)]
    touched = [region for region in defects if region not in untouched]
    if shows_found and touched:
        return _around(max(touched, key=_area), anomaly_map.shape)
    if untouched:
        return _around(max(untouched, key=_area), anomaly_map.shape)
    if defects:
        return _around(min(defects, key=_area), anomaly_map.shape)
    if detection.regions:
        return _around(detection.regions[0], anomaly_map.shape)
    y, x = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
    at = Region((int(x), int(y), int(x) + 1, int(y) + 1), 1, detection.peak, (float(x), float(y)))
    return _around(at, anomaly_map.shape)


def _area(region: Region) -> int:
    return region.area_px


def _touches(mask: Bool, truth: Bool | None, region: Region) -> bool:
    left, top, right, bottom = region.box_xyxy
    inside = slice(top, bottom), slice(left, right)
    return truth is not None and bool((mask[inside] & truth[inside]).any())


def _around(region: Region, shape: Sequence[int]) -> Window:
    """Twice as wide as the region, inside the picture where it fits."""
    left, top, right, bottom = region.box_xyxy
    side = min(max(_LEAST_WINDOW_PX, 2 * max(right - left, bottom - top)), max(shape))
    x, y = (left + right - side) // 2, (top + bottom - side) // 2
    return Window(_kept_inside(x, side, shape[1]), _kept_inside(y, side, shape[0]), side)


def _kept_inside(start: int, side: int, length: int) -> int:
    return (length - side) // 2 if side > length else min(max(start, 0), length - side)


def _cut(pixels: Uint8, window: Window) -> Uint8:
    """The window's pixels; white, or 0 for a mask, beyond the picture."""
    beyond = 255 if pixels.ndim == 3 else 0
    canvas = np.full((window.side, window.side, *pixels.shape[2:]), beyond, np.uint8)
    top, left = max(window.top, 0), max(window.left, 0)
    part = pixels[top : window.top + window.side, left : window.left + window.side]
    y, x = top - window.top, left - window.left
    canvas[y : y + part.shape[0], x : x + part.shape[1]] = part
    return canvas


def _panel(pixels: Uint8, window: Window) -> Uint8:
    method = cv2.INTER_AREA if window.side > _PANEL_PX else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(_cut(pixels, window), (_PANEL_PX, _PANEL_PX), interpolation=method), np.uint8)


def _marked(pixels: Uint8, truth: Bool | None, mask: Bool, window: Window) -> Uint8:
    panel = _panel(pixels, window)
    _outline(panel, mask, window, _AMBER)
    if truth is not None:
        _outline(panel, truth, window, _BLUE)
    return panel


def _outline(panel: Uint8, mask: Bool, window: Window, colour: tuple[int, int, int]) -> None:
    """Two pixels of colour around the mask and one dark one around them; not one pixel of a mask gets lost."""
    cut = _cut(mask.view(np.uint8) * np.uint8(255), window)
    method = cv2.INTER_AREA if window.side > _PANEL_PX else cv2.INTER_NEAREST
    inside = (cv2.resize(cut, (_PANEL_PX, _PANEL_PX), interpolation=method) > 0).astype(np.uint8)
    for radius, line in ((3, _DARK), (2, colour)):
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        panel[(cv2.dilate(inside, disc) > 0) & (inside == 0)] = line


def _framed(panel: Uint8, whole: Window, window: Window) -> Uint8:
    """A white square around the close-up."""
    scale = _PANEL_PX / whole.side
    left, top = round((window.left - whole.left) * scale), round((window.top - whole.top) * scale)
    right, bottom = left + round(window.side * scale), top + round(window.side * scale)
    for colour, width in ((_DARK, 3), (_WHITE, 1)):
        cv2.rectangle(panel, (left, top), (right, bottom), colour, width)
    return panel
