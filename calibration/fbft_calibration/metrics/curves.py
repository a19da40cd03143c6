"""Figures from histograms over rising scores, each with a bound on what the histogram may have cost.

A histogram forgets the order of the scores within a bin. Every figure here treats them as tied, which is exact where
they are; elsewhere the exact figure lies within `error` of `value`, because no order within the bins leads further.
Knows nothing about images or components.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PAPER_THRESHOLDS = 99

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class Bounded(NamedTuple):
    """A figure, and the most by which the exact one can differ from it."""

    value: float
    error: float


def auroc(negative: Int64, positive: Int64) -> Bounded | None:
    """Area under the ROC curve; ties count half.

    Args:
        negative: (bins,) int64, how many negatives have a score in each bin, scores rising.
        positive: (bins,) int64, likewise.

    Returns:
        None without negatives or without positives.
    """
    pairs = float(negative.sum()) * float(positive.sum())
    if not pairs:
        return None
    below = np.cumsum(negative) - negative
    tied = float((positive.astype(np.float64) * negative).sum()) / 2
    return Bounded((float((positive.astype(np.float64) * below).sum()) + tied) / pairs, tied / pairs)


def average_precision(negative: Int64, positive: Int64) -> Bounded | None:
    """Precision, averaged over the positives, each at its own score as the threshold (no interpolation).

    Args:
        negative: (bins,) int64, scores rising.
        positive: (bins,) int64, likewise.
    """
    if not positive.sum() or not negative.sum():
        return None
    false, true, false_within, true_within = _counts_from_the_top(negative, positive)
    recall = true_within / true[-1]
    precision = true / (true + false)
    best = true / (true + false - false_within)
    worst = (true - true_within + 1) / (true - true_within + 1 + false)
    spread = np.maximum(best - precision, precision - worst) * (false_within > 0)
    return Bounded(float((recall * precision).sum()), float((recall * spread).sum()))


def f1_max(negative: Int64, positive: Int64) -> Bounded | None:
    """Largest F1 score that any threshold gives.

    Args:
        negative: (bins,) int64, scores rising.
        positive: (bins,) int64, likewise.
    """
    if not positive.sum() or not negative.sum():
        return None
    false, true, false_within, _ = _counts_from_the_top(negative, positive)
    value = float((2 * true / (true + false + true[-1])).max())
    return Bounded(value, float((2 * true / (true + false - false_within + true[-1])).max()) - value)


def _counts_from_the_top(negative: Int64, positive: Int64) -> tuple[Float64, Float64, Float64, Float64]:
    """False and true positives when each bin that holds a positive is the last above the threshold.

    Returns:
        Four (bins with positives,) float64 arrays, scores falling: false positives, true positives, and how many of
        each lie within the bin itself.
    """
    holds = positive[::-1] > 0
    false_within, true_within = negative[::-1].astype(np.float64), positive[::-1].astype(np.float64)
    counts = (np.cumsum(false_within), np.cumsum(true_within), false_within, true_within)
    return counts[0][holds], counts[1][holds], counts[2][holds], counts[3][holds]


class OverlapCurve:
    """Mean overlap of components (PRO) over the false-positive rate; AUPRO is the area below it.

    Args:
        nominal: (bins,) int64, how many nominal pixels have a score in each bin, scores rising.
        overlap: (bins,) float64, the share of a component's pixels in each bin, averaged over components; sums to 1.
    """

    def __init__(self, nominal: Int64, overlap: Float64) -> None:
        holds = np.flatnonzero((nominal > 0) | (overlap > 0))
        self._nominal, self._overlap = np.cumsum(nominal[holds]), overlap[holds]
        fpr = np.cumsum(nominal[holds][::-1]) / self._nominal[-1]
        self._fpr = np.concatenate(([0.0], fpr))
        self._pro = np.concatenate(([0.0], np.cumsum(self._overlap[::-1])))

    def aupro(self, limit: float) -> Bounded:
        """Area up to a false-positive rate, over that rate; every distinct score is a threshold.

        Args:
            limit: In (0, 1].
        """
        width, rise = np.diff(self._fpr), np.diff(self._pro)
        within = np.maximum(np.minimum(self._fpr[1:], limit) - self._fpr[:-1], 0)
        # Inside the box of a bin the exact curve leaves the diagonal by half the box at most; cut off, by all of it.
        error = (within * rise * np.where(within < width, 1, 0.5)).sum() / limit
        return Bounded(area_below(self._fpr, self._pro, limit) / limit, float(error))

    def paper_aupro(self, limit: float) -> Bounded:
        """The same from 99 thresholds at equidistant ranks of the nominal scores and the point (1, 1).

        This is what the paper's numbers were computed with. At small limits few of the thresholds lie below the
        limit, at 1 % a single one, and the straight lines between them may pass above or below the curve.
        """
        count = int(self._nominal[-1])
        ranks = np.arange(PAPER_THRESHOLDS, dtype=np.int64)[::-1] * (count - 1) // (PAPER_THRESHOLDS - 1)
        bins = np.searchsorted(self._nominal, ranks, side="right")
        fpr = np.append(1 - (ranks + 1) / count, 1.0)
        above = self._pro[::-1][bins + 1]
        pro = np.append(above, 1.0)
        most = np.append(above + self._overlap[bins], 1.0)
        area = area_below(fpr, pro, limit)
        return Bounded(area / limit, (area_below(fpr, most, limit) - area) / limit)


def area_below(x: Float64, y: Float64, limit: float) -> float:
    """Area below straight lines through points of rising x, from the first point to x = limit."""
    inside = int(np.searchsorted(x, limit, side="right"))
    x_cut, y_cut = x[:inside], y[:inside]
    if inside < len(x) and x_cut[-1] < limit:
        share = (limit - x[inside - 1]) / (x[inside] - x[inside - 1])
        x_cut = np.append(x_cut, limit)
        y_cut = np.append(y_cut, y[inside - 1] + share * (y[inside] - y[inside - 1]))
    return float((np.diff(x_cut) * (y_cut[1:] + y_cut[:-1])).sum() / 2)
