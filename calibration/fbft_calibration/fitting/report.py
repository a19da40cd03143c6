"""The bundle's report: what a person needs to trust it, as one HTML file that opens anywhere.

Knows nothing about how thresholds were found; it shows what the bundle says.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from fbft_calibration.data.nominal import NominalImage
from fbft_calibration.fitting.thresholds import explain
from fbft_calibration.pages.page import fact_table, heading, inline_jpeg, paragraph, write_page
from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.frames.drawing import heat
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_export.engine_report import engine_table

_EXAMPLES = 3
_EXAMPLE_PX = 420


def write_report(
    bundle: Bundle, held_out: Sequence[NominalImage], detectors: DetectorPool[OpenVinoDetector], path: Path
) -> None:
    """Write the report of a calibrated bundle.

    Args:
        bundle: With thresholds and calibration notes.
        held_out: The images behind the thresholds, in the order of the notes' scores.
        detectors: Of the bundle.
        path: The HTML file.
    """
    write_page(path, f"{bundle.product}: bundle report", _page(bundle, held_out, detectors))


def _page(bundle: Bundle, held_out: Sequence[NominalImage], detectors: DetectorPool[OpenVinoDetector]) -> Iterator[str]:
    """HTML, part by part."""
    summary, *cautions = (line[0].upper() + line[1:] + "." for line in explain(bundle.require_thresholds()))
    calibration, thresholds = bundle.notes.calibration, bundle.require_thresholds()
    yield paragraph(summary, "lead")
    yield from (paragraph(line) for line in cautions)
    yield heading("Nominal scores against the threshold", 2)
    yield paragraph(
        "Every held-out nominal image is one dot. The line is the threshold: what lies right of it is anomalous."
    )
    yield _dots("image score", calibration.score, thresholds.image)
    yield _dots("largest map value", calibration.peak, thresholds.pixel)
    yield heading("The most unusual nominal images", 2)
    yield paragraph("If one of these shows a defect, take it out of the nominal folder and fit again.")
    yield from _examples(bundle, held_out, detectors)
    yield heading("Fit", 2)
    yield _curve(bundle.notes.losses)
    yield heading("Engines", 2)
    yield paragraph(
        "Every engine is held to the float32 model on real tiles before it is accepted; differences are shares of the "
        "largest map value."
    )
    yield engine_table(bundle)
    yield heading("Facts", 2)
    yield fact_table(_facts(bundle))


def _facts(bundle: Bundle) -> Iterable[tuple[str, str]]:
    yield "created", bundle.created
    yield "teacher", f"{bundle.teacher.name}, blocks {bundle.teacher.blocks[0]} and {bundle.teacher.blocks[1]}"
    yield "teacher weights", f"SHA-256 {bundle.teacher.weights_sha256}"
    yield "frames (height x width)", ", ".join(f"{h}x{w}" for h, w in bundle.frame_sizes) or "any"
    tile = bundle.tile
    yield "tiles", f"{tile.tile_px} px, patches of {tile.patch_px} px, overlap {tile.overlap_patches} patches"
    yield "scale", f"{tile.scale:.4g}"
    yield "fitted on", f"{len(bundle.notes.fit_images_sha256)} images"
    yield "left out", "; ".join(f"{name}: {reason}" for name, reason in bundle.notes.left_out) or "none"


def _dots(label: str, values: Sequence[float], threshold: float) -> str:
    """A strip of dots along one axis that starts at 0, with the threshold as a line."""
    limit = 1.15 * max(threshold, *values)
    order = np.argsort(values)
    dots = "".join(
        f'<circle cx="{20 + 860 * values[index] / limit:.1f}" cy="{58 - 9 * (rank % 5)}" r="4" '
        'fill="#0072b2" fill-opacity=".6"/>'
        for rank, index in enumerate(order)
    )
    at = 20 + 860 * threshold / limit
    return (
        f'<svg viewBox="0 0 900 100" role="img" aria-label="{label}">{dots}'
        f'<line x1="20" x2="880" y1="70" y2="70" stroke="#5a6b7b"/>'
        f'<line x1="{at:.1f}" x2="{at:.1f}" y1="8" y2="78" stroke="#d55e00" stroke-width="2"/>'
        f'<text x="{at:.1f}" y="94" text-anchor="middle" font-size="13" fill="#d55e00">{threshold:.4g}</text>'
        f'<text x="20" y="94" font-size="13" fill="#5a6b7b">0, {label}</text></svg>'
    )


def _curve(losses: Sequence[tuple[int, float, float]]) -> str:
    """Validation loss over steps, logarithmic."""
    steps, values = np.array([entry[0] for entry in losses]), np.log10([entry[2] for entry in losses])
    low, high = float(values.min()), float(values.max()) + 1e-9
    points = " ".join(
        f"{60 + 820 * step / steps[-1]:.1f},{20 + 100 * (high - value) / (high - low):.1f}"
        for step, value in zip(steps, values, strict=True)
    )
    return (
        f'<svg viewBox="0 0 900 150"><polyline points="{points}" fill="none" stroke="#0072b2" stroke-width="2"/>'
        f'<text x="0" y="25" font-size="13" fill="#5a6b7b">{10**high:.3f}</text>'
        f'<text x="0" y="125" font-size="13" fill="#5a6b7b">{10**low:.3f}</text>'
        f'<text x="60" y="145" font-size="13" fill="#5a6b7b">loss on held-out patches over {steps[-1]} steps</text>'
        "</svg>"
    )


def _examples(
    bundle: Bundle, held_out: Sequence[NominalImage], detectors: DetectorPool[OpenVinoDetector]
) -> Iterator[str]:
    score = np.asarray(bundle.notes.calibration.score)
    full_scale = bundle.require_thresholds().pixel
    for index in np.argsort(-score)[:_EXAMPLES]:
        image = held_out[index]
        pixels = image.read()
        shown = heat(pixels, detectors.of(FrameLayout(*image.size)).map_of(pixels), full_scale)
        caption = html.escape(f"{image.path.name}, score {score[index]:.4g}")
        yield f'<figure class="small">{_inline(pixels)} {_inline(shown)}<figcaption>{caption}</figcaption></figure>'


def _inline(pixels: Uint8) -> str:
    height, width = pixels.shape[:2]
    scale = min(1.0, _EXAMPLE_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return inline_jpeg(encoded.tobytes())
