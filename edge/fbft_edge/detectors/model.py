"""One engine for all cameras of a line: a bundle in, a model out that inspects frames of every size and pixel format.

Frames take turns (`fbft_edge.line.inference`), and tiles of several cameras are never put into one call. Up to 4 tiles
a call are all that helps a CPU (`best_batch`) and a GPU takes a whole frame's tiles at once, so that frames in turn are
batched already; waiting to fill a call with another camera's tiles would only make the first one late.

Knows nothing about cameras, rates or messages.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from fbft_edge.bundle.reading import Bundle
from fbft_edge.closeable import Closeable
from fbft_edge.detectors import Detector
from fbft_edge.detectors.parity_tiles import InfersTiles, ParityTiles, parity_tiles
from fbft_edge.detectors.selection import open_detector
from fbft_edge.errors import MapError
from fbft_edge.frames.frame import Detection, Pixels
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat, frame_array_shape, layout_of, pixel_dtype

MOST_LAYOUTS = 4
PROVE_EVERY_S = 60.0
_TILES_OF_A_PROOF = 4
_logger = logging.getLogger(__name__)
_D = TypeVar("_D", bound=Detector)


class DetectorPool(Closeable, Generic[_D]):
    """One detector per frame layout, made when a frame of it first comes.

    Args:
        make: Makes a detector for frames of a layout; what it raises is said of the frame.
        most: Each detector may hold a model of its own, so only the last few are kept, and another one is closed when
            one more is made. None keeps all: where frames are in flight, none may be closed.
    """

    def __init__(self, make: Callable[[FrameLayout], _D], most: int | None = MOST_LAYOUTS) -> None:
        self._make, self._most = make, most
        self._detectors: dict[FrameLayout, _D] = {}

    @property
    def frames_in_flight(self) -> int:
        """How many frames may have begun, of all layouts together; 1 before there is a detector."""
        return min((detector.frames_in_flight for detector in self._detectors.values()), default=1)

    def of(self, layout: FrameLayout) -> _D:
        """The detector of a layout, good until as many others as are kept were asked for."""
        if layout not in self._detectors:
            while self._most is not None and len(self._detectors) >= self._most:
                self._detectors.pop(next(iter(self._detectors))).close()
            self._detectors[layout] = self._make(layout)
        elif self._most is not None:  # it comes last again, so that the first is the one that nobody asked for longest
            self._detectors[layout] = self._detectors.pop(layout)
        return self._detectors[layout]

    def detect(self, pixels: Pixels, pixel_format: PixelFormat = PixelFormat.RGB8) -> Detection:
        """Inspect one picture of any size."""
        return self.of(layout_of(pixels, pixel_format)).begin(pixels)()

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
        pixel_threshold: Map values above it are anomalous.
        frame_s: What one frame took when the model was opened; the slowest of its layouts.
        prove: Lets its engines show that they still compute what they should; raises when one does not. To be called
            between frames; None where there is nothing to show it on.
        prove_every_s: How often that is done while it inspects.
    """

    detectors: DetectorPool[Detector]
    image_threshold: float
    bundle_sha256: str
    pixel_threshold: float | None = None
    frame_s: float = 0.0
    prove: Callable[[], None] | None = None
    prove_every_s: float = PROVE_EVERY_S


@dataclass(frozen=True, slots=True)
class OpenModel:
    """A model, and in words which engine runs it and why that one."""

    model: Model
    reason: str


def open_model(
    bundle: Bundle, layouts: Iterable[FrameLayout], engine: str = "auto", *, sharpen: bool = False
) -> OpenModel:
    """Make the model of a line.

    Detectors of different frame layouts share the compiled model where the engine can do that. Another layout than
    those named gets its detector when its first frame comes, if the bundle was fitted on frames of that size.

    Args:
        bundle: Holds thresholds and engines.
        layouts: Those that are known to come, one at least.
        engine: See `fbft_edge.detectors.selection.open_detector`.
        sharpen: See there.

    Raises:
        BundleError: The bundle has no thresholds, or was fitted on frames of other sizes, or with other colour.
        EngineError: The engine that was asked for cannot run here.
    """
    thresholds, reference = bundle.require_thresholds(), parity_tiles(bundle)
    opened: list[Detector] = []
    reasons: list[str] = []

    def make(layout: FrameLayout) -> Detector:
        bundle.require_frame_size(*layout.size, "the camera's picture")
        bundle.require_pixel_format(layout.pixel_format, "the camera's picture")
        made = open_detector(bundle, layout, engine, opened, sharpen=sharpen)
        # One that is shared was held to the tiles before, and may be inferring right now.
        if not made.shares_engine and reference is not None and isinstance(made.detector, InfersTiles):
            try:
                reference.require(made.detector)
            except BaseException:
                made.detector.close()
                raise
        opened.append(made.detector)
        reasons.append(made.reason)
        return made.detector

    detectors = DetectorPool(make, most=None)
    known = dict.fromkeys(layouts)
    try:
        frame_s = max([_seconds_of_a_frame(detectors.of(layout), layout) for layout in known], default=0.0)
        prove = _proof(bundle, reference, opened)
    except BaseException:
        detectors.close()
        raise
    model = Model(detectors, thresholds.image, bundle.sha256, thresholds.pixel, frame_s, prove)
    return OpenModel(model, "; ".join(dict.fromkeys(reasons)))


def _proof(bundle: Bundle, reference: ParityTiles | None, opened: Sequence[Detector]) -> Callable[[], None] | None:
    """What holds detectors to some of the bundle's own tiles, those that are opened later, too."""
    if reference is None or not any(isinstance(detector, InfersTiles) for detector in opened):
        _logger.warning(
            "nothing shows that the engine computes what it should: %s",
            "it cannot be asked" if reference else f"{bundle.path} holds no tiles for that; fit it again",
        )
        return None

    def prove() -> None:
        for detector in tuple(opened):
            if isinstance(detector, InfersTiles):
                reference.require(detector, _TILES_OF_A_PROOF)

    return prove


def _seconds_of_a_frame(detector: Detector, layout: FrameLayout) -> float:
    """How long a frame takes: the shortest of three after the first, which prepares the engine.

    A machine that is busy at the start must not let frames grow old for as long as the line runs. What is found does
    not matter.
    """
    shape, dtype = frame_array_shape(layout.pixel_format, *layout.size), pixel_dtype(layout.pixel_format)
    pixels, taken_s = np.full(shape, 128, dtype), []
    for _ in range(4):
        begun_s = time.perf_counter()
        with contextlib.suppress(MapError):
            detector.begin(pixels)()
        taken_s.append(time.perf_counter() - begun_s)
    return min(taken_s[1:])
