"""Filters along one axis as the kernels take them: for each output pixel a first input and a few weights.

Knows nothing about tiles or devices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbft_edge.frames.frame import Float32

Int32 = NDArray[np.int32]

# OpenCV's: shares of a pixel that its area resize leaves out, and the parameter of its bicubic weights.
_LEAST_AREA_SHARE = 1e-3
_CUBIC_A = -0.75


@dataclass(frozen=True, slots=True)
class Taps:
    """A filter along one axis.

    Attributes:
        starts: (outputs,) int32, the first input of each output.
        weights: (outputs, taps) float32, for the inputs from there on; zero where an output needs fewer.
    """

    starts: Int32
    weights: Float32

    @property
    def width(self) -> int:
        """Taps of each output."""
        return int(self.weights.shape[1])


def banded_taps(operator: Float32) -> Taps:
    """The taps of a matrix whose rows are zero but for a short run that moves right from row to row.

    Args:
        operator: (outputs, inputs), no row all zero.
    """
    used = operator != 0
    first = used.argmax(axis=1)
    last = operator.shape[1] - 1 - used[:, ::-1].argmax(axis=1)
    width = int((last - first).max()) + 1
    starts = np.minimum(first, operator.shape[1] - width)
    weights = np.take_along_axis(operator, starts[:, None] + np.arange(width), axis=1)
    return Taps(starts.astype(np.int32), np.ascontiguousarray(weights, np.float32))


def resize_taps(source: int, target: int, is_shrinking: bool) -> Taps:
    """One axis of OpenCV's resize: `INTER_AREA` where the picture shrinks, else `INTER_CUBIC`."""
    return _area_taps(source, target) if is_shrinking else _cubic_taps(source, target)


def _area_taps(source: int, target: int) -> Taps:
    """Each output is the mean of the `source / target` inputs under it; those at the ends count by their share."""
    scale = source / target
    operator: dict[tuple[int, int], float] = {}
    for output in range(target):
        low = output * scale
        high = low + scale
        cell = min(scale, source - low)
        last = min(math.floor(high), source - 1)
        first = min(math.ceil(low), last)
        if first - low > _LEAST_AREA_SHARE:
            operator[output, first - 1] = (first - low) / cell
        for whole in range(first, last):
            operator[output, whole] = 1 / cell
        if high - last > _LEAST_AREA_SHARE:
            operator[output, last] = min(high - last, 1.0, cell) / cell
    return _sparse_taps(operator, source, target)


def _cubic_taps(source: int, target: int) -> Taps:
    """Four inputs around each output's position; beyond the ends the last one is repeated."""
    operator: dict[tuple[int, int], float] = {}
    for output in range(target):
        position = np.float32((output + 0.5) * (source / target) - 0.5)
        low = math.floor(position)
        for tap, weight in enumerate(_cubic_weights(float(position) - low)):
            place = output, min(max(low - 1 + tap, 0), source - 1)
            operator[place] = operator.get(place, 0.0) + weight
    return _sparse_taps(operator, source, target)


def _cubic_weights(x: float) -> tuple[float, float, float, float]:
    """Weights of the inputs at -1, 0, 1 and 2 for a position `x` in [0, 1)."""
    a = _CUBIC_A
    before = ((a * (x + 1) - 5 * a) * (x + 1) + 8 * a) * (x + 1) - 4 * a
    low = ((a + 2) * x - (a + 3)) * x * x + 1
    high = ((a + 2) * (1 - x) - (a + 3)) * (1 - x) * (1 - x) + 1
    return before, low, high, 1 - before - low - high


def _sparse_taps(operator: dict[tuple[int, int], float], source: int, target: int) -> Taps:
    """The taps of a matrix given by its non-zeros."""
    first = np.full(target, source, np.int64)
    last = np.zeros(target, np.int64)
    for output, place in operator:
        first[output], last[output] = min(first[output], place), max(last[output], place)
    width = int((last - first).max()) + 1
    starts = np.minimum(first, source - width)
    weights = np.zeros((target, width), np.float32)
    for (output, place), weight in operator.items():
        weights[output, place - starts[output]] = weight
    return Taps(starts.astype(np.int32), weights)
