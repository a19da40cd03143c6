"""Scores of a cross-check in, which images stand out, and in words what that means for the thresholds, out.

Names, and removes nothing: an image may be unusual and good. Knows nothing about how the scores were made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from fbft_calibration.fitting.cross_check import Compared
from fbft_calibration.fitting.scores import Float64, without
from fbft_calibration.fitting.thresholds import MOST_LARGER, thresholds_of
from fbft_edge.bundle.manifest import Thresholds
from fbft_edge.bundle.notes import NominalOutlier, Notes
from fbft_edge.frames.frame import Bool

# The modified z-score above which Iglewicz and Hoaglin (How to Detect and Handle Outliers, ASQC 1993) call a value an
# outlier; of logarithms here, as scores are above 0 and skewed.
_STANDS_OUT = 3.5
_DEVIATION_OF_MAD = 1.4826  # standard deviation over median absolute deviation, of a normal distribution
_TINY = 1e-12


def stand_out(score: Float64) -> Bool:
    """Which scores lie far above the others: (images,) float64 in, (images,) bool out.

    The logarithm lies more than 3.5 robust standard deviations above the median, and the score more than 6 % above it.
    """
    logs = np.log(np.maximum(score, _TINY))
    above = logs - np.median(logs)
    deviation = _DEVIATION_OF_MAD * float(np.median(np.abs(above)))
    return np.asarray(above > max(_STANDS_OUT * deviation, np.log1p(MOST_LARGER)))


def outliers_of(compared: Sequence[Compared]) -> list[tuple[NominalOutlier, Compared]]:
    """The images that stand out, the farthest first, and what a bundle notes of each."""
    score = np.array([each.score for each in compared])
    times = score / max(float(np.median(score)), _TINY)
    chosen = [index for index in np.argsort(-score, kind="stable") if stand_out(score)[index]]
    return [(_noted(compared[index], float(times[index])), compared[index]) for index in chosen]


def about(outlier: NominalOutlier, fitted: Iterable[str]) -> str:
    """One of them, in words; `fitted` are the SHA-256 of the images that were fitted on."""
    x, y = outlier.peak_xy
    return (
        f"{outlier.name}: {outlier.times_median:.2f} times as far from the others as the median image, farthest at "
        f"x {x}, y {y} ({'fitted on' if outlier.pixels_sha256 in fitted else 'held out'})"
    )


def thresholds_without(notes: Notes, thresholds: Thresholds) -> list[str]:
    """What the thresholds would be without the images that stand out, one sentence a line; none where none does."""
    named = {outlier.pixels_sha256 for outlier in notes.outliers or ()}
    kept, lines = without(notes.calibration, named), []
    held_out = len(notes.calibration.score) - len(kept.score)
    if held_out and kept.score and notes.units is not None:
        found = thresholds_of(kept, notes.units, thresholds.requested_rate)
        lines.append(
            f"without the {held_out} held-out of them the image threshold would be {found.image:.4g} instead of "
            f"{thresholds.image:.4g}, the pixel threshold {found.pixel:.4g} instead of {thresholds.pixel:.4g}, from "
            f"{found.num_images} images: expected false-alarm rate {found.supported_rate:.2%}"
        )
    elif held_out:
        lines.append("every held-out image is among them: only a new fit tells what the thresholds would be")
    if fitted := len(named.intersection(notes.fit_images_sha256)):
        lines.append(
            f"students and prototypes have seen the {fitted} fitted of them: only a new fit tells what the thresholds "
            "would be without"
        )
    return lines


def _noted(compared: Compared, times: float) -> NominalOutlier:
    image = compared.image
    return NominalOutlier(image.path.name, image.pixels_sha256, times, compared.peak_xy)
