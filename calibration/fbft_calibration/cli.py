"""The command `fbft-calibrate`: nominal images in, a bundle out; a data set in, figures and a report out.

Knows nothing beyond its arguments; the work is done in `fbft_calibration.fitting.bundling` and
`fbft_calibration.benchmark`, which are loaded when a command runs.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fbft_edge.cli.commands import command_parser
from fbft_edge.cli.exit_status import exit_status
from fbft_edge.errors import ArgumentError
from fbft_edge.extras import require_extra
from fbft_export.precisions import PRECISIONS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from fbft_calibration.benchmark.settings import BenchmarkSettings
    from fbft_calibration.data.layouts import Category
    from fbft_calibration.fitting.settings import BundleSettings
    from fbft_calibration.refinement.command import Refined
    from fbft_edge.progress import Progress

_RESULTS = Path("benchmarks")
# What `benchmark --preset` puts in the place of the fit options' defaults; docs/benchmark.md says what still differs.
_PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "paper": {
        "teacher": "dinov2-base-reg",
        "scale": "1036px",
        "tile": 1036,
        "overlap": 0,
        "steps": None,
        "prototypes": 0,
    },
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = parsed(argv)
    return exit_status("fbft-calibrate", lambda: _run(args))


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The arguments; what is given wins over the preset, and that over the options' defaults."""
    args = command_line().parse_args(argv)
    preset = _PRESETS[getattr(args, "preset", "default")]
    return command_line(preset).parse_args(argv) if preset else args


def _run(args: argparse.Namespace) -> int:
    require_extra("calibration", "fbft-calibrate")
    return int(args.command(args))


def command_line(preset: Mapping[str, Any] | None = None) -> argparse.ArgumentParser:
    """The parser of all commands; a preset is what takes the place of the defaults of `benchmark`."""
    return command_parser(
        "fbft-calibrate",
        "Learn what a good part looks like.",
        {
            "fit": (_add_fit, "make a bundle from a folder of nominal images"),
            "threshold": (_add_threshold, "find new thresholds on a folder of nominal images"),
            "benchmark": (
                partial(_add_benchmark, preset=preset or {}),
                "fit and measure every category of a data set: how small a defect is found?",
            ),
            "refine": (_add_refine, "redraw the masks of image files to the pixel"),
        },
    )


def _add_fit(parser: argparse.ArgumentParser) -> None:
    parser.description = "Fit the students, export the graph and find thresholds; a few dozen images serve well."
    add = parser.add_argument
    add("folder", type=Path, metavar="NOMINAL_DIR", help="images of good parts, directly inside")
    add("--out", type=Path, required=True, metavar="B", help="the bundle to make, NAME.fbft")
    _add_fit_options(parser)
    parser.set_defaults(command=_fit)


def _add_fit_options(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    add = parser.add_argument
    add("--teacher", default="dinov2-small-offline", metavar="NAME", help="default: %(default)s, which needs no hub")
    add("--weights", type=Path, metavar="FILE", help="local teacher weights, .safetensors")
    add("--blocks", type=_blocks, metavar="J,K", help="teacher blocks, zero-based (default: the teacher's own)")
    add("--scale", default="1", help="1: native pixels; a factor; or 518px for the longer side (default: %(default)s)")
    add("--tile", type=int, metavar="PX", help="side of a tile (default: the cheapest for the frame size)")
    add("--overlap", type=int, default=1, metavar="PATCHES", help="shared by neighbouring tiles (default: %(default)s)")
    add("--held-out", type=float, default=1 / 3, metavar="FRACTION", help="of images, for thresholds (default: 1/3)")
    add("--false-alarm-rate", type=float, default=0.01, metavar="RATE", help="default: %(default)s")
    add("--precision", choices=PRECISIONS["openvino"], help="of the engine (default: bf16 where the CPU has it)")
    add("--mixed-sizes", action="store_true", help="use nominal images of every size")
    add("--steps", type=int, default=600, help="most optimiser steps (default: %(default)s)")
    add("--prototypes", type=int, default=1024, metavar="N", help="at most; 0: as the paper (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")


def _add_threshold(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Split-conformal thresholds at a stated false-alarm rate. The images are added to those behind the thresholds "
        "so far; what was fitted on is left out. Thresholds that would be worse (more false alarms than before and "
        "than asked for, or higher by more than 6 %) are refused without --replace."
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="B")
    add("folder", type=Path, metavar="NOMINAL_DIR")
    add("--false-alarm-rate", type=float, default=0.01, metavar="RATE", help="default: %(default)s")
    add("--mixed-sizes", action="store_true", help="use nominal images of every size")
    add("--forget-earlier", action="store_true", help="let these images alone count: for another light or camera")
    add("--replace", action="store_true", help="take the new thresholds even if they are worse")
    add("--dry-run", action="store_true", help="tell what the thresholds would be, and change nothing")
    parser.set_defaults(command=_threshold)


def _add_benchmark(parser: argparse.ArgumentParser, preset: Mapping[str, Any]) -> None:
    parser.description = (
        "Fit a bundle for every category, inspect its test images, and write figures, pictures and a "
        "report. Layouts: MVTec AD, MVTec AD 2, VisA, BTAD, MPDD, and folders train/good, test/TYPE, "
        "ground_truth/TYPE. Run again with the same settings, it goes on where it was interrupted. Peers are other "
        "methods, by anomalib, on the same images."
    )
    add = parser.add_argument
    add(
        "root",
        type=Path,
        nargs="?",
        metavar="DATASET_ROOT",
        help="the data set, or one category of it (VisA: all of it)",
    )
    add("--list", action="store_true", help="print the categories and what they lack, and do nothing")
    add("--category", action="append", default=[], metavar="NAME", help="only this one; may be repeated")
    add("--out", type=Path, metavar="DIR", help="for the results (default: benchmarks/DATASET)")
    add("--compare", type=Path, nargs="+", metavar="DIR", help="put results side by side, and measure nothing")
    add("--pixel-size-mm", type=float, metavar="MM", help="side of a pixel on the part, for sizes in millimetres")
    add("--preset", choices=sorted(_PRESETS), default="default", help="where fit options start (default: %(default)s)")
    add("--peer", action="append", default=[], metavar="NAME", help="measure this one too; may be repeated; or all")
    add("--peer-weights", type=Path, metavar="FILE", help="ResNet-18 for peers, .safetensors (default: from the hub)")
    _add_fit_options(parser.add_argument_group("fit options, as for fit"))
    parser.set_defaults(command=_benchmark, **preset)


def _add_refine(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Refine what a bundle flags in image files and folders of them (docs/refinement.md); write masks/, "
        "overlays/ (before and after), results.jsonl (one line per image) and overview.png. The status is 1 when an "
        "image has no mask."
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="BUNDLE")
    add("images", type=Path, nargs="+", metavar="IMAGES", help="image files, or folders of them")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for what is found")
    add("--recursive", action="store_true", help="refine what is in subfolders, too; outputs keep the folders")
    add("--overwrite", action="store_true", help="replace results in DIR")
    add("--weights", type=Path, metavar="FILE", help="local teacher weights, .safetensors")
    add("--iterations", type=int, metavar="N", help="most steps for an image (default: as many as serve well)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    parser.set_defaults(command=_refine)


def _fit(args: argparse.Namespace) -> int:
    from fbft_edge.frames.images import image_paths

    image_paths(args.folder)  # a typo is said before torch takes its seconds to load
    from fbft_calibration.fitting.bundling import fit_bundle

    shown = _shown()
    try:
        fit_bundle(args.folder, args.out, _bundle_settings(args), shown)
    except KeyboardInterrupt:
        shown.say(
            "interrupted: the teacher's features so far are kept beside --out, the same command goes on from them"
        )
        raise
    return 0


def _bundle_settings(args: argparse.Namespace) -> BundleSettings:
    from fbft_calibration.fitting.settings import BundleSettings
    from fbft_calibration.fitting.students import FitSettings

    return BundleSettings(
        teacher=args.teacher,
        weights=args.weights,
        blocks=args.blocks,
        scale=args.scale,
        tile_px=args.tile,
        overlap_patches=args.overlap,
        held_out=_fraction("--held-out", args.held_out),
        false_alarm_rate=_fraction("--false-alarm-rate", args.false_alarm_rate),
        precision=args.precision,
        mixed_sizes=args.mixed_sizes,
        students=FitSettings(
            steps=FitSettings().steps if args.steps is None else _at_least("--steps", args.steps, 1),
            seed=_at_least("--seed", args.seed, 0),
        ),
        prototypes=_at_least("--prototypes", args.prototypes, 0),
    )


def _benchmark(args: argparse.Namespace) -> int:
    if args.compare:
        _refuse_idle(args, "compare", "out")
        from fbft_calibration.benchmark.comparison import compare_runs
        from fbft_calibration.out_folder import make_out_folder

        out = args.out or _RESULTS / "comparison"
        make_out_folder(out)
        compare_runs(args.compare, out, _shown())
        return 0
    if args.root is None:
        raise ArgumentError("no data set to measure; name DATASET_ROOT, or folders of results after --compare")
    if args.list:
        _refuse_idle(args, "list", "root", "category")
    from fbft_calibration.benchmark.plan import choose, listing_problems
    from fbft_calibration.data.layouts import categories

    found = categories(args.root)  # a typo is said before torch takes its seconds to load
    chosen = choose(found, args.category, args.root)
    if args.list:
        _console().print(_category_table(chosen, args.root.resolve().name))
        for line in listing_problems(chosen):
            _shown().say(line, "caution")
        return 0
    peers = _peers(args)
    settings = _benchmark_settings(args)
    from fbft_calibration.benchmark.run import run_benchmark

    out, shown = args.out or _default_out(args), _shown()
    try:
        run_benchmark(args.root, out, settings, shown, args.category, peers, args.peer_weights)
    except KeyboardInterrupt:
        shown.say(f"interrupted: what is finished in {out} is kept, the same command goes on")
        raise
    return 0


def _category_table(found: Sequence[Category], title: str) -> Table:
    """What a data set holds."""
    from rich.table import Table

    from fbft_calibration.benchmark.plan import counts

    table = Table("category", "layout", "nominal", "test good", "test defective", "masks", title=title)
    for column in table.columns[2:]:
        column.justify = "right"
    for category in found:
        table.add_row(category.name, category.layout, *(str(count) for count in counts(category).values()))
    return table


def _refuse_idle(args: argparse.Namespace, action: str, *heeded: str) -> None:
    """Arguments that `--list` or `--compare` would not heed are said rather than ignored."""
    unset = {**vars(parsed(["benchmark", "--preset", args.preset])), "preset": "default"}
    idle = [name for name, value in vars(args).items() if name not in (action, *heeded) and value != unset[name]]
    if idle:
        said = ", ".join("DATASET_ROOT" if name == "root" else f"--{name.replace('_', '-')}" for name in idle)
        raise ArgumentError(f"{said} would change nothing with --{action}; leave out one or the other")


def _peers(args: argparse.Namespace) -> tuple[str, ...]:
    """Peers that can be made; what keeps one from it is said before anything long begins."""
    if not args.peer:
        return ()
    from fbft_calibration.peers import peers_of, require_peers

    names = peers_of(args.peer)
    require_peers(names, args.peer_weights)
    return names


def _benchmark_settings(args: argparse.Namespace) -> BenchmarkSettings:
    from fbft_calibration.benchmark.settings import BenchmarkSettings, paper_settings

    pixel_size_mm = args.pixel_size_mm
    if pixel_size_mm is not None and not (0 < pixel_size_mm < math.inf):
        raise ArgumentError(f"--pixel-size-mm {pixel_size_mm} is not a length; 0.05 says that a pixel shows 0.05 mm")
    bundle = _bundle_settings(args)
    if args.preset == "paper":
        return paper_settings(bundle, args.steps, pixel_size_mm)
    return BenchmarkSettings(bundle, pixel_size_mm=pixel_size_mm)


def _default_out(args: argparse.Namespace) -> Path:
    name = args.root.resolve().name
    return _RESULTS / (name if args.preset == "default" else f"{name}-{args.preset}")


def _threshold(args: argparse.Namespace) -> int:
    from fbft_edge.frames.images import image_paths

    image_paths(args.folder)
    from fbft_calibration.fitting.bundling import threshold_bundle

    rate = _fraction("--false-alarm-rate", args.false_alarm_rate)
    threshold_bundle(
        args.bundle,
        args.folder,
        rate,
        _shown(),
        mixed_sizes=args.mixed_sizes,
        forget_earlier=args.forget_earlier,
        replace=args.replace,
        dry_run=args.dry_run,
    )
    return 0


def _refine(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.bundle.reading import open_bundle
    from fbft_edge.jobs.inspection import expanded

    progress = _shown()
    paths = expanded(args.images, recursive=args.recursive, out=args.out, progress=progress)
    bundle = open_bundle(args.bundle)
    bundle.require_thresholds()  # said before torch takes its seconds to load
    from fbft_calibration.refinement.command import refine_images
    from fbft_calibration.refinement.f2pad import RefineSettings

    settings = RefineSettings(seed=_at_least("--seed", args.seed, 0))
    if args.iterations is not None:
        settings = replace(settings, iterations=_at_least("--iterations", args.iterations, 1))
    folders = [given for given in args.images if given.is_dir()]
    refined = refine_images(
        *(bundle, paths, args.out, settings, args.weights, progress), folders=folders, overwrite=args.overwrite
    )
    Console(highlight=False).print(_refined_table(refined, args.out))
    return refined.exit_status


def _refined_table(refined: Refined, out: Path) -> Table:
    """How many masks were redrawn."""
    from rich.markup import escape
    from rich.table import Table

    table = Table("mask", "images", title=f"Results in {escape(str(out))}")
    table.columns[1].justify = "right"
    for what, number in (
        ("redrawn", refined.redrawn),
        ("flagged, but as it was", refined.unchanged),
        ("nothing flagged", refined.nominal),
        ("unreadable", refined.faults),
    ):
        table.add_row(what, str(number))
    return table


def _shown() -> Progress:
    """Lines on standard output, and bars where that is a terminal."""
    from fbft_edge.cli.terminal import TerminalProgress

    return TerminalProgress(_console())


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True)


def _blocks(text: str) -> tuple[int, int]:
    j, k = (int(part) for part in text.split(","))
    return j, k


def _fraction(option: str, value: float) -> float:
    if not 0 < value < 1:
        raise ArgumentError(f"{option} {value} is not a fraction between 0 and 1; try 0.01 for one percent")
    return value


def _at_least(option: str, value: int, least: int) -> int:
    if value < least:
        raise ArgumentError(f"{option} {value} must be at least {least}")
    return value
