"""The inspection runtime: frames in, verdicts and masks out.

The public face for those who read results (`ResultSubscriber`) or inspect frames themselves (`open_bundle`, then
`fbft_edge.detectors.openvino.OpenVinoDetector`). Never imports torch, timm or onnx.
"""

from fbft_edge.bundle import Bundle, open_bundle
from fbft_edge.errors import (
    ArgumentError,
    BundleError,
    CameraError,
    EngineError,
    FbftError,
    ImageError,
    MessageError,
    PublisherError,
    TeacherError,
)
from fbft_edge.frame import Detection, Frame, Region, Verdict
from fbft_edge.manifest import Thresholds
from fbft_edge.result import Result, decode_message
from fbft_edge.subscriber import ResultSubscriber

__all__ = [
    "ArgumentError",
    "Bundle",
    "BundleError",
    "CameraError",
    "Detection",
    "EngineError",
    "FbftError",
    "Frame",
    "ImageError",
    "MessageError",
    "PublisherError",
    "Region",
    "Result",
    "ResultSubscriber",
    "TeacherError",
    "Thresholds",
    "Verdict",
    "decode_message",
    "open_bundle",
]
