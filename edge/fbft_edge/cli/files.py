"""The commands beside a line: arguments in, what came of images, recordings or this machine shown.

Knows nothing about how any of it is done; each command loads what it needs when it runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from fbft_edge.cli.options import add_engine, add_sharpen


def add_demo(parser: argparse.ArgumentParser) -> None:
    """Declare `demo`."""
    parser.description = (
        "Render parts, fit a bundle, run a line on a synthetic camera, inspect parts with "
        "defects of 3 to 40 px; a table and a picture show what came of it. A second run uses "
        "the same bundle."
    )
    add = parser.add_argument
    add("--out", type=Path, default=Path("fbft-demo"), metavar="DIR", help="folder (default: ./%(default)s)")
    add("--seconds", type=float, default=15.0, help="how long the line runs (default: %(default)g)")
    add("--fresh", action="store_true", help="render and fit again in any case")
    parser.set_defaults(command=_demo)


def _demo(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.cli.reports import show_demo
    from fbft_edge.cli.terminal import TerminalProgress
    from fbft_edge.jobs.demo import demo

    console = Console(highlight=False)
    shown = demo(args.out, args.seconds, args.fresh, TerminalProgress(console))
    show_demo(shown.outcomes, shown.figures, console)
    print(shown.picture)
    return 0


def add_inspect(parser: argparse.ArgumentParser) -> None:
    """Declare `inspect`."""
    parser.description = (
        "Inspect image files and folders of them; write masks/, overlays/, results.jsonl (one "
        "line per image) and overview.png. The status is 1 when an image has no verdict: it cannot be read, or is of a "
        "size that the bundle was not fitted on."
    )
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="B", help="the product's bundle, a folder NAME.fbft")
    add("images", type=Path, nargs="+", metavar="IMAGES", help="image files, or folders of them")
    add("--out", type=Path, required=True, metavar="DIR", help="folder for what is found")
    add("--recursive", action="store_true", help="inspect what is in subfolders, too; outputs keep the folders")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--resume", action="store_true", help="go on after results in DIR; files that changed are inspected again"
    )
    group.add_argument("--overwrite", action="store_true", help="replace results in DIR")
    add_engine(parser)
    add_sharpen(parser, "store_true")
    add("--refine", action="store_true", help="redraw what is flagged to the pixel, in seconds (docs/refinement.md)")
    add("--weights", type=Path, metavar="FILE", help="local teacher weights for --refine, .safetensors")
    add("--fail-on-anomaly", action="store_true", help="status 1 when an image is anomalous, too")
    parser.set_defaults(command=_inspect)


def _inspect(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.cli.reports import show_inspection
    from fbft_edge.cli.terminal import TerminalProgress
    from fbft_edge.jobs.earlier_results import Earlier
    from fbft_edge.jobs.inspection import inspect

    earlier = Earlier.RESUMED if args.resume else Earlier.OVERWRITTEN if args.overwrite else Earlier.REFUSED
    inspection = inspect(
        *(args.bundle, args.images, args.out, args.engine),
        sharpen=args.sharpen,
        refine=args.refine,
        weights=args.weights,
        recursive=args.recursive,
        earlier=earlier,
        progress=TerminalProgress(at_once=True),
    )
    show_inspection(inspection, args.out, Console(highlight=False))
    return inspection.exit_status(args.fail_on_anomaly)


def add_bench(parser: argparse.ArgumentParser) -> None:
    """Declare `bench`."""
    parser.description = "Time every stage of a frame beside what this machine can do at best; the last line is JSON."
    add = parser.add_argument
    add("--bundle", type=Path, required=True, metavar="B", help="the product's bundle, a folder NAME.fbft")
    add("--frame-size", type=size_from_text, metavar="WxH", help="default: the size that the bundle was fitted on")
    add("--repeats", type=int, default=7, metavar="N", help="the median of so many (default: %(default)s)")
    parser.set_defaults(command=_bench)


def size_from_text(text: str) -> tuple[int, int]:
    """(height, width) of `WxH` on a command line."""
    from fbft_edge.names import MAX_SIDE_PX

    width, height = (int(part) for part in text.lower().split("x"))
    if not (0 < height <= MAX_SIDE_PX and 0 < width <= MAX_SIDE_PX):
        raise argparse.ArgumentTypeError(f"{text} is not a width and height from 1 to {MAX_SIDE_PX}, such as 1600x1200")
    return height, width


def _bench(args: argparse.Namespace) -> int:
    import json

    from rich.console import Console

    from fbft_edge.bundle.reading import open_bundle
    from fbft_edge.cli.reports import show_timing
    from fbft_edge.cli.terminal import TerminalProgress
    from fbft_edge.jobs.bench import bench

    console, bundle = Console(highlight=False), open_bundle(args.bundle)
    height, width = args.frame_size or next(iter(bundle.frame_sizes), (1036, 1036))
    timing = bench(bundle, height, width, args.repeats, TerminalProgress(console))
    show_timing(timing, console)
    print(json.dumps(timing.figures))
    return 0


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """Declare `doctor`."""
    parser.description = "Show engines, cameras and extras of this machine; what is missing comes with the remedy."
    parser.add_argument("--bundle", type=Path, metavar="B", help="show this bundle's engines and their memory, too")
    parser.set_defaults(command=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.bundle.reading import open_bundle
    from fbft_edge.cli.reports import show_machine
    from fbft_edge.jobs.doctor import doctor

    show_machine(doctor(open_bundle(args.bundle) if args.bundle else None), Console(highlight=False))
    return 0


def add_replay(parser: argparse.ArgumentParser) -> None:
    """Declare `replay`."""
    parser.description = (
        "Run recordings through a bundle and compare verdict, score and mask with what was published; "
        "write results.jsonl and, when some differ, differences.png. On the same engine and machine every bit is the "
        "same. The status is 1 when a recording differs or cannot be replayed."
    )
    add = parser.add_argument
    add("recordings", type=Path, nargs="+", metavar="RECORDINGS", help="the recorder's folder, a day or camera in it")
    add("--bundle", type=Path, required=True, metavar="B", help="the product's bundle, a folder NAME.fbft")
    add("--out", type=Path, default=Path("fbft-replay"), metavar="DIR", help="folder (default: ./%(default)s)")
    add_engine(parser)
    add_sharpen(parser, "store_true")
    add(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="let the score change by this share of the image threshold, and the masks' intersection over union be "
        "this far from 1; for other machines and engines, 0.02 say (default: %(default)g, every bit the same)",
    )
    parser.set_defaults(command=_replay)


def _replay(args: argparse.Namespace) -> int:
    from rich.console import Console

    from fbft_edge.cli.reports import show_replay
    from fbft_edge.cli.terminal import TerminalProgress
    from fbft_edge.jobs.replay import replay
    from fbft_edge.jobs.replay_results import write_results

    replayed = replay(
        *(args.recordings, args.bundle, args.engine, args.tolerance),
        sharpen=args.sharpen,
        progress=TerminalProgress(at_once=True),
    )
    summary = write_results(replayed, args.out)
    show_replay(summary, args.out, Console(highlight=False))
    return summary.exit_status
