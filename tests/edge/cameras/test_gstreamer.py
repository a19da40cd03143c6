"""GStreamer pipelines: their text, what is said where OpenCV has none, and real ones where it has.

PyPI's OpenCV has no GStreamer. Where the system's Python has an OpenCV with it, as Debian's python3-opencv, pipelines
run there, in a process of its own.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import pytest

import fbft_edge
from fbft_edge.cameras import open_camera
from fbft_edge.cameras.gstreamer import complete_pipeline, csi_pipeline
from fbft_edge.errors import CameraError

SYSTEM_PYTHON = "/usr/bin/python3"
PACKAGE = Path(fbft_edge.__file__).parents[1]
HAS_NONE = not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER)
TEST_PICTURE = "videotestsrc is-live=true num-buffers=30 ! video/x-raw,width=64,height=48,framerate=60/1"

# What each pipeline of the system's OpenCV is asked for: its URI, and how many frames.
RUNS = {
    "white": ("gstreamer://" + quote(f"{TEST_PICTURE} ! videobalance saturation=0"), 3),
    "mono8": (f"gstreamer:{TEST_PICTURE} ! videoconvert ! video/x-raw,format=GRAY8 ! appsink", 3),
    "mono16": (f"gstreamer:{TEST_PICTURE} ! videoconvert ! video/x-raw,format=GRAY16_LE ! appsink", 3),
    "ends": (f"gstreamer:{TEST_PICTURE}", 500),
    "no such element": ("gstreamer:videotestsrc ! nosuch", 1),
    "no such source": ("gstreamer:nosuch", 1),
    "no sensor": ("csi://0", 1),
}
# OpenCV before 4.7 waits for ever for these.
NEED_TIMEOUTS = ("no such source", "no sensor")

PROGRAM = """
import json, sys
from fbft_edge.cameras import open_camera
from fbft_edge.errors import CameraError

def played(uri, num_frames):
    done = {"frames": [], "error": None}
    try:
        camera = open_camera(uri, "press-1")
        done["size"], done["format"] = camera.size, camera.pixel_format.value
        while len(done["frames"]) < num_frames:
            frame = camera.read()
            done["frames"].append([frame.frame_id, list(frame.pixels.shape), frame.rgb[2, 2].tolist()])
    except CameraError as error:
        done["error"] = [type(error).__name__, str(error)]
    return done

print(json.dumps({name: played(*run) for name, run in json.load(sys.stdin).items()}))
"""


@functools.cache
def why_not() -> str | None:
    if not Path(SYSTEM_PYTHON).exists():
        return f"there is no {SYSTEM_PYTHON}"
    return None if system_opencv() else f"{SYSTEM_PYTHON} has no OpenCV with GStreamer (python3-opencv)"


@functools.cache
def system_opencv() -> tuple[int, ...]:
    """Version of the system's OpenCV with GStreamer; empty without one."""
    asked = "import cv2; print(cv2.__version__ if cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER) else '')"
    done = subprocess.run([SYSTEM_PYTHON, "-c", asked], capture_output=True, text=True, check=False)
    return tuple(int(number) for number in done.stdout.strip().split(".")[:2] if number)


@pytest.fixture(scope="module")
def played() -> dict[str, Any]:
    """What became of each of `RUNS` with the system's OpenCV."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    runs = {name: run for name, run in RUNS.items() if system_opencv() >= (4, 7) or name not in NEED_TIMEOUTS}
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE)}
    command = [SYSTEM_PYTHON, "-c", PROGRAM]
    done = subprocess.run(
        command, input=json.dumps(runs), capture_output=True, text=True, env=environment, timeout=120, check=True
    )
    return dict(json.loads(done.stdout))


@pytest.mark.skipif(not HAS_NONE, reason="this OpenCV has GStreamer")
@pytest.mark.parametrize("uri", ["gstreamer:videotestsrc", "gstreamer://videotestsrc", "csi://0"])
def test_an_opencv_without_gstreamer_is_named_with_the_way_out(uri: str) -> None:
    with pytest.raises(
        CameraError, match=r"this one \(\d.*pip uninstall opencv-python-headless.*--system-site-packages"
    ):
        open_camera(uri)


@pytest.mark.skipif(not HAS_NONE, reason="this OpenCV has GStreamer")
def test_a_pipeline_with_an_address_in_it_is_not_taken_for_another_kind_of_uri() -> None:
    with pytest.raises(CameraError, match="GStreamer pipelines need"):
        open_camera("gstreamer:rtspsrc location=rtsp://10.0.0.7/live ! rtpjpegdepay ! jpegdec")


@pytest.mark.parametrize(
    ("pipeline", "named"),
    [
        ("rtspsrc location=rtsp://10.0.0.7/live ! rtph264depay ! avdec_h264", "rtph264depay"),
        ("filesrc location=a.mkv ! matroskademux ! H265parse ! nvv4l2decoder", "H265parse"),
        ("uridecodebin uri=rtsp://10.0.0.7/live", "uridecodebin"),
        ("udpsrc ! rtpvp8depay ! vp8dec", "rtpvp8depay"),
    ],
)
def test_a_pipeline_that_would_hide_a_lost_picture_is_refused(pipeline: str, named: str) -> None:
    with pytest.raises(CameraError, match=f"a pipeline with {named} carries .*; read the camera by rtsp://"):
        open_camera(f"gstreamer:{pipeline}")


def test_a_pipeline_gets_a_sink_for_the_newest_picture() -> None:
    assert complete_pipeline("videotestsrc") == (
        "videotestsrc ! videoconvert ! video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"
    )


def test_a_pipeline_keeps_a_sink_of_its_own() -> None:
    assert complete_pipeline("videotestsrc ! appsink") == "videotestsrc ! appsink"


@pytest.mark.parametrize(
    ("fps", "rate"), [(30.0, "30/1"), (59.94, "2997/50"), (29.97002997, "30000/1001"), (0.5, "1/2")]
)
def test_a_sensor_is_asked_for_its_rate_as_a_fraction(fps: float, rate: str) -> None:
    assert csi_pipeline(1, 1920, 1080, fps) == (
        "nvarguscamerasrc sensor-id=1 ! video/x-raw(memory:NVMM),width=1920,height=1080,format=NV12,"
        f"framerate={rate} ! nvvidconv ! video/x-raw,format=BGRx"
    )


def test_frames_of_a_percent_encoded_pipeline_are_numbered_and_white_is_white(played: dict[str, Any]) -> None:
    done = played["white"]
    assert (done["size"], done["format"], done["error"]) == ([48, 64], "bgr8", None)
    assert [frame[:2] for frame in done["frames"]] == [[index, [48, 64, 3]] for index in range(3)]
    assert min(number for _, _, pixel in done["frames"] for number in pixel) > 150


@pytest.mark.parametrize("layout", ["mono8", "mono16"])
def test_gray_pictures_stay_as_they_are(played: dict[str, Any], layout: str) -> None:
    assert (played[layout]["format"], played[layout]["error"]) == (layout, None)


def test_a_pipeline_that_ends_is_lost(played: dict[str, Any]) -> None:
    name, said = played["ends"]["error"]
    assert (name, "delivers no frame" in said, "gst-launch-1.0" in said) == ("SourceLostError", True, True)


@pytest.mark.parametrize("run", ["no such element", *NEED_TIMEOUTS])
def test_a_pipeline_that_does_not_start_is_said_in_one_line(played: dict[str, Any], run: str) -> None:
    if run not in played:
        pytest.skip("OpenCV before 4.7 waits for ever for a source that is not there")
    name, said = played[run]["error"]
    assert (name, "cannot be opened" in said, "\n" in said) == ("CameraError", True, False)
