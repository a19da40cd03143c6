"""How large frames are made before they are cut into tiles."""

from __future__ import annotations

import pytest

from fbft_calibration.fitting.geometry import scale_factor
from fbft_edge.errors import ArgumentError


@pytest.mark.parametrize(
    ("scale", "size", "expected"),
    [("1", (140, 182), 1), ("0.5", (140, 182), 0.5), ("518px", (1036, 700), 0.5), ("518px", (100, 259), 2)],
)
def test_a_scale_is_a_factor_or_the_length_of_the_longer_side(
    scale: str, size: tuple[int, int], expected: float
) -> None:
    assert scale_factor(scale, *size) == pytest.approx(expected)


@pytest.mark.parametrize(
    "scale", ["", "px", "0", "-1", "nan", "inf", "0px", "-5px", "5", "10000px", "518 pixels", "1,5"]
)
def test_a_scale_that_is_neither_is_refused(scale: str) -> None:
    with pytest.raises(ArgumentError, match="--scale"):
        scale_factor(scale, 140, 182)
