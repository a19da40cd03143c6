"""NumPy twins of the fused kernels: the same buffers, the same arithmetic, the same order, bit for bit.

What a kernel is compared with, on the CPU and on a GPU. Knows nothing about devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fbft_edge.detectors.kernels.frame_kernels import HISTOGRAM_BINS, FrameKernels
from fbft_edge.detectors.kernels.taps import Int32, Taps
from fbft_edge.frames.frame import Float32, Uint8
from fbft_edge.frames.pixel_format import PixelFormat, Pixels, frame_array_shape, pixel_dtype

Arrays = Mapping[str, NDArray[Any]]
Samples = NDArray[np.int32]

_FIRST_BITS = (127 - 14) << 23
_LAST_BITS = _FIRST_BITS + (HISTOGRAM_BINS << 15) - 1
# Where the red pixel lies in the 2x2 cell.
_RED = {
    PixelFormat.BAYER_RG8: (0, 0),
    PixelFormat.BAYER_GR8: (0, 1),
    PixelFormat.BAYER_GB8: (1, 0),
    PixelFormat.BAYER_BG8: (1, 1),
}


def frame_to_tiles(kernels: FrameKernels, arrays: Arrays) -> None:
    """Twin of `frame_to_tiles.cu`: writes `tiles` from `frame`.

    Args:
        kernels: Tables, and what the frame is.
        arrays: Buffers by name, of the shapes and types in `kernels.buffers`.
    """
    rgb = _rgb(_dense(arrays["frame"], kernels), kernels.pixel_format)
    if kernels.tiles_launch.entry.endswith("_scaled"):
        rgb = _resized(rgb, kernels)
    height, width = rgb.shape[:2]
    steps = np.arange(kernels.plan.geometry.tile_px)
    for tile, (top, left) in zip(arrays["tiles"], kernels.tables["tile_origins"], strict=True):
        rows, columns = np.minimum(top + steps, height - 1), np.minimum(left + steps, width - 1)
        tile[...] = rgb[rows[:, None], columns]


def map_and_mask(kernels: FrameKernels, arrays: Arrays) -> None:
    """Twin of `map_and_mask.cu`: writes `grid`, `mask` and `map` from `distances`.

    Args:
        kernels: Tables and threshold.
        arrays: Buffers by name; `row_peaks` and the histogram are added to.
    """
    tables = kernels.tables
    grid = _stitched(arrays["distances"], tables)
    columns = Taps(_int32(tables["map_column_starts"]), _float32(tables["map_column_weights"]).T)
    rows = Taps(_int32(tables["map_row_starts"]), _float32(tables["map_row_weights"]))
    anomaly_map = _filtered(_filtered(grid.T, columns).T, rows)
    bits = anomaly_map.view(np.uint32) & np.uint32(0x7FFFFFFF)
    arrays["grid"][...] = grid
    arrays["mask"][...] = _packed(anomaly_map > kernels.pixel_threshold)
    peaks = arrays["row_peaks"].view(np.uint32)
    np.maximum(peaks, bits.max(axis=1), out=peaks)
    _add_to_histogram(bits, arrays)
    if "map" in arrays:
        arrays["map"][...] = anomaly_map


def score(kernels: FrameKernels, arrays: Arrays) -> None:
    """Twin of `score.cu`: writes `result`, zeroes `row_peaks` and the histogram.

    Args:
        kernels: How many values make the score.
        arrays: Buffers by name.
    """
    counts, residuals = arrays["histogram_counts"], arrays["histogram_residuals"]
    peaks = arrays["row_peaks"].view(np.uint32)
    arrays["result"][0] = _top_sum(counts, residuals, kernels.top_count) / kernels.top_count
    arrays["result"].view(np.uint32)[1] = peaks.max()
    counts[...], residuals[...], peaks[...] = 0, 0, 0


def _dense(frame: NDArray[Any], kernels: FrameKernels) -> Pixels:
    """The camera's array out of rows that may have a pitch."""
    shape = frame_array_shape(kernels.pixel_format, *kernels.plan.frame_size)
    dtype = pixel_dtype(kernels.pixel_format)
    rows = np.ascontiguousarray(frame).view(np.uint8).reshape(shape[0], -1)
    row_bytes = int(np.prod(shape[1:])) * dtype.itemsize
    dense: Pixels = np.ascontiguousarray(rows[:, :row_bytes]).view(dtype).reshape(shape)
    return dense


def _rgb(pixels: Pixels, pixel_format: PixelFormat) -> Uint8:
    samples = pixels.astype(np.int32)
    if pixel_format is PixelFormat.NV12:
        return _rgb_from_nv12(samples)
    if pixel_format in _RED:
        return _rgb_from_bayer(samples, *_RED[pixel_format])
    if pixel_format is PixelFormat.MONO16:
        samples = (samples + 128) // 257
    if samples.ndim == 2:
        samples = np.repeat(samples[..., None], 3, axis=2)
    return samples[..., :: -1 if pixel_format is PixelFormat.BGR8 else 1].astype(np.uint8)


def _rgb_from_nv12(planes: Samples) -> Uint8:
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    grey = np.maximum(planes[:height] - 16, 0) * 1220542 + (1 << 19)
    chroma = planes[height:].reshape(height // 2, width // 2, 2).repeat(2, axis=0).repeat(2, axis=1) - 128
    u, v = chroma[..., 0], chroma[..., 1]
    fixed = np.stack([grey + 1673527 * v, grey - 852492 * v - 409993 * u, grey + 2116026 * u], axis=-1)
    return (fixed >> 20).clip(0, 255).astype(np.uint8)


def _rgb_from_bayer(mosaic: Samples, red_y: int, red_x: int) -> Uint8:
    """Bilinear inside; the border has the colours of its neighbours inside."""
    height, width = mosaic.shape

    def shifted(y: int, x: int) -> Samples:
        return mosaic[1 + y : height - 1 + y, 1 + x : width - 1 + x]

    across = (shifted(0, -1) + shifted(0, 1) + 1) >> 1
    along = (shifted(-1, 0) + shifted(1, 0) + 1) >> 1
    beside = (shifted(-1, 0) + shifted(0, -1) + shifted(0, 1) + shifted(1, 0) + 2) >> 2
    corners = (shifted(-1, -1) + shifted(-1, 1) + shifted(1, -1) + shifted(1, 1) + 2) >> 2
    is_red_row = (np.arange(1, height - 1) % 2 == red_y)[:, None]
    is_green = is_red_row != (np.arange(1, width - 1) % 2 == red_x)
    own = np.where(is_green, across, shifted(0, 0))
    other = np.where(is_green, along, corners)
    green = np.where(is_green, shifted(0, 0), beside)
    rgb = np.stack([np.where(is_red_row, own, other), green, np.where(is_red_row, other, own)], axis=-1)
    return np.pad(rgb.astype(np.uint8), ((1, 1), (1, 1), (0, 0)), mode="edge")


def _resized(rgb: Uint8, kernels: FrameKernels) -> Uint8:
    tables = kernels.tables
    rows = Taps(_int32(tables["resize_row_starts"]), _float32(tables["resize_row_weights"]))
    columns = Taps(_int32(tables["resize_column_starts"]), _float32(tables["resize_column_weights"]))
    wide = _filtered(rgb.astype(np.float32).swapaxes(0, 1), columns).swapaxes(0, 1)
    levels = _filtered(wide, rows)
    rounds_up = bool(kernels.tiles_launch.arguments[-1])
    whole = np.floor(levels + np.float32(0.5)) if rounds_up else np.rint(levels)
    return whole.clip(0, 255).astype(np.uint8)


def _filtered(values: Float32, taps: Taps) -> Float32:
    """Filter along the first axis, tap by tap."""
    shape = (len(taps.starts), *values.shape[1:])
    sums = np.zeros(shape, np.float32)
    for tap in range(taps.width):
        weights = taps.weights[:, tap].reshape(-1, *[1] * (values.ndim - 1))
        sums += weights * values[taps.starts + tap]
    return sums


def _stitched(distances: Float32, tables: Mapping[str, NDArray[Any]]) -> Float32:
    flat = distances.reshape(-1)
    row_offsets, column_offsets = tables["row_offsets"], tables["column_offsets"]
    grid = np.zeros((len(row_offsets), len(column_offsets)), np.float32)
    for i in range(row_offsets.shape[1]):
        for j in range(column_offsets.shape[1]):
            rows, columns = row_offsets[:, i, None], column_offsets[:, j]
            is_there = (rows >= 0) & (columns >= 0)
            parts = flat[np.where(is_there, rows + columns, 0)]
            parts = parts * tables["row_shares"][:, i, None] * tables["column_shares"][:, j]
            grid = np.where(is_there, grid + parts, grid)
    return grid


def _packed(mask: NDArray[np.bool_]) -> NDArray[np.uint32]:
    row_bytes = np.packbits(mask, axis=1)
    padding = -row_bytes.shape[1] % 4
    return np.pad(row_bytes, ((0, 0), (0, padding))).view(np.uint32)


def _add_to_histogram(bits: NDArray[np.uint32], arrays: Arrays) -> None:
    counted = np.minimum(bits[bits >= _FIRST_BITS], np.uint32(_LAST_BITS)) - np.uint32(_FIRST_BITS)
    bins = np.asarray(counted >> 15, np.intp)
    counts, residuals = arrays["histogram_counts"], arrays["histogram_residuals"]
    counts += np.bincount(bins, minlength=HISTOGRAM_BINS).astype(counts.dtype)
    np.add.at(residuals, bins, (counted & 32767).astype(residuals.dtype))


def _top_sum(counts: NDArray[np.uint32], residuals: NDArray[np.uint64], top_count: int) -> float:
    """Sum of the largest values: four bins a thread from the top down, then pairs of threads."""
    above = np.cumsum(counts[::-1], dtype=np.int64)[::-1] - counts
    taken = np.clip(top_count - above, 0, counts)
    first_bits = np.uint32(_FIRST_BITS) + (np.arange(HISTOGRAM_BINS, dtype=np.uint32) << 15)
    lowest = first_bits.view(np.float32).astype(np.float64)
    octave = (first_bits & np.uint32(0x7F800000)).view(np.float32).astype(np.float64)
    shares = np.where(taken == counts, residuals, residuals * taken.astype(np.float64) / np.maximum(counts, 1))
    sums = np.zeros(HISTOGRAM_BINS // 4)
    for place in (3, 2, 1, 0):
        sums += (taken * lowest + shares * (octave / (1 << 23)))[place::4]
    while len(sums) > 1:
        sums = sums[: len(sums) // 2] + sums[len(sums) // 2 :]
    return float(sums[0])


def _int32(table: NDArray[Any]) -> Int32:
    return np.asarray(table, np.int32)


def _float32(table: NDArray[Any]) -> Float32:
    return np.asarray(table, np.float32)
