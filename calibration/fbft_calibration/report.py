"""The bundle's report: what a person needs to trust it, as one HTML file that opens anywhere.

Knows nothing about how thresholds were found; it shows what the bundle says.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from string import Template

import cv2
import numpy as np

from fbft_calibration.dataset import NominalImage
from fbft_calibration.threshold import explain
from fbft_edge.bundle import Bundle
from fbft_edge.detectors.openvino import OpenVinoDetector
from fbft_edge.detectors.selection import DetectorPool
from fbft_edge.frame import Float32, Uint8
from fbft_export.engine_report import engine_table

_EXAMPLES = 3
_EXAMPLE_PX = 420

_PAGE = Template("""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>$product: bundle report</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b2530 }
h1 { font-weight: 600 } h2 { margin-top: 2.5rem; font-weight: 600 } p.lead { font-size: 1.15rem }
table { border-collapse: collapse } td, th { padding: .3rem 1rem .3rem 0; text-align: left; vertical-align: top }
th { font-weight: 500; color: #5a6b7b } figure { display: inline-block; margin: 0 1rem 1rem 0 }
figcaption { color: #5a6b7b; font-size: .9rem } img { border-radius: 4px } svg { width: 100%; height: auto }
</style>
<h1>$product</h1>
<p class="lead">$summary</p>
$cautions
<h2>Nominal scores against the threshold</h2>
<p>Every held-out nominal image is one dot. The line is the threshold: what lies right of it is anomalous.</p>
$scores
<h2>The most unusual nominal images</h2>
<p>If one of these shows a defect, take it out of the nominal folder and fit again.</p>
$examples
<h2>Fit</h2>
$losses
<h2>Engines</h2>
<p>Every engine is held to the float32 model on real tiles before it is accepted; differences are shares of the largest
map value.</p>
$engines
<h2>Facts</h2>
<table>$facts</table>
</html>
""")


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
    summary, *cautions = (line[0].upper() + line[1:] + "." for line in explain(bundle.require_thresholds()))
    calibration = bundle.notes["calibration"]
    page = _PAGE.substitute(
        product=html.escape(bundle.product),
        summary=html.escape(summary),
        cautions="".join(f"<p>{html.escape(line)}</p>" for line in cautions),
        scores=_dots("image score", calibration["score"], bundle.require_thresholds().image)
        + _dots("largest map value", calibration["peak"], bundle.require_thresholds().pixel),
        examples="".join(_examples(bundle, held_out, detectors)),
        losses=_curve(bundle.notes["losses"]),
        engines=engine_table(bundle),
        facts="".join(f"<tr><th>{html.escape(k)}<td>{html.escape(v)}" for k, v in _facts(bundle)),
    )
    path.write_text(page, encoding="utf-8")


def _facts(bundle: Bundle) -> Iterable[tuple[str, str]]:
    yield "created", bundle.created
    yield "teacher", f"{bundle.teacher.name}, blocks {bundle.teacher.blocks[0]} and {bundle.teacher.blocks[1]}"
    yield "teacher weights", f"SHA-256 {bundle.teacher.weights_sha256}"
    yield "frames (height x width)", ", ".join(f"{h}x{w}" for h, w in bundle.frame_sizes) or "any"
    tile = bundle.tile
    yield "tiles", f"{tile.tile_px} px, patches of {tile.patch_px} px, overlap {tile.overlap_patches} patches"
    yield "scale", f"{tile.scale:.4g}"
    yield "fitted on", f"{len(bundle.notes['fit_images_sha256'])} images"
    yield "left out", "; ".join(f"{name}: {reason}" for name, reason in bundle.notes["left_out"]) or "none"


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
    score = np.asarray(bundle.notes["calibration"]["score"])
    for index in np.argsort(-score)[:_EXAMPLES]:
        image = held_out[index]
        pixels = image.read()
        share = detectors.of(*image.size).map_of(pixels) / (1.5 * bundle.require_thresholds().pixel)
        yield _example(pixels, share, image.path.name, score[index])


def _example(pixels: Uint8, share: Float32, name: str, score: float) -> str:
    shown = _heat(pixels, share)
    caption = f"{html.escape(name)}, score {score:.4g}"
    return f"<figure>{_inline(pixels)} {_inline(shown)}<figcaption>{caption}</figcaption></figure>"


def _heat(pixels: Uint8, share: Float32) -> Uint8:
    level = (np.clip(share, 0, 1) * 255).astype(np.uint8)
    colours = cv2.cvtColor(cv2.applyColorMap(level, cv2.COLORMAP_CIVIDIS), cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.addWeighted(pixels, 0.4, colours, 0.6, 0), np.uint8)


def _inline(pixels: Uint8) -> str:
    height, width = pixels.shape[:2]
    scale = min(1.0, _EXAMPLE_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    data = base64.b64encode(encoded.tobytes()).decode()
    return f'<img width="{size[0]}" height="{size[1]}" alt="" src="data:image/jpeg;base64,{data}">'
