"""GenICam cameras, against the GigE Vision camera that Aravis brings along: a process of its own on loopback."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from waiting import wait_until

from fbft_edge.bundle.reading import Bundle
from fbft_edge.cameras import Camera, open_camera, open_watched_camera
from fbft_edge.cameras import gige as module
from fbft_edge.clock import now_ns
from fbft_edge.errors import ArgumentError, CameraError
from fbft_edge.frames.frame import Frame, Verdict
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.messages.reading import Result
from fbft_edge.sockets.subscriber import ResultSubscriber

FAKE = "arv-fake-gv-camera-0.8"
# One test process, one camera: Aravis' camera always listens on the same port of the interface.
SERIAL = f"FBFT{os.getpid()}"
DEADLINE_S = 30.0
JUDGED = (Verdict.OK, Verdict.ANOMALOUS)


def aravis() -> Any:
    """Aravis; skips the test where it is not installed."""
    if importlib.util.find_spec("gi") is None:
        pytest.skip('PyGObject is not installed: pip install ".[gige]", or python3-gi from the system')
    if shutil.which(FAKE) is None:
        pytest.skip(f"{FAKE} is not installed: apt install aravis-tools gir1.2-aravis-0.8")
    return module._libraries()[0]


class FakeCamera:
    """The camera's process, which can be killed and started again."""

    def __init__(self) -> None:
        self.start()

    def start(self, *options: str) -> None:
        self._process = subprocess.Popen([FAKE, "-i", "127.0.0.1", "-s", SERIAL, *options], stdout=subprocess.DEVNULL)
        wait_until(is_there, "the fake camera")

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


def is_there() -> bool:
    aravis().update_device_list()
    return SERIAL in [aravis().get_device_serial_nbr(index) for index in range(aravis().get_n_devices())]


@pytest.fixture(scope="module")
def server() -> Iterator[FakeCamera]:
    aravis()
    camera = FakeCamera()
    yield camera
    camera.kill()


@contextlib.contextmanager
def opened(options: str = "", target: str = SERIAL) -> Iterator[Any]:
    with contextlib.closing(open_camera(f"gige://{target}{options}", "press-1")) as camera:
        yield camera


needs_server = pytest.mark.usefixtures("server")


@needs_server
def test_frames_are_numbered_and_of_the_stated_size() -> None:
    with opened("?pixel_format=Mono8") as camera:
        frames = [camera.read() for _ in range(4)]
    assert [(frame.frame_id, frame.pixels.shape) for frame in frames if frame] == [(n, (512, 512)) for n in range(4)]
    assert camera.size == (512, 512)


@needs_server
def test_frames_are_stamped_when_they_arrive_on_the_session_clock() -> None:
    with opened() as camera:
        before_ns = now_ns()
        stamps = [frame.captured_ns for frame in (camera.read(), camera.read()) if frame]
    assert before_ns - 1e6 <= stamps[0] < stamps[1] <= now_ns()


@needs_server
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Mono8", PixelFormat.MONO8),
        ("Mono16", PixelFormat.MONO16),
        ("RGB8", PixelFormat.RGB8),
        ("BayerRG8", PixelFormat.BAYER_RG8),
        ("BayerGR8", PixelFormat.BAYER_GR8),
        ("BayerGB8", PixelFormat.BAYER_GB8),
        ("BayerBG8", PixelFormat.BAYER_BG8),
    ],
)
def test_pixels_arrive_as_the_sensor_lays_them_out(name: str, expected: PixelFormat) -> None:
    with opened(f"?pixel_format={name}") as camera:
        frame = camera.read()
    assert (camera.pixel_format, frame.pixel_format, frame.rgb.shape) == (expected, expected, (512, 512, 3))
    assert frame.pixels.any()


@needs_server
@pytest.mark.parametrize(
    "target",
    ["", "127.0.0.1", f"Aravis-Fake-{SERIAL}", "00:00:00:00:00:00"],
    ids=["the first", "its address", "its name", "its hardware address"],
)
def test_a_camera_is_found_by_address_and_name_and_as_the_first(target: str) -> None:
    with opened(target=target) as camera:
        assert camera.read() is not None


@needs_server
def test_a_camera_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(CameraError, match=f"gige://4711 cannot be opened .*; present: .*Aravis-Fake-{SERIAL}.*; check"):
        open_camera("gige://4711")


@needs_server
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("pixel_format=Mono12", "has no pixel_format=Mono12 .*; it has .*Mono8"),
        ("exposure_us=1", "takes exposure_us from 10 to 1e[+]07, not 1"),
        ("gain=11", "takes gain from 0 to 10, not 11"),
        ("trigger=Line7", "does not take trigger=Line7 .*; it has Line0, Software"),
    ],
)
def test_what_the_camera_does_not_take_is_said_with_what_it_has(options: str, words: str) -> None:
    with pytest.raises(CameraError, match=words) as caught:
        open_camera(f"gige://{SERIAL}?{options}")
    assert "\n" not in str(caught.value)


@needs_server
def test_a_refused_camera_is_free_again() -> None:
    with pytest.raises(CameraError):
        open_camera(f"gige://{SERIAL}?gain=11")
    with opened("?gain=2") as camera:
        assert camera.read() is not None


@needs_server
def test_exposure_and_gain_are_set() -> None:
    with opened("?exposure_us=7000&gain=3") as camera:
        assert (camera._camera.get_exposure_time(), camera._camera.get_gain()) == (7000.0, 3.0)


@needs_server
@pytest.mark.parametrize(("option", "source"), [("software", "Software"), ("Line0", "Line0")])
def test_a_trigger_is_set_up(option: str, source: str) -> None:
    with opened(f"?trigger={option}") as camera:
        features = [camera._camera.get_string(name) for name in ("TriggerMode", "TriggerSource")]
    assert features == ["On", source]


@needs_server
def test_a_camera_runs_freely_unless_a_trigger_is_named() -> None:
    with opened("?trigger=software"):
        pass
    with opened() as camera:
        assert camera.read() is not None


@needs_server
def test_a_software_trigger_brings_one_frame() -> None:
    frames: list[Frame | None] = []
    with contextlib.closing(open_watched_camera(f"gige://{SERIAL}?trigger=software", "press-1")) as camera:
        thread = threading.Thread(target=lambda: [frames.append(camera.read()) for _ in range(3)])
        thread.start()
        for count in range(2):
            time.sleep(0.3)
            assert (len(frames), camera.trigger()) == (count, True)
            wait_until(lambda count=count: len(frames) > count, "the frame of a trigger")
        camera.close()
        thread.join(DEADLINE_S)
    assert [frame and frame.frame_id for frame in frames] == [0, 1, None]


@needs_server
def test_a_triggered_camera_may_be_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 0.1)
    answers: list[Frame | None] = []
    with opened("?trigger=Line0") as camera:
        thread = threading.Thread(target=lambda: answers.append(camera.read()))
        thread.start()
        time.sleep(0.8)
        assert (thread.is_alive(), camera.trigger()) == (True, False)
        camera.close()
        thread.join(DEADLINE_S)
    assert answers == [None]


@needs_server
def test_a_closed_camera_delivers_nothing_and_can_be_opened_again() -> None:
    for _ in range(2):
        with opened() as camera:
            camera.read()
            camera.close()
            assert camera.read() is None


@pytest.mark.parametrize("options", ["?pixel_format=Mono8", "?pixel_format=Mono8&trigger=software"])
def test_a_killed_camera_is_a_fault_until_it_is_back(
    server: FakeCamera, options: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_S", 1.0)
    camera = open_watched_camera(f"gige://{SERIAL}{options}", "press-1")
    with contextlib.closing(camera):
        camera.trigger()
        first = camera.read()
        server.kill()
        with pytest.raises(CameraError, match=r"does not answer any more|sent no complete picture for 1 s"):
            read_on(camera)
        server.start()
        back: list[Frame] = []
        thread = threading.Thread(target=lambda: back.append(read_until_frame(camera)))
        thread.start()
        while thread.is_alive():
            with contextlib.suppress(CameraError):
                camera.trigger()
            time.sleep(0.1)
        thread.join(DEADLINE_S)
    assert (back[0].frame_id > first.frame_id, camera.reconnects >= 1) == (True, True)


def read_on(camera: Camera) -> None:
    while camera.read() is not None:
        pass


def read_until_frame(camera: Camera) -> Frame:
    def frame() -> Frame | None:
        with contextlib.suppress(CameraError):
            return camera.read()
        return None

    return wait_until(frame, "a frame")


def test_pictures_with_lost_packets_are_skipped_and_counted(server: FakeCamera) -> None:
    server.kill()
    server.start("-r", "2")
    try:
        with opened("?fps=100") as camera:
            frames = [camera.read() for _ in range(20)]
            incomplete = camera.incomplete
    finally:
        server.kill()
        server.start()
    assert [frame.frame_id for frame in frames if frame] == list(range(20))
    assert incomplete > 0
    # Rows that never arrived would be zero, or left over from another picture.
    assert all(np.count_nonzero(frame.pixels) == np.count_nonzero(frames[0].pixels) for frame in frames)


@needs_server
def test_pictures_that_found_no_room_are_counted_and_those_that_waited_keep_their_dates() -> None:
    with contextlib.closing(open_watched_camera(f"gige://{SERIAL}?trigger=software", "press-1")) as camera:
        stream = camera._source._stream

        def has_no_room() -> int:
            camera.trigger()
            return int(stream.get_info_uint64_by_name("n_underruns"))

        wait_until(has_no_room, "a picture that finds no room")
        held_until_ns = now_ns()
        waited = [camera.read() for _ in range(module.NUM_BUFFERS)]
        # A number that is missing is seen when the next one comes.
        camera.trigger()
        after = camera.read()
        lost = camera.lost
    assert lost > 0
    assert [frame.captured_ns < held_until_ns for frame in (*waited, after)] == [True] * module.NUM_BUFFERS + [False]


@needs_server
def test_a_line_that_was_stopped_counts_what_it_did_not_see_and_calls_nothing_old_ok(
    bright_bundle: Callable[..., Bundle], tmp_path: Path
) -> None:
    late_after_s = 0.3
    config, endpoint = tmp_path / "line.toml", f"ipc://{tmp_path}/results"
    config.write_text(
        f'bundle = "{bright_bundle().path}"\nfps = 10\nlate_after_s = {late_after_s}\n'
        f'[publish]\nbind = "{endpoint}"\n'
        f'[[cameras]]\nname = "press-1"\nuri = "gige://{SERIAL}?fps=50&pixel_format=Mono8"\ntrigger = "hardware"\n'
    )
    with (
        ResultSubscriber(endpoint, every=True) as results,
        subprocess.Popen([sys.executable, "-m", "fbft_edge", "run", "--config", str(config)]) as line,
    ):
        try:
            before = first(results, lambda result: result.score is not None)
            os.kill(line.pid, signal.SIGSTOP)
            time.sleep(2.0)
            os.kill(line.pid, signal.SIGCONT)
            lost = first(results, lambda result: result.ledger.lost > before.ledger.lost + module.NUM_BUFFERS)
            received = [lost, *(results.receive(DEADLINE_S) for _ in range(20))]
        finally:
            line.terminate()
    ages_s = [(result.published_ns - result.captured_ns) / 1e9 for result in received if result.verdict in JUDGED]
    ledger = received[-1].ledger
    assert max(ages_s, default=0.0) <= late_after_s
    assert (ledger.missed_triggers, ledger.is_closed) == (ledger.lost + ledger.refused, True)


def first(results: ResultSubscriber, is_it: Callable[[Result], bool]) -> Result:
    return wait_until(lambda: results.receive(DEADLINE_S), "a message", is_it)


def test_timestamps_that_count_something_else_than_nanoseconds_are_not_believed() -> None:
    clock, second = module._DeviceClock(), 1_000_000_000
    ticks = [clock.date(1 + number * second // 8, number * second) for number in range(1, 5)]
    assert ticks[-1] == 4 * second


def test_the_way_to_install_pygobject_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gi", None)
    with pytest.raises(ArgumentError, match=r'needs gi.*pip install "fbft-edge\[gige\]"'):
        open_camera("gige://")
