"""Quantiles from the histogram agree with NumPy's, to within one bin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbft_edge.line.durations import Durations

BIN_NS = 1_000


def filled(values_ns: list[int], num_bins: int = 1000) -> Durations:
    durations = Durations(BIN_NS, num_bins)
    for value_ns in values_ns:
        durations.add(value_ns)
    return durations


@given(
    st.lists(st.integers(0, BIN_NS * 1000 - 1), min_size=1, max_size=50),
    st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0]),
)
def test_a_quantile_is_right_to_within_a_bin(values_ns: list[int], fraction: float) -> None:
    exact_ns = int(np.quantile(values_ns, fraction, method="inverted_cdf"))
    assert -1e-3 <= filled(values_ns).quantile_ms(fraction) * 1e6 - exact_ns <= BIN_NS + 1e-3


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_the_maximum_is_exact_beyond_the_last_bin_too(values_ns: list[int]) -> None:
    assert filled(values_ns, num_bins=10).max_ms == max(values_ns) / 1e6


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50), st.floats(0.01, 1.0))
def test_a_quantile_never_exceeds_the_maximum(values_ns: list[int], fraction: float) -> None:
    durations = filled(values_ns, num_bins=10)
    assert durations.quantile_ms(fraction) <= durations.max_ms


@pytest.mark.parametrize("fraction", [0.5, 0.99, 1.0])
def test_without_durations_every_quantile_is_zero(fraction: float) -> None:
    assert filled([]).quantile_ms(fraction) == 0.0


def test_without_durations_the_maximum_is_zero() -> None:
    assert filled([]).max_ms == 0.0


def test_a_quantile_beyond_the_last_bin_is_the_maximum() -> None:
    assert filled([5 * BIN_NS] * 9 + [10**9], num_bins=2).quantile_ms(0.5) == 1e3
