"""Nominal images and a bundle's own engine in; their scores, beside earlier ones, and what the pictures are like out.

Knows nothing about thresholds.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from fbft_calibration.data.nominal import NominalImage
from fbft_edge.bundle.nominal_statistics import COLOUR
from fbft_edge.bundle.notes import NominalScores
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.judge import image_score
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.frames.frame import Float32
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.frames.statistics import black_and_white, has_colour, picture_statistics
from fbft_edge.progress import SILENT, Progress

_ORDINARY_FRACTION = 0.01
_SAMPLE_STRIDE = 4

Float64 = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class MeasuredScores:
    """What the detector says about nominal images.

    Attributes:
        score: (images,) float64 image scores.
        peak: (images,) float64 largest map values.
        pictures: What the same images are like as a whole: what `picture_statistics` and `black_and_white` say, and
            whether they have colour.
        ordinary: (images,) float64, what 1 % of an image's map exceeds; None where outlines are not asked for.
    """

    score: Float64
    peak: Float64
    pictures: tuple[dict[str, float], ...] = ()
    ordinary: Float64 | None = None


def measure_scores(
    detectors: DetectorPool[OpenVinoDetector],
    images: Sequence[NominalImage],
    progress: Progress = SILENT,
    what: str = "scoring held-out images",
) -> MeasuredScores:
    """Score images with the engine that will run on the line.

    Args:
        detectors: Of the bundle.
        images: At least one.
        progress: Shown how far it is.
        what: Names the work.
    """
    values, pictures = [], []
    for image in progress.track(images, what):
        pixels = image.read()
        anomaly_map: Float32 = detectors.of(FrameLayout(*image.size)).map_of(pixels)
        values.append((image_score(anomaly_map), float(anomaly_map.max()), _ordinary(anomaly_map)))
        pictures.append(picture_statistics(pixels) | black_and_white(pixels) | {COLOUR: float(has_colour(pixels))})
    score, peak, ordinary = np.array(values, np.float64).T
    return MeasuredScores(score, peak, tuple(pictures), ordinary)


def scores_of(images: Sequence[NominalImage], measured: MeasuredScores) -> NominalScores:
    """What a bundle keeps of held-out images.

    Args:
        images: That were measured.
        measured: From `measure_scores`.
    """
    return NominalScores(
        score=tuple(measured.score.tolist()),
        peak=tuple(measured.peak.tolist()),
        ordinary=() if measured.ordinary is None else tuple(measured.ordinary.tolist()),
        images_sha256=tuple(image.pixels_sha256 for image in images),
    )


def joined(found: NominalScores, earlier: NominalScores) -> NominalScores:
    """New scores, then the earlier ones of other images; both say of which image each is."""
    known = set(found.images_sha256)
    kept = [index for index, sha256 in enumerate(earlier.images_sha256) if sha256 not in known]
    return NominalScores(
        score=found.score + tuple(earlier.score[index] for index in kept),
        peak=found.peak + tuple(earlier.peak[index] for index in kept),
        ordinary=found.ordinary + tuple(earlier.ordinary[index] for index in kept),
        images_sha256=found.images_sha256 + tuple(earlier.images_sha256[index] for index in kept),
    )


def without(found: NominalScores, images_sha256: Collection[str]) -> NominalScores:
    """The scores of the other images, where it is known of which image each is."""
    kept = [index for index, sha256 in enumerate(found.images_sha256) if sha256 not in images_sha256]
    if not found.can_be_added_to:
        return found
    return NominalScores(
        score=tuple(found.score[index] for index in kept),
        peak=tuple(found.peak[index] for index in kept),
        ordinary=tuple(found.ordinary[index] for index in kept),
        images_sha256=tuple(found.images_sha256[index] for index in kept),
    )


def _ordinary(anomaly_map: Float32) -> float:
    """What 1 % of a map exceeds, from every fourth pixel of every fourth row; maps are smooth."""
    return float(np.quantile(anomaly_map[::_SAMPLE_STRIDE, ::_SAMPLE_STRIDE], 1 - _ORDINARY_FRACTION))
