"""What an engine makes of a bundle's own tiles in, trust or a refusal out.

The bundle holds real tiles with their float32 patch distances. `fbft_export.parity` judges an engine by them once, when
it is made, and finely. Here the engine that inspects shows now and then that it still computes what it did: one that
returns zeros, a constant or the last frame finds no defect, ever.

Knows nothing about runtimes, lines or messages.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, runtime_checkable

import numpy as np
from msgspec import Meta

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.anomaly_map import MapOperator
from fbft_edge.errors import BundleError, EngineError
from fbft_edge.frames.frame import Float32, Uint8
from fbft_edge.strict_json import json_from_bytes, members, typed

PARITY_FILE = "parity.safetensors"

# Of the largest map value of the tiles. An engine may stray by 0.06 when it is accepted; what has failed strays by 1.
MOST_STRAY = 0.15
_MOST_HEADER_BYTES = 1 << 20
_Length = Annotated[int, Meta(ge=0, le=1 << 40)]
_DTYPES: dict[str, np.dtype[Any]] = {"U8": np.dtype(np.uint8), "F32": np.dtype("<f4")}


@runtime_checkable
class InfersTiles(Protocol):
    """A detector whose engine can be asked for tiles of one's own."""

    def distances_of(self, tiles: Uint8) -> Float32:
        """Patch distances, (tiles, rows, columns) float32, of (tiles, tile_px, tile_px, 3) uint8 RGB.

        Only between frames: none may be in flight.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Tensor:
    dtype: str
    shape: tuple[_Length, ...]
    data_offsets: tuple[_Length, _Length]


class ParityTiles:
    """A bundle's reference.

    Args:
        tiles: (tiles, tile_px, tile_px, 3) uint8 RGB.
        distances: (tiles, rows, columns) float32, theirs.
        geometry: Of the tiles.
    """

    def __init__(self, tiles: Uint8, distances: Float32, geometry: TileGeometry) -> None:
        self._tiles, self._distances = tiles, distances
        rows, columns = distances.shape[1:]
        size = rows * geometry.patch_px, columns * geometry.patch_px
        self._operator = MapOperator((rows, columns), geometry.patch_px, size, size)
        self._unit = max(float(each.max()) for each in self._maps(distances)) or 1.0
        self._next = 0

    def __len__(self) -> int:
        return len(self._tiles)

    def require(self, detector: InfersTiles, most: int | None = None) -> None:
        """Accept a detector whose engine still computes what the reference says.

        Args:
            detector: Without a frame in flight.
            most: So many tiles at most, the next ones at each call; None for all.

        Raises:
            EngineError: It strays too far, or returns what are no numbers.
        """
        count = len(self) if most is None else min(most, len(self))
        chosen = (self._next + np.arange(count)) % len(self)
        self._next = int(self._next + count) % len(self)
        found, expected = detector.distances_of(self._tiles[chosen]), self._distances[chosen]
        pairs = zip(self._maps(found), self._maps(expected), strict=True)
        stray = max(float(np.abs(one - other).max()) for one, other in pairs) / self._unit
        if not (math.isfinite(stray) and stray <= MOST_STRAY):
            raise EngineError(
                f"the engine does not compute what the bundle's own tiles say: their map strays by {stray:.0%} of its "
                f"largest value, {MOST_STRAY:.0%} are allowed; start the line again, and when it lasts export the "
                "bundle again on this machine and look at driver and memory"
            )

    def _maps(self, distances: Float32) -> Iterator[Float32]:
        for grid in distances:
            out = np.empty(self._operator.frame_size, np.float32)
            self._operator.apply(grid, out)
            yield out


def parity_tiles(bundle: Bundle) -> ParityTiles | None:
    """The reference of a bundle, or None where there is none.

    Raises:
        BundleError: Its file is not what export writes.
    """
    if PARITY_FILE not in bundle.files:
        return None
    try:
        tensors = tensors_from_safetensors(bundle.read(PARITY_FILE))
        tiles, distances = tensors["tiles"], tensors["distances"]
        side, patches = bundle.tile.tile_px, bundle.tile.tile_patches
        expected = (len(tiles), side, side, 3), (len(tiles), patches, patches)
        if (tiles.shape, distances.shape) != expected or tiles.dtype != np.uint8 or distances.dtype != np.float32:
            raise ValueError(f"it holds {tiles.dtype} {tiles.shape} and {distances.dtype} {distances.shape}")
    except (KeyError, ValueError) as error:
        raise BundleError(
            f"{bundle.path / PARITY_FILE} is not tiles with their distances: {error}; fit the bundle again"
        ) from error
    return ParityTiles(tiles, distances, bundle.tile) if len(tiles) else None


def tensors_from_safetensors(raw: bytes) -> dict[str, np.ndarray]:
    """The uint8 and float32 tensors of a safetensors file; read by hand, as the line does without that library.

    The format: 8 bytes of length, little-endian, a JSON header of that length with each tensor's type, shape and place,
    then the values (https://github.com/huggingface/safetensors#format).

    Raises:
        ValueError: The file is none, or has tensors of other types.
    """
    length = int.from_bytes(raw[:8], "little")
    if len(raw) < 8 or length > min(_MOST_HEADER_BYTES, len(raw) - 8):
        raise ValueError("its header is longer than the file")
    header = members(json_from_bytes(raw[8 : 8 + length]))
    found = {}
    for name, about in header.items():
        if name != "__metadata__":
            found[name] = _tensor(typed(about, _Tensor), memoryview(raw)[8 + length :])
    return found


def _tensor(about: _Tensor, values: memoryview) -> np.ndarray:
    dtype, (start, stop) = _DTYPES.get(about.dtype), about.data_offsets
    if dtype is None or not start <= stop <= len(values):
        raise ValueError(f"a tensor of type {about.dtype:.8} from byte {start} to {stop}")
    if math.prod(about.shape) * dtype.itemsize != stop - start:
        raise ValueError(f"a tensor of shape {about.shape} in {stop - start} bytes")
    found: np.ndarray = np.frombuffer(values[start:stop], dtype).reshape(about.shape)
    return found
