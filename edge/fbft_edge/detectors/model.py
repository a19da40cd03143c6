"""One engine for all cameras of a line: a bundle in, a model out that inspects frames of every size and pixel format.

Frames take turns (`fbft_edge.line.inference`), and tiles of several cameras are never put into one call. Up to 4 tiles
a call are all that helps a CPU (`best_batch`) and a GPU takes a whole frame's tiles at once, so that frames in turn are
batched already; waiting to fill a call with another camera's tiles would only make the first one late.

Knows nothing about cameras, rates or messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from fbft_edge.bundle.reading import Bundle
from fbft_edge.closeable import Closeable
from fbft_edge.detectors import Detector
from fbft_edge.detectors.selection import open_detector
from fbft_edge.frames.frame import Detection, Frame, Uint8
from fbft_edge.frames.pixel_format import PixelFormat, frame_size

MOST_SIZES = 4
_D = TypeVar("_D", bound=Detector)


class DetectorPool(Closeable, Generic[_D]):
    """One detector per frame size, made from height and width; each holds a model, so only the last few are kept."""

    def __init__(self, make: Callable[[int, int], _D]) -> None:
        self._make = make
        self._detectors: dict[tuple[int, int], _D] = {}

    def of(self, height: int, width: int) -> _D:
        """The detector of a frame size, good until four others were asked for."""
        detector = self._detectors.pop((height, width), None)
        if detector is None:
            while len(self._detectors) >= MOST_SIZES:
                self._detectors.pop(next(iter(self._detectors))).close()
            detector = self._make(height, width)
        self._detectors[height, width] = detector
        return detector

    def detect(self, pixels: Uint8) -> Detection:
        """Inspect a picture of any size, (height, width, 3) uint8 RGB."""
        return self.of(*pixels.shape[:2]).begin(pixels)()

    def close(self) -> None:
        """Close every detector."""
        for detector in self._detectors.values():
            detector.close()
        self._detectors.clear()


Layout = tuple[int, int, PixelFormat]


class DetectorsByLayout:
    """One detector for each height, width and pixel format, made when a frame of it first comes.

    Args:
        make: Makes a detector for frames of a height, a width and a pixel format; what it raises is said of the frame.
    """

    def __init__(self, make: Callable[[int, int, PixelFormat], Detector]) -> None:
        self._make = make
        self._detectors: dict[Layout, Detector] = {}

    @property
    def frames_in_flight(self) -> int:
        """How many frames may have begun, of all layouts together; 1 before there is a detector."""
        return min((detector.frames_in_flight for detector in self._detectors.values()), default=1)

    def of_layout(self, height: int, width: int, pixel_format: PixelFormat) -> Detector:
        """The detector of frames of a height, a width and a pixel format."""
        layout = (height, width, pixel_format)
        if layout not in self._detectors:
            self._detectors[layout] = self._make(*layout)
        return self._detectors[layout]

    def of(self, frame: Frame) -> Detector:
        """The detector of frames like this one."""
        return self.of_layout(*frame_size(frame.pixels, frame.pixel_format), frame.pixel_format)

    def close(self) -> None:
        """Close every detector."""
        while self._detectors:
            self._detectors.popitem()[1].close()


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """What inspects, and its name in every message.

    Attributes:
        detectors: One for each frame layout.
        image_threshold: Scores above it are anomalous.
        bundle_sha256: Identifies the bundle.
    """

    detectors: DetectorsByLayout
    image_threshold: float
    bundle_sha256: str


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model, and in words which engine runs it and why that one."""

    model: Model
    reason: str


def open_model(bundle: Bundle, layouts: Iterable[Layout], engine: str = "auto", *, sharpen: bool = False) -> OpenModel:
    """Make the model of a line.

    Detectors of different frame layouts share the compiled model where the engine can do that. Another layout than
    those named gets its detector when its first frame comes, if the bundle was fitted on frames of that size.

    Args:
        bundle: Holds thresholds and engines.
        layouts: Heights, widths and pixel formats that are known to come, one at least.
        engine: See `fbft_edge.detectors.selection.open_detector`.
        sharpen: See there.

    Raises:
        BundleError: The bundle has no thresholds, or was fitted on frames of other sizes.
        EngineError: The engine that was asked for cannot run here.
    """
    threshold = bundle.require_thresholds().image
    opened: list[Detector] = []
    reasons: list[str] = []

    def make(height: int, width: int, pixel_format: PixelFormat) -> Detector:
        bundle.require_frame_size(height, width, "the camera's picture")
        made = open_detector(bundle, height, width, pixel_format, engine, opened, sharpen=sharpen)
        opened.append(made.detector)
        reasons.append(made.reason)
        return made.detector

    detectors = DetectorsByLayout(make)
    for layout in layouts:
        detectors.of_layout(*layout)
    return OpenModel(Model(detectors, threshold, bundle.sha256), "; ".join(dict.fromkeys(reasons)))
