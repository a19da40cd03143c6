"""Sharper masks for every detector: a frame, its mask and its map, window by window, in, another mask out.

Knows nothing about engines, or where the map comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.judge import MapOfWindow, Sharpen
from fbft_edge.detectors.sharpening import LATTICE_PX, REACH_PATCHES, sharpened_picture
from fbft_edge.frames.frame import Bool, Float32, Uint8
from fbft_edge.frames.pixel_format import PixelFormat, Pixels, Window, rgb_lattice, rgb_of_window

LEAST_THRESHOLD = 1e-6


class Sharpener:
    """Sharpens the masks of one detector's frames; see `fbft_edge.detectors.sharpening`.

    Args:
        bundle: Its patches say how far a defect may reach outside the mask.
        pixel_format: Of the frames.
        pixel_threshold: What the masks were made with.
    """

    def __init__(self, bundle: Bundle, pixel_format: PixelFormat, pixel_threshold: float) -> None:
        self._reach_px = REACH_PATCHES * bundle.tile.patch_px / bundle.tile.scale
        self._pixel_format, self._unit = pixel_format, max(pixel_threshold, LEAST_THRESHOLD)

    def of(self, pixels: Pixels) -> Sharpen:
        """What `judge` calls for one frame."""
        return lambda mask, map_of: self.sharpened(mask, pixels, map_of)

    def sharpened(self, mask: Bool, pixels: Pixels, map_of: MapOfWindow) -> Bool:
        """Redraw a mask's regions.

        Args:
            mask: (height, width) bool.
            pixels: The frame; only windows around the regions are converted.
            map_of: The anomaly map of a window, (rows, columns) float32.

        Returns:
            (height, width) bool, owned by the caller; all False when `mask` is.
        """
        picture = _InspectedPicture(pixels, self._pixel_format, map_of, self._unit)
        return sharpened_picture(picture, mask, self._reach_px)


@dataclass(frozen=True, slots=True)
class _InspectedPicture:
    """A `Picture` of a frame in any pixel format and a map that is made where it is asked for."""

    frame: Pixels
    pixel_format: PixelFormat
    map_of: MapOfWindow
    unit: float

    def lattice(self) -> Uint8:
        return rgb_lattice(self.frame, self.pixel_format, LATTICE_PX)

    def pixels(self, window: Window) -> Uint8:
        return rgb_of_window(self.frame, self.pixel_format, window)

    def relative_map(self, window: Window) -> Float32:
        return self.map_of(window) / self.unit
