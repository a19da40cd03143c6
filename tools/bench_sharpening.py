"""Milliseconds that a flagged region costs: sharpening, beside a plain guided filter of the map on the same windows.

    python tools/bench_sharpening.py [--image FILE] [--rounds 15] [--reach 28]

The ground is a rendered part of 1036x1036 pixels unless an image is named; what is flagged is a square of 64 to 512
pixels. Prints the floor first, takes turns, and ends with one JSON line. Ratios are of the same round, so that they
stand on a busy machine, too; milliseconds do not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

from fbft_edge.detectors.sharpening import sharpened, windows_around
from fbft_edge.frames.frame import Bool, Float32, Uint8
from fbft_edge.frames.images import read_image
from fbft_edge.synthetic import render_part

SIDES_PX = (64, 128, 256, 512)
FRAME_PX = 1036
GUIDE_PX = 31
GUIDE_EPSILON = 1e-3
SLOPE_PX = 60


def main() -> int:
    """Run the tool."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--image", type=Path, help="the ground, of at least 700 pixels along both axes")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--reach", type=float, default=28.0, help="how far a defect may go on outside, in pixels")
    args = parser.parse_args()
    console = Console(stderr=True)
    pixels = read_image(args.image) if args.image else render_part(3, FRAME_PX, FRAME_PX).pixels
    if min(pixels.shape[:2]) < SIDES_PX[-1] + 188:
        parser.error(f"{args.image} has {pixels.shape[0]}x{pixels.shape[1]} pixels, 700x700 at least are needed")
    sides = {side: _measured(pixels, side, args.reach, args.rounds) for side in SIDES_PX}
    console.print(f"floor: {sides[256]['ms']['floor']:.2f} ms to read 256 px and its surroundings as float32 once")
    console.print(_table(sides, pixels))
    print(json.dumps({"sides_px": sides, "threads": cv2.getNumThreads(), "load_average": os.getloadavg()[0]}))
    return 0


def _measured(pixels: Uint8, side: int, reach_px: float, rounds: int) -> dict[str, Any]:
    """Milliseconds and CPU milliseconds of each way, and how often the other ways' time ours is."""
    mask, relative_map = _flagged(pixels.shape[:2], side)
    windows = windows_around(mask, reach_px)
    times = _interleaved(
        {
            "floor": lambda: [pixels[window.part].astype(np.float32) for window in windows],
            "guided filter": lambda: _guided(pixels, mask, relative_map, reach_px),
            "sharpening": lambda: sharpened(pixels, mask, relative_map, reach_px),
        },
        rounds,
    )
    ours = [wall for wall, _ in times["sharpening"]]
    return {
        "window_px": [list(pixels[window.part].shape[:2]) for window in windows],
        "ms": {name: statistics.median(wall for wall, _ in each) for name, each in times.items()},
        "least_ms": {name: min(wall for wall, _ in each) for name, each in times.items()},
        "cpu_ms": {name: statistics.median(cpu for _, cpu in each) for name, each in times.items()},
        "times": {
            name: statistics.median(mine / wall for mine, (wall, _) in zip(ours, each, strict=True))
            for name, each in times.items()
        },
    }


def _table(sides: dict[int, dict[str, Any]], pixels: Uint8) -> Table:
    height, width = pixels.shape[:2]
    title = f"a flagged square on {height}x{width} pixels, {cv2.getNumThreads()} threads"
    table = Table(
        "side", "window", "ms", "least", "of the CPU", "guided filter", "times it", "times the floor", title=title
    )
    for side, each in sides.items():
        ours = (each[name]["sharpening"] for name in ("ms", "least_ms", "cpu_ms"))
        windows = ", ".join("x".join(map(str, size)) for size in each["window_px"])
        beside = each["ms"]["guided filter"], each["times"]["guided filter"], each["times"]["floor"]
        table.add_row(f"{side} px", windows, *(f"{value:.2f}" for value in (*ours, *beside)))
    return table


def _flagged(size: tuple[int, ...], side: int) -> tuple[Bool, Float32]:
    """A square of `side` pixels in the middle that the map exceeds 1 in, falling off linearly; (height, width) both."""
    rows, columns = (np.abs(np.arange(length) - length // 2) for length in size)
    distance = np.maximum(rows[:, None], columns[None, :])
    relative_map = (1 + (side / 2 - distance) / SLOPE_PX).clip(0).astype(np.float32)
    return relative_map > 1, relative_map


def _guided(pixels: Uint8, mask: Bool, relative_map: Float32, reach_px: float) -> Bool:
    """The map, filtered with the frame's luminance as guide (He et al. 2010) in each window, above 1."""
    found = np.zeros(mask.shape, np.bool_)
    for window in windows_around(mask, reach_px):
        guide = cv2.cvtColor(pixels[window.part], cv2.COLOR_RGB2GRAY).astype(np.float32) / np.float32(255)
        source = relative_map[window.part]
        guide_mean, source_mean = _box(guide), _box(source)
        variance = _box(guide * guide) - guide_mean * guide_mean
        slope = (_box(guide * source) - guide_mean * source_mean) / (variance + np.float32(GUIDE_EPSILON))
        found[window.part] = _box(slope) * guide + _box(source_mean - slope * guide_mean) > 1
    return found


def _box(values: Float32) -> Float32:
    """Mean of the surroundings of each pixel."""
    return np.asarray(cv2.boxFilter(values, -1, (GUIDE_PX, GUIDE_PX)), np.float32)


def _interleaved(actions: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Milliseconds and CPU milliseconds of each action, round by round in turn, after a warm-up of each."""
    for action in actions.values():
        action()
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            wall, cpu = time.perf_counter(), time.process_time()
            action()
            times[name].append((1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)))
    return times


if __name__ == "__main__":
    sys.exit(main())
