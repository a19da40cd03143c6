"""A network camera from its first frame to its return after a cut, served by a small RTSP server over TCP."""

from __future__ import annotations

import contextlib
import itertools
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import pytest

from fbft_edge.bundle import Bundle
from fbft_edge.cameras import Camera, open_camera
from fbft_edge.cli import main
from fbft_edge.errors import CameraError
from fbft_edge.frame import Frame, Uint8, Verdict
from fbft_edge.pixel_format import PixelFormat
from fbft_edge.result import Result
from fbft_edge.subscriber import ResultSubscriber

SIZE = (112, 160)
RATE_HZ = 25
PACKET_BYTES = 1200
SEQUENCE = itertools.count()
DESCRIPTION = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=line\r\nt=0 0\r\nm=video 0 RTP/AVP 26\r\na=control:video\r\n"


def flat(level: int, size: tuple[int, int] = SIZE) -> Uint8:
    """A frame of one level in green and blue, red at full in its left half; BGR as OpenCV encodes it."""
    bgr = np.full((*size, 3), level, np.uint8)
    bgr[:, : size[1] // 2, 2] = 255
    return bgr


def rtp_packets(bgr: Uint8, number: int) -> Iterator[bytes]:
    """One frame as RFC 2435 has it: headers that every JPEG shares are left out, tables come first."""
    _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])
    tables, scan = _tables_and_scan(encoded.tobytes())
    height, width = bgr.shape[:2]
    for offset in range(0, len(scan), PACKET_BYTES):
        part = scan[offset : offset + PACKET_BYTES]
        is_last = offset + len(part) == len(scan)
        header = struct.pack("!BBHII", 0x80, 26 | is_last << 7, next(SEQUENCE) & 0xFFFF, number * 90_000 // RATE_HZ, 7)
        jpeg = struct.pack("!IBBBB", offset, 1, 255, width // 8, height // 8)
        quantisation = struct.pack("!BBH", 0, 0, len(tables)) + tables if offset == 0 else b""
        yield header + jpeg + quantisation + part


def _tables_and_scan(jpeg: bytes) -> tuple[bytes, bytes]:
    tables, place = b"", 2
    while True:
        marker, length = struct.unpack_from("!HH", jpeg, place)
        body = jpeg[place + 4 : place + 2 + length]
        if marker == 0xFFDB:
            tables += b"".join(body[start + 1 : start + 65] for start in range(0, len(body), 65))
        place += 2 + length
        if marker == 0xFFDA:
            return tables, jpeg[place:]


class RtspServer:
    """Plays one clip to each client in turn and hangs up; refuses UDP, as a firewall would."""

    def __init__(self, clips: list[list[Uint8]]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._clips = clips
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def join(self) -> None:
        """Wait until the last clip has ended, or its client has gone."""
        self._thread.join()

    def close(self) -> None:
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            for clip in self._clips:
                client, _ = self._listener.accept()
                with client, contextlib.suppress(OSError), client.makefile("rb") as requests:
                    if self._is_playing(client, requests):
                        self._play(client, clip)

    def _is_playing(self, client: socket.socket, requests: BinaryIO) -> bool:
        while line := requests.readline().decode().strip():
            method = line.split()[0]
            headers = dict(line.decode().strip().split(": ", 1) for line in iter(requests.readline, b"\r\n"))
            client.sendall(self._answer(method, headers).encode())
            if method == "PLAY":
                return True
        return False

    def _answer(self, method: str, headers: dict[str, str]) -> str:
        transport = headers.get("Transport", "")
        status = "461 Unsupported transport" if method == "SETUP" and "TCP" not in transport else "200 OK"
        answers = {
            "OPTIONS": "Public: DESCRIBE, SETUP, PLAY, TEARDOWN\r\n",
            "DESCRIBE": f"Content-Type: application/sdp\r\nContent-Length: {len(DESCRIPTION)}\r\n",
            "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 7\r\n",
        }
        body = DESCRIPTION if method == "DESCRIBE" else ""
        return f"RTSP/1.0 {status}\r\nCSeq: {headers['CSeq']}\r\n{answers.get(method, '')}\r\n{body}"

    def _play(self, client: socket.socket, clip: list[Uint8]) -> None:
        for number, bgr in enumerate(clip):
            for packet in rtp_packets(bgr, number):
                client.sendall(struct.pack("!cBH", b"$", 0, len(packet)) + packet)
            if self._closing.wait(1 / RATE_HZ):
                return


Serve = Callable[..., RtspServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts servers that end with the test."""
    with contextlib.ExitStack() as stack:

        def started(*clips: list[Uint8]) -> RtspServer:
            server = RtspServer(list(clips))
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
    with contextlib.closing(open_camera(f"rtsp://user:secret@{server.address}/live", name)) as camera:
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
    assert [frame.frame_id for frame in before + after] == list(range(39))


def test_a_camera_that_comes_back_with_another_size_is_refused_with_both_sizes(serve: Serve) -> None:
    with opened(serve([flat(40)] * 20, [flat(40, (96, 240))] * 20)) as camera:
        frames_until_the_cut(camera)
        with pytest.raises(
            CameraError, match="sends 96x240 pixels after 19 frames of 112x160; set the source to one size"
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


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/results"


def received_until(results: ResultSubscriber, verdict: Verdict) -> list[Result]:
    received = []
    while not received or received[-1].verdict is not verdict:
        result = results.receive(60)
        assert result is not None, "the line fell silent"
        received.append(result)
    return received


def test_a_line_survives_the_cut_of_its_camera_and_says_so(
    serve: Serve, bright_bundle: Callable[..., Bundle], endpoint: str
) -> None:
    server = serve([flat(10)] * 40, [flat(240)] * 200)
    options = ("--bundle", str(bright_bundle().path), "--camera", f"rtsp://user:secret@{server.address}/live")
    command = [sys.executable, "-m", "fbft_edge", "run", *options, "--bind", endpoint, "--fps", "20"]
    with ResultSubscriber(endpoint) as results, subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as line:
        try:
            good = received_until(results, Verdict.OK)
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
    assert "has 112x160 pixels (height x width), the bundle was fitted on 84x84; set the camera to that size" in said
    assert "secret" not in said


@pytest.mark.parametrize("scheme", ["http", "gige", "csi"])
def test_a_camera_of_a_kind_that_is_not_read_is_named_without_its_password(scheme: str) -> None:
    with pytest.raises(CameraError) as caught:
        open_camera(f"{scheme}://user:secret@10.0.0.7/mjpeg")
    assert f"{scheme}://***@10.0.0.7/mjpeg" in str(caught.value)
    assert "secret" not in str(caught.value)
