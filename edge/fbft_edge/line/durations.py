"""A histogram of durations: quantiles over any length of time in fixed memory.

Knows nothing about what was measured.
"""

from __future__ import annotations

import math
from itertools import accumulate


class Durations:
    """Counts durations in equal bins; one thread adds, any thread reads.

    Args:
        bin_ns: Width of a bin, and so the resolution of a quantile.
        num_bins: Number of bins; longer durations are counted together above the last one.
    """

    def __init__(self, bin_ns: int, num_bins: int) -> None:
        self._bin_ns = bin_ns
        self._counts = [0] * (num_bins + 1)
        self._max_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration, at least 0."""
        self._counts[min(duration_ns // self._bin_ns, len(self._counts) - 1)] += 1
        self._max_ns = max(self._max_ns, duration_ns)

    @property
    def max_ms(self) -> float:
        """The longest duration, exactly; 0 when there was none."""
        return self._max_ns / 1e6

    @property
    def percentiles_ms(self) -> tuple[float, float, float]:
        """The 50th and the 99th percentile and the maximum."""
        return self.quantile_ms(0.5), self.quantile_ms(0.99), self.max_ms

    def quantile_ms(self, fraction: float) -> float:
        """The duration that `fraction` of all do not exceed, rounded up to whole bins; 0 when empty."""
        totals = list(accumulate(self._counts))
        rank = math.ceil(fraction * totals[-1])
        last_bin = len(totals) - 1
        index = next((index for index, total in enumerate(totals) if total >= rank > 0), last_bin)
        return self.max_ms if index == last_bin else min((index + 1) * self._bin_ns / 1e6, self.max_ms)
