"""The command `fbft-export`: a bundle in, engines for it out.

Knows nothing beyond its arguments; the work is done in `fbft_export.engines`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fbft_edge.bundle.engines import Sidecar, sidecars
from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.bundle.sealing import open_to_change
from fbft_edge.cli.commands import add_version
from fbft_edge.cli.exit_status import exit_status
from fbft_edge.errors import ArgumentError
from fbft_edge.extras import require_extra
from fbft_edge.names import CUDA_RUNTIMES
from fbft_export.precisions import PRECISIONS

if TYPE_CHECKING:
    from rich.table import Table

_DIFFERENCES = {
    "map_max": "map max {:.2%}",
    "map_max_of_threshold": "{:.2%} of threshold",
    "map_mean": "mean {:.2%}",
    "score_max": "score {:.2%}",
    "verdict_flips": "{:.0f} flips",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return exit_status("fbft-export", lambda: _export(command_line().parse_args(argv)))


def command_line() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = argparse.ArgumentParser("fbft-export", description="Build engines for a bundle and hold them to float32.")
    add_version(parser)
    parser.add_argument("bundle", type=Path, help="the bundle, NAME.fbft")
    parser.add_argument("--runtime", choices=list(PRECISIONS), default="openvino", help="default: %(default)s")
    parser.add_argument(
        "--precision",
        choices=sorted({precision for offered in PRECISIONS.values() for precision in offered}),
        help="default: bf16 for openvino where the CPU has it, fp16 for TensorRT",
    )
    parser.add_argument(
        "--target",
        type=_targets,
        metavar="sm_86,sm_89",
        help="GPUs to build for (default: all that TensorRT for RTX lists; TensorRT: this machine's)",
    )
    parser.add_argument(
        "--workspace-mib",
        type=int,
        metavar="MIB",
        help="most scratch memory of a layer (default: no limit)",
    )
    parser.add_argument("--timing-cache", type=Path, metavar="FILE", help="keeps TensorRT's timings for the next build")
    parser.add_argument("--list", action="store_true", help="show the engines the bundle holds, and build nothing")
    return parser


def _targets(text: str) -> tuple[str, ...]:
    targets = tuple(dict.fromkeys(text.split(",")))
    if not all(re.fullmatch(r"sm_\d{2,3}", target) for target in targets):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form sm_86,sm_89")
    return targets


def _export(args: argparse.Namespace) -> int:
    _require_options_that_fit(args)
    _show_engines(open_bundle(args.bundle) if args.list else _built(open_to_change(args.bundle), args))
    return 0


def _show_engines(bundle: Bundle) -> None:
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(_engine_table(bundle))
    for sidecar in sidecars(bundle):
        if not sidecar.is_current(bundle):
            console.print(_what_to_do(bundle, sidecar), highlight=False, soft_wrap=True)


def _require_options_that_fit(args: argparse.Namespace) -> None:
    """Stop here if an option means nothing to the runtime.

    Raises:
        ArgumentError: One does not.
    """
    precisions = PRECISIONS[args.runtime]
    if args.precision not in (None, *precisions):
        raise ArgumentError(
            f"--runtime {args.runtime} has no precision {args.precision}; it has {' and '.join(precisions)}"
        )
    for option, value, runtimes in (
        ("--target", args.target, CUDA_RUNTIMES),
        ("--workspace-mib", args.workspace_mib, CUDA_RUNTIMES),
        ("--timing-cache", args.timing_cache, ("tensorrt",)),
    ):
        if value is not None and args.runtime not in runtimes:
            raise ArgumentError(
                f"--runtime {args.runtime} takes no {option}; leave it out, or use --runtime {' or '.join(runtimes)}"
            )
    if args.workspace_mib is not None and args.workspace_mib < 1:
        raise ArgumentError(f"--workspace-mib {args.workspace_mib} is no amount of memory; it takes 1 or more")
    if args.timing_cache is not None and not args.timing_cache.absolute().parent.is_dir():
        raise ArgumentError(f"{args.timing_cache.absolute().parent} of --timing-cache is no folder; make it first")


def _built(bundle: Bundle, args: argparse.Namespace) -> Bundle:
    if args.runtime == "openvino":
        require_extra("export", "fbft-export")
        from fbft_export.engines import export_openvino

        return export_openvino(bundle, args.precision)[0]
    require_extra(args.runtime, f"fbft-export --runtime {args.runtime}")
    from fbft_edge.cli.terminal import TerminalProgress
    from fbft_export.engines import TensorRtSettings, export_tensorrt

    settings = TensorRtSettings(
        precision=args.precision or PRECISIONS[args.runtime][0],
        targets=args.target,
        workspace_bytes=None if args.workspace_mib is None else args.workspace_mib << 20,
        timing_cache=args.timing_cache,
    )
    return export_tensorrt(bundle, args.runtime, settings, TerminalProgress())[0]


def _engine_table(bundle: Bundle) -> Table:
    from rich.table import Table

    table = Table("engine", "version", "targets", "size", "parity with float32", "state")
    for sidecar in sidecars(bundle):
        table.add_row(
            *(sidecar.name, sidecar.release, " ".join(sidecar.targets), _size(bundle, sidecar)),
            "\n".join(_parity(place, figures) for place, figures in sidecar.parity.items()),
            "current" if sidecar.is_current(bundle) else "stale",
        )
    return table


def _size(bundle: Bundle, sidecar: Sidecar) -> str:
    """Size of the plan; nothing where the runtime compiles the graph itself."""
    return f"{bundle.file(sidecar.plan_file).stat().st_size / 1e6:.0f} MB" if sidecar.plan_file else ""


def _parity(place: str, figures: Mapping[str, float]) -> str:
    """What a sidecar says of the differences found on the device, or emulated."""
    parts = [form.format(figures[key]) for key, form in _DIFFERENCES.items() if key in figures]
    return f"{place}: {', '.join(parts)}"


def _what_to_do(bundle: Bundle, sidecar: Sidecar) -> str:
    where = " on its machine" if sidecar.runtime == "tensorrt" else ""
    return (
        f"{sidecar.name} is stale and is not used: the graph has changed since it was made; run{where} "
        f"fbft-export {bundle.path} --runtime {sidecar.runtime} --precision {sidecar.precision}"
    )
