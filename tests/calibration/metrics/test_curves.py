"""Figures from histograms are those of scikit-learn and of the definition, and their error bounds hold."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from fbft_calibration.metrics.curves import Bounded, OverlapCurve, area_below, auroc, average_precision, f1_max

LIMITS = (1.0, 0.3, 0.1, 0.05, 0.01)
Figure = Callable[[np.ndarray, np.ndarray], "Bounded | None"]


def sklearn_f1_max(labels: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(labels, scores)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-300)).max())


FIGURES = {auroc: roc_auc_score, average_precision: average_precision_score, f1_max: sklearn_f1_max}


def exactly(figure: Figure, labels: np.ndarray, scores: np.ndarray) -> float:
    """A figure with a bin for every distinct score."""
    levels, bins = np.unique(scores, return_inverse=True)
    found = figure(*(np.bincount(bins[labels == label], minlength=len(levels)) for label in (0, 1)))
    assert found is not None
    return found.value


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
@pytest.mark.parametrize("levels", [2, 7, 100, 10**9], ids=lambda levels: f"{levels} levels")
@pytest.mark.parametrize("seed", range(5))
def test_figures_are_those_of_scikit_learn(figure: Figure, levels: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    labels = (generator.random(400) < 0.1 + 0.2 * seed).astype(int)
    scores = np.round((generator.random(400) + 0.3 * labels) * levels)
    assert exactly(figure, labels, scores) == pytest.approx(FIGURES[figure](labels, scores), abs=1e-12)


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
@pytest.mark.parametrize("counts", [([0, 0], [1, 2]), ([1, 2], [0, 0]), ([], [])])
def test_there_is_no_figure_without_both_kinds(figure: Figure, counts: tuple[list[int], list[int]]) -> None:
    negative, positive = (np.array(count, np.int64) for count in counts)
    assert figure(negative, positive) is None


@st.composite
def binned(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    """Negative and positive counts over 48 scores, and how many neighbouring scores one bin joins."""
    counts = st.lists(st.integers(0, 4), min_size=48, max_size=48)
    negative, positive = np.array(draw(counts)), np.array(draw(counts))
    negative[draw(st.integers(0, 47))] += 1
    positive[draw(st.integers(0, 47))] += 1
    return negative, positive, draw(st.sampled_from([1, 2, 3, 8, 16, 48]))


def joined(counts: np.ndarray, width: int) -> np.ndarray:
    return counts.reshape(-1, width).sum(axis=1)


@given(binned())
@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
def test_joining_scores_into_bins_costs_at_most_the_stated_error(
    figure: Figure, case: tuple[np.ndarray, np.ndarray, int]
) -> None:
    negative, positive, width = case
    exact, coarse = figure(negative, positive), figure(joined(negative, width), joined(positive, width))
    assert exact is not None
    assert coarse is not None
    assert abs(exact.value - coarse.value) <= coarse.error + 1e-12


@given(binned(), st.sampled_from(LIMITS))
@pytest.mark.parametrize("version", ["aupro", "paper_aupro"])
def test_joining_scores_into_bins_costs_aupro_at_most_the_stated_error(
    version: str, case: tuple[np.ndarray, np.ndarray, int], limit: float
) -> None:
    negative, positive, width = case
    share = positive / positive.sum()
    exact = getattr(OverlapCurve(negative, share), version)(limit)
    coarse = getattr(OverlapCurve(joined(negative, width), joined(share, width)), version)(limit)
    assert abs(exact.value - coarse.value) <= coarse.error + 1e-12


@pytest.mark.parametrize("figure", [auroc, average_precision, f1_max], ids=lambda figure: figure.__name__)
def test_bins_of_one_kind_only_cost_nothing(figure: Figure) -> None:
    found = figure(np.array([5, 0, 3, 0]), np.array([0, 2, 0, 4]))
    assert found is not None
    assert found.error == 0


@given(binned())
def test_aupro_of_one_component_up_to_a_limit_of_one_is_its_auroc(case: tuple[np.ndarray, np.ndarray, int]) -> None:
    negative, positive, _ = case
    expected = auroc(negative, positive)
    assert expected is not None
    assert OverlapCurve(negative, positive / positive.sum()).aupro(1.0).value == pytest.approx(expected.value)


@pytest.mark.parametrize("version", ["aupro", "paper_aupro"])
@pytest.mark.parametrize("limit", LIMITS)
def test_aupro_of_a_perfect_map_is_one(version: str, limit: float) -> None:
    curve = OverlapCurve(np.array([900, 100, 0]), np.array([0.0, 0.0, 1.0]))
    assert getattr(curve, version)(limit).value == pytest.approx(1)


@pytest.mark.parametrize("limit", LIMITS)
def test_aupro_of_a_map_without_contrast_is_half_the_limit(limit: float) -> None:
    assert OverlapCurve(np.array([0, 700, 0]), np.array([0.0, 1.0, 0.0])).aupro(limit).value == pytest.approx(limit / 2)


def test_the_papers_thresholds_are_too_few_to_see_below_one_percent() -> None:
    nominal = np.ones(100_000, np.int64)
    overlap = np.zeros(100_000)
    overlap[-500:] = 1 / 500  # all of the component above 0.5 % of the nominal pixels
    curve = OverlapCurve(nominal, overlap)
    assert (round(curve.aupro(0.01).value, 3), round(curve.paper_aupro(0.01).value, 3)) == (0.75, 0.49)


@pytest.mark.parametrize(
    ("limit", "expected"), [(0.5, 0.125), (0.75, 0.28125), (1.0, 0.5), (2.0, 0.5)], ids=lambda value: str(value)
)
def test_the_area_ends_at_the_limit(limit: float, expected: float) -> None:
    assert area_below(np.array([0.0, 0.25, 1.0]), np.array([0.0, 0.25, 1.0]), limit) == pytest.approx(expected)


def test_a_step_at_the_limit_adds_no_area() -> None:
    assert area_below(np.array([0.0, 0.5, 0.5, 1.0]), np.array([1.0, 1.0, 3.0, 3.0]), 0.5) == 0.5
