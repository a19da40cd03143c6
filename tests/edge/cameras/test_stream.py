"""A network camera from its first frame to its return after a cut, served by a small RTSP server over TCP."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rtsp_server
from rtsp_server import SIZE, Clip, RtspServer, Truncated, flat, textured
from waiting import wait_until

from fbft_edge.bundle.reading import Bundle
from fbft_edge.cameras import Camera, open_camera, open_watched_camera
from fbft_edge.cli.main import main
from fbft_edge.errors import CameraError
from fbft_edge.frames.frame import Frame, Verdict
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.messages.reading import Result
from fbft_edge.sockets.subscriber import ResultSubscriber

Serve = Callable[..., RtspServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that end with the test."""
    with contextlib.ExitStack() as stack:

        def started(*clips: Clip) -> RtspServer:
            server = RtspServer(clips)
            stack.callback(server.close)
            return server

        yield started


def drain(camera: Camera, frames: list[Frame]) -> None:
    while (frame := camera.read()) is not None:
        frames.append(frame)


def frames_until_the_cut(camera: Camera) -> list[Frame]:
    frames: list[Frame] = []
    with pytest.raises(CameraError, match="delivers no frame"):
        drain(camera, frames)
    return frames


def levels(frames: list[Frame]) -> list[int]:
    """Of each frame's right half, where all channels are alike."""
    return [int(frame.rgb[SIZE[0] // 2, -8, 1]) for frame in frames]


@contextlib.contextmanager
def opened(server: RtspServer, name: str = "press-1") -> Iterator[Camera]:
    with contextlib.closing(open_watched_camera(f"rtsp://user:secret@{server.address}/live", name)) as camera:
        yield camera


def test_no_frame_of_a_stream_is_left_out_or_out_of_order(serve: Serve) -> None:
    sent = [20 + 5 * index for index in range(30)]
    with opened(serve([flat(level) for level in sent])) as camera:
        frames = frames_until_the_cut(camera)
    # The first frame is taken to learn the size.
    np.testing.assert_allclose(levels(frames), sent[1:], atol=3)
    assert [frame.frame_id for frame in frames] == list(range(29))


def test_a_stream_says_its_size_before_its_first_frame_is_asked_for(serve: Serve) -> None:
    with opened(serve([flat(9, (96, 240))] * 20)) as camera:
        assert (camera.size, camera.pixel_format) == ((96, 240), PixelFormat.BGR8)


def test_a_stream_keeps_its_colours(serve: Serve) -> None:
    with opened(serve([flat(20)] * 20)) as camera:
        red, green, blue = (int(value) for value in camera.read().rgb[SIZE[0] // 2, 8])
    assert (red > 240, green < 40, blue < 40) == (True, True, True)


def test_a_stream_that_is_cut_and_comes_back_goes_on_counting(serve: Serve) -> None:
    server = serve([flat(40)] * 20, [flat(160)] * 20)
    with opened(server) as camera:
        before, after = frames_until_the_cut(camera), frames_until_the_cut(camera)
    np.testing.assert_allclose(levels(before), 40, atol=3)
    np.testing.assert_allclose(levels(after), 160, atol=3)
    # Of each connection the first frame is taken to learn the size.
    assert [frame.frame_id for frame in before + after] == list(range(38))


def test_a_camera_that_comes_back_with_another_size_is_refused_with_both_sizes(serve: Serve) -> None:
    with opened(serve([flat(40)] * 20, [flat(40, (96, 240))] * 20)) as camera:
        frames_until_the_cut(camera)
        with pytest.raises(
            CameraError, match=r"sends 240x96 pixels \(width x height\) of bgr8, the line expects 160x112 pixels"
        ):
            camera.read()


def test_a_cut_stream_is_named_without_its_password(serve: Serve) -> None:
    with opened(serve([flat(40)] * 20), "press-7") as camera, pytest.raises(CameraError) as caught:
        drain(camera, [])
    assert "camera 'press-7' at rtsp://***@127.0.0.1" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_stream_without_a_single_frame_is_refused(serve: Serve) -> None:
    with pytest.raises(CameraError, match="check address, password and network"):
        open_camera(f"rtsp://{serve([]).address}/live")


def test_a_closed_stream_delivers_nothing_and_lets_the_camera_go(serve: Serve) -> None:
    server = serve([flat(40)] * 500)
    with opened(server) as camera:
        camera.read()
        camera.close()
        assert camera.read() is None
    server.join()


def levels_and_errors(camera: Camera, num_reads: int) -> tuple[list[int], list[str]]:
    frames, errors = [], []
    for _ in range(num_reads):
        try:
            frame = camera.read()
        except CameraError as error:
            errors.append(str(error))
        else:
            frames.append(frame)
    return levels([frame for frame in frames if frame is not None]), errors


def test_frames_with_a_missing_packet_are_left_out_and_never_shown_in_part(serve: Serve) -> None:
    clip = [Truncated(textured(90)) if index % 3 == 2 else textured(90, index) for index in range(30)]
    with opened(serve(clip)) as camera:
        frames = frames_until_the_cut(camera)
    seeds = [index for index in range(1, 30) if index % 3 != 2]
    assert len(frames) == len(seeds)
    for frame, seed in zip(frames, seeds, strict=True):
        np.testing.assert_allclose(frame.pixels[:, : SIZE[1] // 2].mean(), textured(90, seed)[:, :80].mean(), atol=2)


def test_garbage_between_frames_ends_in_good_frames_again_or_in_an_error(serve: Serve) -> None:
    garbage = np.random.default_rng(1).integers(0, 256, 20_000, np.uint8).tobytes()
    good = [textured(150, index) for index in range(20)]
    with opened(serve([*good, garbage, *good], good)) as camera:
        seen, errors = levels_and_errors(camera, 30)
    np.testing.assert_allclose(seen, 150, atol=3)
    assert all("delivers no frame" in error or "cannot be opened" in error for error in errors)
    assert len(seen) > 20


def test_a_server_that_speaks_no_rtsp_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=speak_nonsense, args=(listener,))
        thread.start()
        with pytest.raises(CameraError, match="cannot be opened"):
            open_camera(f"rtsp://127.0.0.1:{listener.getsockname()[1]}/live")
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def speak_nonsense(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client:
                client.sendall(bytes(range(256)) * 64)


def test_a_size_that_changes_in_mid_stream_is_refused_until_the_old_one_is_back(serve: Serve) -> None:
    clip = [*[flat(40)] * 10, *[flat(90, (96, 240))] * 5, *[flat(160)] * 10]
    with opened(serve(clip)) as camera:
        seen, errors = levels_and_errors(camera, 24)
    assert (len(seen), set(np.round(seen, -1))) == (19, {40, 160})
    assert all(
        "sends 240x96 pixels (width x height) of bgr8 after 9 frames of 160x112 pixels" in error for error in errors
    )


@contextlib.contextmanager
def server_process(port: int, level: int) -> Iterator[subprocess.Popen[str]]:
    """A server as a process of its own, playing to one client after the other until it is killed."""
    command = [sys.executable, rtsp_server.__file__, str(port), str(level)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def test_a_killed_server_is_a_fault_until_it_is_back() -> None:
    port = free_port()
    with server_process(port, 40) as server:
        camera = open_watched_camera(f"rtsp://127.0.0.1:{port}/live", "press-1")
        first = camera.read()
        server.kill()
        with pytest.raises(CameraError, match="delivers no frame"):
            drain(camera, [])
    with pytest.raises(CameraError, match="cannot be opened"):
        camera.read()
    with contextlib.closing(camera), server_process(port, 160):
        back = wait_until(lambda: next_frame(camera), "a frame of the camera that is back")
        assert levels([first, back]) == pytest.approx([40, 160], abs=3)
    assert (back.frame_id > first.frame_id, camera.reconnects >= 2) == (True, True)


def next_frame(camera: Camera) -> Frame | None:
    """None as long as the camera says that there is none."""
    with contextlib.suppress(CameraError):
        return camera.read()
    return None


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/results"


def received_until(results: ResultSubscriber, verdict: Verdict) -> list[Result]:
    received: list[Result] = []

    def next_verdict() -> Verdict:
        result = results.receive(60)
        assert result is not None, "the line fell silent"
        received.append(result)
        return result.verdict

    wait_until(next_verdict, verdict.value, lambda seen: seen is verdict)
    return received


def test_a_line_survives_the_cut_of_its_camera_and_says_so(
    serve: Serve, bright_bundle: Callable[..., Bundle], endpoint: str
) -> None:
    is_cut = threading.Event()
    # What piled up while the line started is too old to be judged.
    server = serve((flat(10) for _ in iter(is_cut.is_set, True)), [flat(240)] * 200)
    options = ("--bundle", str(bright_bundle().path), "--camera", f"rtsp://user:secret@{server.address}/live")
    command = [sys.executable, "-m", "fbft_edge", "run", *options, "--bind", endpoint, "--fps", "20"]
    with (
        ResultSubscriber(endpoint, every=True) as results,
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as line,
    ):
        try:
            good = received_until(results, Verdict.OK)
            is_cut.set()
            cut = received_until(results, Verdict.FAULT)
            back = received_until(results, Verdict.ANOMALOUS)
        finally:
            line.terminate()
            _, said = line.communicate()
    everything = good + cut + back
    assert "delivers no frame; waited up to 5 s" in cut[-1].health.reason
    assert (cut[-1].score, cut[-1].mask, cut[-1].frame_id) == (None, None, None)
    assert back[-1].frame_id > max(result.frame_id for result in good + cut if result.frame_id is not None)
    assert back[-1].health.state == "ok"
    assert [result.sequence for result in everything] == list(
        range(everything[0].sequence, everything[0].sequence + len(everything))
    )
    assert all(result.ledger.is_closed for result in everything)
    assert not any("secret" in (result.health.reason or "") for result in everything)
    assert ("secret" in said, "Traceback" in said) == (False, False)


def test_a_stream_of_another_size_than_the_bundles_is_refused_without_its_password(
    serve: Serve, bright_bundle: Callable[..., Bundle], endpoint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = bright_bundle(frame_sizes=((84, 84),))
    camera = f"rtsp://user:secret@{serve([flat(40)] * 20).address}/live"
    assert main(["run", "--bundle", str(bundle.path), "--camera", camera, "--bind", endpoint]) == 2
    said = capsys.readouterr().err
    assert "rtsp://***@127.0.0.1" in said
    assert "has 160x112 pixels (width x height), the bundle was fitted on 84x84 pixels" in said
    assert "secret" not in said


def test_a_camera_of_a_kind_that_is_not_read_is_named_without_its_password() -> None:
    with pytest.raises(CameraError) as caught:
        open_camera("http://user:secret@10.0.0.7/mjpeg")
    assert "http://***@10.0.0.7/mjpeg" in str(caught.value)
    assert "secret" not in str(caught.value)
