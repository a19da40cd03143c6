"""A source's own timestamps in, dates on the session clock out.

A picture that was held up on its way keeps its date. Knows nothing about cameras.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from fbft_edge.clock import now_ns, session_ns

# A source's crystal and ours differ by less than this share; the smallest delay is let grow by it, so that a clock that
# runs slow is followed, and a queue that grows is not mistaken for one.
DRIFT = 500e-6
# Pictures that a codec sends out of order go back by less; a counter that starts again goes back by more.
RESET_NS = 2_000_000_000
RECENT_NS = 10_000_000_000
# A wall clock that says more than this of a picture's way is not set as ours is.
MOST_ON_THE_WAY_NS = 1_000_000_000


class SourceClock:
    """Maps a clock of any zero to the session clock by the smallest delay seen between the two.

    What every picture takes on its way at the least is part of that delay and cannot be seen here; `latency_s` of a
    camera says it.
    """

    def __init__(self) -> None:
        self._delay_ns: float | None = None
        self._seen_ns = self._newest_ns = 0

    def see(self, source_ns: int, arrived_ns: int) -> None:
        """Learn from something that the source stamped and that has arrived.

        Args:
            source_ns: By the source's clock, whatever its zero.
            arrived_ns: On the session clock; not before those seen earlier.
        """
        delay_ns = arrived_ns - source_ns
        if self._delay_ns is None or source_ns < self._newest_ns - RESET_NS:
            self._delay_ns, self._newest_ns = delay_ns, source_ns
        else:
            self._delay_ns = min(delay_ns, self._delay_ns + (arrived_ns - self._seen_ns) * DRIFT)
            self._newest_ns = max(self._newest_ns, source_ns)
        self._seen_ns = arrived_ns

    def date(self, source_ns: int) -> int | None:
        """When the source stamped this, on the session clock; None as long as nothing has been seen."""
        return None if self._delay_ns is None else source_ns + round(self._delay_ns)

    def dated(self, source_ns: int) -> int | None:
        """When something was stamped that arrives now."""
        self.see(source_ns, now_ns())
        return self.date(source_ns)


class StreamClock:
    """Maps the clock of a network stream, whose sender may report by its wall clock when it took a picture (RTCP).

    Where that is earlier than arrival shows, by up to 1 s, it is what even the fastest picture took on its way, and is
    believed. Else the sender's wall clock is not set as this machine's is, and arrival alone counts. The first report
    comes in mid-stream: dates become earlier by an eighth of the time that passes, so that they never go back.
    """

    def __init__(self) -> None:
        self._arrivals, self._reports = SourceClock(), SourceClock()
        self._last_ns = self._earlier_ns = 0

    def see(self, source_ns: int, arrived_ns: int, reported_ns: int | None = None) -> None:
        """Learn from a picture; see `SourceClock.see`.

        Args:
            source_ns: By the stream's clock.
            arrived_ns: On the session clock.
            reported_ns: When the sender says that it was taken, on the session clock.
        """
        self._arrivals.see(source_ns, arrived_ns)
        if reported_ns is not None:
            self._reports.see(source_ns, reported_ns)
        by_arrival, by_report = self._arrivals.date(source_ns), self._reports.date(source_ns)
        on_the_way_ns = 0 if by_arrival is None or by_report is None else by_arrival - by_report
        is_credible = 0 < on_the_way_ns <= MOST_ON_THE_WAY_NS
        gone_ns, self._last_ns = max(0, source_ns - self._last_ns), source_ns
        self._earlier_ns = min(on_the_way_ns, self._earlier_ns + gone_ns // 8) if is_credible else 0

    def date(self, source_ns: int) -> int | None:
        """When the source stamped this, on the session clock; None as long as nothing has been seen."""
        by_arrival = self._arrivals.date(source_ns)
        return None if by_arrival is None else by_arrival - self._earlier_ns


class DriverClock:
    """Maps a driver's timestamps, by this machine's monotonic clock or by its wall clock, to the session clock.

    Which one is found out by the first: it is less than 10 s old by that clock. By neither: as `SourceClock` does.
    """

    def __init__(self) -> None:
        self._dated: Callable[[int], int | None] | None = None

    def dated(self, stamp_ns: int) -> int | None:
        """When something was stamped that arrives now."""
        if self._dated is None:
            self._dated = _clock_of(stamp_ns)
        return self._dated(stamp_ns)


def _clock_of(stamp_ns: int) -> Callable[[int], int | None]:
    if 0 <= time.monotonic_ns() - stamp_ns < RECENT_NS:
        return _of_monotonic
    if 0 <= time.time_ns() - stamp_ns < RECENT_NS:
        return session_ns
    return SourceClock().dated


def _of_monotonic(stamp_ns: int) -> int:
    return now_ns() - (time.monotonic_ns() - stamp_ns)
