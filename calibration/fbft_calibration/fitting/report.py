"""The bundle's report: what a person needs to trust it, as one HTML file that opens anywhere.

Knows nothing about how thresholds were found; it shows what the bundle says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from markupsafe import Markup

from fbft_calibration.data.nominal import NominalImage
from fbft_calibration.fitting.cross_check import Compared
from fbft_calibration.fitting.outliers import about, thresholds_without
from fbft_calibration.fitting.thresholds import explain
from fbft_calibration.pages.charts import dot_strip, loss_curve
from fbft_calibration.pages.page import fact_table, figure, heading, inline_jpeg, paragraph, write_page
from fbft_edge.bundle.notes import NominalOutlier
from fbft_edge.bundle.reading import Bundle
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.frames.drawing import heat
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.names import size_text
from fbft_export.engine_report import engine_table

_EXAMPLES = 3
_EXAMPLE_PX = 420
_MOST_SHOWN = 6  # outliers with pictures
_CLOSEUP_PX, _CLOSEUP_PART = 96, 0.15  # side of a close-up: pixels at least, and of the longer side


def write_report(
    bundle: Bundle,
    held_out: Sequence[NominalImage],
    detectors: DetectorPool[OpenVinoDetector],
    path: Path,
    standing_out: Sequence[Compared] = (),
) -> None:
    """Write the report of a calibrated bundle.

    Args:
        bundle: With thresholds and calibration notes.
        held_out: Images behind the thresholds, in the order of the notes' scores; of later ones no picture is shown.
        detectors: Of the bundle.
        path: The HTML file.
        standing_out: The images of the notes' outliers, in their order; none where they are not at hand.
    """
    write_page(path, f"{bundle.product}: bundle report", _page(bundle, held_out, detectors, standing_out))


def _page(
    bundle: Bundle,
    held_out: Sequence[NominalImage],
    detectors: DetectorPool[OpenVinoDetector],
    standing_out: Sequence[Compared],
) -> Iterator[Markup]:
    """HTML, part by part."""
    summary, *cautions = (line[0].upper() + line[1:] + "." for line in explain(bundle.require_thresholds()))
    calibration, thresholds = bundle.notes.calibration, bundle.require_thresholds()
    yield paragraph(summary, "lead")
    yield from (paragraph(line) for line in cautions)
    yield from _outliers(bundle, standing_out)
    yield heading("Nominal scores against the threshold", 2)
    yield paragraph(
        "Every held-out nominal image is one dot. The line is the threshold: what lies right of it is anomalous."
    )
    yield dot_strip("image score", calibration.score, thresholds.image)
    yield dot_strip("largest map value", calibration.peak, thresholds.pixel)
    yield heading("The most unusual nominal images", 2)
    yield paragraph("If one of these shows a defect, take it out of the nominal folder and fit again.")
    yield from _examples(bundle, held_out, detectors)
    yield heading("Fit", 2)
    yield loss_curve(bundle.notes.losses)
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
    yield "frames", size_text(*bundle.frame_sizes) if bundle.frame_sizes else "any size"
    tile = bundle.tile
    yield "tiles", f"{tile.tile_px} px, patches of {tile.patch_px} px, overlap {tile.overlap_patches} patches"
    yield "scale", f"{tile.scale:.4g}"
    yield "fitted on", f"{len(bundle.notes.fit_images_sha256)} images"
    yield "left out", "; ".join(f"{name}: {reason}" for name, reason in bundle.notes.left_out) or "none"


def _outliers(bundle: Bundle, standing_out: Sequence[Compared]) -> Iterator[Markup]:
    """The images that stood out in the fit's cross-check."""
    notes = bundle.notes
    if notes.outliers is None:
        return
    yield heading("Nominal images that stand out", 2)
    if not notes.outliers:
        yield paragraph("Each image was held against all others; none stands out from them.")
        return
    yield paragraph(
        "Each image was held against all others, and these are far from them at some place. If one shows a defect, "
        "remove the file and fit again; a defect among nominal images hides others."
    )
    for line in thresholds_without(notes, bundle.require_thresholds()):
        yield paragraph(f"{line[0].upper()}{line[1:]}.")
    for index, outlier in enumerate(notes.outliers):
        caption = about(outlier, notes.fit_images_sha256)
        if index < min(len(standing_out), _MOST_SHOWN):
            yield figure(list(_where(standing_out[index], outlier)), caption, "small")
        else:
            yield paragraph(caption)


def _where(compared: Compared, outlier: NominalOutlier) -> Iterator[Markup]:
    """The whole image, glowing where it is farther from the others than the median image anywhere; the place itself."""
    pixels, anomaly_map = compared.image.read(), compared.anomaly_map()
    median = compared.score / outlier.times_median
    shown = heat(pixels, np.maximum(anomaly_map - median, 0), float(anomaly_map.max()) - median)
    side = max(_CLOSEUP_PX, round(_CLOSEUP_PART * max(pixels.shape[:2])))
    (x, y), (height, width) = outlier.peak_xy, pixels.shape[:2]
    top, left = (max(0, min(at - side // 2, most - side)) for at, most in ((y, height), (x, width)))
    yield _inline(shown)
    yield _inline(pixels[top : top + side, left : left + side])


def _examples(
    bundle: Bundle, held_out: Sequence[NominalImage], detectors: DetectorPool[OpenVinoDetector]
) -> Iterator[Markup]:
    score = np.asarray(bundle.notes.calibration.score[: len(held_out)])
    full_scale = bundle.require_thresholds().pixel
    for index in np.argsort(-score)[:_EXAMPLES]:
        image = held_out[index]
        pixels = image.read()
        shown = heat(pixels, detectors.of(FrameLayout(*image.size)).map_of(pixels), full_scale)
        yield figure([_inline(pixels), _inline(shown)], f"{image.path.name}, score {score[index]:.4g}", "small")


def _inline(pixels: Uint8) -> Markup:
    height, width = pixels.shape[:2]
    scale = min(1.0, _EXAMPLE_PX / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    return inline_jpeg(encoded.tobytes())
