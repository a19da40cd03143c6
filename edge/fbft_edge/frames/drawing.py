"""Pixels and what was detected in them in, a picture for a person out.

Outlines are amber and verdicts blue or amber, which stay apart with every common colour blindness. Knows
nothing about files, models or cameras.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from fbft_edge.frames.frame import Detection, Float32, Region, Uint8, Verdict
from fbft_edge.frames.images import without_surrogates

Colour = tuple[int, int, int]

_AMBER: Colour = (255, 176, 0)
_BLUE: Colour = (100, 155, 255)
_HALO: Colour = (12, 12, 14)
_BACKGROUND: Colour = (18, 19, 22)
_CARD: Colour = (30, 32, 36)
_WELL: Colour = (24, 25, 29)
_BRIGHT: Colour = (236, 238, 241)
_MUTED: Colour = (150, 156, 165)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_MARGIN = 28
_GAP = 10
_HEADING = 46


@dataclass(frozen=True, slots=True)
class Closeup:
    """A place worth enlarging.

    Attributes:
        centre_xy: In pixels of the picture.
        side_px: Side of the square that is shown, in pixels of the picture.
        caption: What is to be seen there.
    """

    centre_xy: tuple[float, float]
    side_px: int
    caption: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One picture of a contact sheet.

    Attributes:
        title: Stands above the picture, left of the verdict.
        pixels: (height, width, 3) uint8 RGB, without marks.
        detection: What was found in it.
        closeup: Shown beside the picture, bare and marked; None for the smallest region.
        note: Why the verdict is what it is, one line below the title.
    """

    title: str
    pixels: Uint8
    detection: Detection
    closeup: Closeup | None = None
    note: str = ""


def overlay(pixels: Uint8, detection: Detection, note: str = "") -> Uint8:
    """Outline the mask, just outside its pixels, and put brackets around regions the eye would miss.

    What is anomalous without any region has brackets around its peak.

    Args:
        pixels: (height, width, 3) uint8 RGB; stays as it is.
        detection: Its mask has the same height and width.
        note: Written along the upper or lower border, the one further away from the peak.

    Returns:
        A new picture of the same shape.
    """
    thickness = max(1, round(min(pixels.shape[:2]) / 700))
    marked = _outlined(pixels, detection, thickness)
    for region in detection.regions:
        if _longer_side(region) < 0.06 * min(pixels.shape[:2]):
            _bracket(marked, region.box_xyxy, thickness)
    if detection.is_anomalous and not detection.regions and detection.peak_xy is not None:
        x, y = detection.peak_xy
        _bracket(marked, (x, y, x + 1, y + 1), thickness)
    if note:
        _write_note(marked, note, detection.peak_xy)
    return marked


def heat(pixels: Uint8, anomaly_map: Float32, full_scale: float) -> Uint8:
    """Lay the anomaly map over the picture: nothing at 0, glowing at `full_scale` and above.

    Args:
        pixels: (height, width, 3) uint8 RGB; stays as it is.
        anomaly_map: (height, width) float32, at least 0.
        full_scale: Map value of the brightest colour, above 0; the pixel threshold is a good choice.
    """
    level = np.clip(anomaly_map / full_scale, 0, 1)
    colours = cv2.applyColorMap(cv2.convertScaleAbs(level, alpha=255), cv2.COLORMAP_INFERNO)[..., ::-1]
    mixed = pixels + (0.75 * level)[..., None] * (colours.astype(np.float32) - pixels)
    return np.asarray(cv2.convertScaleAbs(mixed), np.uint8)


def smallest_region(detection: Detection) -> Closeup | None:
    """A close-up of the region with the fewest pixels; None when there is no region."""
    if not detection.regions:
        return None
    region = min(detection.regions, key=lambda region: region.area_px)
    side_px = max(48, round(1.6 * _longer_side(region)))
    return Closeup(region.centroid_xy, side_px, f"region of {region.area_px} px")


def card(entry: Entry, side_px: int = 420) -> Uint8:
    """Title and verdict, below them the outlined picture, beside it a close-up bare and outlined.

    Args:
        entry: What to show.
        side_px: Side of the square that the picture is fitted into.

    Returns:
        (height, width, 3) uint8 RGB, the same shape for every entry.
    """
    canvas = _filled(*_card_size(side_px), _CARD)
    write(canvas, entry.title, (_GAP + 2, 22 if entry.note else 32), 18, _BRIGHT)
    write(canvas, entry.note, (_GAP + 2, 40), 12, _MUTED)
    _chip(canvas, Verdict.ANOMALOUS if entry.detection.is_anomalous else Verdict.OK)
    closeup = entry.closeup or smallest_region(entry.detection)
    marked = _outlined(entry.pixels, entry.detection, max(1, round(max(entry.pixels.shape[:2]) / side_px)))
    if closeup:
        _frame_closeup(marked, closeup)
    top, left, small = _HEADING, side_px + 2 * _GAP, _closeup_side(side_px)
    canvas[top : top + side_px, _GAP : _GAP + side_px] = _fitted(marked, side_px)
    for row, with_outline in ((top, False), (top + small + _GAP, True)):
        window = canvas[row : row + small, left : left + small]
        window[:] = _enlarged(entry, closeup, small, with_outline) if closeup else _WELL
    write(canvas, closeup.caption if closeup else "no region", (left, top + side_px - 7), 15, _MUTED)
    return canvas


def contact_sheet(cards: Sequence[Uint8], title: str, subtitle: str = "", num_columns: int = 3) -> Uint8:
    """Cards in a grid under a title.

    Args:
        cards: At least one, of one shape, in reading order.
        title: Above the grid.
        subtitle: Below the title.
        num_columns: Cards in a row.

    Returns:
        (height, width, 3) uint8 RGB.
    """
    card_height, card_width = cards[0].shape[:2]
    num_columns = min(num_columns, len(cards))
    num_rows = -(-len(cards) // num_columns)
    top = 2 * _MARGIN + 62
    height, width = top + num_rows * (card_height + _MARGIN), _MARGIN + num_columns * (card_width + _MARGIN)
    sheet = _filled(height, width, _BACKGROUND)
    write(sheet, title, (_MARGIN, _MARGIN + 26), 28, _BRIGHT)
    write(sheet, subtitle, (_MARGIN, _MARGIN + 58), 16, _MUTED)
    for index, picture in enumerate(cards):
        row, column = divmod(index, num_columns)
        y, x = top + row * (card_height + _MARGIN), _MARGIN + column * (card_width + _MARGIN)
        sheet[y : y + card_height, x : x + card_width] = picture
    return sheet


def write(canvas: Uint8, text: str, baseline_xy: tuple[int, int], size_px: int, colour: Colour) -> int:
    """Write smooth text onto the canvas, in place; what would reach over its edge is cut off.

    Args:
        canvas: (height, width, 3) uint8 RGB.
        text: One line.
        baseline_xy: Left end of the baseline.
        size_px: Nominal size; capitals are 0.72 of it.
        colour: RGB.

    Returns:
        Length of the text in px.
    """
    cover, ascent = _lettering(without_surrogates(text), size_px)
    left, top = baseline_xy[0], max(baseline_xy[1] - ascent, 0)
    target = canvas[top : top + cover.shape[0], left : left + cover.shape[1]]
    strength = cover[: target.shape[0], : target.shape[1], None].astype(np.float32) / 255
    target[:] = np.rint(target + strength * (np.array(colour, np.float32) - target))
    return int(cover.shape[1])


@lru_cache(maxsize=256)
def _lettering(text: str, size_px: int) -> tuple[Uint8, int]:
    """Coverage of a line of text, drawn four times as large and reduced, and its rows above the baseline."""
    fine = 4
    scale, stroke = fine * 0.72 * size_px / _capital_px(), max(1, round(fine * size_px / 11))
    (length, _), _ = cv2.getTextSize(text, _FONT, scale, stroke)
    ascent, rows = fine * size_px, fine * round(1.35 * size_px)
    canvas = np.zeros((rows, -(-(length + stroke) // fine) * fine), np.uint8)
    cv2.putText(canvas, text, (0, ascent), _FONT, scale, 255, stroke, cv2.LINE_AA)
    size = (canvas.shape[1] // fine, canvas.shape[0] // fine)
    return np.asarray(cv2.resize(canvas, size, interpolation=cv2.INTER_AREA), np.uint8), size_px


@lru_cache(maxsize=1)
def _capital_px() -> float:
    """Height of a capital at font scale 1; drawn, because OpenCV 4 and 5 ship different fonts."""
    canvas = np.zeros((600, 600), np.uint8)
    cv2.putText(canvas, "H", (0, 500), _FONT, 10, 255, 1)
    return np.count_nonzero(canvas.any(axis=1)) / 10


def _longer_side(region: Region) -> int:
    left, top, right, bottom = region.box_xyxy
    return max(right - left, bottom - top)


def _outlined(pixels: Uint8, detection: Detection, thickness: int) -> Uint8:
    marked = np.array(pixels)
    _outline(marked, detection.mask.astype(np.uint8), thickness)
    return marked


def _outline(canvas: Uint8, mask: Uint8, thickness: int) -> None:
    """Draw an amber line around the mask with a dark line around it, both outside the mask's pixels."""
    reach = [cv2.dilate(mask, _disc(radius)) for radius in (thickness, 2 * thickness)]
    canvas[(reach[1] > 0) & (mask == 0)] = _HALO
    canvas[(reach[0] > 0) & (mask == 0)] = _AMBER


def _disc(radius: int) -> Uint8:
    side = 2 * radius + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _bracket(canvas: Uint8, box_xyxy: tuple[int, int, int, int], thickness: int) -> None:
    """Four corners at a distance from a box."""
    away = 0.012 * min(canvas.shape[:2]) + 6
    left, top, right, bottom = box_xyxy
    corners = [(x, y) for x in (left - away, right + away) for y in (top - away, bottom + away)]
    middle_x, middle_y = (left + right) / 2, (top + bottom) / 2
    for colour, width in ((_HALO, thickness + 2), (_AMBER, thickness)):
        for x, y in corners:
            along_x, along_y = x + 0.35 * (middle_x - x), y + 0.35 * (middle_y - y)
            path = np.array([[along_x, y], [x, y], [x, along_y]])
            cv2.polylines(canvas, [np.rint(path).astype(np.int32)], False, colour, width, cv2.LINE_AA)


def _write_note(canvas: Uint8, note: str, peak_xy: tuple[int, int] | None) -> None:
    height = canvas.shape[0]
    size_px = max(11, round(min(canvas.shape[:2]) / 45))
    baseline = round(1.3 * size_px) if peak_xy is None or peak_xy[1] > height / 2 else height - round(0.6 * size_px)
    for away_xy in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        write(canvas, note, (size_px // 2 + 1 + away_xy[0], baseline + away_xy[1]), size_px, _HALO)
    write(canvas, note, (size_px // 2 + 1, baseline), size_px, _AMBER)


def _filled(height: int, width: int, colour: Colour) -> Uint8:
    return np.full((height, width, 3), colour, np.uint8)


def _card_size(side_px: int) -> tuple[int, int]:
    """Height and width of a card."""
    return _HEADING + side_px + 2 * _GAP, side_px + _closeup_side(side_px) + 3 * _GAP


def _closeup_side(side_px: int) -> int:
    return (side_px - _GAP - 26) // 2


def _chip(canvas: Uint8, verdict: Verdict) -> None:
    """The verdict in the card's upper right corner, dark on its colour."""
    colour = _AMBER if verdict is Verdict.ANOMALOUS else _BLUE
    length = _lettering(verdict.value, 14)[0].shape[1]
    right, left = canvas.shape[1] - _GAP, canvas.shape[1] - _GAP - length - 24
    for x in (left + 13, right - 13):
        cv2.circle(canvas, (x, 26), 12, colour, -1, cv2.LINE_AA)
    cv2.rectangle(canvas, (left + 13, 14), (right - 13, 38), colour, -1)
    write(canvas, verdict.value, (left + 12, 31), 14, _HALO)


def _fitted(pixels: Uint8, side_px: int) -> Uint8:
    """The whole picture in a square, on a dark ground."""
    height, width = pixels.shape[:2]
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    square = _filled(side_px, side_px, _WELL)
    x, y = (side_px - size[0]) // 2, (side_px - size[1]) // 2
    square[y : y + size[1], x : x + size[0]] = small
    return square


def _frame_closeup(canvas: Uint8, closeup: Closeup) -> None:
    """Show on the whole picture where the close-up lies."""
    left, top, side = _closeup_window(closeup, canvas.shape[:2])
    thickness = max(1, round(min(canvas.shape[:2]) / 450))
    cv2.rectangle(canvas, (left, top), (left + side - 1, top + side - 1), _BRIGHT, thickness)


def _closeup_window(closeup: Closeup, size: tuple[int, ...]) -> tuple[int, int, int]:
    """Left, top and side of the close-up, moved and reduced to lie within a picture of this size."""
    height, width = size
    side = min(closeup.side_px, height, width)
    left, top = (round(centre - side / 2) for centre in closeup.centre_xy)
    return min(max(left, 0), width - side), min(max(top, 0), height - side), side


def _enlarged(entry: Entry, closeup: Closeup, side_px: int, with_outline: bool) -> Uint8:
    left, top, side = _closeup_window(closeup, entry.pixels.shape[:2])
    window = (slice(top, top + side), slice(left, left + side))
    large = np.asarray(cv2.resize(entry.pixels[window], (side_px, side_px), interpolation=cv2.INTER_CUBIC), np.uint8)
    if with_outline:
        mask = cv2.resize(entry.detection.mask[window].astype(np.float32), (side_px, side_px))
        _outline(large, (mask >= 0.5).astype(np.uint8), 2)
    return large
