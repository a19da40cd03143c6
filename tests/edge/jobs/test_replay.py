"""A replay says the same as what was published, bit for bit, or says what differs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from doubles import MessageSource
from waiting import wait_until

from fbft_edge.bundle.reading import Bundle, Thresholds
from fbft_edge.cli.main import main
from fbft_edge.clock import now_ns
from fbft_edge.detectors.selection import open_detector
from fbft_edge.errors import RecordingError
from fbft_edge.frames.frame import Frame
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat, frame_array_shape, pixel_dtype
from fbft_edge.recording.recorder import Recorder, RecorderSettings
from fbft_edge.recording.recordings import find_recordings, read_recording

SIZE = (84, 98)
FORMATS = (PixelFormat.RGB8, PixelFormat.BAYER_RG8, PixelFormat.NV12, PixelFormat.MONO16)
LOOSE = Thresholds(0.9, 0.95, 0.01, 0.01, 0.05, 100)


def frame(number: int, pixel_format: PixelFormat) -> Frame:
    """Mid-gray noise; odd ones have a bright square."""
    dtype = pixel_dtype(pixel_format)
    unit = np.iinfo(dtype).max // 255
    generator = np.random.default_rng(number)
    pixels = generator.integers(80 * unit, 120 * unit, frame_array_shape(pixel_format, *SIZE), dtype)
    if number % 2:
        pixels[20:60, 30:70] = 220 * unit
    return Frame("press-1", number, now_ns(), pixels, pixel_format)


def recorded(
    bundle: Bundle, folder: Path, formats: Sequence[PixelFormat] = FORMATS, sharpen: bool = False
) -> list[Path]:
    """Two frames of each format, inspected, published and recorded."""
    recorder = Recorder(folder, RecorderSettings(nominal_every=1), "")
    thresholds = bundle.require_thresholds()
    source = MessageSource("press-1", thresholds.image, bundle.sha256)
    for index, pixel_format in enumerate(formats):
        opened = open_detector(bundle, FrameLayout(*SIZE, pixel_format), sharpen=sharpen)
        recorder.engine = opened.reason
        for number in (2 * index, 2 * index + 1):
            about = frame(number, pixel_format)
            recorder.published(source.about(about, opened.detector.begin(about.pixels)()))
        opened.detector.close()
        wait_until(lambda: not recorder.counts.waiting_bytes, "the recordings to be written")
    recorder.close()
    return find_recordings(folder)


@pytest.fixture(scope="module")
def bundle(bright_bundle: Callable[..., Bundle]) -> Bundle:
    return bright_bundle()


@pytest.fixture(scope="module")
def originals(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings, one ok and one anomalous."""
    folder = tmp_path_factory.mktemp("originals") / "recordings"
    recorded(bundle, folder, FORMATS[:1])
    return folder


@pytest.fixture
def recordings(originals: Path, tmp_path: Path) -> Path:
    """A copy of them that may be altered."""
    return Path(shutil.copytree(originals, tmp_path / "recordings"))


def replay(folder: Path, bundle: Bundle, out: Path, *more: str) -> tuple[int, list[dict[str, Any]]]:
    """Exit status and results."""
    status = main(["replay", str(folder), "--bundle", str(bundle.path), "--out", str(out), *more])
    return status, [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def alter(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    about = json.loads((path / "recording.json").read_text())
    change(about)
    (path / "recording.json").write_text(json.dumps(about))


def test_what_was_recorded_here_comes_out_bit_for_bit_in_every_kind_of_format(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorded(bundle, tmp_path / "recordings")
    status, results = replay(tmp_path / "recordings", bundle, tmp_path / "out")
    assert (status, [line["outcome"] for line in results]) == (0, ["identical"] * 8)
    assert {line["published"]["verdict"] for line in results} == {"ok", "anomalous"}
    assert not (tmp_path / "out" / "differences.png").exists()
    said = capsys.readouterr().out
    assert ("another bundle" in said, "another engine" in said) == (False, False)


@pytest.mark.parametrize(("white", "is_told"), [(4095, True), (65535, False)])
def test_recorded_frames_of_twelve_bits_kept_in_sixteen_are_told_with_their_largest_value(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], white: int, is_told: bool
) -> None:
    recorder = Recorder(tmp_path / "recordings", RecorderSettings(nominal_every=1), "openvino")
    about = Frame("press-1", 0, now_ns(), np.full(SIZE, white, np.uint16), PixelFormat.MONO16)
    with contextlib.closing(open_detector(bundle, about.layout).detector) as detector:
        detection = detector.begin(about.pixels)()
    recorder.published(MessageSource("press-1", 0.5, bundle.sha256).about(about, detection))
    wait_until(lambda: not recorder.counts.waiting_bytes, "the recording to be written")
    recorder.close()
    replay(tmp_path / "recordings", bundle, tmp_path / "out")
    said = "1 16-bit images are very dark: none has a value above 4095 of 65535"
    assert (said in capsys.readouterr().out.replace("\n", " ")) is is_told


def test_sharpened_masks_come_out_again_when_they_are_sharpened_again(bundle: Bundle, tmp_path: Path) -> None:
    recorded(bundle, tmp_path / "recordings", sharpen=True)
    again, _ = replay(tmp_path / "recordings", bundle, tmp_path / "again", "--sharpen")
    coarse, _ = replay(tmp_path / "recordings", bundle, tmp_path / "coarse")
    assert (again, coarse) == (0, 1)


def test_a_bundle_that_says_otherwise_is_found_out_named_and_drawn(
    bundle: Bundle, bright_bundle: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = bright_bundle(thresholds=LOOSE)
    recorded(bundle, tmp_path / "recordings")
    status, results = replay(tmp_path / "recordings", other, tmp_path / "out")
    outcomes = sorted(line["outcome"] for line in results)
    said = capsys.readouterr().out
    assert (status, outcomes) == (1, ["identical"] * 4 + ["verdict differs"] * 4)
    assert f"8 recordings were made with another bundle: {bundle.sha256[:16]}" in said
    why = r"anomalous \(score .* above 0\.5\), now ok \(score .* against 0\.9, peak .* against 0\.95 at \(\d+, \d+\)\)"
    assert re.search(why, " ".join(said.split()))
    assert cv2.imread(str(tmp_path / "out" / "differences.png")) is not None


def test_a_line_holds_both_sides(bundle: Bundle, recordings: Path, tmp_path: Path) -> None:
    path = find_recordings(recordings)[1]
    _, results = replay(path, bundle, tmp_path / "out")
    (line,) = results
    published = read_recording(path)
    assert line["published"]["score"] == line["replayed"]["score"] == published.result.score
    assert line["published"]["mask_px"] == line["replayed"]["mask_px"] == np.count_nonzero(published.detection.mask)
    assert line["published"]["bundle_sha256"] == line["replayed"]["bundle_sha256"] == bundle.sha256
    assert (line["camera"], line["sequence"], line["frame_id"], line["part_id"]) == ("press-1", 1, 1, None)
    for name in ("peak", "decided_by", "image_threshold"):
        assert line["published"][name] == line["replayed"][name] == getattr(published.result, name)
    thresholds = (line["published"]["pixel_threshold"], line["replayed"]["pixel_threshold"])
    assert thresholds == (published.result.pixel_threshold, 0.6)
    assert line["published"]["peak_xy"] == line["replayed"]["peak_xy"] == list(published.result.peak_xy)


@pytest.mark.parametrize(("tolerance", "status"), [("0", 1), ("0.005", 1), ("0.02", 0)])
def test_a_score_may_change_by_the_tolerance_and_no_more(
    bundle: Bundle, recordings: Path, tmp_path: Path, tolerance: str, status: int
) -> None:
    path = find_recordings(recordings)[0]
    alter(path, lambda about: about["header"].update(score=about["header"]["score"] + 0.01 * 0.5))
    found, _ = replay(path, bundle, tmp_path / "out", "--tolerance", tolerance)
    assert found == status


@pytest.mark.parametrize(
    ("tolerance", "outcome"), [("0.001", "score or mask differs"), ("0.9", "within the tolerance")]
)
def test_a_mask_may_change_by_the_tolerance_and_no_more(
    bundle: Bundle, recordings: Path, tmp_path: Path, tolerance: str, outcome: str
) -> None:
    path = find_recordings(recordings)[1]
    mask = cv2.imread(str(path / "mask.png"), cv2.IMREAD_UNCHANGED)
    rows, columns = np.nonzero(mask)
    mask[rows[:20], columns[:20]] = 0
    cv2.imwrite(str(path / "mask.png"), mask)
    _, results = replay(path, bundle, tmp_path / "out", "--tolerance", tolerance)
    assert (results[0]["outcome"], results[0]["mask_changed_px"]) == (outcome, 20)


def test_another_engine_than_recorded_is_named(
    bundle: Bundle, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = find_recordings(recordings)[0]
    alter(path, lambda about: about.update(engine="tensorrt 10.3 fp16 on Orin, sm_87 (the fastest)"))
    status, _ = replay(path, bundle, tmp_path / "out")
    assert (status, "another engine: tensorrt 10.3 fp16 on Orin, sm_87" in capsys.readouterr().out) == (0, True)


def tear(path: Path) -> None:
    (path / "frame.png").write_bytes((path / "frame.png").read_bytes()[:100])


def shrink(path: Path) -> None:
    cv2.imwrite(str(path / "mask.png"), np.zeros((10, 10), np.uint8))


def claim(path: Path, name: str, height: int, width: int) -> None:
    """Let a picture say that it has another size, without its checksum noticing."""
    data = bytearray((path / name).read_bytes())
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (path / name).write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "torn frame": tear,
    "no mask": lambda path: (path / "mask.png").unlink(),
    "other mask": shrink,
    "not json": lambda path: (path / "recording.json").write_text("{"),
    "a list": lambda path: (path / "recording.json").write_text("[]"),
    "no header": lambda path: alter(path, lambda about: about.pop("header")),
    "later schema": lambda path: alter(path, lambda about: about.update(schema="fbft.recording/2")),
    "other format": lambda path: alter(path, lambda about: about.update(pixel_format="nv12")),
    "unknown format": lambda path: alter(path, lambda about: about.update(pixel_format="yuv")),
    "long format": lambda path: alter(path, lambda about: about.update(pixel_format=[0] * 10**5)),
    "enormous frame": lambda path: claim(path, "frame.png", 100_000, 100_000),
    "enormous mask": lambda path: claim(path, "mask.png", 100_000, 100_000),
    "no PNG": lambda path: (path / "frame.png").write_bytes(b"\xff\xd8\xff"),
    "enormous header": lambda path: alter(path, lambda about: about["header"]["mask"].update(height=16385)),
    "no size": lambda path: alter(path, lambda about: about["header"].update(mask=None)),
    "a pipe": lambda path: ((path / "mask.png").unlink(), os.mkfifo(path / "mask.png")),
    "score of text": lambda path: alter(path, lambda about: about["header"].update(score="high")),
    "topic of a number": lambda path: alter(path, lambda about: about.update(topic=5)),
    "fault": lambda path: alter(path, lambda about: about["header"].update(verdict="fault")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_recording_that_is_not_whole_is_refused_with_its_path(recordings: Path, damage: str) -> None:
    path = find_recordings(recordings)[0]
    DAMAGES[damage](path)
    with pytest.raises(RecordingError, match=path.name) as caught:
        read_recording(path)
    assert len(str(caught.value)) < 500


def test_a_damaged_recording_is_named_and_the_others_are_replayed(
    bundle: Bundle, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = find_recordings(recordings)[0]
    tear(path)
    status, results = replay(recordings, bundle, tmp_path / "out")
    assert (status, [line["outcome"] for line in results]) == (1, ["not replayed", "identical"])
    assert str(path) in capsys.readouterr().out


def test_frames_of_another_size_than_the_bundles_are_not_replayed(
    bundle: Bundle, bright_bundle: Callable[..., Bundle], recordings: Path, tmp_path: Path
) -> None:
    other = bright_bundle(frame_sizes=((100, 100),))
    status, results = replay(recordings, other, tmp_path / "out")
    assert (status, {line["outcome"] for line in results}) == (1, {"not replayed"})
    assert "100x100" in results[0]["reason"]


@pytest.mark.parametrize("part", ["", "*", "*/press-1"])
def test_a_folder_a_day_or_a_camera_can_be_named(bundle: Bundle, recordings: Path, tmp_path: Path, part: str) -> None:
    named = next((recordings).glob(part)) if part else recordings
    _, results = replay(named, bundle, tmp_path / "out")
    assert len(results) == 2


@pytest.mark.parametrize("arguments", [["--tolerance", "1"], ["--tolerance", "-0.1"], ["--tolerance", "nan"]])
def test_a_tolerance_that_is_no_fraction_is_refused(
    bundle: Bundle, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    status = main(["replay", str(recordings), "--bundle", str(bundle.path), *arguments])
    assert (status, "--tolerance" in capsys.readouterr().err) == (2, True)


def test_a_folder_without_recordings_is_refused_and_nothing_is_written(
    bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["replay", str(tmp_path), "--bundle", str(bundle.path), "--out", str(tmp_path / "out")]
    assert (main(arguments), (tmp_path / "out").exists()) == (2, False)
    assert "no recording" in capsys.readouterr().err


def test_a_bundle_without_thresholds_is_refused(
    bundle: Bundle,
    bright_bundle: Callable[..., Bundle],
    recordings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bare = bright_bundle(thresholds=None)
    assert main(["replay", str(recordings), "--bundle", str(bare.path), "--out", str(tmp_path / "o")]) == 2
    assert "threshold" in capsys.readouterr().err


def test_the_picture_of_an_earlier_replay_does_not_stay(
    bundle: Bundle, bright_bundle: Callable[..., Bundle], recordings: Path, tmp_path: Path
) -> None:
    replay(recordings, bright_bundle(thresholds=LOOSE), tmp_path / "out")
    before = (tmp_path / "out" / "differences.png").exists()
    replay(recordings, bundle, tmp_path / "out")
    assert (before, (tmp_path / "out" / "differences.png").exists()) == (True, False)
