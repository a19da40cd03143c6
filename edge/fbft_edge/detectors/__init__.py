"""Detectors: a frame's pixels in, a detection out; one module per runtime.

Knows nothing about cameras, rates or messages.
"""

from __future__ import annotations

from typing import Protocol

from fbft_edge.frame import Detection, Uint8


class Detector(Protocol):
    """Finds defects in frames of one size."""

    def detect(self, pixels: Uint8) -> Detection:
        """Inspect one frame.

        Args:
            pixels: (height, width, 3) uint8 RGB, of the size that the detector was made for.

        Raises:
            BundleError: The frame has another size.
        """
        ...

    def close(self) -> None:
        """Give the engine's memory back."""
        ...
