"""The command `fbft-calibrate`: nominal images in, a bundle out.

Knows nothing beyond its arguments; the work is done in `fbft_calibration.bundling`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from fbft_edge.errors import ArgumentError
from fbft_edge.exit_status import exit_status
from fbft_edge.extras import require_extra
from fbft_edge.images import image_paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    args = _parser().parse_args(argv)
    return exit_status("fbft-calibrate", lambda: _run(args))


def _run(args: argparse.Namespace) -> int:
    require_extra("calibration", "fbft-calibrate")
    return int(args.command(args))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fbft-calibrate", description="Learn what a good part looks like.")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_fit(commands)
    _add_threshold(commands)
    return parser


def _add_fit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "fit",
        help="make a bundle from a folder of nominal images",
        description="Fit the students, export the graph and find thresholds; a few dozen images serve well.",
    )
    add = parser.add_argument
    add("folder", type=Path, metavar="NOMINAL_DIR", help="images of good parts, directly inside")
    add("--out", type=Path, required=True, metavar="B", help="the bundle to make, NAME.fbft")
    add("--teacher", default="dinov2-small-offline", metavar="NAME", help="default: %(default)s, which needs no hub")
    add("--weights", type=Path, metavar="FILE", help="local teacher weights, .safetensors")
    add("--blocks", type=_blocks, metavar="J,K", help="teacher blocks, zero-based (default: the teacher's own)")
    add("--scale", default="1", help="1: native pixels; a factor; or 518px for the longer side (default: %(default)s)")
    add("--tile", type=int, metavar="PX", help="side of a tile (default: the cheapest for the frame size)")
    add("--overlap", type=int, default=1, metavar="PATCHES", help="shared by neighbouring tiles (default: %(default)s)")
    add("--held-out", type=float, default=1 / 3, metavar="FRACTION", help="of images, for thresholds (default: 1/3)")
    add("--false-alarm-rate", type=float, default=0.01, metavar="RATE", help="default: %(default)s")
    add("--precision", choices=["bf16", "f32"], help="of the engine (default: bf16 where the CPU has it)")
    add("--mixed-sizes", action="store_true", help="use nominal images of every size")
    add("--steps", type=int, default=600, help="most optimiser steps (default: %(default)s)")
    add("--seed", type=int, default=0, help="default: %(default)s")
    parser.set_defaults(command=_fit)


def _add_threshold(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "threshold",
        help="find new thresholds on a folder of nominal images",
        description="Split-conformal thresholds at a stated false-alarm rate; images that were fitted on are left out.",
    )
    add = parser.add_argument
    add("bundle", type=Path, metavar="B")
    add("folder", type=Path, metavar="NOMINAL_DIR")
    add("--false-alarm-rate", type=float, default=0.01, metavar="RATE", help="default: %(default)s")
    add("--mixed-sizes", action="store_true", help="use nominal images of every size")
    parser.set_defaults(command=_threshold)


def _fit(args: argparse.Namespace) -> int:
    image_paths(args.folder)  # a typo is said before torch takes its seconds to load
    from fbft_calibration.bundling import BundleSettings, fit_bundle
    from fbft_calibration.fit import FitSettings

    settings = BundleSettings(
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
        students=FitSettings(steps=_at_least("--steps", args.steps, 1), seed=_at_least("--seed", args.seed, 0)),
    )
    fit_bundle(args.folder, args.out, settings, Console(highlight=False, soft_wrap=True))
    return 0


def _threshold(args: argparse.Namespace) -> int:
    image_paths(args.folder)
    from fbft_calibration.bundling import threshold_bundle

    rate = _fraction("--false-alarm-rate", args.false_alarm_rate)
    threshold_bundle(
        args.bundle, args.folder, rate, Console(highlight=False, soft_wrap=True), mixed_sizes=args.mixed_sizes
    )
    return 0


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
