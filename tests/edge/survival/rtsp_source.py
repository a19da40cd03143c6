"""An RTSP camera as a process of its own, by `rtsp_server.py`: for ever, to one client at a time.

    rtsp_source.py PORT KIND LEVEL

KIND is `good`, `broken` (garbage and frames with parts missing between good ones) or `other-size`.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))
import rtsp_server as rtsp

port, kind, level = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
good = [rtsp.textured(level, seed) for seed in range(10)]
garbage = np.random.default_rng(1).integers(0, 256, 20_000, np.uint8).tobytes()
clips = {
    "good": [*good] * 400,
    "broken": [*good, rtsp.Truncated(good[0]), *good, rtsp.Truncated(good[1]), *good, garbage, *good],
    "other-size": [rtsp.flat(level, (96, 240))] * 1000,
}
rtsp.RtspServer(itertools.repeat(clips[kind]), port)
print("ready", flush=True)
