"""A line that is told to stop, whatever it is at: it ends with status 0, a summary that adds up, and no traceback."""

from __future__ import annotations

import os
import re
from typing import Any

BURN = ("-c", "while True: pass")
STOP_BETWEEN_BEGIN_AND_INFER = """
import os, signal, sys, threading
from fbft_edge.cli import main as cli
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.line.inference import Inference

begin, stop, is_stopped = OpenVinoDetector.begin, Inference.stop, threading.Event()

def stopped(inference):
    stop(inference)
    is_stopped.set()

def stopping(detector, pixels):
    if threading.current_thread().name == "fbft-begin":  # and not while the line is opened
        os.kill(os.getpid(), signal.SIGTERM)
        is_stopped.wait()
    return begin(detector, pixels)

OpenVinoDetector.begin, Inference.stop = stopping, stopped
sys.exit(cli.main())
"""


def test_sigterm_under_load_ends_a_line_with_its_summary(
    configure: Any, start: Any, start_line: Any, watch: Any, camera: dict[str, Any]
) -> None:
    cameras = [camera | {"name": f"press-{count}"} for count in range(3)]
    line = start_line(configure(cameras=cameras))
    witness = watch(line.results)
    witness.goes_on()
    burners = [start(program=BURN) for _ in range(2 * (os.cpu_count() or 1))]
    witness.goes_on()
    summary = line.end()
    for burner in burners:
        burner.kill()
    witness.check()
    assert re.findall(r"^camera +(\S+)$", summary, re.MULTILINE) == [each["name"] for each in cameras]
    counts = map(int, re.findall(r"^messages +(\d+) in", summary, re.MULTILINE))
    for each, count in zip(cameras, counts, strict=True):
        assert witness.last(each["name"]).sequence < count


def test_a_frame_that_is_with_the_engine_when_the_line_stops_is_counted_and_no_error(
    configure: Any, start: Any
) -> None:
    line = start("run", "--config", configure(), program=("-c", STOP_BETWEEN_BEGIN_AND_INFER))
    assert line.wait() == 0, line.errors
    counted = re.search(r"^frames +captured [1-9].* fresh 0 .* shutdown [1-9]\d*  in flight 0", line.output, re.M)
    assert (bool(counted), "error" in line.errors) == (True, False), line.output + line.errors
