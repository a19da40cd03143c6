"""The parity gate: real tiles with their float32 reference, and how far an engine strays from it.

The reference is made once, with torch (`fbft_export.reference`), and travels in the bundle, so an engine can be held
to it on a machine that has neither torch nor the teacher's weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
from safetensors.numpy import load_file

from fbft_edge.bundle.manifest import Thresholds, TileGeometry
from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.anomaly_map import MapOperator
from fbft_edge.detectors.judge import image_score, is_anomalous
from fbft_edge.detectors.parity_tiles import PARITY_FILE as PARITY_FILE  # the line reads it, too
from fbft_edge.errors import EngineError
from fbft_edge.frames.frame import Float32, Uint8

# Thresholds stand on the largest values of held-out images, as the bundle's own engine finds them, and the reference
# holds tiles of these images. A tile this close to a threshold, as a fraction of it, has no verdict to flip.
_UNDECIDED = 0.02


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far an engine may stray, as fractions of the largest reference map value.

    Attributes:
        largest: Of any map pixel, and of the score.
        mean: Over the map pixels.
    """

    largest: float
    mean: float


# bf16 strays by at most 0.017 from float32 on the real tiles of docs/log.md, float16 (emulated) by at most 0.010 over
# the whole images of docs/benchmarks/2026-11-21-fp16.md. TensorRT's float32 may multiply in TF32, whose mantissa is
# float16's.
TOLERANCES = {"bf16": Tolerance(0.06, 0.02), "fp16": Tolerance(0.02, 0.005), "f32": Tolerance(0.02, 0.005)}


# Figures of `Parity` that hold at one pair of thresholds only.
OF_THRESHOLDS = ("map_max_of_threshold", "verdict_flips")


@dataclass(frozen=True, slots=True)
class Parity:
    """Differences from the float32 reference, as fractions of the largest reference map value.

    Attributes:
        num_tiles: Tiles compared.
        map_max: Largest difference of any map pixel.
        map_mean: Mean difference of the map pixels.
        score_max: Largest difference of a tile's score.
        map_max_of_threshold: Largest difference of any map pixel as a fraction of the image threshold; None without
            thresholds.
        verdict_flips: Tiles with another verdict at the bundle's thresholds, tiles that stand within 2 % of one left
            out; None without thresholds.
    """

    num_tiles: int
    map_max: float
    map_mean: float
    score_max: float
    map_max_of_threshold: float | None = None
    verdict_flips: int | None = None

    def is_within(self, tolerance: Tolerance) -> bool:
        """True when every difference is finite and within tolerance, and no verdict flips."""
        of_threshold = self.map_max if self.map_max_of_threshold is None else self.map_max_of_threshold
        largest = (self.map_max, self.score_max, of_threshold)
        return (
            all(difference <= tolerance.largest for difference in largest)
            and self.map_mean <= tolerance.mean
            and not self.verdict_flips
        )

    def require_accepted(self, engine: str, precision: str = "bf16") -> None:
        """Stop here unless the engine may be shipped.

        Args:
            engine: What was compared; begins the message.
            precision: Key of `TOLERANCES`.

        Raises:
            EngineError: A difference is beyond tolerance, or a verdict flips.
        """
        tolerance = TOLERANCES[precision]
        if not self.is_within(tolerance):
            raise EngineError(
                f"{engine} strays from the float32 reference on {self.num_tiles} real tiles: map by at most "
                f"{self.map_max:.2%} (tolerance {tolerance.largest:.0%}), on average {self.map_mean:.2%} "
                f"({tolerance.mean:.1%}), score by {self.score_max:.2%} ({tolerance.largest:.0%}){self._verdicts()}; "
                f"{'update the runtime or its driver' if precision == 'f32' else 'export again with --precision f32'}"
            )

    def _verdicts(self) -> str:
        """What there is to say beside the thresholds."""
        if self.map_max_of_threshold is None:
            return ""
        return f", map by {self.map_max_of_threshold:.2%} of the image threshold, verdict flips: {self.verdict_flips}"

    def as_dict(self) -> dict[str, float]:
        """For a JSON sidecar; what is not known is left out."""
        return {name: figure for name, figure in asdict(self).items() if figure is not None}


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
    return compare_distances(expected, found, bundle.tile, bundle.thresholds)


def compare_distances(
    expected: Float32, found: Float32, tile: TileGeometry, thresholds: Thresholds | None = None
) -> Parity:
    """Compare two sets of (tiles, rows, columns) float32 patch distances, as maps, scores and verdicts."""
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
        map_max_of_threshold=float(difference.max()) / thresholds.image if thresholds and thresholds.image else None,
        verdict_flips=_flips(expected_maps, found_maps, thresholds) if thresholds else None,
    )


def _flips(expected_maps: Float32, found_maps: Float32, thresholds: Thresholds) -> int:
    """Tiles whose verdict is another one, those that stand on a threshold left out."""
    return sum(
        _is_anomalous(expected, thresholds) != _is_anomalous(found, thresholds)
        for expected, found in zip(expected_maps, found_maps, strict=True)
        if abs(_excess(expected, thresholds) - 1) > _UNDECIDED
    )


def _is_anomalous(anomaly_map: Float32, thresholds: Thresholds) -> bool:
    return is_anomalous(image_score(anomaly_map), float(anomaly_map.max()), thresholds)


def _excess(anomaly_map: Float32, thresholds: Thresholds) -> float:
    """Of score and peak, in units of their thresholds, the larger one: near 1 the map stands on a threshold."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a threshold may be 0
        score = np.float32(image_score(anomaly_map)) / np.float32(thresholds.image)
        return float(np.fmax(score, anomaly_map.max() / np.float32(thresholds.pixel)))


def _maps(operator: MapOperator, distances: Float32) -> Float32:
    maps = np.empty((len(distances), *operator.frame_size), np.float32)
    for grid, out in zip(distances, maps, strict=True):
        operator.apply(grid, out)
    return maps
