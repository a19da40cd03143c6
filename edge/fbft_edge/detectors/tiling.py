"""Where tiles lie on a frame, and how their patch grids join into one.

Tiles are aligned to whole patches and overlap by whole patches, so joining happens on the small patch grid and
the anomaly map is made once per frame. Knows nothing about models.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.frames.frame import Float32, Uint8

# Sides considered when the tile size is not given: larger tiles cost more attention and found no more (docs/log.md).
LEAST_TILE_PATCHES = 20
MOST_TILE_PATCHES = 28


class TilePlan:
    """Tiles on frames of one size.

    Attributes:
        frame_size: (height, width) of the frames.
        scaled_size: (height, width) after the geometry's scale.
        grid: (rows, columns) of the stitched patch grid; its last row and column may reach beyond the frame.
        num_tiles: Tiles per frame.
        row_starts: First patch row of each row of tiles.
        column_starts: First patch column of each column of tiles.
        row_weights: For each row of tiles, (tile_patches,) float32: what its patch rows weigh in the stitched grid.
        column_weights: The same for columns.
    """

    def __init__(self, geometry: TileGeometry, height: int, width: int) -> None:
        self.geometry = geometry
        self.frame_size = (height, width)
        self.scaled_size = _scaled(height, geometry.scale), _scaled(width, geometry.scale)
        self.grid = patch_grid(self.scaled_size, geometry.patch_px)
        side, overlap = geometry.tile_patches, geometry.overlap_patches
        self.row_starts = _starts(self.grid[0], side, overlap)
        self.column_starts = _starts(self.grid[1], side, overlap)
        self.num_tiles = len(self.row_starts) * len(self.column_starts)
        self.row_weights = _weights(self.row_starts, side, self.grid[0])
        self.column_weights = _weights(self.column_starts, side, self.grid[1])
        padded = max(self.grid[0], side), max(self.grid[1], side)
        self._canvas = np.empty((padded[0] * geometry.patch_px, padded[1] * geometry.patch_px, 3), np.uint8)

    def origins_px(self) -> Iterator[tuple[int, int]]:
        """Top and left of each tile in scaled pixels, row by row."""
        patch_px = self.geometry.patch_px
        for row in self.row_starts:
            for column in self.column_starts:
                yield row * patch_px, column * patch_px

    def cut(self, pixels: Uint8, out: Uint8) -> None:
        """Copy a frame's tiles; beyond the frame its edge is replicated.

        Args:
            pixels: (height, width, 3) uint8 RGB of `frame_size`.
            out: (num_tiles, tile_px, tile_px, 3) uint8, written in the order of `origins_px`.
        """
        source = self._padded(pixels)
        side = self.geometry.tile_px
        for tile, (top, left) in zip(out, self.origins_px(), strict=True):
            np.copyto(tile, source[top : top + side, left : left + side])

    def stitch(self, distances: Float32) -> Float32:
        """Join the tiles' patch grids; where tiles overlap they fade into each other.

        Args:
            distances: (num_tiles, tile_patches, tile_patches) float32.

        Returns:
            `grid`-shaped float32, owned by the caller.
        """
        side = self.geometry.tile_patches
        grid = np.zeros((max(self.grid[0], side), max(self.grid[1], side)), np.float32)
        tiles = iter(distances)
        for row, row_weight in zip(self.row_starts, self.row_weights, strict=True):
            for column, column_weight in zip(self.column_starts, self.column_weights, strict=True):
                part = next(tiles) * row_weight[:, None] * column_weight[None, :]
                grid[row : row + side, column : column + side] += part
        return grid[: self.grid[0], : self.grid[1]]

    def _padded(self, pixels: Uint8) -> Uint8:
        if self.scaled_size != self.frame_size:
            method = cv2.INTER_AREA if self.geometry.scale < 1 else cv2.INTER_CUBIC
            pixels = np.asarray(cv2.resize(pixels, self.scaled_size[::-1], interpolation=method), np.uint8)
        height, width = self.scaled_size
        if (height, width) == self._canvas.shape[:2]:
            return pixels
        self._canvas[:height, :width] = pixels
        self._canvas[:height, width:] = pixels[:, -1:]
        self._canvas[height:] = self._canvas[height - 1]
        return self._canvas


def best_tile_px(grid: tuple[int, int], patch_px: int, overlap_patches: int, embed_dim: int) -> int:
    """Tile side with the least teacher work per frame.

    A ViT block costs 24 D^2 FLOPs a token outside attention and 4 N D inside, N tokens a tile; smaller tiles save
    attention, badly fitting ones repeat patches.

    Args:
        grid: (rows, columns) of the frame's patch grid.
        patch_px: Side of a patch.
        overlap_patches: Least overlap of neighbouring tiles.
        embed_dim: D, length of a feature vector.
    """

    def cost(side: int) -> int:
        tiles = len(_starts(grid[0], side, overlap_patches)) * len(_starts(grid[1], side, overlap_patches))
        return tiles * side**2 * (24 * embed_dim + 4 * side**2)

    return patch_px * min(range(MOST_TILE_PATCHES, LEAST_TILE_PATCHES - 1, -1), key=cost)


def patch_grid(size_px: tuple[int, int], patch_px: int) -> tuple[int, int]:
    """(rows, columns) of the patches that cover a picture of (height, width)."""
    return -(-size_px[0] // patch_px), -(-size_px[1] // patch_px)


def _scaled(length: int, scale: float) -> int:
    return max(1, round(length * scale))


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """First patch of each tile along one axis: as few tiles as will do, evenly spread, the last one flush."""
    if length <= side:
        return [0]
    count = -(-(length - overlap) // (side - overlap))
    return [round(i * (length - side) / (count - 1)) for i in range(count)]


def _weights(starts: list[int], side: int, length: int) -> list[Float32]:
    """Weight of each tile's patches along one axis: linear ramps in the overlaps, summing to 1 everywhere."""
    raw = np.zeros((len(starts), max(length, side)), np.float64)
    for tile, start in enumerate(starts):
        raw[tile, start : start + side] = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1))
    shares = raw / raw.sum(axis=0)
    return [shares[tile, start : start + side].astype(np.float32) for tile, start in enumerate(starts)]
