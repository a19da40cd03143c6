"""What `bundle.json` says: JSON in, typed and bounded values out.

Every value stands here with its bounds, but for those in `notes`, which stand in `fbft_edge.bundle.notes`. Knows
nothing about files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from fbft_edge.strict_json import members, typed

SCHEMA = "fbft.bundle/1"

_MAX_SIDE_PX = 65_536
_MAX_NAME_LENGTH = 1000
_SHA256 = re.compile("[0-9a-fA-F]{64}")

_Length = Annotated[int, Meta(ge=1, le=_MAX_SIDE_PX)]
_Count = Annotated[int, Meta(ge=0, le=_MAX_SIDE_PX)]
_Distance = Annotated[float, Meta(ge=0, le=4)]  # a patch's: the product of two in [0, 2]
_Rate = Annotated[float, Meta(ge=0, le=1)]


@dataclass(frozen=True, slots=True)
class TileGeometry:
    """The part of a bundle that says how frames are cut.

    Attributes:
        tile_px: Side of a square tile, a multiple of `patch_px`.
        patch_px: Side of a patch.
        overlap_patches: Least number of patches that neighbouring tiles share.
        scale: Frames are resized by this factor before they are cut; 1 keeps the camera's pixels.
    """

    tile_px: _Length
    patch_px: _Length
    overlap_patches: _Count
    scale: Annotated[float, Meta(ge=1e-3, le=16)] = 1.0

    @property
    def tile_patches(self) -> int:
        """Patches along a tile's side."""
        return self.tile_px // self.patch_px


@dataclass(frozen=True, slots=True)
class TeacherIdentity:
    """Which teacher the students were fitted to."""

    name: str
    weights_sha256: str
    embed_dim: Annotated[int, Meta(ge=1, le=1 << 20)]
    blocks: tuple[_Count, _Count]


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Where `ok` ends, and what is known about it.

    A frame is anomalous when its score exceeds `image` or any map pixel exceeds `pixel`. Both come from one
    split-conformal calibration, so their joint false-alarm rate is what is stated.

    Attributes:
        image: Threshold of the image score.
        pixel: Threshold of the anomaly map.
        requested_rate: False-alarm rate asked for, a fraction of nominal frames.
        supported_rate: Expected false-alarm rate of the thresholds, at least 1 / (num_images + 1).
        upper_rate: The true rate lies below this with 95 % confidence over the draw of calibration images.
        num_images: Held-out nominal images behind them.
        outline: Map value below which no flagged region is drawn; it flags nothing by itself. None in bundles made
            before there was one, whose regions end at `pixel`.
    """

    image: _Distance
    pixel: _Distance
    requested_rate: _Rate
    supported_rate: _Rate
    upper_rate: _Rate
    num_images: Annotated[int, Meta(ge=1, le=1 << 40)]
    outline: _Distance | None = None


# Of a bundle before calibration; no manifest can state it.
NOTHING_FLAGGED = Thresholds(math.inf, math.inf, requested_rate=0, supported_rate=0, upper_rate=0, num_images=0)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The members of `bundle.json`; see `fbft_edge.bundle.reading.Bundle`.

    Attributes:
        notes: As they stand there; `fbft_edge.bundle.notes` reads them.
    """

    schema: str
    product: str
    created: str
    teacher: TeacherIdentity
    tile: TileGeometry
    frame_sizes: tuple[tuple[_Length, _Length], ...]
    thresholds: Thresholds | None
    notes: Mapping[str, Any]
    files: Mapping[str, str]


def manifest_from_json(value: Any) -> Manifest:
    """What `bundle.json` holds.

    Raises:
        ValueError: A sealed bundle cannot hold that.
    """
    contents = members(value)
    if (schema := contents.get("schema")) != SCHEMA:
        raise ValueError(f"schema {schema!r:.80}, this version reads {SCHEMA!r}")
    manifest = typed(contents, Manifest)
    if "scale" not in contents["tile"]:
        raise ValueError("tile lacks its scale")
    j, k = manifest.teacher.blocks
    if j >= k:
        raise ValueError(f"blocks {j} and {k} are not in order")
    tile = manifest.tile
    if tile.tile_px % tile.patch_px or tile.overlap_patches >= tile.tile_patches:
        raise ValueError(f"{tile} does not fit together")
    for name, digest in manifest.files.items():
        if not (name.isprintable() and len(name) <= _MAX_NAME_LENGTH):
            raise ValueError(f"{name!r:.80} is not a file name of at most {_MAX_NAME_LENGTH} printable characters")
        if not _SHA256.fullmatch(digest):
            raise ValueError(f"{digest!r:.80} is not a SHA-256 in hexadecimal")
    return manifest
