"""Split-conformal thresholds: scores of held-out nominal images in, thresholds with a stated false-alarm rate out.

Knows nothing about how scores are made. The guarantee holds for frames exchangeable with the held-out images
(same camera, light and product), whatever the distribution of the scores.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.stats import beta

from fbft_calibration.fitting.scores import Float64, MeasuredScores
from fbft_edge.bundle.manifest import Thresholds
from fbft_edge.bundle.notes import NominalScores, Units
from fbft_edge.errors import ArgumentError

CONFIDENCE = 0.95
# What the parity gate lets an engine's map stray from float32 at bf16 (`fbft_export.parity.TOLERANCES`): a smaller
# rise is within what another machine's engine may make of the same bundle.
MOST_LARGER = 0.06


def conformal_thresholds(held_out: MeasuredScores, score_unit: float, peak_unit: float, rate: float) -> Thresholds:
    """Thresholds of score and peak that nominal frames exceed, either of them, at most at the rate asked for.

    The larger of score and peak, each in its own unit, is the one conformal statistic, so the rate holds for both
    together. The units must not depend on the held-out images. Outlines do not enter any rate: they say how far to
    draw what is flagged, which is to the mean of what 1 % of a nominal image's map exceeds, at the lowest.

    Args:
        held_out: Scores of nominal images that were not fitted on.
        score_unit: Median score of nominal images that were fitted on.
        peak_unit: Median peak of the same.
        rate: False-alarm rate, a fraction in (0, 1). Beyond what the number of images supports, the largest
            held-out value is used and `supported_rate` says what that is worth.

    Raises:
        ArgumentError: The rate is not a fraction.
    """
    if not 0 < rate < 1:
        raise ArgumentError(f"a false-alarm rate of {rate} is not a fraction between 0 and 1; try 0.01")
    statistic = np.maximum(held_out.score / score_unit, held_out.peak / peak_unit)
    num_images = len(statistic)
    rank = min(math.ceil((num_images + 1) * (1 - rate) - 1e-9), num_images)  # 200 * (1 - 0.835) is 33 and a bit
    quantile = float(np.sort(statistic)[rank - 1])
    kept = statistic <= quantile  # rounding must not push a kept image over its own threshold
    exceeding = num_images + 1 - rank
    return Thresholds(
        image=max(quantile * score_unit, float(held_out.score[kept].max())),
        pixel=max(quantile * peak_unit, float(held_out.peak[kept].max())),
        requested_rate=rate,
        supported_rate=exceeding / (num_images + 1),
        upper_rate=float(beta.ppf(CONFIDENCE, exceeding, rank)),
        num_images=num_images,
        outline=None if held_out.ordinary is None else float(held_out.ordinary.mean()),
    )


def thresholds_of(found: NominalScores, units: Units, rate: float) -> Thresholds:
    """`conformal_thresholds` from what a bundle notes of its held-out images."""
    score, peak, ordinary = (np.array(column, np.float64) for column in (found.score, found.peak, found.ordinary))
    return conformal_thresholds(MeasuredScores(score, peak, (), ordinary), units.score, units.peak, rate)


def peak_threshold(peaks: Float64, rate: float) -> float:
    """`conformal_thresholds` for a detector of which only the map counts.

    Args:
        peaks: (images,) float64, largest map values of nominal images that were not fitted on.
        rate: False-alarm rate, a fraction in (0, 1).
    """
    return conformal_thresholds(MeasuredScores(peaks, peaks), 1.0, 1.0, rate).pixel


def images_needed(rate: float) -> int:
    """Held-out nominal images from which thresholds can keep an expected false-alarm rate."""
    return math.ceil(1 / rate - 1e-9) - 1


def images_for_confidence(rate: float) -> int:
    """Held-out nominal images from which the true rate lies below `rate` with 95 % confidence."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-rate))


def worsened(before: Thresholds, after: Thresholds) -> list[str]:
    """In what new thresholds are worse than those before, one cause each; none when they are as good or better.

    They are worse when the expected false-alarm rate rises beyond what was asked for, and when a threshold rises by
    more than `MOST_LARGER`, as fewer defects are found then.
    """
    causes = []
    if after.supported_rate > max(before.supported_rate, after.requested_rate):
        causes.append(
            f"the expected false-alarm rate rises from {before.supported_rate:.2%} to {after.supported_rate:.2%}"
        )
    for name, old, new in (("image", before.image, after.image), ("pixel", before.pixel, after.pixel)):
        if new > old * (1 + MOST_LARGER):
            rise = f", by {new / old - 1:.0%}" if old > 0 else ""
            causes.append(f"the {name} threshold rises from {old:.4g} to {new:.4g}{rise}, and fewer defects are found")
    return causes


def explain(thresholds: Thresholds) -> list[str]:
    """The thresholds in words, one sentence a line; the first says what holds, the others what is missing."""
    rate, count = thresholds.requested_rate, thresholds.num_images
    lines = [
        f"image threshold {thresholds.image:.4g}, pixel threshold {thresholds.pixel:.4g}, from {count} held-out "
        f"nominal images: expected false-alarm rate {thresholds.supported_rate:.2%}, "
        f"below {thresholds.upper_rate:.2%} with 95 % confidence"
    ]
    if count < images_needed(rate):
        lines.append(
            f"{count} images cannot support the {rate:.2%} asked for: at least {images_needed(rate)} are needed, "
            f"{images_needed(rate) - count} more; until then thresholds stand at the largest nominal value"
        )
    if thresholds.upper_rate > rate and count < images_for_confidence(rate):
        lines.append(f"to be 95 % sure of {rate:.2%} takes {images_for_confidence(rate)} clean held-out images")
    elif thresholds.upper_rate > rate:
        lines.append(f"{rate:.2%} is what to expect on average; to be 95 % sure of it, ask for a lower rate")
    return lines
