"""Endurance check of a line: `fbft-edge run --config` for an hour and more, with faults at random, seen from outside.

    python -m tools.soak --minutes 60 --fps 30 [--bundle B --bundle B2] [--out DIR] [--seed N]

Two cameras publish: one good, one that is spoilt now and then. One subscriber, a process of its own, checks every
message of both. Everything is written to DIR: the line's log, each fault with its time, `soak.json` and `soak.md`. Ends
with status 1 when a period is missing, a ledger is open, memory grew by 1 % or more, or anything else was not as it
must be. Linux only. As root, the publishing thread gets real-time priority, and the recorder's disk can be full and
read-only; otherwise those faults are left out. Needs the `test` extra, and without --bundle `calibration`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from tools.soak.place import prepare
from tools.soak.report import growth, judged, table
from tools.soak.run import Soak


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.soak", description="Run a line for long, with faults at random, and check every message."
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--fps", type=float, default=30.0)
    parser.add_argument(
        "--bundle", type=Path, action="append", default=[], help="for frames of 140x182; twice: for reloads"
    )
    parser.add_argument("--out", type=Path, default=Path("soak"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="from fault to fault, on average")
    parser.add_argument("--calm", action="store_true", help="no faults")
    return parser.parse_args()


def main() -> int:
    """Run the check; 0 when everything holds."""
    args, console = arguments(), Console()
    place, has_disk = prepare(args.out.resolve(), args.bundle)
    try:
        seen = Soak(args, place, has_disk, console).run()
    finally:
        if has_disk:
            subprocess.run(["umount", str(place.out / "disk")], check=False)
    names = {"rss": "rss_kib", "pss": "pss_kib", "threads": "threads", "file descriptors": "files"}
    seen["memory"] = {name: growth(seen["samples"], key) for name, key in names.items()}
    seen["checks"] = judged(seen)
    text = table(seen)
    (place.out / "soak.json").write_text(json.dumps(seen, indent=1))
    (place.out / "soak.md").write_text(text)
    print(text)
    for problem in (*seen["fault_problems"], *(p for got in seen["received"].values() for p in got["problems"])):
        print(problem)
    return 0 if all(seen["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
