"""The command `fbft-export`: a bundle in, engines for it out.

Knows nothing beyond its arguments; the work is done in `fbft_export.engines`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fbft_edge.bundle import Bundle, open_bundle, revising
from fbft_edge.exit_status import exit_status
from fbft_edge.extras import require_extra
from fbft_edge.sidecar import sidecars


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return exit_status("fbft-export", lambda: _export(_parser().parse_args(argv)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fbft-export", description="Build engines for a bundle and hold them to float32.")
    parser.add_argument("bundle", type=Path, help="the bundle, NAME.fbft")
    parser.add_argument("--runtime", choices=["openvino"], default="openvino", help="default: %(default)s")
    parser.add_argument("--precision", choices=["bf16", "f32"], help="default: bf16 where the CPU has it")
    parser.add_argument("--list", action="store_true", help="show the engines the bundle holds, and build nothing")
    return parser


def _export(args: argparse.Namespace) -> int:
    console = Console(width=None if sys.stdout.isatty() else 160)
    bundle = open_bundle(args.bundle)
    if not args.list:
        require_extra("export", "fbft-export")
        from fbft_export.engines import export_openvino

        with revising(bundle) as draft:
            export_openvino(draft, args.precision)
        bundle = open_bundle(args.bundle)
    console.print(_engine_table(bundle))
    return 0


def _engine_table(bundle: Bundle) -> Table:
    table = Table("runtime", "version", "targets", "precision", "parity", "map max", "map mean", "score", "state")
    for sidecar in sidecars(bundle):
        for place, parity in sidecar.parity.items():
            table.add_row(
                *(sidecar.runtime, sidecar.version, " ".join(sidecar.targets), sidecar.precision, place),
                *(f"{parity[key]:.3%}" for key in ("map_max", "map_mean", "score_max")),
                "current" if sidecar.is_current(bundle) else "stale: the graph has changed",
            )
    return table
