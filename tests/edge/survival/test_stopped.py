"""A line that is told to stop, whatever it is at: it ends with status 0, a summary that adds up, and no traceback."""

from __future__ import annotations

import os
import re
from typing import Any

BURN = ("-c", "while True: pass")
STOP_BETWEEN_BEGIN_AND_INFER = """
import os, signal, sys, time
from fbft_edge.cli import main as cli
from fbft_edge.detectors.host import OpenVinoDetector
begin, count = OpenVinoDetector.begin, 0

def stopping(detector, pixels):
    global count
    count += 1
    if count == 5:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    return begin(detector, pixels)

OpenVinoDetector.begin = stopping
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


def test_a_frame_that_is_with_the_engine_when_the_line_stops_is_no_error(configure: Any, start: Any) -> None:
    line = start("run", "--config", configure(), program=("-c", STOP_BETWEEN_BEGIN_AND_INFER))
    assert line.wait() == 0, line.errors
    assert ("dropped shutdown" in line.output or "replaced" in line.output, "error" in line.errors) == (True, False)
