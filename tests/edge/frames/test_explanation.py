"""What a verdict says of itself is true: only what exceeds a threshold is called above it."""

from __future__ import annotations

import pytest

from fbft_edge.frames.explanation import explained


@pytest.mark.parametrize(
    ("decided_by", "text"),
    [
        ("image", "score 0.1498 above 0.1046"),
        ("pixel", "peak 0.2103 above 0.1846 at (412, 733)"),
        ("both", "score 0.1498 above 0.1046 and peak 0.2103 above 0.1846 at (412, 733)"),
        (None, "score 0.1498 above 0.1046, peak 0.2103 above 0.1846 at (412, 733)"),
    ],
)
def test_a_verdict_is_explained_by_the_threshold_that_decided(decided_by: str | None, text: str) -> None:
    assert explained(0.1498, 0.1046, 0.2103, 0.1846, (412, 733), decided_by) == text  # type: ignore[arg-type]


def test_what_an_older_publisher_does_not_tell_is_not_said() -> None:
    assert explained(0.1498, 0.1846) == "score 0.1498 against 0.1846"


def test_nothing_is_called_above_what_it_does_not_exceed_whatever_is_said_to_have_decided() -> None:
    assert explained(0.1, 0.2, 0.3, 0.4, None, "both") == "score 0.1 against 0.2 and peak 0.3 against 0.4"


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (0.18460001, "score 0.18460001 above 0.1846"),
        (0.1846, "score 0.1846 against 0.1846"),
        (0.18459999999999996, "score 0.18459999999999996 against 0.18459999999999999"),
    ],
)
def test_numbers_that_differ_are_seen_to_differ(score: float, text: str) -> None:
    assert explained(score, 0.1846) == text
