"""The parity gate: real tiles with their float32 reference, and how far an engine strays from it.

The reference is made once, with torch, and travels in the bundle, so an engine can be held to it on a machine
that has neither torch nor the teacher's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from fbft_edge.anomaly_map import MapOperator
from fbft_edge.bundle import Bundle
from fbft_edge.errors import EngineError
from fbft_edge.frame import Float32, Uint8
from fbft_edge.scoring import image_score
from fbft_edge.tiling import TileGeometry
from fbft_export.graph import PatchDistanceModel

PARITY_FILE = "parity.safetensors"

# bf16 strays by at most 0.017 from float32 on the real tiles of docs/log.md.
MAX_TOLERANCE = 0.06
MEAN_TOLERANCE = 0.02


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences from the float32 reference, as fractions of the largest reference map value.

    Attributes:
        num_tiles: Tiles compared.
        map_max: Largest difference of any map pixel.
        map_mean: Mean difference of the map pixels.
        score_max: Largest difference of a tile's score.
    """

    num_tiles: int
    map_max: float
    map_mean: float
    score_max: float

    @property
    def is_accepted(self) -> bool:
        """True when every difference is finite and within tolerance."""
        return max(self.map_max, self.score_max) <= MAX_TOLERANCE and self.map_mean <= MEAN_TOLERANCE

    def require_accepted(self, engine: str) -> None:
        """Stop here unless the engine may be shipped.

        Raises:
            EngineError: A difference is beyond tolerance.
        """
        if not self.is_accepted:
            raise EngineError(
                f"{engine} strays from the float32 reference on {self.num_tiles} real tiles: map by at most "
                f"{self.map_max:.2%} (tolerance {MAX_TOLERANCE:.0%}), on average {self.map_mean:.2%} "
                f"({MEAN_TOLERANCE:.0%}), score by {self.score_max:.2%} ({MAX_TOLERANCE:.0%}); "
                "export again with --precision f32"
            )

    def as_dict(self) -> dict[str, float]:
        """For a JSON sidecar."""
        return asdict(self)


def write_reference(model: PatchDistanceModel, tiles: Uint8, path: Path) -> None:
    """Store tiles and their float32 patch distances.

    Args:
        model: The torch model, float32.
        tiles: (tiles, tile_px, tile_px, 3) uint8 RGB, cut from real images.
        path: Where to.
    """
    with torch.inference_mode():
        distances = torch.cat([model(torch.from_numpy(tile[None])) for tile in tiles]).numpy()
    save_file({"tiles": np.ascontiguousarray(tiles), "distances": distances}, path)
    path.chmod(0o644)  # safetensors writes 0600, and the line may run as another user


def measure_parity(bundle: Bundle, infer: Callable[[Uint8, Float32], None]) -> Parity:
    """Compare an engine with the bundle's float32 reference.

    Args:
        bundle: Holds the reference.
        infer: Writes patch distances of (tiles, tile_px, tile_px, 3) uint8 into its second argument.
    """
    stored = load_file(bundle.file(PARITY_FILE))
    expected: Float32 = stored["distances"]
    found = np.full_like(expected, np.nan)
    infer(stored["tiles"], found)
    return compare_distances(expected, found, bundle.tile)


def compare_distances(expected: Float32, found: Float32, tile: TileGeometry) -> Parity:
    """Compare two sets of (tiles, rows, columns) float32 patch distances, as maps and scores."""
    rows, columns = expected.shape[1:]
    size = rows * tile.patch_px, columns * tile.patch_px
    operator = MapOperator((rows, columns), tile.patch_px, size, size)
    expected_maps, found_maps = _maps(operator, expected), _maps(operator, found)
    unit = float(expected_maps.max()) or 1.0
    difference = np.abs(expected_maps - found_maps)
    scores = [abs(image_score(a) - image_score(b)) for a, b in zip(expected_maps, found_maps, strict=True)]
    return Parity(
        num_tiles=len(expected),
        map_max=float(difference.max()) / unit,
        map_mean=float(difference.mean()) / unit,
        score_max=float(np.max(scores)) / unit,
    )


def _maps(operator: MapOperator, distances: Float32) -> Float32:
    maps = np.empty((len(distances), *operator.frame_size), np.float32)
    for grid, out in zip(distances, maps, strict=True):
        operator.apply(grid, out)
    return maps
