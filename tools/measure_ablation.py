"""What each choice of the method is worth: variants of it on one data set, a Markdown line of figures each.

    python tools/measure_ablation.py DATA [--scale 1 --scale 518px] [--tile 308] [--blocks 5,8] [--variant NAME...]

Scales, tile sizes, blocks, steps and prototypes are tried in every combination. Teacher features are computed once for
a scale and a tile size, in the CPU's native precision, and stay in memory, which `--most-nominal` bounds. Figures are
those of `fbft-calibrate benchmark`; FLOPs are a frame's, over those of the default settings.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import openvino
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from fbft_calibration.benchmark.plan import choose
from fbft_calibration.data.layouts import Category, categories
from fbft_calibration.data.nominal import NominalSet, require_enough, scan_nominal
from fbft_calibration.fitting.features import cut_tiles, native_autocast, on_frame
from fbft_calibration.fitting.geometry import scale_factor
from fbft_calibration.fitting.prototypes import find_prototypes
from fbft_calibration.fitting.settings import BundleSettings
from fbft_calibration.fitting.students import FitSettings, fit_students
from fbft_calibration.metrics import CategoryTally
from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.cli.exit_status import exit_status
from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.detectors.anomaly_map import MapOperator
from fbft_edge.detectors.host import native_precision, openvino_core
from fbft_edge.detectors.judge import image_score
from fbft_edge.detectors.tiling import TilePlan, best_tile_px, patch_grid
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import Float32
from fbft_edge.frames.images import read_image
from fbft_edge.progress import Progress
from fbft_export.graph import PatchDistanceModel
from fbft_export.prototypes import Prototypes
from fbft_export.students import Students, unit_distance
from fbft_export.teacher import NAMED_TEACHERS, Teacher, load_teacher

Blocks = tuple[int, int]

DEFAULTS = BundleSettings()
DEFAULT_DISTANCE = "root-of-prototypes"  # what `fbft-calibrate fit` makes
# From forward, backward and squared prototype distance, (patches,) each, to the patch distance.
DISTANCES: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "with-prototypes": lambda forward, backward, nominal: (forward * backward).sqrt() * nominal,
    "product": lambda forward, backward, nominal: forward * backward,
    "sum": lambda forward, backward, nominal: forward + backward,
    "forward": lambda forward, backward, nominal: forward,
    "backward": lambda forward, backward, nominal: backward,
    "prototypes": lambda forward, backward, nominal: nominal,
    "root-of-prototypes": lambda forward, backward, nominal: (forward * backward * nominal).sqrt(),
    "product-times-prototypes": lambda forward, backward, nominal: forward * backward * nominal,
}
# From the patch grid of a frame, `with-prototypes`, and the mean and the deviation of nominal ones, to another.
GRIDS: dict[str, Callable[[Float32, Float32, Float32], Float32]] = {
    "minus-median": lambda grid, mean, deviation: grid - np.median(grid),
    "over-position": lambda grid, mean, deviation: grid / mean,
    "z-position": lambda grid, mean, deviation: (grid - mean) / deviation,
}
# Sums of the maps `with-prototypes`, each in units of its nominal mean: over all --blocks, over all scales and tiles.
SUMS = ("pairs", "scales")
NAMES = (*DISTANCES, *GRIDS, *SUMS)
NO_PROTOTYPES = frozenset({"product", "sum", "forward", "backward"})
FIGURES = ("image AUROC", "pixel AUROC", "AUPRO 5 %", "rho 5 %", "Q1 AUPRO 5 %", "FLOPs")


class BlockFeatures(nn.Module):
    """(1, tile, tile, 3) uint8 RGB to (blocks, patches, embed_dim): what the teacher gives for two blocks, for any."""

    def __init__(self, teacher: Teacher, blocks: Sequence[int]) -> None:
        super().__init__()
        self.model = PatchDistanceModel(teacher, Students(teacher.embed_dim))
        self.blocks = list(blocks)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Features of one tile."""
        pixels = (tiles.float().permute(0, 3, 1, 2) - self.model.mean) * self.model.scale
        found = self.model.teacher.vit.forward_intermediates(
            pixels, indices=self.blocks, norm=True, stop_early=True, output_fmt="NLC", intermediates_only=True
        )
        return torch.cat(cast(list[torch.Tensor], found))


class View:
    """A data set at one scale and tile size: the features of its images, and maps from them.

    Attributes:
        plan: Tiles of a frame.
    """

    def __init__(self, plan: TilePlan, name: str, teacher: Teacher, blocks: Sequence[int]) -> None:
        self.plan, self.name, self._blocks = plan, name, list(blocks)
        self._operator = MapOperator(plan.grid, plan.geometry.patch_px, plan.scaled_size, plan.frame_size)
        example = torch.zeros(1, teacher.tile_px, teacher.tile_px, 3, dtype=torch.uint8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's tracer warns about timm's checks of shapes
            module = BlockFeatures(teacher, blocks).eval()
            graph = openvino.convert_model(module, example_input=example, input=list(example.shape))
        hint = {"INFERENCE_PRECISION_HINT": native_precision()}
        self._compiled = openvino_core().compile_model(graph, "CPU", hint)
        self._features: dict[Path, torch.Tensor] = {}

    def read(self, paths: Sequence[Path], progress: Progress) -> None:
        """Compute the features of images, (blocks, tiles, patches, embed_dim) bfloat16 each."""
        for path in progress.track(paths, f"teacher features, {self.name}"):
            tiles = cut_tiles(self.plan, read_image(path))
            parts = [torch.from_numpy(self._compiled(tile[None])[0]).bfloat16() for tile in tiles]
            self._features[path] = torch.stack(parts, dim=1)

    def pair(self, path: Path, blocks: Blocks) -> tuple[torch.Tensor, torch.Tensor]:
        """f_j and f_k of an image, (tiles, patches, embed_dim) bfloat16 each."""
        f_j, f_k = (self._features[path][self._blocks.index(block)] for block in blocks)
        return f_j, f_k

    def patches(self, paths: Sequence[Path], blocks: Blocks) -> tuple[torch.Tensor, torch.Tensor]:
        """f_j and f_k of all patches of images that lie on the frame, (patches, embed_dim) bfloat16 each."""
        keep = torch.from_numpy(on_frame(self.plan))
        pairs = [self.pair(path, blocks) for path in paths]
        return torch.cat([f_j[keep] for f_j, _ in pairs]), torch.cat([f_k[keep] for _, f_k in pairs])

    @torch.inference_mode()
    def grids(self, path: Path, blocks: Blocks, students: Students, prototypes: Prototypes) -> dict[str, Float32]:
        """Patch grids of an image by the variants of `DISTANCES`."""
        f_j, f_k = (features.flatten(0, -2).float() for features in self.pair(path, blocks))
        with native_autocast():
            estimate_k, estimate_j = students(f_j, f_k)
        forward, backward = unit_distance(estimate_k.float(), f_k), unit_distance(estimate_j.float(), f_j)
        nominal = 2 * prototypes(f_k).clamp_min(0)
        side = self.plan.geometry.tile_patches
        shape = (self.plan.num_tiles, side, side)
        found = {name: combine(forward, backward, nominal) for name, combine in DISTANCES.items()}
        return {name: self.plan.stitch(distances.reshape(shape).numpy()) for name, distances in found.items()}

    def map_of(self, grid: Float32) -> Float32:
        """The anomaly map, (height, width) float32."""
        anomaly_map = np.empty(self.plan.frame_size, np.float32)
        self._operator.apply(np.ascontiguousarray(grid, np.float32), anomaly_map)
        return anomaly_map


@dataclass(frozen=True, slots=True)
class Scored:
    """What one variant says about the test images.

    Attributes:
        view: Makes the maps.
        grids: Patch grid by image.
        unit: Mean of nominal patches; maps are told in it, and so can be added.
        flops: Of a frame.
    """

    view: View
    grids: dict[Path, Float32]
    unit: float
    flops: int

    def map_of(self, path: Path) -> Float32:
        """The anomaly map, (height, width) float32."""
        return self.view.map_of(self.grids[path] / np.float32(self.unit))


class Trial:
    """One category, and all that is tried on it."""

    def __init__(self, args: argparse.Namespace, progress: Progress) -> None:
        self.args, self.progress = args, progress
        self.names: list[str] = args.variant or list(NAMES)
        if unknown := sorted(set(self.names) - set(NAMES)):
            raise ArgumentError(f"there is no variant {', '.join(unknown)}; choose from {', '.join(NAMES)}")
        self.steps = args.steps or [DEFAULTS.students.steps]
        self.counts = args.prototypes or [DEFAULTS.prototypes]
        if min(*self.steps, *self.counts, args.most_nominal, args.seed + 1) < 1:
            raise ArgumentError("--steps, --prototypes and --most-nominal must be at least 1, --seed at least 0")
        pairs = [_blocks(text) for text in args.blocks] if args.blocks else [None]
        probes = [load_teacher(args.teacher, tile_px=518, blocks=pair, pretrained=False) for pair in pairs]
        self.probe, self.pairs = probes[0], [probe.blocks for probe in probes]
        self.needed = sorted({block for pair in self.pairs for block in pair})
        category = _category(args.data, args.category)
        self.nominal = _nominal(category, args.most_nominal, progress)
        self.size = self.nominal.sizes[0]
        self.tests = [test for test in category.tests if read_image(test.path).shape[:2] == self.size]
        progress.say(f"{len(self.tests)} of {len(category.tests)} test images have the size of the nominal ones")
        sides = product(args.scale or [DEFAULTS.scale], args.tile or [None])
        self.plans = [(scale, self.plan(scale, tile_px)) for scale, tile_px in sides]
        own = NAMED_TEACHERS[args.teacher].blocks if args.teacher in NAMED_TEACHERS else self.pairs[0]
        self.default_flops = self.flops(self.plan(DEFAULTS.scale, None), own, DEFAULT_DISTANCE, DEFAULTS.prototypes)

    def rows(self) -> Iterator[str]:
        """Markdown lines, each as soon as it is known."""
        yield f"| variant | {' | '.join(FIGURES)} |"
        yield "| --- " * (len(FIGURES) + 1) + "|"
        firsts: list[Scored] = []
        for scale, plan in self.plans:
            view = self.view(scale, plan)
            found: list[Scored] = []
            for blocks in self.pairs:
                fitted = yield from self.fits(view, blocks)
                found.append(fitted[0])
            if "pairs" in self.names and len(found) > 1:
                teacher = self.teacher_flops(view.plan, max(self.needed))
                shared = sum(self.teacher_flops(view.plan, k) for _, k in self.pairs) - teacher
                yield self.row(f"{view.name}, pairs", found, shared)
            firsts.append(found[0])
        if "scales" in self.names and len(firsts) > 1:
            yield self.row("scales", firsts)

    def fits(self, view: View, blocks: Blocks) -> Generator[str, None, list[Scored]]:
        """Lines of one pair of blocks on one view; returns those `with-prototypes`, by steps and count."""
        fit_images, _ = self.nominal.split(DEFAULTS.held_out, self.args.seed)
        f_j, f_k = view.patches([image.path for image in fit_images], blocks)
        found = []
        for steps in self.steps:
            students = fit_students(f_j, f_k, FitSettings(steps=steps, seed=self.args.seed), self.progress).students
            for count in self.counts:
                prototypes = cast(Prototypes, find_prototypes(f_k, count, self.args.seed, self.progress))
                scored = self.scored(view, blocks, students, prototypes)
                found.append(scored["with-prototypes"])
                label = f"{view.name}, blocks {blocks[0]},{blocks[1]}, {steps} steps"
                for name in (name for name in self.names if name not in SUMS):
                    if name not in NO_PROTOTYPES:
                        yield self.row(f"{label}, {len(prototypes.vectors)} prototypes, {name}", [scored[name]])
                    elif count == self.counts[0]:
                        yield self.row(f"{label}, {name}", [scored[name]])
        return found

    def scored(self, view: View, blocks: Blocks, students: Students, prototypes: Prototypes) -> dict[str, Scored]:
        """Every variant of one fit."""
        grids_of = partial(view.grids, blocks=blocks, students=students, prototypes=prototypes)
        nominal = np.stack([grids_of(image.path)["with-prototypes"] for image in self.nominal])
        mean, deviation = (_smoothed(grid) for grid in (nominal.mean(axis=0), nominal.std(axis=0)))
        found: dict[str, dict[Path, Float32]] = {name: {} for name in NAMES if name not in SUMS}
        for test in self.progress.track(self.tests, "patch distances"):
            grids = grids_of(test.path)
            grids |= {name: change(grids["with-prototypes"], mean, deviation) for name, change in GRIDS.items()}
            for name, grid in grids.items():
                found[name][test.path] = grid
        flops = partial(self.flops, view.plan, blocks, prototypes=len(prototypes.vectors))
        return {name: Scored(view, grids, float(nominal.mean()), flops(name)) for name, grids in found.items()}

    def row(self, label: str, sources: Sequence[Scored], shared_flops: int = 0) -> str:
        """The line of a variant, or of the sum of several that share so many FLOPs."""
        tally = CategoryTally()
        for test in self.progress.track(self.tests, label):
            anomaly_map = np.sum([source.map_of(test.path) for source in sources], axis=0)
            truth, _ = test.truth(self.size)
            nothing = np.zeros(self.size, np.bool_)
            tally.add(
                anomaly_map,
                truth,
                image_score(anomaly_map),
                is_defective=test.is_defective,
                is_flagged=False,
                mask=nothing,
                defect_type=test.defect_type,
            )
        figures = tally.figures()
        smallest = figures.size_bins[0].aupro[5] if figures.size_bins else None
        shown = (figures.image_auroc, figures.pixel_auroc, figures.aupro[5], figures.rho[5], smallest)
        flops = (sum(source.flops for source in sources) - shared_flops) / self.default_flops
        cells = ["-" if value is None else f"{value:.4f}" for value in shown]
        return f"| {label} | {' | '.join(cells)} | {flops:.2f} |"

    def view(self, scale: str, plan: TilePlan) -> View:
        """The features of all images at one scale and tile size."""
        px, ends = plan.geometry.tile_px, (self.needed[0], self.needed[-1])
        teacher = load_teacher(self.args.teacher, tile_px=px, blocks=ends, weights=self.args.weights)
        view = View(plan, f"scale {scale}, {px} px tiles", teacher, self.needed)
        view.read([item.path for item in (*self.nominal, *self.tests)], self.progress)
        return view

    def plan(self, scale: str, tile_px: int | None) -> TilePlan:
        """Tiles as `fbft-calibrate fit` lays them."""
        patch_px, overlap = self.probe.patch_px, DEFAULTS.overlap_patches
        factor = scale_factor(scale, *self.size)
        grid = patch_grid((round(self.size[0] * factor), round(self.size[1] * factor)), patch_px)
        if min(grid) < 2:
            raise ArgumentError(f"--scale {scale} leaves {grid[0]}x{grid[1]} patches; choose a larger one")
        px = best_tile_px(grid, patch_px, overlap, self.probe.embed_dim) if tile_px is None else tile_px
        if px < 2 * patch_px or px % patch_px:
            raise ArgumentError(f"--tile {px} is not a multiple of {patch_px} px, two patches at least")
        return TilePlan(TileGeometry(px, patch_px, overlap, factor), *self.size)

    def flops(self, plan: TilePlan, blocks: Blocks, name: str, prototypes: int) -> int:
        """FLOPs of a frame in matrix products and convolutions."""
        features = torch.zeros(plan.geometry.tile_patches**2, self.probe.embed_dim)
        students = Students(self.probe.embed_dim)
        centres = Prototypes(torch.zeros(prototypes, self.probe.embed_dim))
        total = 0
        if name not in ("backward", "prototypes"):
            total += _counted(lambda: students.forward_student(features))
        if name not in ("forward", "prototypes"):
            total += _counted(lambda: students.backward_student(features))
        if name not in NO_PROTOTYPES:
            total += _counted(lambda: centres(features))
        return plan.num_tiles * total + self.teacher_flops(plan, blocks[1])

    def teacher_flops(self, plan: TilePlan, last_block: int) -> int:
        """The same of the teacher alone, up to a block."""
        return plan.num_tiles * _tile_flops(self.args.teacher, plan.geometry.tile_px, last_block)


@cache
def _tile_flops(teacher: str, tile_px: int, last_block: int) -> int:
    model = load_teacher(teacher, tile_px=tile_px, blocks=(0, last_block), pretrained=False)
    return _counted(lambda: model(torch.zeros(1, 3, tile_px, tile_px)))


def _counted(action: Callable[[], object]) -> int:
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        action()
    return int(counter.get_total_flops())


def _smoothed(grid: Float32) -> Float32:
    return np.asarray(cv2.blur(grid, (5, 5), borderType=cv2.BORDER_REPLICATE), np.float32)


def _blocks(text: str) -> Blocks:
    j, _, k = text.partition(",")
    if not (j.isdecimal() and k.isdecimal()):
        raise ArgumentError(f"--blocks {text!r} is not J,K; give two block numbers, such as 5,8")
    return int(j), int(k)


def _category(data: Path, name: str | None) -> Category:
    found = choose(categories(data), [name] if name else [], data)
    if len(found) > 1:
        raise ArgumentError(f"{data} has {len(found)} categories; choose one with --category")
    if not found[0].nominal or not found[0].tests:
        raise ArgumentError(f"{found[0].name} cannot be measured: {'; '.join(found[0].problems)}")
    return found[0]


def _nominal(category: Category, most: int, progress: Progress) -> NominalSet:
    """The category's usable nominal images of one size; every n-th of them if they are more than `most`."""
    usable = scan_nominal(category.nominal[0].parent, progress)
    images = [image for image in usable if image.path in category.nominal]
    nominal = NominalSet(tuple(images[:: -(-len(images) // most) or 1]), usable.left_out)
    require_enough(nominal)
    return nominal


def main() -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    add = parser.add_argument
    add("data", type=Path, help="a data set, or one category of it")
    add("--category", help="which one, where there are several")
    add("--variant", nargs="+", metavar="NAME", help=f"default: all of {', '.join(NAMES)}")
    add("--scale", action="append", help="1, a factor, or 518px for the longer side (default: 1); repeatable")
    add("--tile", action="append", type=int, metavar="PX", help="default: the cheapest for the scale; repeatable")
    add("--blocks", action="append", metavar="J,K", help="default: the teacher's; repeatable")
    add("--steps", action="append", type=int, help=f"of the fit (default: {DEFAULTS.students.steps}); repeatable")
    add("--prototypes", action="append", type=int, metavar="N", help=f"default: {DEFAULTS.prototypes}; repeatable")
    add("--most-nominal", type=int, default=1000, metavar="N", help="images used (default: %(default)s)")
    add("--teacher", default=DEFAULTS.teacher)
    add("--weights", type=Path, help="local .safetensors for the teacher")
    add("--seed", type=int, default=0)
    args = parser.parse_args()
    return exit_status("measure_ablation", lambda: run(args))


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    for line in Trial(args, TerminalProgress()).rows():
        print(line, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
