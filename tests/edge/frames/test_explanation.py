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
        (None, "score 0.1498 against 0.1046, peak 0.2103 against 0.1846 at (412, 733)"),
    ],
)
def test_a_verdict_is_explained_by_the_threshold_that_decided(decided_by: str | None, text: str) -> None:
    assert explained(0.1498, 0.1046, 0.2103, 0.1846, (412, 733), decided_by) == text  # type: ignore[arg-type]


def test_what_an_older_publisher_does_not_tell_is_not_said() -> None:
    assert explained(0.1498, 0.1846) == "score 0.1498 against 0.1846"
