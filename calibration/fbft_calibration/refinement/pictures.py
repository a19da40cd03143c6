"""A picture and its masks before and after refinement in, pictures of the difference for a person out.

Knows nothing about files or how masks are refined.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

import cv2
import numpy as np

from fbft_edge.frames.drawing import Closeup, Entry, card, contact_sheet, overlay, write
from fbft_edge.frames.frame import Bool, Detection, Uint8
from fbft_edge.frames.images import MAX_WRITTEN_SIDE_PX

LABELS = ("before", "after")

_MOST_IMAGES = 6
_GAP_PX = 8
_LEAST_PANEL_PX = 96
_LABEL_PX = 18
_HEADING_PX = 30
_GROUND = (18, 19, 22)
_BRIGHT = (236, 238, 241)


def before_and_after(pixels: Uint8, before: Detection, after: Detection) -> Uint8:
    """The outlined picture twice, labelled: with the coarse mask left, with the refined one right.

    Args:
        pixels: (height, width, 3) uint8 RGB; stays as it is.
        before: Its mask has the same height and width.
        after: Likewise.

    Returns:
        (rows, columns, 3) uint8 RGB, at the picture's own resolution unless an image file cannot be so large.
    """
    panels = [_limited(overlay(pixels, detection)) for detection in (before, after)]
    height, width = panels[0].shape[:2]
    step = max(width, _LEAST_PANEL_PX) + _GAP_PX
    canvas = np.full((_HEADING_PX + height, 2 * step - _GAP_PX, 3), _GROUND, np.uint8)
    for number, (label, panel) in enumerate(zip(LABELS, panels, strict=True)):
        left = number * step
        write(canvas, label, (left + _GAP_PX, 21), _LABEL_PX, _BRIGHT)
        canvas[_HEADING_PX:, left : left + width] = panel
    return canvas


@dataclass(slots=True)
class Changes:
    """Keeps the few images with a region that changed most, however many it is offered."""

    _kept: list[tuple[int, int, Uint8, Uint8]] = field(default_factory=list)
    _count: int = 0

    def offer(self, title: str, pixels: Uint8, before: Detection, after: Detection) -> None:
        """Take one image in where it is among the few.

        Args:
            title: Its name.
            pixels: (height, width, 3) uint8 RGB.
            before: Its mask has the same height and width.
            after: Likewise.
        """
        found = _most_changed(before.mask, after.mask)
        if found is None:
            return
        self._count += 1
        changed_px, closeup = found
        rank = (changed_px, -self._count)
        if len(self._kept) < _MOST_IMAGES or rank > self._kept[0][:2]:
            titles = (f"{title}, {label}" for label in LABELS)
            left, right = (
                card(Entry(name, pixels, detection, closeup))
                for name, detection in zip(titles, (before, after), strict=True)
            )
            heapq.heappush(self._kept, (*rank, left, right))
            if len(self._kept) > _MOST_IMAGES:
                heapq.heappop(self._kept)

    def overview(self) -> Uint8 | None:
        """A contact sheet, what changed most first; None where nothing changed."""
        cards = list(self._cards())
        if not cards:
            return None
        return contact_sheet(cards, "Refinement", "the regions that changed most", num_columns=2)

    def _cards(self) -> Iterator[Uint8]:
        for _, _, left, right in sorted(self._kept, key=lambda kept: kept[:2], reverse=True):
            yield left
            yield right


def _limited(picture: Uint8) -> Uint8:
    """The picture, reduced where two of them side by side would not fit into a file."""
    room_height, room_width = MAX_WRITTEN_SIDE_PX - _HEADING_PX, (MAX_WRITTEN_SIDE_PX - _GAP_PX) // 2
    share = min(1.0, room_height / picture.shape[0], room_width / picture.shape[1])
    if share == 1:
        return picture
    height, width = (max(1, int(length * share)) for length in picture.shape[:2])
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _most_changed(before: Bool, after: Bool) -> tuple[int, Closeup] | None:
    """How many pixels changed in the region where most did, and where it lies; None where none did.

    Args:
        before: (height, width) bool.
        after: (height, width) bool.
    """
    either = (before | after).view(np.uint8)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(either, connectivity=8)
    changed = np.bincount(labels[before ^ after], minlength=count)
    label = int(changed.argmax())
    if not changed[label]:
        return None
    where = labels == label
    side_px = max(48, round(1.3 * int(stats[label, 2:4].max())))
    centre = float(centroids[label][0]), float(centroids[label][1])
    caption = f"{int((before & where).sum())} to {int((after & where).sum())} px"
    return int(changed[label]), Closeup(centre, side_px, caption)
