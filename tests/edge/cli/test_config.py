"""`check-config`, and `run` with a file and options, as a user meets them."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from fbft_edge.bundle.nominal_statistics import Reference
from fbft_edge.bundle.notes import Notes
from fbft_edge.bundle.reading import Bundle
from fbft_edge.cameras import known_pixel_format, known_size
from fbft_edge.cli.line import config_from_args
from fbft_edge.cli.main import command_line, main
from fbft_edge.config.line_config import CameraConfig, LineConfig
from fbft_edge.frames.images import write_image
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.jobs.check_config import check_config
from fbft_edge.sockets.keys import write_key_pair
from fbft_edge.sockets.subscriber import ResultSubscriber

SIDE = 84
PASSWORD = "s3cr3t"


@pytest.fixture(scope="module")
def bundle(bright_bundle: Callable[..., Bundle]) -> Path:
    return bright_bundle(SIDE, frame_sizes=((SIDE, SIDE),)).path


@pytest.fixture
def file(tmp_path: Path, bundle: Path) -> Path:
    """A whole line, with everything that it needs in the folder of the file."""
    write_key_pair(tmp_path / "keys", "line")
    write_key_pair(tmp_path / "keys/clients", "reader")
    write_key_pair(tmp_path / "keys/clients/commands", "plc")
    (tmp_path / "run").mkdir()
    (tmp_path / "part.fbft").symlink_to(bundle)
    path = tmp_path / "line.toml"
    path.write_text(
        f"""
        site = "hall-3"
        bundle = "part.fbft"
        fps = 50
        [[cameras]]
        name = "press-1"
        uri = "synthetic://?height={SIDE}&width={SIDE}"
        [[cameras]]
        name = "press-2"
        uri = "rtsp://line:{PASSWORD}@10.0.0.7/stream"
        trigger = "software"
        latency_s = 0.3
        wait = true
        [publish]
        bind = "ipc://run/results"
        [curve]
        secret_key = "keys/line.key_secret"
        clients = "keys/clients"
        [commands]
        bind = "tcp://0.0.0.0:5556"
        [http]
        bind = "127.0.0.1:9090"
        [recorder]
        folder = "recordings"
        [drift]
        """
    )
    return path


def config(*arguments: str) -> LineConfig:
    return config_from_args(command_line().parse_args(["run", *arguments]))


def without_wrapping(output: str) -> str:
    return re.sub(r"[\s│]+", " ", output)


# check-config


def test_a_line_that_would_run_is_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check-config", str(file)]) == 0
    output, errors = capsys.readouterr()
    shown = without_wrapping(output)
    assert (errors, "hall-3: 2 cameras, 50 messages per second each" in shown) == ("", True)
    assert re.search(r"cameras\[press-2\] ready rtsp://\*\*\*@10.0.0.7/stream, trigger software", shown)
    assert ("trust off" in shown, "problem" in shown, PASSWORD in shown) == (True, False, False)
    assert not (file.parent / "recordings").exists()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("part.fbft", "none.fbft", "bundle: .*none.fbft is not a bundle .*; make one with"),
        (
            "fps = 50",
            'engine = "tensorrt"',
            "bundle: .* holds no tensorrt engine; run fbft-export .* --runtime",
        ),
        ("?height", "?hieght", r"cameras\[press-1\]: synthetic://.*: unknown option 'hieght'; it has fps"),
        ("synthetic://", "synthesis://", r"cameras\[press-1\]: synthesis://.*: no camera kind 'synthesis'; use"),
        ('"synthetic:.*"', '"folder://images"', r"cameras\[press-1\]: .*/images is not there; check the path, or"),
        ('"synthetic:.*"', '"999"', r"cameras\[press-1\]: /dev/video999 is not there"),
        ("ipc://run/results", "ipc://none/results", "publish.bind: .*/none is no folder that can be written to; make"),
        ("ipc://run/results", f"ipc://run/{'x' * 108}", "publish.bind: .* is longer than 107 bytes; choose a shorter"),
        ("keys/line", "keys/none", r"curve.secret_key: .* is not a CURVE key: .*; make one with fbft-edge keygen"),
        ("keys/clients", "run", "curve.clients: .*/run holds no NAME.key, so nobody could connect; put"),
        ("keys/clients", "keys/clients/commands", "curve.clients: .*/commands/commands holds no NAME.key"),
        ("keys/clients", "none", "curve.clients: .*/none holds no NAME.key"),
        (
            "127.0.0.1:9090",
            "0.0.0.0:9090",
            r"http.bind: HTTP on 0.0.0.0:9090 reaches .*; bind 127.0.0.1:9090 and let a proxy",
        ),
        ("width=84", "width=96", r"cameras\[press-1\]: its picture has 96x84 .*, the bundle was fitted on 84x84"),
        ('"recordings"', '"line.toml/x"', "recorder.folder: .* cannot be made or written to, because of .*/line.toml;"),
    ],
)
def test_what_would_stop_a_line_is_told(
    file: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    file.write_text(re.sub(old if old.startswith('"s') else re.escape(old), new, file.read_text()))
    assert main(["check-config", str(file)]) == 2
    output, errors = capsys.readouterr()
    assert re.match(rf"fbft-edge: error: {re.escape(str(file))}: {words}.*\n$", errors), errors
    assert ("problem" in output, PASSWORD in output + errors) == (True, False)


@pytest.mark.parametrize(
    ("uri", "size"),
    [
        ("synthetic://?width=96&height=64", (64, 96)),
        ("v4l2:///dev/none?width=96&height=64", (64, 96)),
        ("csi://0?width=1280&height=720", (720, 1280)),
        ("folder://{folder}", (64, 96)),
        ("file://{folder}/clip.avi", (64, 96)),
        ("folder://{folder}/none", None),
        ("v4l2:///dev/none?width=96", None),
        ("rtsp://10.0.0.7/stream", None),
        ("gstreamer:videotestsrc", None),
    ],
)
def test_a_size_is_known_without_hardware_where_it_can_be(
    tmp_path: Path, uri: str, size: tuple[int, int] | None
) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    write_image(tmp_path / "part.png", picture)
    clip = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    clip.write(picture)
    clip.release()
    assert known_size(uri.format(folder=tmp_path)) == size


@pytest.mark.parametrize(
    ("uri", "pixel_format"),
    [
        ("gige://4711?pixel_format=Mono8", PixelFormat.MONO8),
        ("gige://4711?pixel_format=BayerRG8", PixelFormat.BAYER_RG8),
        ("v4l2:///dev/none?fourcc=GREY", PixelFormat.MONO8),
        ("v4l2:///dev/none?fourcc=MJPG", None),
        ("gige://4711", None),
        ("synthetic://", None),
    ],
)
def test_a_pixel_format_is_known_without_hardware_where_it_can_be(uri: str, pixel_format: PixelFormat | None) -> None:
    assert known_pixel_format(uri) is pixel_format


def test_a_mono_camera_that_is_asked_for_where_the_bundle_has_colour_is_told(
    bright_bundle: Callable[..., Bundle],
) -> None:
    colour = Notes(nominal_statistics={"colour": Reference(9, 1, 1.0, 1.0, 1.0)})
    camera = CameraConfig("press-1", "gige://4711?pixel_format=Mono8")
    found = {each.key: each.problem for each in check_config(LineConfig(bright_bundle(notes=colour).path, (camera,)))}
    assert str(found["cameras[press-1]"]).startswith("its picture is mono: the three channels of every pixel are equal")


def test_a_key_that_others_may_read_is_told(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = file.parent / "keys/line.key_secret"
    key.chmod(0o640)
    assert main(["check-config", str(file)]) == 2
    assert re.search(rf"curve.secret_key: {key} .* others \(mode 0640\); chmod 600 {key}\n", capsys.readouterr().err)


def test_a_camera_is_not_waited_for_when_its_size_cannot_be_known(
    file: Path, bright_bundle: Callable[..., Bundle], capsys: pytest.CaptureFixture[str]
) -> None:
    (file.parent / "part.fbft").unlink()
    bright_bundle(SIDE, path=file.parent / "part.fbft")
    assert main(["check-config", str(file)]) == 2
    assert "cameras[press-2]: it can be waited for only with a bundle of one frame size" in capsys.readouterr().err


def test_a_file_that_is_not_right_by_itself_is_told_by_the_command(tmp_path: Path) -> None:
    path = tmp_path / "line.toml"
    path.write_text("fps = 0")
    line = [sys.executable, "-m", "fbft_edge", "check-config", str(path)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, "Traceback" in done.stderr) == (2, "", False)
    assert re.findall(r"line.toml: (\S+):", done.stderr) == ["bundle", "cameras", "fps"]


# run


def test_a_run_follows_its_file_and_its_options(file: Path) -> None:
    text = re.sub(r"(?s)\[\[cameras\]\]\s+name = \"press-2\".*?(?=\[publish)|\[curve.*", "", file.read_text())
    file.write_text(text)
    line = [sys.executable, "-m", "fbft_edge", "run", "--config", str(file), "--site", "hall-4"]
    with ResultSubscriber(
        f"ipc://{file.parent}/run/results", site="hall-4", camera="press-1", every=True
    ) as subscriber:
        process = subprocess.Popen(line, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
        try:
            assert subscriber.receive(30) is not None
        finally:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 0, errors


def test_every_option_has_its_place_in_the_configuration() -> None:
    line = config(
        *("--bundle=part.fbft", "--camera=0", "--camera-name=press-1", "--engine=openvino", "--fps=5"),
        *("--bind=ipc:///run/x", "--insecure", "--site=hall-3", "--duration=60", "--preview"),
        "--sharpen",
    )
    camera, publish = line.cameras[0], line.publish
    assert (line.bundle, camera.name, camera.uri, line.engine) == (Path("part.fbft"), "press-1", "0", "openvino")
    assert (line.fps, line.site, line.duration_s, line.preview) == (5.0, "hall-3", 60.0, True)
    assert (publish.bind, publish.insecure, line.sharpen) == ("ipc:///run/x", True, True)


def test_an_option_switches_off_what_the_file_has_on(file: Path) -> None:
    file.write_text(f"preview = true\n{file.read_text()}")
    assert (config(f"--config={file}").preview, config(f"--config={file}", "--no-preview").preview) == (True, False)


@pytest.mark.parametrize(
    ("written", "named"),
    [
        (["0"], {"camera": "0"}),
        (["press-1=0", "press-2=rtsp://10.0.0.7/a=b"], {"press-1": "0", "press-2": "rtsp://10.0.0.7/a=b"}),
        (["0", "synthetic://?fps=5"], {"camera-1": "0", "camera-2": "synthetic://?fps=5"}),
        (["/data/run=3/clip.mp4"], {"camera": "/data/run=3/clip.mp4"}),
        (["./clip=1.mp4"], {"camera": "./clip=1.mp4"}),
        (["gstreamer:videotestsrc pattern=ball"], {"camera": "gstreamer:videotestsrc pattern=ball"}),
    ],
)
def test_cameras_of_the_command_line_are_named_before_an_equals_sign(written: list[str], named: dict[str, str]) -> None:
    line = config("--bundle=part.fbft", *(f"--camera={text}" for text in written))
    assert {camera.name: camera.uri for camera in line.cameras} == named


def test_cameras_of_the_command_line_take_the_place_of_those_of_the_file(file: Path) -> None:
    assert [camera.uri for camera in config(f"--config={file}", "--camera=0", "--camera=b=1").cameras] == ["0", "1"]


@pytest.mark.parametrize(
    "arguments", [["--camera=0"], ["--bundle=x"], ["--config=x", "--camera-name=a"], ["--bundle=x", "--camera-name=a"]]
)
def test_options_that_do_not_make_a_line_are_a_usage_error(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        config(*arguments)
    assert (ended.value.code, "usage: fbft-edge run" in capsys.readouterr().err) == (2, True)


def test_a_password_of_the_command_line_may_stay_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LINE_PASSWORD", PASSWORD)
    line = config("--bundle=x", "--camera=press-1=rtsp://line:${env:LINE_PASSWORD}@10.0.0.7/stream")
    assert line.cameras[0].uri == f"rtsp://line:{PASSWORD}@10.0.0.7/stream"
