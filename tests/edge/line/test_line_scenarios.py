"""Days at a line: two programs at one endpoint, broken files in between, odd names, odd sizes, old terminals."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from fbft_edge.bundle.nominal_statistics import Reference
from fbft_edge.bundle.notes import Notes
from fbft_edge.bundle.reading import Bundle
from fbft_edge.cli.main import main
from fbft_edge.frames.frame import Uint8, Verdict
from fbft_edge.frames.images import read_image, write_image
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.reading import Result
from fbft_edge.messages.writing import MessageWriter, encode_no_detection
from fbft_edge.sockets.publisher import ResultPublisher
from fbft_edge.sockets.subscriber import ResultSubscriber

BrightBundle = Callable[..., Bundle]
NOT_UTF8 = os.fsdecode(b"caf\xe9-\xff")
# Smaller than a tile of 84 px, odd, just more than a tile, and strips as a line-scan camera sends them.
SIZES = [(64, 64), (65, 97), (85, 83), (64, 8192), (8192, 64)]


@pytest.fixture(scope="module")
def bundle(bright_bundle: BrightBundle) -> Path:
    """For frames of any size; patches brighter than 0.6 are defects."""
    return bright_bundle().path


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/results"


def picture(height: int, width: int, box: tuple[int, int, int, int] | None = None) -> Uint8:
    """Dark, with a bright box (left, top, right, bottom)."""
    pixels = np.full((height, width, 3), 30, np.uint8)
    if box:
        pixels[box[1] : box[3], box[0] : box[2]] = 250
    return pixels


def folder_of(folder: Path, *pictures: Uint8) -> Path:
    folder.mkdir()
    for index, pixels in enumerate(pictures):
        write_image(folder / f"{index:03}.png", pixels)
    return folder


def run_line(
    bundle: Path, camera: str, endpoint: str, *options: str, on_verdict: Callable[[], None] | None = None
) -> list[Result]:
    """Run a line to its end; returns what a subscriber that was there first received.

    `on_verdict` is called at the first frame that got one.
    """
    received: list[Result] = []
    over = threading.Event()

    def listen() -> None:
        with ResultSubscriber(endpoint, every=True) as results:
            while (result := results.receive(1.0)) is not None or not over.is_set():
                if result is not None:
                    is_first = result.frame_id is not None and all(each.frame_id is None for each in received)
                    received.append(result)
                    if on_verdict and is_first:
                        on_verdict()

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        status = main(["run", "--bundle", str(bundle), "--camera", camera, "--bind", endpoint, *options])
    finally:
        over.set()
        thread.join()
    assert status == 0
    return received


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def called(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A command in a process of its own, so that a crash of a library is seen as one."""
    command = [sys.executable, "-m", "fbft_edge", *map(os.fspath, arguments)]
    return subprocess.run(command, capture_output=True, timeout=120, env={**os.environ, **environment})


# Frames of every shape


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_line_inspects_frames_of_every_shape(bundle: Path, tmp_path: Path, height: int, width: int) -> None:
    box = (width - 40, height - 45, width - 4, height - 9)
    folder = folder_of(tmp_path / "in", *[picture(height, width), picture(height, width, box)] * 2)
    endpoint = f"ipc://{tmp_path}/results"
    results = run_line(bundle, f"folder://{folder}?fps=4", endpoint, "--fps", "20", "--preview")
    seen = {result.frame_id: result for result in results if result.verdict in (Verdict.OK, Verdict.ANOMALOUS)}
    assert {frame_id % 2: result.verdict for frame_id, result in seen.items()} == {0: Verdict.OK, 1: Verdict.ANOMALOUS}
    for frame_id, result in seen.items():
        assert result.mask.shape == (height, width)
        assert bool(result.mask.any()) == bool(frame_id % 2)
    bad = next(result for frame_id, result in seen.items() if frame_id % 2)
    rows, columns = np.nonzero(bad.mask)
    assert abs((columns.min() + columns.max()) / 2 - (box[0] + box[2]) / 2) < 14
    assert abs((rows.min() + rows.max()) / 2 - (box[1] + box[3]) / 2) < 14
    preview = cv2.imdecode(np.frombuffer(bad.preview_jpeg, np.uint8), cv2.IMREAD_COLOR)
    scale = min(1.0, 640 / width)
    assert preview.shape == (max(1, round(height * scale)), round(width * scale), 3)


@pytest.mark.parametrize("seed", range(3))
def test_a_picture_gets_the_same_verdict_on_the_line_as_from_its_file(
    bundle: Path, tmp_path: Path, endpoint: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    size = (int(random.integers(64, 200)), int(random.integers(64, 200)))
    coarse = [random.integers(0, 2, (4, 5), np.uint8) * 255 for _ in range(3)]
    blobs = [cv2.resize(each, size[::-1], interpolation=cv2.INTER_CUBIC) for each in coarse]
    folder = folder_of(tmp_path / "in", *[np.repeat(each[..., None], 3, axis=2) for each in blobs])
    results = run_line(bundle, f"folder://{folder}?fps=4", endpoint, "--fps", "20")
    assert main(["inspect", "--bundle", str(bundle), str(folder), "--out", str(tmp_path / "out")]) == 0
    said = lines(tmp_path / "out")
    fresh = [result for result in results if result.verdict in (Verdict.OK, Verdict.ANOMALOUS)]
    assert fresh
    for result in fresh:
        line = said[result.frame_id]
        assert (result.score, result.verdict.value) == (line["score"], line["verdict"])
        assert [list(region.box_xyxy) for region in result.regions] == [each["box_xyxy"] for each in line["regions"]]
        np.testing.assert_array_equal(result.mask, read_image(tmp_path / "out" / line["mask"])[..., 0] > 0)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 300), (3, 3), *SIZES])
def test_files_of_every_shape_are_inspected(bundle: Path, tmp_path: Path, height: int, width: int) -> None:
    folder = folder_of(tmp_path / "in", np.full((height, width, 3), 255, np.uint8), picture(height, width))
    assert main(["inspect", "--bundle", str(bundle), str(folder), "--out", str(tmp_path / "out")]) == 0
    for line in lines(tmp_path / "out"):
        assert (line["height"], line["width"]) == (height, width)
        assert read_image(tmp_path / "out" / line["mask"]).shape == (height, width, 3)
        assert read_image(tmp_path / "out" / line["overlay"]).shape == (height, width, 3)


# Broken files in between


def test_a_line_says_which_picture_is_broken_and_goes_on(
    bundle: Path, tmp_path: Path, endpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fbft_edge.line.intake.CAMERA_RETRY_S", 0.3)
    folder = folder_of(tmp_path / "in", *[picture(84, 84)] * 6)
    (folder / "002.png").write_bytes((folder / "002.png").read_bytes()[:60])
    write_image(folder / "004.png", picture(84, 98))
    results = run_line(bundle, f"folder://{folder}?fps=5", endpoint, "--fps", "20")
    reasons = list(dict.fromkeys(result.health.reason for result in results if result.verdict is Verdict.FAULT))
    assert [reason.startswith("camera: ") for reason in reasons] == [True, True]
    assert "002.png" in reasons[0]
    assert "sends 98x84 pixels (width x height) of rgb8 after 3 frames of 84x84 pixels" in reasons[1]
    assert results[-1].verdict in (Verdict.OK, Verdict.STALE)
    assert results[-1].health.state == "ok"
    assert "captured 4  fresh 4" in capsys.readouterr().out


def test_a_looping_folder_names_a_file_that_was_taken_away(bundle: Path, tmp_path: Path, endpoint: str) -> None:
    folder = folder_of(tmp_path / "in", *[picture(84, 84)] * 3)
    camera, options = f"folder://{folder}?fps=10&loop=true", ("--fps", "20", "--duration", "2.5")
    results = run_line(bundle, camera, endpoint, *options, on_verdict=(folder / "001.png").unlink)
    reasons = {result.health.reason for result in results if result.verdict is Verdict.FAULT}
    words = "cannot be read: No such file or directory; check the path and its permissions"
    assert reasons == {f"camera: {folder}/001.png {words}"}


def test_a_mono_camera_in_the_place_of_a_colour_one_is_a_fault(bright_bundle: BrightBundle, tmp_path: Path) -> None:
    colour = Notes(nominal_statistics={"colour": Reference(9, 1, 1.0, 1.0, 1.0)})
    red = picture(84, 84)
    red[..., 0] += 9
    folder = folder_of(tmp_path / "in", red, *[picture(84, 84)] * 3)
    results = run_line(
        bright_bundle(notes=colour).path, f"folder://{folder}?fps=5", f"ipc://{tmp_path}/results", "--fps", "20"
    )
    said = [result.health.reason for result in results if result.verdict is Verdict.FAULT]
    inspected = {result.frame_id for result in results if result.frame_id is not None}
    assert (inspected, "camera: camera 'camera' is mono: the three channels" in str(said[-1])) == ({0}, True)


# Two programs


def test_a_second_line_at_the_same_endpoint_is_refused_and_the_first_goes_on(
    bundle: Path, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    camera = "synthetic://?height=84&width=84"
    arguments = ["run", "--bundle", str(bundle), "--camera", camera, "--bind", endpoint]
    with ResultSubscriber(endpoint, every=True) as results, started(*arguments):
        before = results.receive(60)
        status = main([*arguments, "--duration", "1"])
        said = capsys.readouterr().err
        after = [results.receive(10) for _ in range(60)][-1]
    assert (status, "address already in use; another program uses it" in said) == (2, True)
    assert before is not None
    assert after is not None
    assert (after.session, after.sequence >= before.sequence + 60) == (before.session, True)


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-m", "fbft_edge", *arguments], stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.terminate()


def test_a_refused_run_leaves_its_endpoint_free(
    bundle: Path, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--bundle", str(bundle), "--camera", "synthetic://?height=84&width=84", "--bind", endpoint]
    assert main([*arguments, "--engine", "tensorrt"]) == 2
    assert "holds no tensorrt engine" in capsys.readouterr().err
    assert main([*arguments, "--duration", "0.1", "--fps", "20"]) == 0
    assert "messages    2 in" in capsys.readouterr().out


# Names


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_a_picture_whose_name_is_not_utf8_is_inspected_like_any_other(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "plain.png", picture(84, 84, (20, 20, 60, 60)))
    (tmp_path / "plain.png").rename(tmp_path / "in" / f"{NOT_UTF8}.png")
    done = called("inspect", "--bundle", bundle, tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    (line,) = lines(tmp_path / "out")
    assert (line["verdict"], os.fsencode(line["mask"])) == ("anomalous", b"masks/caf\xe9-\xff.png")
    assert read_image(tmp_path / "out" / line["mask"]).any()
    assert (tmp_path / "out" / "overview.png").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such file names")
def test_a_video_whose_name_is_not_utf8_is_refused_in_one_line(bundle: Path, tmp_path: Path, endpoint: str) -> None:
    video = tmp_path / f"{NOT_UTF8}.avi"
    video.write_bytes(b"RIFF")
    done = called("run", "--bundle", bundle, "--camera", video, "--bind", endpoint)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"is not UTF-8, which cannot be opened; rename it" in done.stderr


@pytest.mark.parametrize("name", ["out[bold]", "[/b]", "a[link=x]b", "\\[red]"])
def test_an_output_folder_is_named_as_it_was_given(
    bundle: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "in", picture(84, 84))
    assert main(["inspect", "--bundle", str(bundle), "in", "--out", name]) == 0
    assert f"Results in {name}" in capsys.readouterr().out


# Old terminals


def test_a_result_that_a_terminal_has_no_letters_for_is_shown_escaped(endpoint: str) -> None:
    writer, ledger, over = MessageWriter("hall-3", "press-1", 0.5, "ab" * 32), Ledger(), threading.Event()
    health = Health("fault", "camera: /mnt/Prüfung/检查 is gone")

    def publish() -> None:
        with ResultPublisher(endpoint) as publisher:
            while not over.wait(0.02):
                message = writer.write(encode_no_detection(), Verdict.FAULT, 5, ledger.publish_fault(), health)
                publisher.send(message)

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        done = called("listen", "--connect", endpoint, "--count", "2", "--timeout", "60", PYTHONIOENCODING="ascii")
    finally:
        over.set()
        thread.join()
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode("ascii").splitlines()
    assert len(shown) == 2
    assert all(line.endswith("fault: camera: /mnt/Pr\\xfcfung/\\u68c0\\u67e5 is gone") for line in shown)


def test_an_inspection_ends_well_on_a_terminal_of_another_encoding(bundle: Path, tmp_path: Path) -> None:
    folder_of(tmp_path / "Prüfung", picture(84, 84))
    arguments = ("inspect", "--bundle", bundle, tmp_path / "Prüfung", "--out", tmp_path / "检查")
    done = called(*arguments, PYTHONIOENCODING="ascii", COLUMNS="300")
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert b"\\u68c0\\u67e5" in done.stdout
    assert [line["verdict"] for line in lines(tmp_path / "检查")] == ["ok"]


# Other commands


def test_listen_shows_as_json_what_a_program_receives(
    bundle: Path, tmp_path: Path, endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tmp_path / "in", *[picture(84, 112, (20, 20, 70, 70))] * 600)
    camera = f"folder://{folder}?fps=10"
    arguments = ("run", "--bundle", str(bundle), "--camera", camera, "--bind", endpoint, "--camera-name", "press-1")
    with started(*arguments), ResultSubscriber(endpoint, every=True) as results:
        while (result := results.receive(60)) is not None and result.verdict is not Verdict.ANOMALOUS:
            pass
        assert result is not None
        assert main(["listen", "--connect", endpoint, "--count", "40", "--timeout", "30", "--json"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    bad = next(each for each in shown if each["verdict"] == "anomalous")
    assert (bad["session"], bad["camera"], bad["site"]) == (result.session, "press-1", "site")
    assert (bad["score"], bad["mask_px"]) == (result.score, int(result.mask.sum()))
    assert [each["box_xyxy"] for each in bad["regions"]] == [list(region.box_xyxy) for region in result.regions]
    assert [each["sequence"] for each in shown] == list(range(shown[0]["sequence"], shown[0]["sequence"] + 40))


@pytest.mark.parametrize("size", ["64", "0x64", "64x0", "-1x64", "64x64x3", "16385x64", "axb", "64x", "6.5x64"])
def test_a_frame_size_that_is_none_is_refused_as_an_argument(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", "--bundle", "any.fbft", f"--frame-size={size}"])
    assert ended.value.code == 2
    assert "--frame-size" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "size"), [("64x64", [64, 64]), ("301X65", [65, 301])])
def test_a_bench_of_a_frame_size_times_frames_of_that_size(
    small_bundle: Bundle, text: str, size: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "--bundle", str(small_bundle.path), "--frame-size", text, "--repeats", "1"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (figures["frame"], figures["tiles"]) == (size, 1 if size == [64, 64] else 3)
