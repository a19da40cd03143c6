"""A line that fails on request: `fbft-edge`, with pauses made short, and with faults that begin and end with files.

In the folder that FBFT_FAULTS names:

- `engine-raises`: every inspection does, with the words in it;
- `engine-hangs`: no inspection comes back until the file is gone;
- `clock`: the seconds by which the wall clock has been set.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

from fbft_edge.cameras import watched
from fbft_edge.cli import main as cli
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.frames.frame import Detection, Pixels
from fbft_edge.line import assembly as line
from fbft_edge.line import intake
from fbft_edge.recording import recorder

FAULTS = Path(os.environ["FBFT_FAULTS"])


def faulty(detect: Callable[[OpenVinoDetector, Pixels], Detection]) -> Callable[[OpenVinoDetector, Pixels], Detection]:
    def detected(detector: OpenVinoDetector, pixels: Pixels) -> Detection:
        while (FAULTS / "engine-hangs").exists():
            time.sleep(0.01)
        try:
            words = (FAULTS / "engine-raises").read_text()
        except FileNotFoundError:
            return detect(detector, pixels)
        raise RuntimeError(words)

    return detected


def stepped(clock_ns: Callable[[], int]) -> Callable[[], int]:
    def now_ns() -> int:
        try:
            return clock_ns() + int((FAULTS / "clock").read_text()) * 10**9
        except (OSError, ValueError):
            return clock_ns()

    return now_ns


OpenVinoDetector.detect = faulty(OpenVinoDetector.detect)
time.time_ns = stepped(time.time_ns)
time.time = lambda: time.time_ns() / 1e9
intake.CAMERA_RETRY_S = 0.1
watched.FIRST_PAUSE_S, watched.LONGEST_PAUSE_S = 0.1, 0.3
line.HUNG_AFTER_S = 4.0
line.Recorder = functools.partial(recorder.Recorder, retry_s=0.2)
sys.exit(cli.main())
