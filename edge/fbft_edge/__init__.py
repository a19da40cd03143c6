"""The inspection runtime: frames in, verdicts and masks out. Never imports torch, timm or onnx.

The public face is for those who read results (`ResultSubscriber`) or inspect frames themselves (`open_bundle`, then
`fbft_edge.detectors.selection.open_detector`). Names are loaded when first used, so that asking a command for help
costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fbft_edge.bundle.manifest import Thresholds
    from fbft_edge.bundle.reading import Bundle, open_bundle
    from fbft_edge.errors import (
        ArgumentError,
        BundleError,
        CameraError,
        CommandError,
        ConfigError,
        EngineError,
        FbftError,
        ImageError,
        MapError,
        MessageError,
        PeerError,
        PublisherError,
        RecordingError,
        TeacherError,
    )
    from fbft_edge.frames.frame import Detection, Frame, Region, Verdict
    from fbft_edge.messages.reading import Result, decode_message
    from fbft_edge.sockets.subscriber import ResultSubscriber

__all__ = [
    "ArgumentError",
    "Bundle",
    "BundleError",
    "CameraError",
    "CommandError",
    "ConfigError",
    "Detection",
    "EngineError",
    "FbftError",
    "Frame",
    "ImageError",
    "MapError",
    "MessageError",
    "PeerError",
    "PublisherError",
    "RecordingError",
    "Region",
    "Result",
    "ResultSubscriber",
    "TeacherError",
    "Thresholds",
    "Verdict",
    "decode_message",
    "open_bundle",
]

_HOMES = {
    "Bundle": "bundle.reading",
    "Detection": "frames.frame",
    "Frame": "frames.frame",
    "Region": "frames.frame",
    "Result": "messages.reading",
    "ResultSubscriber": "sockets.subscriber",
    "Thresholds": "bundle.manifest",
    "Verdict": "frames.frame",
    "decode_message": "messages.reading",
    "open_bundle": "bundle.reading",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'fbft_edge' has no attribute {name!r}")
    return getattr(import_module(f"fbft_edge.{_HOMES.get(name, 'errors')}"), name)


def __dir__() -> list[str]:
    return __all__
