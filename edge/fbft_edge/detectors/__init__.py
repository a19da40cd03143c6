"""Detectors: a frame's pixels in, a detection out; `host` for frames in host memory, `device` for a GPU.

Tiles are cut (`tiling`), patch distances inferred, joined into an anomaly map (`anomaly_map`) and judged (`judge`).
Knows nothing about cameras, rates or messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from fbft_edge.frames.frame import Detection, Pixels


class Detector(Protocol):
    """Finds defects in frames of one layout: one size and pixel format."""

    @property
    def frames_in_flight(self) -> int:
        """How many frames may have begun whose detections were not asked for; at least 1."""
        ...

    def begin(self, pixels: Pixels) -> Callable[[], Detection]:
        """Start one frame; what is returned waits for its detection, and is called in the order of the frames.

        Args:
            pixels: Of the size and pixel format that the detector was made for; not written to before its detection
                is there.

        Raises:
            BundleError: The frame has another size or type.
        """
        ...

    def close(self) -> None:
        """Give the engine's memory back."""
        ...
