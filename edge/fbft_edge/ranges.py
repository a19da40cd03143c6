"""Ranges of settings, each stated once: a number in, whether it lies within out, and the range in words.

Knows nothing about where a setting stands: in a configuration, on a command line, in a class.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from `low` to `high`; as text it says so, such as `from 0.01 to 1000`.

    Attributes:
        low: The least number.
        high: The largest number.
        is_low_allowed: False: numbers above `low`.
        is_zero_allowed: True: 0 as well, which switches something off.
    """

    low: float
    high: float
    is_low_allowed: bool = True
    is_zero_allowed: bool = False

    def __contains__(self, value: float) -> bool:
        if value == self.low and not self.is_low_allowed:
            return False
        return self.low <= value <= self.high or (self.is_zero_allowed and value == 0)

    def __str__(self) -> str:
        return self.of("")

    def of(self, what: str) -> str:
        """The range in words, with what lies in it, such as `a whole number `, before them."""
        limits = f"from {self.low:.12g} to" if self.is_low_allowed else f"above {self.low:.12g}, up to"
        return f"{'0, or ' if self.is_zero_allowed else ''}{what}{limits} {self.high:.12g}"


FPS = Range(0.01, 1000)
DURATION_S = Range(0, 1e9, is_low_allowed=False)
AGE_S = Range(0, 86400)  # of `late_after_s` and `stale_after_s`
ENGINE_TIMEOUT_S = Range(0.01, 3600)
TRIGGER_TIMEOUT_S = Range(0.001, 3600)
FROZEN_AFTER = Range(2, 10**6, is_zero_allowed=True)
LATENCY_S = Range(0, 60)
LEVEL = Range(0, 255)  # of `black_below` and `white_above`
RECORDINGS_GIB = Range(0, 1e6, is_low_allowed=False)
RECORDINGS_DAYS = Range(0, 1e5)
NOMINAL_EVERY = Range(0, 10**9)
DRIFT_WINDOW = Range(20, 10_000)
