"""What flows on the line: a frame goes in, a detection comes out, a verdict is published.

Knows nothing about where frames come from, how detections are made or where verdicts go.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat, Pixels, Uint8, layout_of, rgb_from_pixels

__all__ = ["MAX_REGIONS", "Bool", "DecidedBy", "Detection", "Float32", "Frame", "Pixels", "Region", "Uint8", "Verdict"]

Float32 = NDArray[np.float32]
Bool = NDArray[np.bool_]
DecidedBy = Literal["image", "pixel", "both"]

MAX_REGIONS = 256  # of a detection, and of a message


class Verdict(str, Enum):
    """What one message says about the part in front of the camera.

    `OK` and `ANOMALOUS` are said once per inspected frame. `STALE` repeats the last result because the
    period brought no new one. `FAULT` means that no verdict can be given; the header's `health` says why.
    """

    OK = "ok"
    ANOMALOUS = "anomalous"
    STALE = "stale"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture from one camera.

    Attributes:
        camera: Name of the camera, as in the message topic.
        frame_id: Counts the camera's frames from 0 within a session.
        captured_ns: When the frame left the camera, nanoseconds since the Unix epoch on the session clock
            (`fbft_edge.clock.now_ns`).
        pixels: Of the shape and type that the pixel format has, C-contiguous; the frame owns the memory and nobody
            writes to it.
        pixel_format: How to read them.
    """

    camera: str
    frame_id: int
    captured_ns: int
    pixels: Pixels
    pixel_format: PixelFormat = PixelFormat.RGB8

    @property
    def layout(self) -> FrameLayout:
        """Height, width and pixel format, by which detectors are told apart."""
        return layout_of(self.pixels, self.pixel_format)

    @property
    def rgb(self) -> Uint8:
        """(height, width, 3) uint8 RGB, converted each time unless the camera sends that."""
        return rgb_from_pixels(self.pixels, self.pixel_format)


@dataclass(frozen=True, slots=True)
class Region:
    """A connected component (8 neighbours) of the mask, in frame pixels.

    Attributes:
        box_xyxy: Left, top, right, bottom; right and bottom are exclusive.
        area_px: Number of mask pixels.
        peak: Largest anomaly-map value inside.
        centroid_xy: Mean pixel position.
    """

    box_xyxy: tuple[int, int, int, int]
    area_px: int
    peak: float
    centroid_xy: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Detection:
    """What a detector says about one frame.

    Attributes:
        score: Mean of the top 0.1 % of anomaly-map pixels, dimensionless, at least 0.
        peak: Largest anomaly-map value.
        mask: (height, width) bool, True where the anomaly map exceeds the pixel threshold and around that as far as the
            outlines reach (`fbft_edge.detectors.judge`), or what became of that by sharpening
            (`fbft_edge.detectors.sharpening`); owned by the detection.
        regions: Connected components of the mask, largest peak first, at most `MAX_REGIONS`; the mask has all of them.
        is_anomalous: True when the score exceeds the image threshold or the peak the pixel threshold.
        anomaly_map: (height, width) float32, or None when it was not asked for.
        peak_xy: Where the largest value lies, pixels of the frame; None when it is not known.
        decided_by: Which threshold makes it anomalous: `image`, exceeded by the score; `pixel`, by the peak; or `both`.
            None when it is not anomalous, or not known.
    """

    score: float
    peak: float
    mask: Bool
    regions: tuple[Region, ...]
    is_anomalous: bool
    anomaly_map: Float32 | None = None
    peak_xy: tuple[int, int] | None = None
    decided_by: DecidedBy | None = None
