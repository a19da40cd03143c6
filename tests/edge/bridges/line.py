"""A line without camera and model: publishes a message per period, as `fbft-edge run` would; results come on stdin.

    line.py ENDPOINT PERIOD CAMERA... [--fast] [--free] [--repeat] [--keys=FOLDER]

Each line on stdin, `VERDICT FRAME_ID [CAMERA [STAGE [TRIGGER_ID [PART_ID]]]]`, becomes one frame's result; without one
a message is stale, or with `--repeat` says the last verdict again. A result answers the trigger that its frame is named
after; with `--free` none but the one that is named. With `--fast` every message is a new result; with keys the
line encrypts.
Everything else in a result follows from its frame_id, see `result_of`.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from pathlib import Path

import numpy as np

from fbft_edge.clock import now_ns
from fbft_edge.frames.frame import DecidedBy, Detection, Frame, Region, Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.writing import EncodedResult, MessageWriter, encode_detection, encode_no_detection
from fbft_edge.sockets.access import CurveServer
from fbft_edge.sockets.publisher import ResultPublisher

PIXELS = np.zeros((1, 1, 3), np.uint8)
MASK = np.zeros((4, 4), bool)


def result_of(
    verdict: Verdict, frame_id: int, camera: str, trigger_id: str | None, part_id: str | None
) -> EncodedResult:
    frame = Frame(camera, frame_id, frame_id * 1_000_000_007, PIXELS)
    if verdict is Verdict.FAULT:
        return encode_no_detection(frame, "inference: failed", trigger_id, part_id=part_id)
    x = frame_id % 1000
    regions = [
        Region((x + number, x, 2 * x + number + 1, 2 * x + 2), x + 3, 0.5 * (number + 1), (x, x))
        for number in range(frame_id % 17)
    ]
    is_bad = verdict is Verdict.ANOMALOUS
    why: DecidedBy | None = "both" if is_bad else None
    detection = Detection(frame_id / 2, 1.0, MASK, tuple(regions), is_bad, peak_xy=(frame_id, 3), decided_by=why)
    return encode_detection(frame, detection, trigger_id=trigger_id, part_id=part_id)


def main() -> None:
    endpoint, period_s, *names = sys.argv[1:]
    is_fast = "--fast" in names
    cameras = [name for name in names if not name.startswith("--")]
    folders = [Path(name.partition("=")[2]) for name in names if name.startswith("--keys=")]
    curve = CurveServer(folders[0] / "line.key_secret", folders[0] / "clients") if folders else None
    waiting: dict[str, queue.SimpleQueue[tuple[Verdict, int, str, str | None, str | None]]] = {
        camera: queue.SimpleQueue() for camera in cameras
    }

    def read() -> None:
        for line in sys.stdin:
            verdict, frame_id, *others = line.split()
            given = None if "--free" in names else frame_id
            camera, stage, trigger_id, part_id = (*others, *(cameras[0], "camera", given, None)[len(others) :])
            waiting[camera].put((Verdict(verdict), int(frame_id), stage, trigger_id, part_id))

    threading.Thread(target=read, daemon=True).start()
    writers = {camera: MessageWriter("site", camera, 0.5, "ab" * 32, pixel_threshold=0.25) for camera in cameras}
    last = {camera: encode_no_detection() for camera in cameras}
    repeated = dict.fromkeys(cameras, Verdict.STALE)
    ledger, tick, start_s = Ledger(), 0, time.monotonic()
    with ResultPublisher(endpoint, curve=curve) as publisher:
        while True:
            for camera in cameras:
                if is_fast:
                    waiting[camera].put((Verdict.OK if tick % 3 else Verdict.ANOMALOUS, tick, "", str(tick), None))
                verdict, health = repeated[camera], Health("ok")
                if not waiting[camera].empty():
                    verdict, frame_id, stage, trigger_id, part_id = waiting[camera].get()
                    last[camera] = result_of(verdict, frame_id, camera, trigger_id, part_id)
                    repeated[camera] = verdict if "--repeat" in names else Verdict.STALE
                    if verdict is Verdict.FAULT:
                        repeated[camera] = Verdict.STALE
                        health = Health("fault", f"{stage}: it is gone")
                parts = writers[camera].write(last[camera], verdict, now_ns(), ledger.snapshot(), health)
                publisher.send(parts)
            tick += 1
            time.sleep(max(0.0, start_s + tick * float(period_s) - time.monotonic()))


main()
