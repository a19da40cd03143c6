"""What the fused kernels need for frames of one size: constant tables, buffers, and three launches.

A device and the tests' host shim execute the very same launches. Knows nothing about either.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fbft_edge.detectors.anomaly_map import axis_operator
from fbft_edge.detectors.judge import TOP_FRACTION
from fbft_edge.detectors.kernels.taps import Int32, Taps, banded_taps, resize_taps
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import Float32
from fbft_edge.frames.pixel_format import PixelFormat, frame_array_shape, pixel_dtype
from fbft_edge.names import size_text

# Fixed in the sources.
TILE_BLOCK_PX = 1024
MAP_COLUMNS = 128
MAP_STAGED_ROWS = 24
MAP_STAGED_CELLS = 8192
HISTOGRAM_BINS = 4096
_MAP_ROWS = (64, 32, 16, 8, 4, 2, 1)
_TILE_THREADS, _MAP_THREADS, _SCORE_THREADS = 256, 256, 1024
# Pixels are counted in 31 bits.
_MOST_PIXELS = 2**31 - 1

# What host and device exchange for each frame in flight; the other buffers never leave the device.
UPLOADED = ("frame",)
DOWNLOADED = ("result", "mask", "grid", "map")

Size3 = tuple[int, int, int]
Table = NDArray[np.int32] | NDArray[np.float32]
Scalar = np.int32 | np.uint32 | np.float32


@dataclass(frozen=True, slots=True)
class Launch:
    """One kernel launch, but for addresses and stream.

    Attributes:
        source: One of `fbft_edge.detectors.kernels.SOURCES`.
        entry: Name of the kernel in it.
        grid: Blocks along x, y, z.
        block: Threads of a block along x, y, z.
        arguments: In order: a number, the name of a table or buffer (its address), or "" (the null pointer).
    """

    source: str
    entry: str
    grid: Size3
    block: Size3
    arguments: tuple[Scalar | str, ...]


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory that kernels read and write; zeroed once, before the first frame."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]

    @property
    def nbytes(self) -> int:
        """Bytes it takes."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


class FrameKernels:
    """Tables, buffers and launches for frames of one size and pixel format.

    Args:
        plan: Where the tiles lie.
        pixel_format: Of the frames.
        pixel_threshold: The mask is where the map is above it.
        with_map: Write the anomaly map at frame resolution, too.
        pitch: Bytes from row to row of a frame; None means no gaps, and the buffer `frame` has the shape of the
            camera's array. With a pitch it is (rows, pitch) bytes.

    Attributes:
        plan: As given.
        pixel_format: As given.
        pixel_threshold: As the kernels compare with it.
        top_count: Pixels whose mean is the score.
        tables: By name, constant.
        buffers: By name. `frame` in; `tiles` (num_tiles, tile_px, tile_px, 3) uint8 RGB for the engine; `distances`
            (num_tiles, tile_patches, tile_patches) float32 from it; `grid` (rows, columns) float32, stitched; `mask`
            (height, ceil(width / 32)) uint32, whose first ceil(width / 8) bytes of a row are those of `np.packbits`;
            `row_peaks` (height,) float32; `histogram_counts` and `histogram_residuals` (4096,), see
            `map_and_mask.cu`; `result` (2,) float32: score and peak. With `with_map` also `map`,
            (height, width) float32.
        tiles_launch: `frame` to `tiles`.
        map_launch: `distances` to `grid`, `mask`, `row_peaks`, histogram and `map`.
        score_launch: `row_peaks` and histogram to `result`; zeroes them for the next frame.

    Raises:
        ArgumentError: The kernels cannot take such frames or tiles.
    """

    def __init__(
        self,
        plan: TilePlan,
        pixel_format: PixelFormat,
        pixel_threshold: float,
        with_map: bool = False,
        pitch: int | None = None,
    ) -> None:
        self.plan = plan
        self.pixel_format = pixel_format
        self.pixel_threshold = np.float32(pixel_threshold)
        height, width = plan.frame_size
        self.top_count = max(1, int(height * width * TOP_FRACTION))
        self._require_countable()
        self.tables: dict[str, Table] = {}
        self.buffers = self._made_buffers(with_map, pitch)
        self.tiles_launch = self._made_tiles_launch()
        self.map_launch = self._made_map_launch()
        self.score_launch = self._made_score_launch()

    def memory_bytes(self, frames_in_flight: int) -> dict[str, int]:
        """Device memory by purpose: `tables`, and `buffers` with as many frames in flight."""
        exchanged = (*UPLOADED, *DOWNLOADED)
        return {
            "tables": sum(table.nbytes for table in self.tables.values()),
            "buffers": sum(
                buffer.nbytes * (frames_in_flight if name in exchanged else 1) for name, buffer in self.buffers.items()
            ),
        }

    def _require_countable(self) -> None:
        plan, tile_px = self.plan, self.plan.geometry.tile_px
        height, width = plan.frame_size
        most = max(height * width, plan.num_tiles * tile_px**2)
        if most > _MOST_PIXELS:
            raise ArgumentError(
                f"frames of {size_text((height, width))} in {plan.num_tiles} tiles of {tile_px} px make {most} "
                f"pixels, the CUDA kernels count {_MOST_PIXELS}; use smaller frames or less overlap"
            )

    def _made_buffers(self, with_map: bool, pitch: int | None) -> dict[str, Buffer]:
        plan, geometry = self.plan, self.plan.geometry
        (height, width), side = plan.frame_size, geometry.tile_patches
        buffers = {
            "frame": _frame_buffer(self.pixel_format, height, width, pitch),
            "tiles": Buffer((plan.num_tiles, geometry.tile_px, geometry.tile_px, 3), np.dtype(np.uint8)),
            "distances": Buffer((plan.num_tiles, side, side), np.dtype(np.float32)),
            "grid": Buffer(plan.grid, np.dtype(np.float32)),
            "mask": Buffer((height, -(-width // 32)), np.dtype(np.uint32)),
            "row_peaks": Buffer((height,), np.dtype(np.float32)),
            "histogram_counts": Buffer((HISTOGRAM_BINS,), np.dtype(np.uint32)),
            "histogram_residuals": Buffer((HISTOGRAM_BINS,), np.dtype(np.uint64)),
            "result": Buffer((2,), np.dtype(np.float32)),
        }
        if with_map:
            buffers["map"] = Buffer((height, width), np.dtype(np.float32))
        return buffers

    def _made_tiles_launch(self) -> Launch:
        plan, tile_px = self.plan, self.plan.geometry.tile_px
        num_pixels = plan.num_tiles * tile_px**2
        self.tables["tile_origins"] = np.array(list(plan.origins_px()), np.int32)
        is_scaled = plan.scaled_size != plan.frame_size
        frame = self.buffers["frame"]
        pitch = frame.nbytes // frame.shape[0]
        return Launch(
            source="frame_to_tiles",
            entry=f"frame_to_tiles_{self.pixel_format.value}" + ("_scaled" if is_scaled else ""),
            grid=(-(-num_pixels // TILE_BLOCK_PX), 1, 1),
            block=(_TILE_THREADS, 1, 1),
            arguments=(
                "frame",
                np.uint32(pitch),
                *_int32(*plan.frame_size),
                "tiles",
                np.uint32(num_pixels),
                *_divisor(tile_px),
                "tile_origins",
                *(self._resize_arguments() if is_scaled else ()),
            ),
        )

    def _resize_arguments(self) -> tuple[Scalar | str, ...]:
        plan = self.plan
        (height, width), (scaled_height, scaled_width) = plan.frame_size, plan.scaled_size
        is_shrinking = plan.geometry.scale < 1
        rows = resize_taps(height, scaled_height, is_shrinking)
        columns = resize_taps(width, scaled_width, is_shrinking)
        self._add_taps("resize_row", rows)
        self._add_taps("resize_column", columns)
        # OpenCV rounds halves up where it shrinks to exactly half, else to even.
        rounds_up = is_shrinking and (height, width) == (2 * scaled_height, 2 * scaled_width)
        return (
            *_int32(scaled_height, scaled_width),
            *("resize_row_starts", "resize_row_weights", np.int32(rows.width)),
            *("resize_column_starts", "resize_column_weights", np.int32(columns.width)),
            np.int32(rounds_up),
        )

    def _made_map_launch(self) -> Launch:
        plan, (height, width) = self.plan, self.plan.frame_size
        rows, columns = self._map_taps()
        self._add_taps("map_row", rows)
        self._add_taps("map_column", Taps(columns.starts, np.ascontiguousarray(columns.weights.T)))
        row_parts, column_parts = self._add_shares()
        block_rows = _block_rows(rows, columns, plan.grid)
        return Launch(
            source="map_and_mask",
            entry="map_and_mask",
            grid=(-(-width // MAP_COLUMNS), -(-height // block_rows), 1),
            block=(_MAP_THREADS, 1, 1),
            arguments=(
                *("distances", "grid", "mask", "row_peaks", "histogram_counts", "histogram_residuals"),
                "map" if "map" in self.buffers else "",
                *_int32(height, width, *plan.grid, block_rows),
                self.pixel_threshold,
                *("map_row_starts", "map_row_weights", np.int32(rows.width)),
                *("map_column_starts", "map_column_weights", np.int32(columns.width)),
                *("row_offsets", "row_shares", np.int32(row_parts)),
                *("column_offsets", "column_shares", np.int32(column_parts)),
            ),
        )

    def _map_taps(self) -> tuple[Taps, Taps]:
        plan, patch_px = self.plan, self.plan.geometry.patch_px
        rows, columns = (
            banded_taps(axis_operator(plan.grid[axis], patch_px, plan.scaled_size[axis], plan.frame_size[axis]))
            for axis in (0, 1)
        )
        return rows, columns

    def _add_shares(self) -> tuple[int, int]:
        """Tables that say which tiles' patches make a cell of the stitched grid; returns how many along each axis.

        A patch lies at the sum of a row's and a column's offset in `distances`.
        """
        plan, side = self.plan, self.plan.geometry.tile_patches
        starts, weights = (plan.row_starts, plan.column_starts), (plan.row_weights, plan.column_weights)
        steps = (side**2 * len(starts[1]), side), (side**2, 1)
        for axis, name in enumerate(("row", "column")):
            offsets, shares = _shares(starts[axis], weights[axis], plan.grid[axis], *steps[axis])
            self.tables[f"{name}_offsets"], self.tables[f"{name}_shares"] = offsets, shares
        return self.tables["row_offsets"].shape[1], self.tables["column_offsets"].shape[1]

    def _made_score_launch(self) -> Launch:
        return Launch(
            source="score",
            entry="score",
            grid=(1, 1, 1),
            block=(_SCORE_THREADS, 1, 1),
            arguments=(
                *("histogram_counts", "histogram_residuals", "row_peaks", "result"),
                np.int32(self.plan.frame_size[0]),
                np.uint32(self.top_count),
            ),
        )

    def _add_taps(self, name: str, taps: Taps) -> None:
        self.tables[f"{name}_starts"], self.tables[f"{name}_weights"] = taps.starts, taps.weights


def _frame_buffer(pixel_format: PixelFormat, height: int, width: int, pitch: int | None) -> Buffer:
    dense = Buffer(frame_array_shape(pixel_format, height, width), pixel_dtype(pixel_format))
    if pitch is None:
        return dense
    row_bytes = dense.nbytes // dense.shape[0]
    if pitch < row_bytes or pitch % dense.dtype.itemsize:
        raise ArgumentError(
            f"a pitch of {pitch} bytes does not fit rows of {row_bytes}; name at least {row_bytes}, a multiple of "
            f"{dense.dtype.itemsize}"
        )
    return Buffer((dense.shape[0], pitch), np.dtype(np.uint8))


def _block_rows(rows: Taps, columns: Taps, grid: tuple[int, int]) -> int:
    """Rows of the map that one block makes: as many as its shared memory has room for."""
    width = _most_cells(columns, MAP_COLUMNS, grid[1])
    for block_rows in _MAP_ROWS:
        height = _most_cells(rows, block_rows, grid[0])
        if height <= MAP_STAGED_ROWS and height * width <= MAP_STAGED_CELLS:
            return block_rows
    raise ArgumentError(
        f"each pixel of the map takes {rows.width}x{columns.width} patches, the CUDA kernel has room for "
        f"{MAP_STAGED_ROWS} rows; use larger patches"
    )


def _most_cells(taps: Taps, outputs: int, num_cells: int) -> int:
    """Most cells that any block of outputs stages: those its taps take, and all up to the next block's first."""
    starts = taps.starts.astype(np.int64)
    firsts = starts[::outputs].copy()
    firsts[0] = 0
    nexts = np.append(firsts[1:], num_cells)
    lasts = starts[np.minimum(np.arange(1, len(firsts) + 1) * outputs, len(starts)) - 1] + taps.width
    return int((np.maximum(nexts, lasts) - firsts).max())


def _shares(
    starts: list[int], weights: list[Float32], length: int, tile_step: int, patch_step: int
) -> tuple[Int32, Float32]:
    """For each patch along one axis of the grid, where its tiles' patches lie and what they weigh.

    Returns:
        (length, most) int32 offsets, -1 where fewer tiles meet, and float32 weights, in the order of the tiles.
    """
    parts: list[list[tuple[int, float]]] = [[] for _ in range(length)]
    for tile, (start, tile_weights) in enumerate(zip(starts, weights, strict=True)):
        for patch, weight in enumerate(tile_weights[: length - start]):
            parts[start + patch].append((tile * tile_step + patch * patch_step, float(weight)))
    most = max(map(len, parts))
    offsets, shares = np.full((length, most), -1, np.int32), np.zeros((length, most), np.float32)
    for cell, cell_parts in enumerate(parts):
        for place, (offset, share) in enumerate(cell_parts):
            offsets[cell, place], shares[cell, place] = offset, share
    return offsets, shares


def _divisor(divisor: int) -> tuple[Scalar, Scalar, Scalar]:
    """A divisor as the kernels take it: itself, and a factor and shift that divide any number below 2^31.

    n // d == ((n * factor) >> 32) >> shift, for the factor is off by less than 1 part in 2^31.
    """
    bits = max(1, (divisor - 1).bit_length())
    factor = -(-(1 << (31 + bits)) // divisor)
    return np.uint32(divisor), np.uint32(factor), np.uint32(bits - 1)


def _int32(*values: int) -> tuple[Scalar, ...]:
    return tuple(np.int32(value) for value in values)
