"""The banded map operator: a patch grid in, the anomaly map at frame resolution out.

Upsampling, the box passes with their zero padding and a resize to the frame are linear and separable, so the map
is `A_h @ d @ A_w.T` with matrices of a few non-zeros per row. Knows nothing about tiles or thresholds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fbft_edge.frames.frame import Float32
from fbft_edge.frames.pixel_format import Window

Float64 = np.ndarray[tuple[int, ...], np.dtype[np.float64]]

# Widths of the box passes, in order: 5 of width 5, 3 of width 7, as in the paper's code.
BOX_WIDTHS = (5, 5, 5, 5, 5, 7, 7, 7)
_BLOCK_ROWS = 112


def axis_operator(patches: int, patch_px: int, scaled_px: int, frame_px: int) -> Float32:
    """The operator along one axis, as a dense matrix.

    Args:
        patches: Patches along the axis.
        patch_px: Side of a patch.
        scaled_px: Pixels of the scaled frame, at most `patches * patch_px`; what lies beyond is cut off.
        frame_px: Pixels of the frame.

    Returns:
        (frame_px, patches) float32. Rows away from the borders sum to 1; at patch 14 and scale 1 a row has at
        most 5 non-zeros.
    """
    operator = _bilinear(patches, patches * patch_px)
    for width in BOX_WIDTHS:
        operator = _box(operator, width)
    operator = operator[:scaled_px]
    if frame_px != scaled_px:
        operator = _bilinear(scaled_px, frame_px) @ operator
    return operator.astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Band:
    """A block of an operator's rows, with the columns in which they are not zero."""

    rows: slice
    columns: slice
    weights: Float32


class MapOperator:
    """Anomaly maps of one frame size.

    Attributes:
        grid: (rows, columns) of the patch grid it takes.
        frame_size: (height, width) of the maps it makes.
    """

    def __init__(
        self, grid: tuple[int, int], patch_px: int, scaled_size: tuple[int, int], frame_size: tuple[int, int]
    ) -> None:
        self.grid = grid
        self.frame_size = frame_size
        self._row_bands = _bands(axis_operator(grid[0], patch_px, scaled_size[0], frame_size[0]))
        self._column_bands = _bands(axis_operator(grid[1], patch_px, scaled_size[1], frame_size[1]))
        self._wide = np.empty((grid[0], frame_size[1]), np.float32)

    @property
    def flops(self) -> int:
        """FLOPs of one map."""
        columns = sum(band.weights.size for band in self._column_bands) * self.grid[0]
        return 2 * (columns + sum(band.weights.size for band in self._row_bands) * self.frame_size[1])

    def apply(self, distances: Float32, out: Float32, top: int = 0, left: int = 0) -> None:
        """Make one map, or a part of it.

        Args:
            distances: `grid`-shaped float32.
            out: (rows, columns) float32, overwritten; a whole map has the shape `frame_size`.
            top: First row of the part.
            left: First column of the part.
        """
        wide = self._wide[:, : out.shape[1]]
        for band, target in _parts(self._column_bands, left, left + out.shape[1]):
            np.matmul(distances[:, band.columns], band.weights.T, out=wide[:, target])
        for band, target in _parts(self._row_bands, top, top + out.shape[0]):
            np.matmul(band.weights, wide[band.columns], out=out[target])


class PeakFinder:
    """Finds the part of a frame in which its map is largest, without making the map.

    The map is blurred to about a patch, so one sample a patch shows its hills. Of hills whose tops differ by less than
    such sampling does, it may find another one than the highest.

    Args:
        coarse: Makes maps with one sample a patch.
        frame_size: (height, width) of the frames.
    """

    def __init__(self, coarse: MapOperator, frame_size: tuple[int, int]) -> None:
        self._coarse, self._frame_size = coarse, frame_size
        self._map = np.empty(coarse.frame_size, np.float32)

    def window(self, distances: Float32) -> Window:
        """The window in which the map of a patch grid is largest, one patch around the largest sample."""
        self._coarse.apply(distances, self._map)
        row, column = divmod(int(self._map.argmax()), self._map.shape[1])
        (height, width), (rows, columns) = self._frame_size, self._map.shape
        return Window(
            max((row - 1) * height // rows, 0),
            max((column - 1) * width // columns, 0),
            min(-(-(row + 2) * height // rows), height),
            min(-(-(column + 2) * width // columns), width),
        )


def _parts(bands: list[_Band], start: int, stop: int) -> Iterator[tuple[_Band, slice]]:
    """The bands that make rows from `start` to `stop`, cut to them, and where they go counted from `start`."""
    for band in bands:
        low, high = max(start, band.rows.start), min(stop, band.rows.stop)
        if low < high:
            weights = band.weights[low - band.rows.start : high - band.rows.start]
            yield _Band(slice(low, high), band.columns, weights), slice(low - start, high - start)


def _bands(operator: Float32) -> list[_Band]:
    bands = []
    for start in range(0, len(operator), _BLOCK_ROWS):
        block = operator[start : start + _BLOCK_ROWS]
        used = np.flatnonzero(block.any(axis=0))
        columns = slice(int(used[0]), int(used[-1]) + 1)
        bands.append(_Band(slice(start, start + len(block)), columns, np.ascontiguousarray(block[:, columns])))
    return bands


def _bilinear(source: int, target: int) -> Float64:
    """(target, source) bilinear interpolation, pixel centres at half (align_corners false), edges replicated."""
    position = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, source - 1)
    operator = np.zeros((target, source))
    np.add.at(operator, (np.arange(target), low), 1 - (position - low))
    np.add.at(operator, (np.arange(target), high), position - low)
    return operator


def _box(operator: Float64, width: int) -> Float64:
    """A moving mean of `width` rows, zeros beyond the ends."""
    half = width // 2
    sums = np.cumsum(np.pad(operator, ((half + 1, half), (0, 0))), axis=0)
    return np.asarray((sums[width:] - sums[:-width]) / width)
