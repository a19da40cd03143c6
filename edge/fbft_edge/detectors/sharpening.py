"""Edge-aware masks: flagged regions redrawn along what the frame itself shows.

A patch that holds a little of a defect is as anomalous as one that holds nothing else, so masks taken from the map
alone are blunt: they reach over a large defect's rim and cover a small one by patches. Around each region the frame is
compared with a guess of the part without the defect, filled in from outside; a pixel belongs to the defect where the
map and that difference agree. This is where the refinement in `fbft_calibration` starts from, without its gradients.

Only windows around the regions are looked at, and the rest of the frame coarsely, so that the work follows the defects'
area. docs/refinement.md says what it is worth. Knows nothing about detectors, engines or messages.
"""

from __future__ import annotations

from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fbft_edge.detectors.judge import parts_that_touch
from fbft_edge.frames.frame import Bool, Float32, Uint8
from fbft_edge.frames.pixel_format import Window

REACH_PATCHES = 2.0
SMOOTHING_PX = 5
# A window begins on cells, so that its pyramid down to them is a part of the frame's; from there on the frame has one.
CELL_LEVELS = 4
CELL_PX = 1 << CELL_LEVELS
LATTICE_PX = CELL_PX // 2
# Around each neighbourhood, for the fill-in to look at in full resolution.
MARGIN_PX = 16
_TINY = 1e-6
# Levels; differences to a fill-in of a plain ground are below it, and are none.
ROUNDING = 0.01

_Level = tuple[Float32, Float32]
_Boxes = NDArray[np.int32]


class Picture(Protocol):
    """What is looked at of a frame; each window once."""

    def lattice(self) -> Uint8:
        """Pixels at multiples of `LATTICE_PX`, (rows, columns, 3) uint8 RGB, the top left one first."""
        ...

    def pixels(self, window: Window) -> Uint8:
        """Pixels of a window, (rows, columns, 3) uint8 RGB."""
        ...

    def relative_map(self, window: Window) -> Float32:
        """The anomaly map of a window over the pixel threshold, (rows, columns) float32."""
        ...


def sharpened(pixels: Uint8, mask: Bool, relative_map: Float32, reach_px: float) -> Bool:
    """Redraw the regions of a mask; see `sharpened_picture`.

    Args:
        pixels: (height, width, 3) uint8 RGB.
        mask: (height, width) bool, what the map flags.
        relative_map: (height, width) float32, the anomaly map over the pixel threshold.
        reach_px: How far outside the mask a defect may go on.

    Returns:
        (height, width) bool.
    """
    return sharpened_picture(_WholePicture(pixels, relative_map), mask, reach_px)


def sharpened_picture(picture: Picture, mask: Bool, reach_px: float) -> Bool:
    """Redraw the regions of a mask. Each stays, in another shape, whole or in parts: none is added, none is lost.

    A pixel within reach is taken where m² |a| exceeds the mean |a| of the region's neighbourhood; m is the map in units
    of its threshold, a the difference to the filled-in part. docs/benchmarks/f2pad.md says which data the
    square, the mean and the reach were chosen on.

    |a| is smoothed first, and regions whose reaches touch share one mean. Where the reach leaves nothing of the frame
    to fill in from, the mask stays as it is.

    Args:
        picture: The frame and its map; not asked for anything when nothing is flagged.
        mask: (height, width) bool, what the map flags.
        reach_px: How far outside the mask a defect may go on.

    Returns:
        (height, width) bool, owned by the caller.
    """
    found = np.zeros(mask.shape, np.bool_)
    views = [_View(window, picture, mask, reach_px) for window in windows_around(mask, reach_px)]
    if sum(int(np.count_nonzero(view.near)) for view in views) == mask.size:
        return np.array(mask)
    if views:
        ground = _ground(picture.lattice(), views)
        for view in views:
            score = agreement(view.residual(ground), view.near, picture.relative_map(view.window))
            found[view.window.part] = same_regions(score > 1, view.flagged)
    return found


def windows_around(mask: Bool, reach_px: float) -> list[Window]:
    """Windows that do not overlap; each region's neighbourhood is whole in one, with a margin where the frame goes on.

    Args:
        mask: (height, width) bool.
        reach_px: How far a neighbourhood reaches.
    """
    reach = _cells(int(np.ceil(reach_px)) + MARGIN_PX)
    near = cv2.dilate(_cells_with_any(mask).view(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
    bottom, right = mask.shape
    return [
        Window(top, left, min(low, bottom), min(far, right))
        for left, top, far, low in (CELL_PX * _boxes_without_overlap(near.view(np.bool_))).tolist()
    ]


def agreement(residual: Float32, near: Bool, relative_map: Float32) -> Float32:
    """m² |a| over the mean |a| of each connected neighbourhood; 0 outside.

    Args:
        residual: (height, width) float32, |a| of each pixel, in levels of 0 to 255.
        near: (height, width) bool, the neighbourhoods.
        relative_map: (height, width) float32, the anomaly map over the pixel threshold.

    Returns:
        (height, width) float32.
    """
    smooth = _within(cv2.blur(residual, (SMOOTHING_PX, SMOOTHING_PX)), near)
    mean = _mean_of_each(smooth, near)
    score = cv2.multiply(cv2.multiply(smooth, relative_map, dst=smooth), relative_map, dst=smooth)
    return np.asarray(np.divide(score, mean + np.float32(ROUNDING), out=score), np.float32)


def neighbourhood(mask: Bool, reach_px: float) -> Bool:
    """Pixels of a mask, and those at most `reach_px` away from one."""
    if not mask.any():
        return np.zeros(mask.shape, np.bool_)
    return np.asarray(cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, 5) <= reach_px, np.bool_)


def filled_in(pixels: Uint8 | Float32, hidden: Bool) -> Float32:
    """A picture whose hidden pixels are interpolated smoothly from the others, coarse to fine.

    Args:
        pixels: (height, width, 3).
        hidden: (height, width) bool, at least one of them False; otherwise the result is 0.

    Returns:
        (height, width, 3) float32, equal to `pixels` where nothing is hidden.
    """
    return _filled(_shown(pixels, hidden))


def same_regions(found: Bool, flagged: Bool) -> Bool:
    """The parts of `found` that touch a flagged pixel, and the flagged regions that no such part touches.

    Args:
        found: (height, width) bool.
        flagged: (height, width) bool.

    Returns:
        (height, width) bool: as many flagged regions as before are represented, and nothing else.
    """
    touching = parts_that_touch(found, flagged)
    lost = flagged & ~parts_that_touch(flagged, touching)
    return touching | lost


class _WholePicture:
    """A `Picture` of arrays that are there already."""

    def __init__(self, pixels: Uint8, relative_map: Float32) -> None:
        self._pixels, self._relative_map = pixels, relative_map

    def lattice(self) -> Uint8:
        return self._pixels[::LATTICE_PX, ::LATTICE_PX]

    def pixels(self, window: Window) -> Uint8:
        return self._pixels[window.part]

    def relative_map(self, window: Window) -> Float32:
        return self._relative_map[window.part]


class _View:
    """One window: what is flagged in it, its neighbourhoods, and the pyramid of what is not near.

    Attributes:
        cells: The window's part of the frame's cells.
        levels: Colours and weights of the window, from pixels to cells; see `_smaller`.
    """

    def __init__(self, window: Window, picture: Picture, mask: Bool, reach_px: float) -> None:
        self.window, self.flagged = window, mask[window.part]
        self.near = neighbourhood(self.flagged, reach_px)
        self._pixels = picture.pixels(window)
        self.levels = [_shown(self._pixels, self.near)]
        for _ in range(CELL_LEVELS):
            self.levels.append(_smaller(self.levels[-1]))
        rows, columns = window.part
        self.cells = (
            slice(rows.start // CELL_PX, _cells(rows.stop)),
            slice(columns.start // CELL_PX, _cells(columns.stop)),
        )

    def residual(self, ground: Float32) -> Float32:
        """Length of the colour difference between frame and ground, 0 where nothing is hidden.

        Args:
            ground: (rows, columns, 3) float32, the filled-in cells of the frame.

        Returns:
            Of the window's size, float32, in levels of 0 to 255.
        """
        guess = ground[self.cells]
        for level in reversed(self.levels[1:-1]):
            guess = _with_detail(guess, level)
        difference = cv2.pyrUp(guess, dstsize=self.near.shape[::-1])
        cv2.subtract(self._pixels, difference, dst=difference, dtype=cv2.CV_32F)
        cv2.multiply(difference, difference, dst=difference)
        squares = cv2.transform(difference, np.ones((1, 3), np.float32))
        return _within(cv2.sqrt(squares, dst=squares), self.near)


def _ground(lattice: Uint8, views: list[_View]) -> Float32:
    """The frame's cells with all neighbourhoods filled in, (rows, columns, 3) float32.

    What lies outside the windows is taken from the lattice: it is far away, and counts only where a neighbourhood is
    large.
    """
    colours = cv2.pyrDown(np.ascontiguousarray(lattice)).astype(np.float32)
    weight = np.ones(colours.shape[:2], np.float32)
    for view in views:
        colours[view.cells], weight[view.cells] = view.levels[-1]
    return _filled((colours, weight))


def _shown(pixels: Uint8 | Float32, hidden: Bool) -> _Level:
    """The finest level: pixels as float32 with weight 1, and 0 with weight 0 where they are hidden."""
    shown = (~hidden).view(np.uint8)
    return cv2.copyTo(pixels, shown).astype(np.float32), shown.astype(np.float32)


def _smaller(level: _Level) -> _Level:
    """The next coarser level: colours, already multiplied by their weight, and weight of half the size."""
    return np.asarray(cv2.pyrDown(level[0]), np.float32), np.asarray(cv2.pyrDown(level[1]), np.float32)


def _filled(finest: _Level) -> Float32:
    """Colours everywhere: a level's own, as far as they weigh, over those of coarser levels."""
    levels = [finest]
    while max(levels[-1][1].shape) > 1:
        levels.append(_smaller(levels[-1]))
    colours, weight = levels.pop()
    guess = np.asarray(colours / np.maximum(weight, _TINY)[..., None], np.float32)
    for level in reversed(levels):
        guess = _with_detail(guess, level)
    return guess


def _with_detail(coarse: Float32, level: _Level) -> Float32:
    """A level's own colours over a coarser guess."""
    colours, weight = level
    guess = cv2.pyrUp(coarse, dstsize=weight.shape[::-1])
    missing = cv2.cvtColor(1 - weight, cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.add(colours, cv2.multiply(missing, guess, dst=guess), dst=guess), np.float32)


def _mean_of_each(values: Float32, near: Bool) -> Float32:
    """Mean of each connected neighbourhood at its pixels; of no dimension where there is but one neighbourhood."""
    count, labels = cv2.connectedComponents(near.view(np.uint8), connectivity=8)
    if count <= 2:
        return np.asarray(cv2.mean(values, near.view(np.uint8))[0], np.float32)
    sums, areas = np.bincount(labels.ravel(), values.ravel(), count), np.bincount(labels.ravel(), minlength=count)
    means: Float32 = (sums / areas.clip(1)).astype(np.float32)
    return np.asarray(means[labels], np.float32)


def _within(values: NDArray[Any], where: Bool) -> Float32:
    """Values in a part, 0 elsewhere."""
    return np.asarray(cv2.copyTo(values, where.view(np.uint8)), np.float32)


def _cells_with_any(mask: Bool) -> Bool:
    """Cells in which a mask has a pixel."""
    cells = np.zeros((_cells(mask.shape[0]), _cells(mask.shape[1])), np.bool_)
    left, top, width, height = cv2.boundingRect(mask.view(np.uint8))
    if width:
        first_row, first_column = top // CELL_PX, left // CELL_PX
        part = mask[first_row * CELL_PX : top + height, first_column * CELL_PX : left + width]
        any_from_here = cv2.dilate(part.view(np.uint8), np.ones((CELL_PX, CELL_PX), np.uint8), anchor=(0, 0))
        found = any_from_here[::CELL_PX, ::CELL_PX]
        cells[first_row : first_row + len(found), first_column : first_column + found.shape[1]] = found
    return cells


def _boxes_without_overlap(cells: Bool) -> _Boxes:
    """Boxes around connected cells (8 neighbours), joined until none overlap or touch.

    Args:
        cells: (rows, columns) bool, overwritten.

    Returns:
        (number, 4) int32: left, top, right, bottom.
    """
    while True:
        stats = cv2.connectedComponentsWithStats(cells.view(np.uint8), connectivity=8)[2][1:]
        boxes = np.concatenate([stats[:, :2], stats[:, :2] + stats[:, 2:4]], axis=1)
        if int(stats[:, 2:4].prod(axis=1).sum()) == int(stats[:, 4].sum()):
            return boxes
        for left, top, right, bottom in boxes.tolist():
            cells[top:bottom, left:right] = True


def _cells(length_px: int) -> int:
    """Cells that cover a length."""
    return (length_px + CELL_PX - 1) // CELL_PX
