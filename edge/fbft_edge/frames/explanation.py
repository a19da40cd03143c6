"""The numbers of a verdict in, one line of text out: what was compared with which threshold, and where.

Knows nothing about where the numbers come from.
"""

from __future__ import annotations

from fbft_edge.frames.frame import DecidedBy


def explained(
    score: float,
    image_threshold: float,
    peak: float | None = None,
    pixel_threshold: float | None = None,
    peak_xy: tuple[int, int] | None = None,
    decided_by: DecidedBy | None = None,
) -> str:
    """Why a frame is anomalous, or how far it is from that; `above` stands only between numbers that are so.

    Args:
        score: Of the frame.
        image_threshold: What it is compared with.
        peak: Largest map value of the frame, or None when it is not known.
        pixel_threshold: What that is compared with, or None when it is not known.
        peak_xy: Where that is, or None when it is not known.
        decided_by: Which threshold was exceeded; None when none was, or when that is not known.
    """
    place = "" if peak_xy is None else f" at ({peak_xy[0]}, {peak_xy[1]})"
    image = f"score {_compared(score, image_threshold)}"
    if peak is None or pixel_threshold is None:
        return image
    pixel = f"peak {_compared(peak, pixel_threshold)}{place}"
    if decided_by in ("image", "pixel"):
        return image if decided_by == "image" else pixel
    return f"{image}{' and ' if decided_by == 'both' else ', '}{pixel}"


def _compared(value: float, threshold: float) -> str:
    """Both numbers, with as many digits as it takes to tell them apart."""
    texts = ((f"{value:.{digits}g}", f"{threshold:.{digits}g}") for digits in range(4, 18))
    shown = next((pair for pair in texts if pair[0] != pair[1] or value == threshold), (str(value), str(threshold)))
    return f"{shown[0]} {'above' if value > threshold else 'against'} {shown[1]}"
