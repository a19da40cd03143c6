"""A line that fails on request: `fbft-edge`, with faults of engine and clock that begin and end with files.

    python -m tools.soak.line FAULTS run --config line.toml

While a file lies in the folder FAULTS:

- `engine-hangs`: no inference comes back;
- `engine-is-slow`: each takes as many seconds longer as stand in the file;
- `engine-gives-zeros`, `engine-repeats`: it computes nothing, and says zeros, or once more what it said last;
- `clock`: the wall clock has been set by as many seconds as stand in it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from fbft_edge.cli.main import main
from fbft_edge.detectors.host import OpenVinoEngine
from fbft_edge.frames.frame import Float32, Uint8

HANGS, SLOW, ZEROS, REPEATS, CLOCK = "engine-hangs", "engine-is-slow", "engine-gives-zeros", "engine-repeats", "clock"


def seconds(file: Path) -> float:
    """What stands in a file; 0 without one."""
    try:
        return float(file.read_text())
    except (OSError, ValueError):
        return 0.0


def faulty(faults: Path, infer: Callable[[OpenVinoEngine, Uint8, Float32], None]) -> Callable[..., None]:
    """Inference that fails below everything that the product checks."""
    said: dict[int, Float32] = {}

    def inferred(engine: OpenVinoEngine, tiles: Uint8, out: Float32) -> None:
        while (faults / HANGS).exists():
            time.sleep(0.05)
        time.sleep(seconds(faults / SLOW))
        if (faults / ZEROS).exists():
            out.fill(0.0)
        elif (faults / REPEATS).exists() and id(engine) in said:
            out[...] = said[id(engine)][0]  # the last frame's first tile
        else:
            infer(engine, tiles, out)
            said[id(engine)] = out.copy()

    return inferred


def stepped(file: Path, clock_ns: Callable[[], int]) -> Callable[[], int]:
    """A wall clock that somebody sets."""
    return lambda: clock_ns() + round(seconds(file) * 1e9)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    OpenVinoEngine.infer = faulty(folder, OpenVinoEngine.infer)  # type: ignore[method-assign]
    time.time_ns = stepped(folder / CLOCK, time.time_ns)
    time.time = lambda: time.time_ns() / 1e9
    sys.argv[:] = ["fbft-edge", *sys.argv[2:]]
    sys.exit(main())
