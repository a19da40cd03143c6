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
    """Why a frame is anomalous, or how far it is from that.

    Args:
        score: Of the frame.
        image_threshold: What it is compared with.
        peak: Largest map value of the frame, or None when it is not known.
        pixel_threshold: What that is compared with, or None when it is not known.
        peak_xy: Where that is, or None when it is not known.
        decided_by: Which threshold was exceeded; None when none was, or when that is not known.
    """
    place = "" if peak_xy is None else f" at ({peak_xy[0]}, {peak_xy[1]})"
    image = f"score {score:.4g} {_compared(decided_by, 'image')} {image_threshold:.4g}"
    if peak is None or pixel_threshold is None:
        return image
    pixel = f"peak {peak:.4g} {_compared(decided_by, 'pixel')} {pixel_threshold:.4g}{place}"
    if decided_by in ("image", "pixel"):
        return image if decided_by == "image" else pixel
    return f"{image}{' and ' if decided_by == 'both' else ', '}{pixel}"


def _compared(decided_by: DecidedBy | None, threshold: DecidedBy) -> str:
    return "above" if decided_by in (threshold, "both") else "against"
