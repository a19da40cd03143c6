"""What `inspect --refine` asks of the part of the installation that can refine masks, and how it is found.

It registers itself as an entry point, since nothing here may import what fitting needs. Knows nothing about how masks
are refined.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from fbft_edge.bundle.reading import Bundle
from fbft_edge.errors import ArgumentError
from fbft_edge.extras import require_extra
from fbft_edge.frames.frame import Detection, Uint8

GROUP = "fbft_edge.refiners"
NAME = "f2pad"
EXTRA = "calibration"


class Refiner(Protocol):
    """Redraws the flagged regions of detections of one bundle."""

    def refined(self, pixels: Uint8, detection: Detection) -> Detection:
        """The same detection with another mask, and regions to it; score, peak and verdict stay.

        Args:
            pixels: (height, width, 3) uint8 RGB.
            detection: What was found in them.

        Raises:
            MapError: The map holds values that are not numbers.
        """
        ...

    def close(self) -> None:
        """Give the models' memory back."""
        ...


def require_refiner() -> None:
    """Stop here unless masks can be refined; loads nothing.

    Raises:
        ArgumentError: What that takes is not installed.
    """
    require_extra(EXTRA, "--refine")
    if not entry_points(group=GROUP, name=NAME):
        raise ArgumentError(
            f"--refine needs the entry point {NAME} of {GROUP}, which this installation lacks; "
            f'pip install "fbft-edge[{EXTRA}]" again'
        )


def open_refiner(bundle: Bundle, weights: Path | None = None) -> Refiner:
    """Make the refiner of a bundle.

    Args:
        bundle: With thresholds.
        weights: Local teacher weights, or None for the teacher's own.

    Raises:
        ArgumentError: What that takes is not installed.
        BundleError: The bundle has no thresholds.
        TeacherError: The teacher cannot be had, or its weights are not those that the bundle was fitted with.
    """
    require_refiner()
    (found, *_) = entry_points(group=GROUP, name=NAME)
    refiner: Refiner = found.load()(bundle, weights)
    return refiner
