"""Which float32 islands of the float16 graph matter: differences from float32 over whole images, one row a variant.

    python tools/measure_half_precision.py B.fbft IMAGES... [--only NAME] [--json FILE]

IMAGES are files or folders. Float16 is emulated on the CPU with every rounding (`fbft_export.half_precision`), float32
is the same graph in ONNX Runtime; `--only bf16` is OpenVINO's. The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from rich.console import Console
from rich.progress import track

from fbft_edge.bundle.manifest import Thresholds
from fbft_edge.bundle.reading import GRAPH, Bundle, open_bundle
from fbft_edge.detectors.anomaly_map import MapOperator
from fbft_edge.detectors.host import OpenVinoEngine
from fbft_edge.detectors.judge import image_score, is_anomalous
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.frames.frame import Float32, Uint8
from fbft_edge.frames.images import image_paths, read_image
from fbft_export.float32_islands import DEFAULT, NONE, Kept
from fbft_export.half_precision import EmulatedHalfEngine, half_graph

ISLANDS = tuple(item.name for item in dataclasses.fields(Kept))


@dataclass
class Tally:
    """Differences of one variant, in units of the image threshold.

    Attributes:
        map_max: Largest difference of any map pixel, one entry an image.
        map_mean: Mean difference of the map pixels, one entry an image.
        score: Difference of the score, one entry an image.
        flips: Images whose verdict is another one.
    """

    map_max: list[float] = field(default_factory=list)
    map_mean: list[float] = field(default_factory=list)
    score: list[float] = field(default_factory=list)
    flips: int = 0

    def add(self, expected: Float32, found: Float32, thresholds: Thresholds) -> None:
        """Count one image, (height, width) float32 maps."""
        difference = np.abs(expected - found)
        self.map_max.append(float(difference.max()) / thresholds.image)
        self.map_mean.append(float(difference.mean()) / thresholds.image)
        self.score.append(abs(image_score(expected) - image_score(found)) / thresholds.image)
        self.flips += verdict(expected, thresholds) != verdict(found, thresholds)

    def figures(self) -> dict[str, float]:
        """Over all images."""
        return {
            "map_max_of_threshold": float(np.max(self.map_max)),
            "map_mean_of_threshold": float(np.mean(self.map_mean)),
            "score_max_of_threshold": float(np.max(self.score)),
            "verdict_flips": self.flips,
        }


def main() -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("images", type=Path, nargs="+")
    parser.add_argument("--only", action="append", help="a variant to measure; all by default")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args()
    bundle = open_bundle(args.bundle)
    paths = [path for item in args.images for path in (image_paths(item) if item.is_dir() else [item])]
    figures = measure(bundle, paths, args.only or list(variants()))
    print(table(figures))
    summary = {"bundle": bundle.product, "teacher": bundle.teacher.name, "images": len(paths), "variants": figures}
    if args.json:
        args.json.write_text(json.dumps(summary, indent=2) + "\n")
    print(json.dumps(summary))
    return 0


def variants() -> dict[str, Kept]:
    """What is measured, by name."""
    alone = {f"only {name}": dataclasses.replace(NONE, **{name: True}) for name in ISLANDS}
    without = {f"all but {name}": dataclasses.replace(DEFAULT, **{name: False}) for name in ISLANDS}
    return {"none": NONE, **alone, **without, "all": DEFAULT}


def measure(bundle: Bundle, paths: list[Path], names: list[str]) -> dict[str, dict[str, float]]:
    """Figures of each variant over whole images; `bf16` names OpenVINO's."""
    thresholds = bundle.require_thresholds()
    reference = EmulatedHalfEngine(bundle.file(GRAPH))
    engines = {name: engine_of(bundle, name) for name in names}
    tallies = {name: Tally() for name in names}
    for path in track(paths, "measuring", console=Console(stderr=True)):
        map_of = image_of(bundle, path)
        expected = map_of(reference.infer)
        for name, engine in engines.items():
            tallies[name].add(expected, map_of(engine.infer), thresholds)
    return {name: tally.figures() for name, tally in tallies.items()}


def engine_of(bundle: Bundle, name: str) -> EmulatedHalfEngine | OpenVinoEngine:
    """The engine of a variant."""
    if name == "bf16":
        return OpenVinoEngine(bundle.read(GRAPH), bundle.tile.tile_px, "bf16")
    graph = half_graph(onnx.load(bundle.file(GRAPH)), variants()[name], emulated=True)
    return EmulatedHalfEngine(graph.SerializeToString())


def image_of(bundle: Bundle, path: Path) -> Callable[[Callable[[Uint8, Float32], None]], Float32]:
    """An image, as a function from an engine's `infer` to the anomaly map, (height, width) float32."""
    pixels = read_image(path)
    plan = TilePlan(bundle.tile, *pixels.shape[:2])
    operator = MapOperator(plan.grid, bundle.tile.patch_px, plan.scaled_size, plan.frame_size)
    tile_px, side = bundle.tile.tile_px, bundle.tile.tile_patches
    tiles = np.empty((plan.num_tiles, tile_px, tile_px, 3), np.uint8)
    plan.cut(pixels, tiles)

    def map_of(infer: Callable[[Uint8, Float32], None]) -> Float32:
        distances = np.full((plan.num_tiles, side, side), np.nan, np.float32)
        infer(tiles, distances)
        anomaly_map = np.empty(plan.frame_size, np.float32)
        operator.apply(plan.stitch(distances), anomaly_map)
        return anomaly_map

    return map_of


def verdict(anomaly_map: Float32, thresholds: Thresholds) -> bool:
    """True where a detector calls the map anomalous."""
    return is_anomalous(image_score(anomaly_map), float(anomaly_map.max()), thresholds)


def table(figures: dict[str, dict[str, float]]) -> str:
    """Markdown, one row a variant."""
    lines = ["| kept in float32 | map max | map mean | score max | verdict flips |", "| --- | --- | --- | --- | --- |"]
    for name, row in figures.items():
        shares = (row["map_max_of_threshold"], row["map_mean_of_threshold"], row["score_max_of_threshold"])
        lines.append(f"| {name} | {' | '.join(f'{share:.3%}' for share in shares)} | {row['verdict_flips']:.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
