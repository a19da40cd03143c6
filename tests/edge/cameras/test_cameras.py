"""Every kind of camera delivers numbered RGB frames of one size, or says in one line why it does not."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from waiting import wait_until

from fbft_edge.cameras import Camera, SourceLostError, open_camera
from fbft_edge.cameras.sequence import FrameSequence, Pace
from fbft_edge.cameras.source_clock import SourceClock
from fbft_edge.cameras.video import LiveCamera, open_capture, without_password
from fbft_edge.clock import now_ns, session_ns
from fbft_edge.errors import CameraError
from fbft_edge.frames.frame import Frame
from fbft_edge.frames.images import write_image
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.synthetic import render_part

HEIGHT, WIDTH, NUM_FRAMES = 72, 96, 6


def write_video(path: Path, num_frames: int = NUM_FRAMES, fps: float = 100.0) -> Path:
    """Frame n is gray of level 30 * n, red in the left half at full."""
    sink = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), fps, (WIDTH, HEIGHT))
    for index in range(num_frames):
        bgr = np.full((HEIGHT, WIDTH, 3), 30 * index, np.uint8)
        bgr[:, : WIDTH // 2, 2] = 255
        sink.write(bgr)
    sink.release()
    return path


@pytest.fixture
def video(tmp_path: Path) -> Path:
    return write_video(tmp_path / "clip.avi")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(3):
        write_image(tmp_path / f"{index}.png", np.full((HEIGHT, WIDTH, 3), (10 * index, 1, 2), np.uint8))
    return tmp_path


@contextlib.contextmanager
def opened(uri: str, name: str = "press-1") -> Iterator[Camera]:
    with contextlib.closing(open_camera(uri, name)) as camera:
        yield camera


def frames_of(camera: Camera, limit: int = 100) -> list[Frame]:
    frames = []
    while len(frames) < limit and (frame := camera.read()) is not None:
        frames.append(frame)
    return frames


# Laws of every camera


@pytest.fixture(params=["video", "folder", "synthetic"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "video":
        return f"file://{write_video(tmp_path / 'clip.avi')}"
    if request.param == "folder":
        for index in range(4):
            write_image(tmp_path / f"{index}.png", np.full((HEIGHT, WIDTH, 3), index, np.uint8))
        return f"folder://{tmp_path}?fps=100"
    return f"synthetic://?fps=100&height={HEIGHT}&width={WIDTH}"


def test_frames_are_contiguous_rgb_bytes_of_the_stated_size(uri: str) -> None:
    with opened(uri) as camera:
        pixels = camera.read().pixels
        assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((*camera.size, 3), np.uint8, True)


def test_the_size_is_height_then_width(uri: str) -> None:
    with opened(uri) as camera:
        assert camera.size == (HEIGHT, WIDTH)


def test_frames_are_numbered_from_zero(uri: str) -> None:
    with opened(uri) as camera:
        assert [frame.frame_id for frame in frames_of(camera, 4)] == [0, 1, 2, 3]


def test_frames_are_stamped_when_they_are_delivered(uri: str) -> None:
    with opened(uri) as camera:
        before_ns = now_ns()
        stamps = [frame.captured_ns for frame in frames_of(camera, 3)]
    assert before_ns <= stamps[0] < stamps[1] < stamps[2] <= now_ns()


def test_frames_carry_the_cameras_name(uri: str) -> None:
    with opened(uri, "press-2") as camera:
        assert (camera.name, camera.read().camera) == ("press-2", "press-2")


def test_a_closed_camera_delivers_nothing(uri: str) -> None:
    with opened(uri) as camera:
        camera.close()
        assert camera.read() is None


def test_closing_twice_does_no_harm(uri: str) -> None:
    with opened(uri) as camera:
        camera.close()


def test_a_frame_is_not_changed_by_the_next_one(uri: str) -> None:
    with opened(uri) as camera:
        first = camera.read().pixels
        before = first.copy()
        camera.read()
        np.testing.assert_array_equal(first, before)


# Video files


def test_a_video_ends_after_its_last_frame(video: Path) -> None:
    with opened(f"file://{video}") as camera:
        assert len(frames_of(camera)) == NUM_FRAMES


def test_a_plain_path_is_a_video_file(video: Path) -> None:
    with opened(str(video)) as camera:
        assert len(frames_of(camera)) == NUM_FRAMES


def test_a_video_is_delivered_as_red_green_blue(video: Path) -> None:
    with opened(f"file://{video}") as camera:
        red, green, blue = camera.read().rgb[HEIGHT // 2, WIDTH // 4]
    assert red > 200
    assert green < 60
    assert blue < 60


def test_no_frame_of_a_video_is_left_out(video: Path) -> None:
    with opened(f"file://{video}") as camera:
        levels = [int(frame.pixels[HEIGHT // 2, -8, 1]) for frame in frames_of(camera)]
    np.testing.assert_allclose(levels, 30 * np.arange(NUM_FRAMES), atol=6)


def test_a_looping_video_starts_again(video: Path) -> None:
    with opened(f"file://{video}?loop=true") as camera:
        frames = frames_of(camera, 2 * NUM_FRAMES + 1)
    np.testing.assert_array_equal(frames[0].pixels, frames[2 * NUM_FRAMES].pixels)


def test_a_looping_video_that_vanishes_says_so(video: Path) -> None:
    with opened(f"file://{video}?loop=true") as camera:
        frames_of(camera, NUM_FRAMES - 1)
        video.unlink()
        with pytest.raises(CameraError, match="cannot be started again"):
            frames_of(camera)


def test_a_video_is_not_played_faster_than_its_rate(tmp_path: Path) -> None:
    video = write_video(tmp_path / "slow.avi", num_frames=4, fps=20.0)
    with opened(str(video)) as camera:
        stamps = [frame.captured_ns for frame in frames_of(camera)]
    assert stamps[-1] - stamps[0] >= 0.14e9


def test_a_percent_sign_hides_a_question_mark_in_a_path(tmp_path: Path) -> None:
    video = write_video(tmp_path / "plain.avi").rename(tmp_path / "what?.avi")
    with opened(f"file://{str(video).replace('?', '%3F')}") as camera:
        assert camera.size == (HEIGHT, WIDTH)


# Folders


def test_a_folder_is_played_in_order_and_ends(folder: Path) -> None:
    with opened(f"folder://{folder}?fps=100") as camera:
        assert [tuple(frame.pixels[0, 0]) for frame in frames_of(camera)] == [
            (0, 1, 2),
            (10, 1, 2),
            (20, 1, 2),
        ]


def test_a_folder_says_once_that_its_16_bits_are_nearly_black(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for path in folder.iterdir():
        cv2.imwrite(str(path), np.full((HEIGHT, WIDTH), 4095, np.uint16))
    with opened(f"folder://{folder}?fps=200") as camera:
        frames_of(camera, 3)
    assert ["none has a value above 4095 of 65535" in record.getMessage() for record in caplog.records] == [True]


def test_a_looping_folder_starts_again(folder: Path) -> None:
    with opened(f"folder://{folder}?fps=200&loop=true") as camera:
        assert [int(frame.pixels[0, 0, 0]) for frame in frames_of(camera, 5)] == [0, 10, 20, 0, 10]


def test_a_changed_size_is_said_once_and_the_folder_goes_on(folder: Path) -> None:
    write_image(folder / "1.png", np.zeros((HEIGHT, WIDTH + 1, 3), np.uint8))
    with opened(f"folder://{folder}?fps=100") as camera:
        camera.read()
        with pytest.raises(
            CameraError, match=rf"{WIDTH + 1}x{HEIGHT} pixels .* of rgb8 after 1 frames of {WIDTH}x{HEIGHT}"
        ):
            camera.read()
        assert camera.read().frame_id == 1


def test_an_unreadable_image_is_said_and_the_folder_goes_on(folder: Path) -> None:
    (folder / "1.png").write_bytes(b"not a picture")
    with opened(f"folder://{folder}?fps=100") as camera:
        camera.read()
        with pytest.raises(CameraError, match=r"1\.png"):
            camera.read()
        assert camera.read() is not None


# Synthetic


def test_synthetic_parts_come_from_the_seed() -> None:
    with opened("synthetic://?height=96&width=80&seed=5") as camera:
        np.testing.assert_array_equal(camera.read().pixels, render_part(5, 96, 80).pixels)


def test_synthetic_frames_are_read_only() -> None:
    with opened("synthetic://?height=96&width=80") as camera:
        assert not camera.read().pixels.flags.writeable


def test_every_so_many_synthetic_parts_have_a_defect() -> None:
    with opened("synthetic://?height=96&width=96&fps=500&defect_every=4") as camera:
        frames = frames_of(camera, 8)
    nominal = [render_part(seed, 96, 96).pixels for seed in range(8)]
    is_nominal = [any(np.array_equal(frame.pixels, part) for part in nominal) for frame in frames]
    assert is_nominal == [True, True, True, False, True, True, True, False]


def test_without_defects_every_synthetic_part_is_nominal() -> None:
    with opened("synthetic://?height=64&width=64&fps=500&defect_every=0") as camera:
        frames = frames_of(camera, 9)
    np.testing.assert_array_equal(frames[0].pixels, frames[8].pixels)


def test_synthetic_frames_come_at_their_rate() -> None:
    with opened("synthetic://?height=64&width=64&fps=50") as camera:
        stamps = [frame.captured_ns for frame in frames_of(camera, 6)]
    assert stamps[-1] - stamps[0] >= 0.09e9


# What is not there


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("7", "no device /dev/video7"),
        ("v4l2:///dev/video77", "no device /dev/video77; present: "),
        ("nothing.mp4", "nothing.mp4 is not a file"),
        ("file:///nowhere/clip.mp4", "/nowhere/clip.mp4 is not a file; check the path"),
        ("folder:///nowhere", "/nowhere is not a folder"),
        ("ftp://host/x", "no camera kind 'ftp'; use an index, rtsp, gstreamer, v4l2, gige, csi, file, folder or synth"),
        ("synthetic://?colour=red", "unknown option 'colour'; it has fps, height, width, seed, defect_every"),
        ("file:///clip.mp4?fps=3", "unknown option 'fps'; it has loop"),
        ("v4l2:///dev/video0?size=3", "unknown option 'size'; it has width, height, fps, fourcc"),
        ("v4l2:///dev/video0?width=0", "from 1 to 65535"),
        ("v4l2:///dev/video0?fourcc=jpeg", "use a name such as MJPG"),
        ("gige://4711?exposure_us=fast", "use a number from 0.001 to 1e+09"),
        ("gige://4711?exposure_us=0", "use a number from 0.001 to 1e+09"),
        ("gige://4711?gain=-1", "use a number from 0 to 1e+06"),
        ("gige://4711?trigger=Line 1", "use a name such as free, software or Line1"),
        ("gige://4711?width=3", "it has trigger, exposure_us, gain, fps, pixel_format"),
        ("csi://0?fps=0", "from 0.01 to 1000"),
        ("file:///clip.mp4?loop=yes", "loop='yes' is not usable; use true or false"),
        ("folder:///images?fps=0", "from 0.01 to 1000"),
        ("folder:///images?fps=nan", "from 0.01 to 1000"),
        ("folder:///images?fps=-1", "from 0.01 to 1000"),
        ("synthetic://?height=63", "from 64 to 8192"),
        ("synthetic://?width=1e3", "from 64 to 8192"),
        ("synthetic://?seed=99999999999999", "seed="),
    ],
)
def test_what_can_not_be_opened_is_said_in_one_line(uri: str, words: str) -> None:
    with pytest.raises(CameraError) as caught:
        open_camera(uri)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match="holds no image"):
        open_camera(f"folder://{tmp_path}")


def test_a_folder_in_place_of_a_video_is_pointed_out(tmp_path: Path) -> None:
    with pytest.raises(CameraError, match=f"write folder://{tmp_path}"):
        open_camera(str(tmp_path))


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"this is not a video" * 100)
    with pytest.raises(CameraError, match="not a readable video"):
        open_camera(str(path))


def test_a_device_that_is_no_camera_is_refused() -> None:
    with pytest.raises(CameraError, match="/dev/null cannot be opened"):
        open_camera("v4l2:///dev/null")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_stream_nobody_serves_is_refused() -> None:
    with pytest.raises(CameraError, match="cannot be opened; waited up to 5 s"):
        open_camera(f"rtsp://127.0.0.1:{free_port()}/stream")


def test_a_password_is_never_shown() -> None:
    with pytest.raises(CameraError) as caught:
        open_camera(f"rtsp://user:secret@127.0.0.1:{free_port()}/stream?token=1")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["rtsp://u:p@h/s", "rtsp://u:p@p@h/s", "rtsp://u@h/s", "rtsp://u:p/w@h/s", "rtsp://:/@p/@h/s", "rtsp://u:p?w@h/s"],
)
def test_a_url_for_a_message_keeps_only_its_host(url: str) -> None:
    assert without_password(url) == "rtsp://***@h/s"


@pytest.mark.parametrize(
    "url", ["rtsp://h/s?mail=a@b", "rtsp://h/a@2x", "rtsp://h:554/s?mail=a:b@c", "/clips/a@2x.mp4"]
)
def test_a_url_without_a_password_is_shown_whole(url: str) -> None:
    assert without_password(url) == url


def test_a_pipeline_for_a_message_keeps_no_password() -> None:
    pipeline = "rtspsrc location=rtsp://u:p@h/s user-id=line user-pw=secret ! decodebin"
    assert without_password(pipeline) == "rtspsrc location=rtsp://***@h/s user-id=line user-pw=*** ! decodebin"


@pytest.mark.parametrize("uri", ["rtsp://127.0.0.1:9/x", "v4l2:///dev/null", "9", "broken.mp4"])
def test_a_camera_that_can_not_be_opened_leaves_stderr_empty(uri: str, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(500))
    program = (
        "import sys\nfrom fbft_edge.cameras import open_camera\nfrom fbft_edge.errors import CameraError\n"
        "try:\n    open_camera(sys.argv[1])\nexcept CameraError:\n    print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", program, uri], capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("refused\n", "")


# Live streams: a real one over TCP, as the bytes of a motion JPEG file


class StreamServer:
    """Sends one file to each of so many clients, and hangs up."""

    def __init__(self, content: bytes, num_clients: int) -> None:
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, args=(content, num_clients))
        self._thread.start()

    def _serve(self, content: bytes, num_clients: int) -> None:
        for _ in range(num_clients):
            client, _ = self._server.accept()
            with client, contextlib.suppress(OSError):
                client.sendall(content)
        self._server.close()

    def close(self) -> None:
        self._thread.join()


@pytest.fixture
def stream(video: Path) -> Iterator[LiveCamera]:
    server = StreamServer(video.read_bytes(), num_clients=2)
    camera = LiveCamera(server.url, "press-1", open_capture(server.url, cv2.CAP_FFMPEG, {}, SourceClock().dated))
    yield camera
    camera.close()
    with (
        contextlib.suppress(OSError),
        socket.create_connection(("127.0.0.1", int(server.url.split(":")[-1])), 1),
    ):
        pass
    server.close()


def test_a_stream_that_breaks_off_says_so(stream: LiveCamera) -> None:
    with pytest.raises(CameraError, match="delivers no frame"):
        frames_of(stream)


def test_a_stream_that_broke_off_stays_so(stream: LiveCamera) -> None:
    for _ in range(2):
        with pytest.raises(SourceLostError, match="delivers no frame"):
            frames_of(stream)


def test_a_closed_stream_delivers_nothing(stream: LiveCamera) -> None:
    stream.close()
    assert stream.read() is None


# Pace and sequence


def test_a_late_step_does_not_delay_the_next_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.chain([1000.0], itertools.repeat(1100.0))
    waits: list[float] = []
    monkeypatch.setattr("fbft_edge.cameras.sequence.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr("fbft_edge.cameras.sequence.wait_for", lambda ended, seconds: waits.append(seconds) or False)
    pace = Pace(0.1)
    assert all(pace.wait() for _ in range(13))
    assert [max(0.0, seconds) for seconds in waits] == [0.0] * 11 + [10.0, 20.0]


def test_ending_a_pace_wakes_who_waits() -> None:
    pace = Pace(0.01)
    pace.wait()
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(pace.wait()))
    thread.start()
    pace.end()
    thread.join(10)
    assert answers == [False]


def test_a_sequence_accepts_one_size_only() -> None:
    sequence = FrameSequence("press-1", (4, 6))
    with pytest.raises(CameraError, match=r"4x6 pixels \(width x height\) of rgb8 after 0 frames of 6x4 pixels"):
        sequence.frame(np.zeros((6, 4, 3), np.uint8))


@pytest.mark.parametrize("size", [(16385, 64), (64, 20000)])
def test_a_camera_of_frames_that_no_message_holds_is_refused_when_it_is_opened(size: tuple[int, int]) -> None:
    words = rf"sends {size[1]}x{size[0]} pixels .* at most 16384 a side; set it to shorter frames \(fewer lines"
    with pytest.raises(CameraError, match=words):
        FrameSequence("web-1", size)


def test_a_sequence_accepts_one_pixel_format_only() -> None:
    sequence = FrameSequence("press-1", (4, 6))
    with pytest.raises(CameraError, match=r"6x4 pixels .* of mono8 after 0 frames of 6x4 pixels .* of rgb8"):
        sequence.require((4, 6), PixelFormat.MONO8)


def test_a_moment_of_the_wall_clock_is_the_same_moment_of_the_session() -> None:
    before_ns, unix_ns, after_ns = now_ns(), time.time_ns(), now_ns()
    time.sleep(0.05)
    # Between its readings of the two clocks a process may be held up, so that one look is not enough.
    wait_until(lambda: session_ns(unix_ns), "the moment", lambda seen_ns: before_ns - 1e7 <= seen_ns <= after_ns + 1e7)


def test_what_the_wall_clock_puts_in_the_future_happened_now() -> None:
    assert session_ns(time.time_ns() + 10**12) <= now_ns()
