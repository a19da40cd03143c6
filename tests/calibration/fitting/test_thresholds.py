"""Thresholds keep the false-alarm rate that they state, and state what they cannot keep."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fbft_calibration.fitting.scores import MeasuredScores
from fbft_calibration.fitting.thresholds import (
    conformal_thresholds,
    explain,
    images_for_confidence,
    images_needed,
    worsened,
)
from fbft_edge.bundle.reading import Thresholds
from fbft_edge.errors import ArgumentError

RATES = st.integers(1, 999).map(lambda share: share / 1000)
SCORES = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(0.0625, 4, width=32))


def draws(generator: np.random.Generator, count: int) -> MeasuredScores:
    """Skewed, heavy-tailed scores with peaks that go along with them only partly."""
    score = generator.lognormal(0, 0.8, count)
    return MeasuredScores(score, score * generator.lognormal(0, 0.3, count) + 1)


def alarms(held: MeasuredScores, thresholds: Thresholds) -> np.ndarray:
    return (held.score > thresholds.image) | (held.peak > thresholds.pixel)


@pytest.mark.parametrize(("num_images", "rate"), [(19, 0.05), (99, 0.01), (60, 0.05), (37, 0.1), (8, 0.01)])
def test_score_and_peak_together_keep_the_stated_rate(num_images: int, rate: float) -> None:
    generator = np.random.default_rng(num_images)
    repetitions = [
        (conformal_thresholds(draws(generator, num_images), 1.0, 2.3, rate), draws(generator, 200)) for _ in range(1500)
    ]
    rates = [alarms(fresh, thresholds).mean() for thresholds, fresh in repetitions]
    stated = repetitions[0][0].supported_rate
    assert np.mean(rates) <= stated + 3 * np.std(rates) / math.sqrt(len(rates))


def test_the_true_rate_lies_below_the_upper_rate_in_95_of_100_calibrations() -> None:
    generator = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        uniform = generator.random(59)
        thresholds = conformal_thresholds(MeasuredScores(uniform, uniform), 1.0, 1.0, 0.05)
        held.append(1 - thresholds.image <= thresholds.upper_rate)
    assert np.mean(held) == pytest.approx(0.95, abs=3 * math.sqrt(0.05 * 0.95 / 2000))


@given(RATES, st.integers(1, 400))
@example(0.835, 199)
def test_the_stated_rate_is_the_best_that_the_images_support(rate: float, num_images: int) -> None:
    values = np.arange(1.0, num_images + 1)
    stated = conformal_thresholds(MeasuredScores(values, values), 1.0, 1.0, rate).supported_rate
    exceeding = max(1, math.floor(Fraction(str(rate)) * (num_images + 1)))
    assert stated == pytest.approx(exceeding / (num_images + 1))


@given(SCORES, st.floats(0.1, 3), st.floats(0.1, 3), RATES)
def test_no_more_held_out_images_alarm_than_the_stated_rate_allows(
    values: np.ndarray, score_unit: float, peak_unit: float, rate: float
) -> None:
    held = MeasuredScores(values.astype(np.float64), np.sqrt(values).astype(np.float64))
    thresholds = conformal_thresholds(held, score_unit, peak_unit, rate)
    allowed = round(thresholds.supported_rate * (len(values) + 1)) - 1
    assert alarms(held, thresholds).sum() <= allowed


@given(SCORES, RATES)
def test_a_smaller_rate_never_gives_a_smaller_threshold(values: np.ndarray, rate: float) -> None:
    held = MeasuredScores(values.astype(np.float64), values.astype(np.float64))
    loose, tight = (conformal_thresholds(held, 1.0, 1.0, share) for share in (rate, rate / 2))
    assert (tight.image >= loose.image, tight.pixel >= loose.pixel) == (True, True)


@given(st.permutations(range(20)))
def test_the_order_of_the_images_does_not_matter(order: list[int]) -> None:
    held = draws(np.random.default_rng(0), 20)
    shuffled = MeasuredScores(held.score[order], held.peak[order])
    assert conformal_thresholds(shuffled, 1.0, 2.0, 0.1) == conformal_thresholds(held, 1.0, 2.0, 0.1)


@pytest.mark.parametrize("num_images", [1, 2, 8, 98])
def test_too_few_images_support_one_in_one_more_than_they_are(num_images: int) -> None:
    held = draws(np.random.default_rng(0), num_images)
    assert conformal_thresholds(held, 1.0, 2.0, 0.01).supported_rate == 1 / (num_images + 1)


@pytest.mark.parametrize("num_images", [1, 8, 50])
def test_the_upper_rate_of_the_largest_value_is_the_closed_form(num_images: int) -> None:
    held = draws(np.random.default_rng(0), num_images)
    upper_rate = conformal_thresholds(held, 1.0, 2.0, 1e-3).upper_rate
    assert upper_rate == pytest.approx(1 - 0.05 ** (1 / num_images), rel=1e-9)


@pytest.mark.parametrize(("num_images", "missing"), [(8, "91 more"), (98, "1 more")])
def test_too_few_images_are_told_how_many_more(num_images: int, missing: str) -> None:
    held = draws(np.random.default_rng(0), num_images)
    assert missing in " ".join(explain(conformal_thresholds(held, 1.0, 2.0, 0.01)))


@pytest.mark.parametrize("num_images", [299, 400, 1000])
def test_nobody_is_asked_for_as_many_images_as_are_there(num_images: int) -> None:
    held = draws(np.random.default_rng(0), num_images)
    text = " ".join(explain(conformal_thresholds(held, 1.0, 2.0, 0.01))[1:])
    assert [count for count in re.findall(r"takes (\d+)", text) if int(count) <= num_images] == []


def test_ties_are_nominal() -> None:
    flat = MeasuredScores(np.full(30, 0.5), np.full(30, 0.7))
    assert not alarms(flat, conformal_thresholds(flat, 0.5, 0.7, 0.3)).any()


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 1.5, float("nan"), float("inf")])
def test_a_rate_that_is_no_fraction_is_refused(rate: float) -> None:
    with pytest.raises(ArgumentError, match="false-alarm rate"):
        conformal_thresholds(draws(np.random.default_rng(0), 9), 1.0, 2.0, rate)


@pytest.mark.parametrize(
    ("rate", "expected"), [(0.5, 1), (0.1, 9), (0.05, 19), (0.01, 99), (0.001, 999), (0.3, 3), (0.0001, 9999)]
)
def test_images_needed(rate: float, expected: int) -> None:
    assert images_needed(rate) == expected


@given(RATES)
def test_with_the_images_needed_the_rate_is_kept_and_with_one_less_it_is_not(rate: float) -> None:
    count = images_needed(rate)
    assert Fraction(1, count + 1) <= Fraction(str(rate)) < Fraction(1, max(count, 1)) or count == 1


@pytest.mark.parametrize(("rate", "expected"), [(0.05, 59), (0.01, 299), (0.001, 2995)])
def test_images_for_confidence(rate: float, expected: int) -> None:
    assert images_for_confidence(rate) == expected


@given(RATES)
def test_with_the_images_for_confidence_the_upper_rate_is_below_the_rate(rate: float) -> None:
    count = images_for_confidence(rate)
    assert 1 - 0.05 ** (1 / count) <= rate * (1 + 1e-9)


# Better or worse


def found(image: float, pixel: float, supported: float, requested: float = 0.01) -> Thresholds:
    return Thresholds(image, pixel, requested, supported, 0.2, 30)


@pytest.mark.parametrize(
    ("after", "causes"),
    [
        (found(1.0, 2.0, 0.026), []),
        (found(0.5, 1.0, 0.01), []),
        (found(1.06, 2.12, 0.026), []),
        (found(1.07, 2.0, 0.026), ["image threshold rises from 1 to 1.07, by 7%"]),
        (found(1.0, 2.2, 0.026), ["pixel threshold rises from 2 to 2.2, by 10%"]),
        (found(1.0, 2.0, 0.091), ["false-alarm rate rises from 2.60% to 9.10%"]),
        (found(0.9, 1.8, 0.091, requested=0.1), []),
        (found(3.0, 4.0, 0.091), ["false-alarm rate", "image threshold", "pixel threshold"]),
    ],
)
def test_more_false_alarms_than_asked_for_and_higher_thresholds_are_worse(after: Thresholds, causes: list[str]) -> None:
    said = worsened(found(1.0, 2.0, 0.026), after)
    assert [cause in line for cause, line in zip(causes, said, strict=True)] == [True] * len(causes)


def test_a_threshold_of_nothing_may_rise_only_as_a_worse_one() -> None:
    assert len(worsened(found(0.0, 0.0, 0.026), found(0.1, 0.1, 0.026))) == 2
