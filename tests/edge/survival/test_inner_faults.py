"""What fails inside the line: the engine, the disk below the recorder, the clock. The line says so and goes on."""

from __future__ import annotations

import contextlib
import re
import resource
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.reading import Result
from fbft_edge.recording.recordings import find_recordings, read_recording

HOUR_S = 3600


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def config(configure: Any, faults: Path) -> Path:
    return configure(engine="openvino", engine_timeout_s=0.3, recorder={"folder": str(faults / "recordings")})


@pytest.fixture(scope="module")
def line(config: Path, start_line: Any, faults: Path) -> Any:
    return start_line(config, faults)


@pytest.fixture(scope="module")
def witness(line: Any, watch: Any) -> Any:
    witness = watch(line.results)
    witness.next(is_well)
    return witness


def is_well(result: Result) -> bool:
    return result.verdict in (Verdict.OK, Verdict.ANOMALOUS) and result.health.state == "ok"


def say(faults: Path, name: str, words: str) -> None:
    """Let a fault begin, or change; a file that is not written yet must not be read."""
    (faults / "next").write_text(words)
    (faults / "next").rename(faults / name)


def test_an_engine_that_fails_is_a_fault_of_each_frame_until_it_works_again(witness: Any, faults: Path) -> None:
    say(faults, "engine-raises", "the driver has gone")
    failed = witness.next(lambda result: result.verdict is Verdict.FAULT)
    witness.goes_on()
    (faults / "engine-raises").unlink()
    after = witness.next(is_well)
    witness.check()
    assert failed.health.reason == "inference: RuntimeError: the driver has gone"
    assert (failed.score, after.ledger.dropped["inference_error"] > 1) == (None, True)


def test_an_engine_that_hangs_is_a_fault_until_it_comes_back(witness: Any, faults: Path) -> None:
    (faults / "engine-hangs").touch()
    hung = witness.next(lambda result: result.verdict is Verdict.FAULT)
    (faults / "engine-hangs").unlink()
    witness.next(is_well)
    witness.check()
    assert re.fullmatch(
        r"inference: one frame has been in the engine for \d+\.\d s, the limit is 0\.3 s", hung.health.reason
    )


@pytest.mark.parametrize("step_s", [HOUR_S, -HOUR_S])
def test_a_wall_clock_that_is_set_moves_no_timestamp(witness: Any, line: Any, faults: Path, step_s: int) -> None:
    before = witness.next(is_well)
    say(faults, "clock", f"{step_s}")
    say(faults, "engine-raises", f"the clock is set by {step_s} s")
    logged = line.wait_for(rf"(\S+) error .*set by {step_s} s")[1]
    (faults / "engine-raises").unlink()
    after = witness.next(is_well)
    witness.check()
    moved_s = datetime.fromisoformat(logged.replace("Z", "+00:00")).timestamp() - time.time()
    assert moved_s == pytest.approx(step_s, abs=HOUR_S / 2)
    assert 0 < after.published_ns - before.published_ns < HOUR_S / 2 * 1e9
    assert 0 <= after.published_ns - after.captured_ns < HOUR_S / 2 * 1e9


@contextlib.contextmanager
def full_disk(line: Any) -> Iterator[None]:
    """The kernel refuses the line every byte in a file, as it refuses what finds no room; needs no rights."""
    soft, hard = resource.prlimit(line.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(line.process.pid, resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.prlimit(line.process.pid, resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_degrades_health_and_recording_goes_on_once_there_is_room(
    witness: Any, line: Any, eventually: Any, faults: Path
) -> None:
    recordings = faults / "recordings"
    eventually(lambda: list(recordings.glob("*/*/[0-9]*")))
    with full_disk(line):
        full = witness.next(lambda result: result.health.state == "degraded")
        witness.goes_on()
        kept = find_recordings(recordings)
    eventually(lambda: len(find_recordings(recordings)) > len(kept))
    witness.next(is_well)
    witness.check()
    assert re.fullmatch(r"recorder: .*: File too large; 0 recordings dropped", full.health.reason)
    assert full.verdict is not Verdict.FAULT
    for path in find_recordings(recordings):
        read_recording(path)


def test_an_engine_that_never_comes_back_ends_the_line_with_a_remedy(witness: Any, line: Any, faults: Path) -> None:
    (faults / "engine-hangs").touch()
    status = line.wait()
    witness.check()
    last_words = line.errors.strip().splitlines()[-1]
    assert (status, "Traceback" in last_words) == (2, False)
    assert "error: one frame has been in the engine for more than 4 s; start the line again" in last_words
    assert witness.last("press-1").verdict is Verdict.FAULT
