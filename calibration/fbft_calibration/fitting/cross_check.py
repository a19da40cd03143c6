"""Teacher features of all nominal images in, how far each image is from the others out.

Every patch is held against patches of the other images at the same place of the frame. Nearest neighbours leave an
image out exactly, by skipping its own rows; students that have not seen it would have to be fitted once for each part
of the images. Knows nothing about students, prototypes or thresholds, nor about which images stand out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch.nn import functional

from fbft_calibration.data.nominal import NominalImage
from fbft_calibration.fitting.feature_cache import FeatureCache, from_bits
from fbft_calibration.fitting.features import on_frame
from fbft_edge.detectors.anomaly_map import MapOperator
from fbft_edge.detectors.judge import image_score
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.frames.frame import Float32
from fbft_edge.progress import SILENT, Progress

_CELL_PATCHES = 4
_REACH_PATCHES = 4  # around a cell: parts do not lie more exactly than that
_MOST_OTHERS = 4096
_MOST_COSINES = 1 << 24  # at once, 64 MiB
_MOST_OPEN = 256  # files; a process may often open 1,024

_Int = np.ndarray[tuple[int, ...], np.dtype[np.intp]]


@dataclass(frozen=True, slots=True)
class Compared:
    """An image among the others.

    Attributes:
        image: Which.
        score: `image_score` of the map of its distances.
        peak_xy: Where that map is largest.
        plan: Its tiles.
        grid: `plan.grid`-shaped float32, each patch's distance to the nearest one of the other images, in [0, 2].
    """

    image: NominalImage
    score: float
    peak_xy: tuple[int, int]
    plan: TilePlan
    grid: Float32

    def anomaly_map(self) -> Float32:
        """(height, width) float32, made of the distances as a detector makes its map."""
        return _map_of(self.plan, self.grid)


def compare(
    cache: FeatureCache, images: Sequence[NominalImage], seed: int, progress: Progress = SILENT
) -> list[Compared]:
    """Hold every image against all others, by the teacher's features after block k.

    A cell of 4x4 patches is held against what the others have there and up to 4 patches around, at most 4,096 patches
    drawn evenly from them. Where images differ in size places mean nothing, and all patches are held against at most
    4,096 from anywhere. The features stay on disk; in memory are those of one cell, with the offline teacher about
    50 KB an image, 8 bytes for each patch of all images, and at most 0.2 GB more.

    Args:
        cache: Of their features.
        images: At least two.
        seed: Of what is drawn; nothing else draws from it.
        progress: Shown how far it is.
    """
    rows = _Rows(cache, images, seed)
    is_in_place = len({image.size for image in images}) == 1
    found = _in_place(rows, cache.plan(images[0].size), progress) if is_in_place else _anywhere(rows, progress)
    return [_compared(image, cache.plan(image.size), each) for image, each in zip(images, found, strict=True)]


class _Rows:
    """Patches of images as unit vectors, and some of all images to hold them against."""

    def __init__(self, cache: FeatureCache, images: Sequence[NominalImage], seed: int) -> None:
        self.counts = [cache.of(image).shape[1] for image in images]
        self._bits = lru_cache(_MOST_OPEN)(lambda index: cache.of(images[index])[1])
        self._each = max(1, _MOST_OTHERS // (len(images) - 1))
        self._generator = np.random.default_rng(seed)

    def of(self, index: int, chosen: _Int) -> torch.Tensor:
        """(chosen, embed_dim) float32 of one image."""
        return functional.normalize(from_bits(self._bits(index)[chosen]).float(), dim=-1)

    def of_all(self, near: _Int | None = None) -> tuple[torch.Tensor, list[slice]]:
        """Some of all images, as many of each: (vectors, embed_dim) float32, and which of them are each image's.

        Args:
            near: The rows to draw from; None for all of them.
        """
        chosen = [self._drawn(np.arange(count) if near is None else near) for count in self.counts]
        ends = np.cumsum([0, *(len(drawn) for drawn in chosen)]).tolist()
        vectors = torch.cat([self.of(index, drawn) for index, drawn in enumerate(chosen)])
        return vectors, [slice(start, end) for start, end in pairwise(ends)]

    def _drawn(self, rows: _Int) -> _Int:
        if len(rows) <= self._each:
            return rows
        return np.sort(self._generator.choice(rows, self._each, replace=False))


def _in_place(rows: _Rows, plan: TilePlan, progress: Progress) -> list[Float32]:
    """Distances of each image's patches, in the order of `on_frame`; all images are of one size."""
    places, (height, width) = _places(plan), plan.grid
    found = [np.zeros(count, np.float32) for count in rows.counts]
    corners = [(top, left) for top in range(0, height, _CELL_PATCHES) for left in range(0, width, _CELL_PATCHES)]
    for corner in progress.track(corners, "cross-checking the images, by places"):
        from_corner = places - corner
        inside = _within(from_corner, 0)
        others, own = rows.of_all(_within(from_corner, _REACH_PATCHES))
        step = max(1, _MOST_COSINES // (len(inside) * len(others)))
        for start in range(0, len(found), step):  # many images at once: one large product takes half the time
            some = range(start, min(start + step, len(found)))
            nearest = _nearest([rows.of(index, inside) for index in some], others, [own[index] for index in some])
            for index, distances in zip(some, nearest, strict=True):
                found[index][inside] = distances
    return found


def _anywhere(rows: _Rows, progress: Progress) -> list[Float32]:
    """`_in_place` for images of several sizes."""
    others, own = rows.of_all()
    step = max(1, _MOST_COSINES // len(others))
    found = []
    for index, count in enumerate(progress.track(rows.counts, "cross-checking the images")):
        parts = np.array_split(np.arange(count), -(-count // step))
        found.append(np.concatenate([_nearest([rows.of(index, part)], others, [own[index]])[0] for part in parts]))
    return found


def _within(from_corner: _Int, reach: int) -> _Int:
    """The rows that lie in a cell, or so many patches around it."""
    return np.flatnonzero(((from_corner >= -reach) & (from_corner < _CELL_PATCHES + reach)).all(axis=1))


def _nearest(vectors: Sequence[torch.Tensor], others: torch.Tensor, own: Sequence[slice]) -> list[Float32]:
    """For each image's vectors the distances to the nearest of the others that is not its own."""
    cosine = torch.cat(list(vectors)) @ others.T
    blocks = torch.split(cosine, [len(part) for part in vectors])
    for block, mine in zip(blocks, own, strict=True):
        block[:, mine] = -1
    return [(2 - 2 * block.amax(dim=1)).clamp_min(0).sqrt().numpy() for block in blocks]


def _places(plan: TilePlan) -> _Int:
    """(patches, 2) row and column on the frame's patch grid, in the order of `on_frame`."""
    side, patch_px = plan.geometry.tile_patches, plan.geometry.patch_px
    corners = np.array(list(plan.origins_px())) // patch_px
    offsets = np.stack(np.divmod(np.arange(side * side), side), axis=-1)
    return np.asarray((corners[:, None] + offsets)[on_frame(plan)], np.intp)


def _compared(image: NominalImage, plan: TilePlan, distances: Float32) -> Compared:
    keep, side = on_frame(plan), plan.geometry.tile_patches
    of_tiles = np.zeros(keep.shape, np.float32)
    of_tiles[keep] = distances
    grid = plan.stitch(of_tiles.reshape(-1, side, side))
    anomaly_map = _map_of(plan, grid)
    row, column = divmod(int(anomaly_map.argmax()), image.size[1])
    return Compared(image, image_score(anomaly_map), (column, row), plan, grid)


def _map_of(plan: TilePlan, grid: Float32) -> Float32:
    anomaly_map = np.empty(plan.frame_size, np.float32)
    MapOperator(plan.grid, plan.geometry.patch_px, plan.scaled_size, plan.frame_size).apply(grid, anomaly_map)
    return anomaly_map
