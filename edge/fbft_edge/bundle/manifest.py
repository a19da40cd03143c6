"""What `bundle.json` says, read strictly: JSON in, checked values out.

Every function raises `ValueError` (or `KeyError` for a missing member) on anything that a sealed bundle cannot
hold. Knows nothing about files.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from fbft_edge.strict_json import integer, members, number, text


@dataclass(frozen=True, slots=True)
class TileGeometry:
    """The part of a bundle that says how frames are cut.

    Attributes:
        tile_px: Side of a square tile, a multiple of `patch_px`.
        patch_px: Side of a patch.
        overlap_patches: Least number of patches that neighbouring tiles share.
        scale: Frames are resized by this factor before they are cut; 1 keeps the camera's pixels.
    """

    tile_px: int
    patch_px: int
    overlap_patches: int
    scale: float = 1.0

    @property
    def tile_patches(self) -> int:
        """Patches along a tile's side."""
        return self.tile_px // self.patch_px


_MAX_SIDE_PX = 65_536
_MAX_NAME_LENGTH = 1000
_SHA256 = re.compile("[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class TeacherIdentity:
    """Which teacher the students were fitted to."""

    name: str
    weights_sha256: str
    embed_dim: int
    blocks: tuple[int, int]


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

    image: float
    pixel: float
    requested_rate: float
    supported_rate: float
    upper_rate: float
    num_images: int
    outline: float | None = None


# Of a bundle before calibration.
NOTHING_FLAGGED = Thresholds(math.inf, math.inf, requested_rate=0, supported_rate=0, upper_rate=0, num_images=0)


def teacher_from_json(value: Any) -> TeacherIdentity:
    """The member `teacher`."""
    contents = members(value)
    j, k = _pair(contents["blocks"], 0)
    if j >= k:
        raise ValueError(f"blocks {j} and {k} are not in order")
    return TeacherIdentity(
        name=text(contents["name"]),
        weights_sha256=text(contents["weights_sha256"]),
        embed_dim=integer(contents["embed_dim"], 1, 1 << 20),
        blocks=(j, k),
    )


def tile_from_json(value: Any) -> TileGeometry:
    """The member `tile`."""
    contents = members(value)
    tile = TileGeometry(
        tile_px=integer(contents["tile_px"], 1, _MAX_SIDE_PX),
        patch_px=integer(contents["patch_px"], 1, _MAX_SIDE_PX),
        overlap_patches=integer(contents["overlap_patches"], 0, _MAX_SIDE_PX),
        scale=number(contents["scale"], 1e-3, 16),
    )
    if tile.tile_px % tile.patch_px or tile.overlap_patches >= tile.tile_patches:
        raise ValueError(f"{tile} does not fit together")
    return tile


def frame_sizes_from_json(value: Any) -> tuple[tuple[int, int], ...]:
    """The member `frame_sizes`."""
    if not isinstance(value, list):
        raise ValueError(f"expected a list of sizes, found {value!r:.80}")
    return tuple(_pair(size, 1) for size in value)


def thresholds_from_json(value: Any) -> Thresholds | None:
    """The member `thresholds`; null before calibration."""
    if value is None:
        return None
    contents = members(value)
    return Thresholds(
        image=number(contents["image"], 0, 4),
        pixel=number(contents["pixel"], 0, 4),
        requested_rate=number(contents["requested_rate"], 0, 1),
        supported_rate=number(contents["supported_rate"], 0, 1),
        upper_rate=number(contents["upper_rate"], 0, 1),
        num_images=integer(contents["num_images"], 1, 1 << 40),
        outline=None if contents.get("outline") is None else number(contents["outline"], 0, 4),
    )


def files_from_json(value: Any) -> dict[str, str]:
    """The member `files`: relative path to SHA-256."""
    return {_printable(name): _digest(digest) for name, digest in members(value).items()}


def _pair(value: Any, low: int) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError(f"expected two whole numbers, found {value!r:.80}")
    return integer(value[0], low, _MAX_SIDE_PX), integer(value[1], low, _MAX_SIDE_PX)


def _printable(name: str) -> str:
    if not (name.isprintable() and len(name) <= _MAX_NAME_LENGTH):
        raise ValueError(f"{name!r:.80} is not a file name of at most {_MAX_NAME_LENGTH} printable characters")
    return name


def _digest(value: Any) -> str:
    if not _SHA256.fullmatch(text(value)):
        raise ValueError(f"{value!r:.80} is not a SHA-256 in hexadecimal")
    return str(value)
