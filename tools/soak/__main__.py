"""Endurance check of a line with its bridges: an hour and more, with faults at random, seen from outside.

    python -m tools.soak --minutes 60 [--fps 10] [--frame-size 4096x3000] [--out DIR] [--seed N]

Two cameras publish, one good, one that is spoilt now and then, and a third takes pictures of parts when it is asked.
Bridges to Modbus, OPC UA and MQTT show them; line, engine, cameras, bridges and broker fail, are stopped and killed
meanwhile. One process checks every message; others read what is shown many times a period, as a program on messages, a
PLC on Modbus, one on OPC UA and an MQTT client, and it is known by the line's clock how old each good is; one more
triggers pictures of parts with numbers, over the command socket, Modbus and OPC UA, and compares each answer's part.
Everything is written to DIR: the programs' logs, each fault with its time, `soak.json`, and to look at `soak.md` with
`soak.svg`. Ends with status 1 when a good was too old, a period is missing, a ledger is open, a trigger was never
answered or about another part, memory is not flat, or anything else was not as it must be. Linux only. As root, the
publishing thread gets real-time priority, and the recorder's disk can be full and read-only; otherwise those faults are
left out. Without mosquitto MQTT is left out. Needs the extras `test`, and without --bundle `calibration`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from fbft_edge.cli.files import size_from_text
from tools.soak.picture import picture
from tools.soak.place import prepare
from tools.soak.programs import broker_command
from tools.soak.report import growth, judged, judged_unfit, last_life, table
from tools.soak.run import Soak


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.soak", description="Run a line for long, with faults at random, and check every message."
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--fps", type=float, default=10.0, help="messages a second and camera (default: 10)")
    parser.add_argument("--camera-fps", type=float, default=1.0, help="pictures a second of a camera (default: 1)")
    parser.add_argument(
        "--frame-size", type=size_from_text, default=(3000, 4096), metavar="WxH", help="(default: 4096x3000)"
    )
    parser.add_argument("--bundle", type=Path, action="append", default=[], help="for such frames; twice: for reloads")
    parser.add_argument("--out", type=Path, default=Path("soak"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=float, default=10.0, metavar="SECONDS", help="from fault to fault, on average")
    parser.add_argument("--only", action="append", metavar="TEXT", help="only faults with this in their name")
    parser.add_argument("--calm", action="store_true", help="no faults")
    return parser.parse_args()


def main() -> int:
    """Run the check; 0 when everything holds."""
    args, console = arguments(), Console()
    place, has_disk = prepare(args.out.resolve(), args.bundle, args.frame_size, args.camera_fps)
    if broker_command(place) is None:
        console.print("MQTT is left out: mosquitto is not installed (apt install mosquitto)")
    try:
        seen = Soak(args, place, has_disk, console).run()
    finally:
        if has_disk:
            subprocess.run(["umount", str(place.out / "disk")], check=False)
    names = {"rss": "rss_kib", "pss": "pss_kib", "threads": "threads", "file descriptors": "files"}
    seen["memory"] = {
        program: {name: growth(last_life(samples), key) for name, key in names.items()}
        for program, samples in seen["samples"].items()
    }
    seen["checks"] = judged(seen)
    text = table(seen)
    (place.out / "soak.json").write_text(json.dumps(seen, indent=1))
    (place.out / "soak.md").write_text(text)
    (place.out / "soak.svg").write_text(picture(seen))
    print(text)
    told = (*seen["received"].values(), *seen["shown"].values())
    for problem in (
        *seen["fault_problems"],
        *seen["misdated"],
        *seen["asked_problems"],
        *(f"picture {number} builds on a lost one, and was judged" for number in judged_unfit(seen)),
        *(problem for each in told for problem in each["problems"]),
    ):
        print(problem)
    return 0 if all(seen["checks"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
