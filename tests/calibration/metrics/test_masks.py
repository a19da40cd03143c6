"""IoU, Dice and boundary F-score of masks, beside scikit-learn's and worked examples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from sklearn.metrics import f1_score, jaccard_score

from fbft_calibration.metrics.masks import BOUNDARY_TOLERANCE, mask_fit
from fbft_edge.frames.frame import Bool

MASKS = arrays(np.bool_, (13, 17))


def square(side: int, top: int = 40, left: int = 40, canvas: int = 200) -> Bool:
    mask = np.zeros((canvas, canvas), np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


@given(found=MASKS, truth=MASKS)
def test_iou_and_dice_equal_scikit_learns(found: Bool, truth: Bool) -> None:
    fit = mask_fit(found, truth)
    assert fit.iou == pytest.approx(jaccard_score(truth.ravel(), found.ravel(), zero_division=1))
    assert fit.dice == pytest.approx(f1_score(truth.ravel(), found.ravel(), zero_division=1))


@given(found=MASKS, truth=MASKS)
def test_figures_are_fractions_and_neither_mask_is_preferred(found: Bool, truth: Bool) -> None:
    fit, turned = mask_fit(found, truth), mask_fit(truth, found)
    assert 0 <= fit.boundary_f <= 1
    assert fit.boundary_f == pytest.approx(turned.boundary_f)


@given(mask=MASKS)
def test_a_mask_fits_itself(mask: Bool) -> None:
    fit = mask_fit(mask, mask)
    assert (fit.iou, fit.dice, fit.boundary_f) == (1, 1, 1)


def test_outlines_within_the_tolerance_agree_and_beyond_it_do_not() -> None:
    tolerance_px = BOUNDARY_TOLERANCE * np.hypot(200, 200)  # 2.1
    assert mask_fit(square(60), square(60, top=42)).boundary_f == 1
    assert tolerance_px < 6
    assert mask_fit(square(60), square(60, top=46, left=46)).boundary_f < 0.2


def test_a_hole_costs_boundary_though_hardly_any_area() -> None:
    truth, found = square(100), square(100)
    found[85:95, 85:95] = False
    fit = mask_fit(found, truth)
    assert fit.iou > 0.98
    assert fit.boundary_f < 0.97


def test_one_empty_mask_scores_nothing() -> None:
    fit = mask_fit(np.zeros((200, 200), np.bool_), square(20))
    assert (fit.iou, fit.dice, fit.boundary_f) == (0, 0, 0)
