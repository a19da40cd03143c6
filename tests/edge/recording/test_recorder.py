"""Every anomalous frame is on disk, whole, or counted as dropped; nothing else is ever touched, and nobody waits."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import random
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles import MessageSource
from waiting import wait_until

from fbft_edge.clock import now_ns
from fbft_edge.errors import ArgumentError, RecordingError
from fbft_edge.frames.frame import Detection, Frame, Region, Verdict
from fbft_edge.frames.pixel_format import PixelFormat, frame_array_shape, pixel_dtype
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.published import Published
from fbft_edge.recording.recorder import Recorder, RecorderSettings
from fbft_edge.recording.recordings import FILES, find_recordings, read_recording

SIZE = (48, 64)
DAY_NS = 86_400 * 10**9
GENERATOR = np.random.default_rng(0)


class Line(MessageSource):
    """Publishes about frames of noise as a pipeline does."""

    def message(
        self,
        anomalous: bool = True,
        captured_ns: int | None = None,
        size: tuple[int, int] = SIZE,
        pixel_format: PixelFormat = PixelFormat.RGB8,
    ) -> Published:
        dtype = pixel_dtype(pixel_format)
        pixels = GENERATOR.integers(0, np.iinfo(dtype).max + 1, frame_array_shape(pixel_format, *size), dtype)
        frame = Frame(self.camera, self.count, captured_ns or now_ns(), pixels, pixel_format)
        mask = np.zeros(size, bool)
        mask[3:5, 7:9] = anomalous
        regions = (Region((7, 3, 9, 5), 4, 0.75, (7.5, 3.5)),) if anomalous else ()
        return self.about(frame, Detection(0.25 + 0.5 * anomalous, 0.75, mask, regions, anomalous))


@contextlib.contextmanager
def recording(folder: Path, retry_s: float = 0.02, **settings: Any) -> Iterator[Recorder]:
    recorder = Recorder(folder, RecorderSettings(**settings), "OpenVINO f32 on the CPU", retry_s)
    try:
        yield recorder
    finally:
        recorder.close()


def names(folder: Path) -> list[str]:
    return [path.name for path in find_recordings(folder)] if any(folder.rglob("recording.json")) else []


def gib(recordings: float, folder: Path) -> float:
    """As much as so many recordings of the folder take."""
    sizes = [sum(file.stat().st_size for file in path.iterdir()) for path in find_recordings(folder)]
    return recordings * max(sizes) / 2**30


# What a recording holds


@pytest.mark.parametrize(("umask", "expected"), [(0, {0o750, 0o640}), (0o022, {0o750, 0o640}), (0o077, {0o700, 0o600})])
def test_no_recording_is_ever_open_to_everybody(tmp_path: Path, umask: int, expected: set[int]) -> None:
    before = os.umask(umask)
    try:
        with recording(tmp_path / "kept") as recorder:
            recorder.published(Line().message())
    finally:
        os.umask(before)
    assert find_recordings(tmp_path / "kept")
    found = (tmp_path / "kept", *(tmp_path / "kept").rglob("*"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in found} == expected


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_every_pixel_format_comes_back_bit_for_bit(tmp_path: Path, pixel_format: PixelFormat) -> None:
    message = Line().message(pixel_format=pixel_format)
    with recording(tmp_path) as recorder:
        recorder.published(message)
    assert message.fresh
    (path,) = find_recordings(tmp_path)
    frame, expected = read_recording(path).frame, message.fresh.frame
    assert (frame.pixels.dtype, frame.pixel_format, frame.captured_ns) == (
        expected.pixels.dtype,
        expected.pixel_format,
        expected.captured_ns,
    )
    assert np.array_equal(frame.pixels, expected.pixels)


def test_a_recording_holds_the_header_to_the_byte_and_the_mask(tmp_path: Path) -> None:
    message = Line().message()
    with recording(tmp_path) as recorder:
        recorder.published(message)
    assert message.fresh
    (path,) = find_recordings(tmp_path)
    read = read_recording(path)
    assert message.parts[1] in (path / "recording.json").read_bytes()
    assert np.array_equal(read.detection.mask, message.fresh.detection.mask)
    assert (read.detection.regions, read.engine) == (message.fresh.detection.regions, "OpenVINO f32 on the CPU")


def test_a_recording_lies_under_its_date_camera_time_verdict_session_and_sequence(tmp_path: Path) -> None:
    message = Line("press-7").message(captured_ns=1_000_000_000_123_000_000)
    with recording(tmp_path, max_days=0) as recorder:
        recorder.published(message)
    session = json.loads(message.parts[1])["session"]
    expected = f"2001-09-09/press-7/01-46-40.123-anomalous-{session[:8]}-0"
    assert [str(path.relative_to(tmp_path)) for path in find_recordings(tmp_path)] == [expected]
    assert {file.name for file in (tmp_path / expected).iterdir()} == FILES


def test_every_anomalous_and_one_of_so_many_nominal_frames_of_each_camera_are_kept(tmp_path: Path) -> None:
    lines = Line("press-1"), Line("press-2")
    with recording(tmp_path, nominal_every=4) as recorder:
        for index in range(9):
            for line in lines:
                recorder.published(line.message(anomalous=index == 5))
    kept = [name.split("-")[3] for name in names(tmp_path)]
    assert (kept.count("anomalous"), kept.count("ok")) == (2, 4)


def test_nominal_frames_are_not_kept_unless_asked_for(tmp_path: Path) -> None:
    line = Line()
    with recording(tmp_path) as recorder:
        recorder.published(line.message(anomalous=False))
    assert names(tmp_path) == []


def test_a_message_about_no_new_frame_is_not_recorded(tmp_path: Path) -> None:
    stale = Published("press-1", 0, [b"", b"", b""], Verdict.STALE, Health("ok"), Ledger().snapshot(), 0, 0, None)
    with recording(tmp_path, nominal_every=1) as recorder:
        recorder.published(stale)
    assert names(tmp_path) == []


def test_what_waits_is_written_before_the_recorder_ends(tmp_path: Path) -> None:
    line = Line()
    with recording(tmp_path) as recorder:
        for _ in range(30):
            recorder.published(line.message())
    assert (len(names(tmp_path)), recorder.counts.recorded, recorder.counts.dropped) == (30, 30, 0)


# A disk that refuses


@pytest.fixture
def fill_disk() -> Iterator[Callable[[bool], None]]:
    """Lets the kernel refuse every file beyond 4 KiB, as it refuses what finds no room; needs no rights."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(is_full: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096 if is_full else soft, hard))

    yield fill
    fill(False)


def test_a_full_disk_drops_recordings_counts_them_and_says_so(
    tmp_path: Path, fill_disk: Callable[[bool], None]
) -> None:
    line = Line()
    message = line.message(size=(200, 300))
    assert message.fresh
    with recording(tmp_path, queue_bytes=2 * message.fresh.frame.pixels.nbytes + 200_000) as recorder:
        recorder.published(message)
        wait_until(lambda: recorder.counts.recorded == 1)
        fill_disk(True)
        for _ in range(39):
            recorder.published(line.message(size=(200, 300)))
        advice = wait_until(lambda: recorder._problem and recorder.advice(), "the refusal to be said")
    assert re.fullmatch(rf"recorder: {tmp_path}: File too large; 3\d recordings dropped", advice)
    assert (recorder.counts.recorded, recorder.counts.dropped, len(names(tmp_path))) == (1, 39, 1)


def test_recording_goes_on_by_itself_once_there_is_room(
    tmp_path: Path, fill_disk: Callable[[bool], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with recording(tmp_path) as recorder:
        fill_disk(True)
        recorder.published(Line().message())
        wait_until(lambda: recorder.advice() is not None)
        fill_disk(False)
        wait_until(lambda: recorder.counts.recorded == 1)
        assert (recorder.advice(), recorder.counts.dropped, len(names(tmp_path))) == (None, 0, 1)
    refused, again = (record for record in caplog.records if record.message.startswith("recorder:"))
    assert (refused.levelno, "File too large" in refused.message, again.levelno) == (logging.ERROR, True, logging.INFO)


def test_a_full_disk_leaves_no_part_of_a_recording(tmp_path: Path, fill_disk: Callable[[bool], None]) -> None:
    line = Line()
    with recording(tmp_path) as recorder:
        fill_disk(True)
        for _ in range(3):
            recorder.published(line.message())
        wait_until(lambda: recorder.advice() is not None)
    assert (recorder.counts.recorded, recorder.counts.dropped) == (0, 3)
    assert [path for path in tmp_path.rglob("*") if path.is_file() or path.suffix == ".partial"] == []


def test_a_file_in_the_place_of_a_folder_is_reported_and_left_alone(tmp_path: Path) -> None:
    message = Line("press-1").message(captured_ns=1_000_000_000_123_000_000)
    (tmp_path / "2001-09-09").write_text("precious")
    with recording(tmp_path, max_days=0) as recorder:
        recorder.published(message)
        wait_until(lambda: recorder.advice() is not None)
    assert (recorder.counts.dropped, (tmp_path / "2001-09-09").read_text()) == (1, "precious")


def test_frames_that_come_too_fast_are_dropped_and_counted_and_the_queue_keeps_its_size(tmp_path: Path) -> None:
    line = Line()
    large = [line.message(size=(1000, 1000)) for _ in range(12)]
    with recording(tmp_path, queue_bytes=9_000_000) as recorder:
        waiting = []
        for message in large:
            recorder.published(message)
            waiting.append(recorder.counts.waiting_bytes)
        advice = recorder.advice()
    assert max(waiting) <= 9_000_000
    assert advice is not None
    assert "faster" in advice
    assert recorder.counts.recorded + recorder.counts.dropped == 12
    assert recorder.counts.dropped >= 8


def test_a_frame_larger_than_the_queue_is_kept_when_nothing_else_waits(tmp_path: Path) -> None:
    with recording(tmp_path, queue_bytes=1000) as recorder:
        recorder.published(Line().message())
    assert recorder.counts.recorded == 1


def test_nominal_frames_leave_half_of_the_queue_to_anomalous_ones(
    tmp_path: Path, fill_disk: Callable[[bool], None]
) -> None:
    line = Line()
    message = line.message()
    assert message.fresh
    fill_disk(True)
    with recording(tmp_path, nominal_every=1, queue_bytes=4 * message.fresh.frame.pixels.nbytes + 40_000) as recorder:
        for _ in range(20):
            recorder.published(line.message(anomalous=False))
        before = recorder.counts.dropped
        recorder.published(line.message())
        assert (before > 0, recorder.counts.dropped) == (True, before)


# What goes first


def test_the_oldest_nominal_recordings_make_room_and_anomalous_ones_only_after_them(tmp_path: Path) -> None:
    line = Line()
    with recording(tmp_path, nominal_every=1) as recorder:
        for index in range(6):
            recorder.published(line.message(anomalous=index in (0, 1)))
    max_gib = gib(6.5, tmp_path)
    with recording(tmp_path, nominal_every=1, max_gib=max_gib) as recorder:
        for _ in range(5):
            recorder.published(line.message())
    left = sorted((name.split("-")[3], int(name.split("-")[5])) for name in names(tmp_path))
    assert left == [("anomalous", number) for number in (1, 6, 7, 8, 9, 10)]


def test_a_nominal_frame_never_takes_the_place_of_an_anomalous_one(tmp_path: Path) -> None:
    line = Line()
    with recording(tmp_path) as recorder:
        for _ in range(3):
            recorder.published(line.message())
    before = names(tmp_path)
    with recording(tmp_path, nominal_every=1, max_gib=gib(3.5, tmp_path)) as recorder:
        recorder.published(line.message(anomalous=False))
    assert (names(tmp_path), recorder.counts.dropped) == (before, 0)


def test_the_quota_holds_whatever_is_recorded(tmp_path: Path) -> None:
    line = Line()
    with recording(tmp_path) as recorder:
        recorder.published(line.message())
    max_gib = gib(7.5, tmp_path)
    chance = random.Random(0)
    with recording(tmp_path, nominal_every=1, max_gib=max_gib) as recorder:
        for _ in range(60):
            recorder.published(line.message(anomalous=chance.random() < 0.3))
    stored = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    assert (stored <= max_gib * 2**30, stored) == (True, recorder.counts.stored_bytes)
    assert len(names(tmp_path)) in (7, 8)


def test_a_recording_larger_than_the_quota_is_dropped_with_its_size(tmp_path: Path) -> None:
    with recording(tmp_path, max_gib=1e-9) as recorder:
        recorder.published(Line().message())
        wait_until(lambda: recorder.counts.dropped == 1)
        advice = recorder.advice()
    assert advice is not None
    assert "max_gib" in advice


def test_recordings_older_than_their_days_go_with_the_folders_they_leave_empty(tmp_path: Path) -> None:
    line = Line()
    with recording(tmp_path, max_days=0) as recorder:
        for days in (40, 31, 29, 0):
            recorder.published(line.message(captured_ns=now_ns() - days * DAY_NS))
    with recording(tmp_path, max_days=30) as recorder:
        wait_until(lambda: recorder.counts.removed == 2)
    assert (len(names(tmp_path)), len(list(tmp_path.iterdir()))) == (2, 2)


def emptying(folder: Path) -> None:
    """Let retention remove everything that it would."""
    with recording(folder, max_gib=1e-9) as recorder:
        wait_until(lambda: recorder.counts.stored_bytes == 0)


def test_retention_removes_recordings_and_nothing_else(tmp_path: Path) -> None:
    line = Line()
    with recording(tmp_path) as recorder:
        recorder.published(line.message())
    (path,) = find_recordings(tmp_path)
    for other in ("thesis.txt", f"{path.parent}/notes.txt", f"{path.parent}/14-00-00.000-anomalous-other/frame.png"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_text("precious")
    emptying(tmp_path)
    assert sorted(file.name for file in tmp_path.rglob("*") if file.is_file()) == [
        "frame.png",
        "notes.txt",
        "thesis.txt",
    ]


def test_a_recording_that_someone_put_a_file_into_is_kept(tmp_path: Path) -> None:
    with recording(tmp_path) as recorder:
        recorder.published(Line().message())
    (path,) = find_recordings(tmp_path)
    (path / "keep").touch()
    emptying(tmp_path)
    assert {file.name for file in path.iterdir()} == {*FILES, "keep"}


def test_symbolic_links_are_never_followed(tmp_path: Path) -> None:
    with recording(tmp_path / "elsewhere") as recorder:
        recorder.published(Line().message())
    (path,) = find_recordings(tmp_path / "elsewhere")
    folder, camera, name = tmp_path / "recordings", path.parent.name, path.name
    shutil.copytree(path, folder / "2000-01-04" / camera / name)
    (folder / "2000-01-04" / camera / name / "mask.png").unlink()
    links = {
        folder / "2000-01-01": path.parents[1],
        folder / "2000-01-02" / camera: path.parent,
        folder / "2000-01-03" / camera / name: path,
        folder / "2000-01-04" / camera / name / "mask.png": path / "mask.png",
        folder / "2000-01-05" / camera / f".{name}.partial": path,
    }
    for link, target in links.items():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    emptying(folder)
    assert read_recording(path).frame.pixels.shape == (*SIZE, 3)
    assert all(link.is_symlink() for link in links)


def test_two_processes_never_share_a_folder(tmp_path: Path) -> None:
    with recording(tmp_path), pytest.raises(RecordingError, match="another process"):
        Recorder(tmp_path, RecorderSettings(), "")


def test_a_folder_is_free_again_after_the_recorder_ended(tmp_path: Path) -> None:
    for _ in range(3):
        with recording(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_refused_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordingError, match="file"):
        Recorder(tmp_path / "file", RecorderSettings(), "")


@pytest.mark.parametrize(
    "setting", [{"max_gib": 0}, {"max_days": -1}, {"nominal_every": -1}, {"max_gib": float("nan")}]
)
def test_a_setting_out_of_its_range_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(setting))):
        RecorderSettings(**setting)


# Death at any moment

WRITERS = """
import os, sys
sys.path[:0] = sys.argv[1].split(os.pathsep)
import importlib.util
spec = importlib.util.spec_from_file_location("lines", sys.argv[2])
lines = importlib.util.module_from_spec(spec)
sys.modules["lines"] = lines
spec.loader.exec_module(lines)
for _ in sys.stdin:
    child = os.fork()
    if child == 0:
        recorder = lines.Recorder(lines.Path(sys.argv[3]), lines.RecorderSettings(max_gib=float(sys.argv[4])), "")
        line = lines.Line()
        print(os.getpid(), flush=True)
        while True:
            if recorder.counts.waiting_bytes < 100_000:
                recorder.published(line.message())
            else:
                lines.time.sleep(0.0005)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""


def test_a_process_killed_at_any_moment_leaves_whole_recordings_only(tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    chance, interrupted = random.Random(1), 0
    places = os.pathsep.join(str(Path(__file__).parents[3] / name) for name in ("edge", "tests"))
    arguments = [sys.executable, "-c", WRITERS, places, __file__, str(folder), str(300_000 / 2**30)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writers:
        assert writers.stdin
        assert writers.stdout
        for _ in range(30):
            writers.stdin.write("\n")
            writers.stdin.flush()
            process = int(writers.stdout.readline())
            time.sleep(chance.uniform(0.01, 0.12))
            os.kill(process, signal.SIGKILL)
            assert writers.stdout.readline() == "dead\n"
            interrupted += bool(list(folder.rglob("*.partial")))
            for path in folder.glob("*/*/[0-9]*"):
                read_recording(path)
        writers.stdin.close()
    assert interrupted > 0
    assert len(names(folder)) > 5
    with recording(folder):
        pass
    assert list(folder.rglob("*.partial")) == []
