"""A source's timestamps on the session clock: by the smallest delay seen, whatever the source's zero and drift."""

from __future__ import annotations

import time

import pytest

from fbft_edge.cameras.source_clock import DriverClock, SourceClock, StreamClock
from fbft_edge.clock import now_ns

MS = 1_000_000
S = 1000 * MS


def dates(stamps_and_arrivals: list[tuple[int, int]]) -> list[int | None]:
    clock, dated = SourceClock(), []
    for source_ns, arrived_ns in stamps_and_arrivals:
        clock.see(source_ns, arrived_ns)
        dated.append(clock.date(source_ns))
    return dated


def test_a_clock_that_has_seen_nothing_dates_nothing() -> None:
    assert SourceClock().date(5) is None


def test_what_is_held_up_keeps_the_date_it_would_have_had() -> None:
    taken = [number * 40 * MS for number in range(50)]
    arrived = [stamp + 7 * MS + (3 * S if number >= 25 else 0) for number, stamp in enumerate(taken)]
    held_up = dates(list(zip(taken, arrived, strict=True)))
    for stamp, date in zip(taken, held_up, strict=True):
        assert date == pytest.approx(stamp + 7 * MS, abs=3 * MS)


def test_the_smallest_delay_counts_whenever_it_comes() -> None:
    assert dates([(0, 90 * MS), (40 * MS, 45 * MS), (80 * MS, 500 * MS)])[-1] == pytest.approx(85 * MS, abs=MS)


@pytest.mark.parametrize("drift", [-200e-6, 200e-6])
def test_an_hour_of_a_clock_that_runs_wrong_does_not_age_its_pictures(drift: float) -> None:
    taken = [number * S for number in range(3600)]
    dated = dates([(round(stamp * (1 + drift)), stamp + 20 * MS) for stamp in taken])
    assert dated[-1] == pytest.approx(taken[-1] + 20 * MS, abs=MS)


def test_a_queue_that_grows_is_not_taken_for_a_clock_that_runs_slow() -> None:
    taken = [number * 40 * MS for number in range(1500)]  # a minute, at whose end pictures are 6 s old
    dated = dates([(stamp, round(stamp * 1.1)) for stamp in taken])
    assert dated[-1] == pytest.approx(taken[-1], abs=50 * MS)


@pytest.mark.parametrize("zero_ns", [0, -(1 << 40), 1 << 50])
def test_a_counter_that_starts_again_starts_the_delays_again(zero_ns: int) -> None:
    before = [(zero_ns + 3600 * S + number * 40 * MS, number * 40 * MS) for number in range(10)]
    after = [(zero_ns + number * 40 * MS, S + number * 40 * MS) for number in range(10)]
    assert dates(before + after)[10:] == pytest.approx([arrived for _, arrived in after], abs=MS)


def test_pictures_sent_out_of_order_are_no_reset() -> None:
    assert dates([(0, 200 * MS), (120 * MS, 200 * MS), (40 * MS, 400 * MS)])[-1] == pytest.approx(120 * MS, abs=MS)


@pytest.mark.parametrize("clock_ns", [time.monotonic_ns, time.time_ns])
def test_a_driver_stamps_by_one_of_this_machines_clocks(clock_ns: object) -> None:
    clock = DriverClock()
    assert callable(clock_ns)
    clock.dated(clock_ns())
    # An age that no later look at the clock can explain: a process that was stopped.
    assert now_ns() - clock.dated(clock_ns() - 300 * S) == pytest.approx(300 * S, abs=10 * S)


def test_a_driver_of_a_clock_of_its_own_is_held_against_arrival() -> None:
    clock = DriverClock()
    clock.dated(5 * S)
    assert now_ns() - clock.dated(5 * S - S) == pytest.approx(S, abs=S / 2)


@pytest.mark.parametrize(
    ("behind_ns", "expected_ns"), [(300 * MS, -300 * MS), (999 * MS, -999 * MS), (1100 * MS, 0), (-300 * MS, 0)]
)
def test_a_sender_is_believed_where_it_says_that_pictures_are_up_to_a_second_older(
    behind_ns: int, expected_ns: int
) -> None:
    clock = StreamClock()
    for taken_ns in range(0, 10 * S, 40 * MS):
        clock.see(taken_ns, 5 * S + taken_ns, 5 * S + taken_ns - behind_ns)
    assert clock.date(10 * S) == pytest.approx(15 * S + expected_ns, abs=6 * MS)


def test_a_report_in_mid_stream_sets_no_date_back() -> None:
    clock, dated = StreamClock(), []
    for taken_ns in range(0, 10 * S, 40 * MS):
        clock.see(taken_ns, 5 * S + taken_ns, 4 * S + taken_ns if taken_ns > 2 * S else None)
        dated.append(clock.date(taken_ns))
    assert dated == sorted(set(dated))


def test_a_stream_is_dated_by_arrival_before_its_sender_has_reported() -> None:
    clock = StreamClock()
    clock.see(0, 5 * S)
    assert clock.date(40 * MS) == 5 * S + 40 * MS
