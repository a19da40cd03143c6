"""A range holds what it says."""

from __future__ import annotations

import math

import pytest

from fbft_edge.ranges import Range


@pytest.mark.parametrize(
    ("within", "words", "held", "beyond"),
    [
        (Range(0.01, 1000), "from 0.01 to 1000", [0.01, 1000], [0, 0.009, 1000.1, math.nan, math.inf]),
        (Range(0, 1e9, is_low_allowed=False), "above 0, up to 1000000000", [1e-9, 1e9], [0, -1, 1.1e9, math.nan]),
        (Range(2, 9, is_zero_allowed=True), "0, or from 2 to 9", [0, 2, 9], [-1, 1, 10, math.nan]),
    ],
)
def test_a_range_holds_what_it_says(within: Range, words: str, held: list[float], beyond: list[float]) -> None:
    found = str(within), [number for number in held + beyond if number in within]
    assert found == (words, held)


def test_what_lies_in_a_range_is_named_before_its_limits() -> None:
    assert Range(2, 9, is_zero_allowed=True).of("a whole number ") == "0, or a whole number from 2 to 9"
