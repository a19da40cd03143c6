"""GStreamer pipelines as cameras, a Jetson's CSI sensors among them, through an OpenCV that was built with GStreamer.

Knows nothing about the URI that named them.
"""

from __future__ import annotations

import re
from fractions import Fraction

import cv2

from fbft_edge.cameras.source_clock import SourceClock
from fbft_edge.cameras.video import LiveCamera, open_capture
from fbft_edge.errors import CameraError

# The newest picture only: one that waits while the line is busy would be inspected late.
SINK = "appsink drop=true max-buffers=1 sync=false"
TIMEOUT_MS = 5000
# OpenCV 4.6 (Debian 12, Ubuntu 24.04) refuses them, and waits for ever: opencv/opencv#22868.
TIMEOUTS = dict.fromkeys((cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC), TIMEOUT_MS)
_HAS_TIMEOUTS = tuple(map(int, cv2.__version__.split(".")[:2])) >= (4, 7)


# Behind a decoder of these the picture after a lost one looks well; OpenCV passes on neither flags nor key frames. What
# a `decodebin` finds is not known before it runs.
_BUILDS_ON_OTHERS = re.compile(
    r"\b\w*(?:h26[345]|hevc|vp[89]|av1|mpeg[124]|mpegvideo|mp4v|theora|nvv4l2decoder|decodebin|playbin)\w*\b",
    re.IGNORECASE,
)


class GStreamerCamera(LiveCamera):
    """What a GStreamer pipeline delivers.

    Args:
        pipeline: As `gst-launch-1.0` takes it. Without an `appsink` of its own a conversion to BGR and one that keeps
            the newest picture only are added; its own may also get GRAY8 or GRAY16_LE, which stay as they are.
        name: The camera's name.

    Raises:
        CameraError: The pipeline carries pictures that build on each other, OpenCV has no GStreamer, or the pipeline
            does not start or delivers nothing within 5 s (for which OpenCV before 4.7 waits for ever).
    """

    def __init__(self, pipeline: str, name: str) -> None:
        if builds := _BUILDS_ON_OTHERS.search(pipeline):
            raise CameraError(
                f"camera {name!r}: a pipeline with {builds[0]} carries pictures that build on each other, and does not "
                "tell when one was lost; read the camera by rtsp://, or have it send MJPEG or plain pixels"
            )
        if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
            raise CameraError(
                f"camera {name!r}: GStreamer pipelines need an OpenCV that was built with GStreamer, and this one "
                f"({cv2.__version__}) was not, as none from PyPI; pip uninstall opencv-python-headless, and use the "
                "system's (python3-opencv, on a Jetson that of JetPack) in an environment with --system-site-packages"
            )
        source = complete_pipeline(pipeline)
        timeouts = TIMEOUTS if _HAS_TIMEOUTS else {}
        super().__init__(source, name, open_capture(source, cv2.CAP_GSTREAMER, timeouts, SourceClock().dated))

    def _remedy(self) -> str:
        return f"waited up to {TIMEOUT_MS // 1000} s; try it with gst-launch-1.0, which says why"


class CsiCamera(GStreamerCamera):
    """A CSI sensor of a Jetson.

    Args:
        sensor: Number of the sensor.
        name: The camera's name.
        width: Columns of a frame; one of the sensor's modes.
        height: Rows of a frame.
        fps: Frames per second.

    Raises:
        CameraError: As of `GStreamerCamera`, or the sensor is not a number.
    """

    def __init__(self, sensor: str, name: str, width: int = 1920, height: int = 1080, fps: float = 30.0) -> None:
        if sensor and not sensor.isdecimal():
            raise CameraError(f"camera {name!r}: csi://{sensor} does not name a sensor; use its number, as in csi://0")
        super().__init__(csi_pipeline(int(sensor or 0), width, height, fps), name)


def complete_pipeline(pipeline: str) -> str:
    """A pipeline that ends in an `appsink`: its own, or one for BGR frames."""
    if "appsink" in pipeline:
        return pipeline
    return f"{pipeline} ! videoconvert ! video/x-raw,format=BGR ! {SINK}"


def csi_pipeline(sensor: int, width: int, height: int, fps: float) -> str:
    """The pipeline of a Jetson's sensor: its image processor's NV12 in device memory, converted by the same chip."""
    rate = Fraction(fps).limit_denominator(1001)
    return (
        f"nvarguscamerasrc sensor-id={sensor} ! video/x-raw(memory:NVMM),width={width},height={height},format=NV12,"
        f"framerate={rate.numerator}/{rate.denominator} ! nvvidconv ! video/x-raw,format=BGRx"
    )
