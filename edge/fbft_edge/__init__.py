"""The inspection runtime: frames in, verdicts and masks out. Never imports torch, timm or onnx.

Read what a line says:

    from fbft_edge import ResultSubscriber

    with ResultSubscriber("tcp://127.0.0.1:5555", site="site", camera="camera") as results:
        while is_running():
            result = results.receive()  # the newest; None when the line is silent
            write_output(accept=result is not None and result.is_good)

Inspect pictures of one's own:

    from fbft_edge import Inspector, read_image

    with Inspector("part.fbft") as inspector:
        detection = inspector.inspect(read_image("images/new/200.png"))
        print(detection.is_anomalous, detection.score, detection.mask.sum())

Run a line:

    from dataclasses import replace

    from fbft_edge import read_config, run_line

    config = read_config("line.toml")
    run_line(replace(config, duration_s=60.0))  # as it stands in the file, without an end: until SIGINT or SIGTERM

The names below are public, and shown in `docs/api.md`; whatever else there is in the package is private by convention.
They are loaded when first used, so that asking a command for help costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbft_edge.bundle.manifest import Thresholds
    from fbft_edge.bundle.reading import Bundle, open_bundle
    from fbft_edge.cameras.camera import Camera
    from fbft_edge.config.line_config import LineConfig, read_config
    from fbft_edge.detectors import Detector
    from fbft_edge.detectors.inspector import Inspector
    from fbft_edge.errors import FbftError
    from fbft_edge.frames.frame import Detection, Frame, Region, Verdict
    from fbft_edge.frames.images import read_image
    from fbft_edge.frames.pixel_format import PixelFormat
    from fbft_edge.line.assembly import run_line
    from fbft_edge.messages.header import Health
    from fbft_edge.messages.published import Observer, Published
    from fbft_edge.messages.reading import Result, decode_message
    from fbft_edge.sockets.command_client import CommandClient
    from fbft_edge.sockets.subscriber import ResultSubscriber

__all__ = [
    "Bundle",
    "Camera",
    "CommandClient",
    "Detection",
    "Detector",
    "FbftError",
    "Frame",
    "Health",
    "Inspector",
    "LineConfig",
    "Observer",
    "PixelFormat",
    "Published",
    "Region",
    "Result",
    "ResultSubscriber",
    "Thresholds",
    "Verdict",
    "decode_message",
    "open_bundle",
    "read_config",
    "read_image",
    "run_line",
]

_HOMES = {
    "Bundle": "bundle.reading",
    "Camera": "cameras.camera",
    "CommandClient": "sockets.command_client",
    "Detection": "frames.frame",
    "Detector": "detectors",
    "FbftError": "errors",
    "Frame": "frames.frame",
    "Health": "messages.header",
    "Inspector": "detectors.inspector",
    "LineConfig": "config.line_config",
    "Observer": "messages.published",
    "PixelFormat": "frames.pixel_format",
    "Published": "messages.published",
    "Region": "frames.frame",
    "Result": "messages.reading",
    "ResultSubscriber": "sockets.subscriber",
    "Thresholds": "bundle.manifest",
    "Verdict": "frames.frame",
    "decode_message": "messages.reading",
    "open_bundle": "bundle.reading",
    "read_config": "config.line_config",
    "read_image": "frames.images",
    "run_line": "line.assembly",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fbft_edge' has no attribute {name!r}")
    return getattr(import_module(f"fbft_edge.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
