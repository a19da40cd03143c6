"""Pictures in, detections out, with a bundle: what a Python program calls that has pictures of its own.

Knows nothing about cameras, rates, messages or files.
"""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np

from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.closeable import Closeable
from fbft_edge.detectors import Detector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.detectors.selection import open_detector
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import Detection, Uint8
from fbft_edge.frames.pixel_format import FrameLayout, layout_of
from fbft_edge.names import ENGINES


class Inspector(Closeable):
    """Inspects pictures of every size that its bundle takes; a context manager. Threads take turns at its engine.

    Args:
        bundle: Opened, or the path of its folder, which is then opened and verified.
        engine: `openvino`, `tensorrt` or `tensorrt-rtx`; `auto` takes the fastest that runs here.
        sharpen: Redraw what is flagged along the picture's own edges; verdicts stay as they are.

    Raises:
        ArgumentError: There is no such engine.
        BundleError: The bundle does not verify, or has no thresholds.
        EngineError: The engine cannot run here; of a bundle that takes several sizes, `inspect` says so.
    """

    def __init__(self, bundle: Bundle | Path | str, engine: str = "auto", *, sharpen: bool = False) -> None:
        if engine not in ENGINES:
            raise ArgumentError(f"there is no engine {engine!r}; use one of {', '.join(ENGINES)}")
        self._bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self._bundle.require_thresholds()
        self._engine, self._sharpen = engine, sharpen
        self._lock = threading.Lock()
        self._detectors: DetectorPool[Detector] = DetectorPool(self._opened)
        if len(self._bundle.frame_sizes) == 1:
            self._detectors.of(FrameLayout(*self._bundle.frame_sizes[0]))

    def inspect(self, pixels: Uint8) -> Detection:
        """Inspect one picture.

        Args:
            pixels: (height, width, 3) uint8 RGB, as `read_image` gives it; stays as it is.

        Returns:
            Score, mask, regions and whether they are anomalous; its arrays are its own.

        Raises:
            ArgumentError: The array has another shape or type.
            BundleError: The bundle was fitted on pictures of other sizes, or this one is mono and those have colour, or
                the other way round.
            EngineError: The engine cannot run here.
            MapError: The engine's map holds values that are not numbers.
        """
        layout = _rgb_layout(pixels)
        self._bundle.require_frame_size(*layout.size, "the picture")
        self._bundle.require_look(pixels, layout.pixel_format, "the picture")
        with self._lock:
            return self._detectors.of(layout).begin(pixels)()

    def close(self) -> None:
        """Give the engine's memory back; another picture would load it again."""
        with self._lock:
            self._detectors.close()

    def _opened(self, layout: FrameLayout) -> Detector:
        return open_detector(self._bundle, layout, self._engine, sharpen=self._sharpen).detector


def _rgb_layout(pixels: Uint8) -> FrameLayout:
    """The layout of a picture that is (height, width, 3) uint8 RGB.

    Raises:
        ArgumentError: It is not.
    """
    if not isinstance(pixels, np.ndarray):
        found = f"a {type(pixels).__name__}"
    elif pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        found = f"an array of shape {pixels.shape} and type {pixels.dtype}"
    else:
        return layout_of(pixels)
    raise ArgumentError(
        f"a picture to inspect is an array of shape (height, width, 3) and type uint8, RGB, not {found}; "
        "read it with fbft_edge.read_image, or convert it"
    )
