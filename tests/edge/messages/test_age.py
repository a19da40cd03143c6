"""Messages are dated by their publisher's clock, and none is dated later than it was sent."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator

import pytest

from fbft_edge.messages.age import PublisherClock, oldest_s

PERIOD_S = 0.5
SESSION = "one"
CLOCK_S = 1_790_000_000.0  # what the publisher's clock shows when the reader's shows 0


def ages(
    journeys: Iterable[tuple[int, float]], clock: PublisherClock, period_s: float = PERIOD_S, session: str = SESSION
) -> Iterator[float | None]:
    """The age that each message is given when it comes; of each, its number and when it comes."""
    for number, now_s in journeys:
        sent_s = clock.sent_s(session, number, round(1e9 * (CLOCK_S + number * period_s)), now_s)
        yield None if sent_s is None else now_s - sent_s


def live(first: int, last: int, delay_s: float = 0.0) -> list[tuple[int, float]]:
    return [(number, number * PERIOD_S + delay_s) for number in range(first, last)]


def burst(first: int, last: int, now_s: float, pace_s: float = 1e-4) -> list[tuple[int, float]]:
    return [(number, now_s + pace_s * (number - first)) for number in range(first, last)]


def test_the_first_message_of_a_session_has_no_age() -> None:
    clock = PublisherClock()
    assert list(ages(live(0, 3), clock)) == [None, pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6)]
    assert list(ages(live(3, 4), clock, session="two")) == [None]


@pytest.mark.parametrize("late_s", [0.2, 3.0, 500.0])
def test_a_message_that_was_held_up_is_as_old_as_it_was_held_up(late_s: float) -> None:
    clock = PublisherClock()
    list(ages(live(0, 10), clock))
    age_s = next(ages([(10, 10 * PERIOD_S + late_s)], clock))
    assert age_s == pytest.approx(late_s, abs=2e-3 * (late_s + PERIOD_S))


@pytest.mark.parametrize("period_s", [None, PERIOD_S])
@pytest.mark.parametrize("pace", [0.0, 0.01, 0.1, 0.5, 0.8], ids="{} of a period each".format)
def test_messages_that_waited_before_the_first_was_read_have_no_age(period_s: float | None, pace: float) -> None:
    clock = PublisherClock(period_s)
    assert set(ages(burst(0, 100, 60.0, pace * PERIOD_S), clock)) == {None}


def test_a_reader_that_stutters_dates_no_message_that_waited() -> None:
    stutter = [(number, 60.0 + PERIOD_S * (0.1 * number + 1.2 * (number // 3))) for number in range(90)]
    assert set(ages(stutter, PublisherClock())) == {None}


def test_a_first_message_that_comes_twice_has_no_age() -> None:
    assert list(ages([(0, 0.0), (0, 1.0)], PublisherClock())) == [None, None]


def test_a_pause_between_two_messages_that_waited_dates_neither() -> None:
    clock = PublisherClock()
    before, after = burst(0, 5, 60.0), burst(5, 100, 70.0)
    assert all(age_s is None or age_s > oldest_s(PERIOD_S) for age_s in ages([*before, *after], clock))


def test_after_those_that_waited_new_messages_have_their_true_age() -> None:
    clock = PublisherClock()
    list(ages(burst(0, 40, 40 * PERIOD_S), clock))
    assert list(ages(live(41, 44, 0.01), clock))[1:] == [pytest.approx(0.01, abs=0.011)] * 2


@pytest.mark.parametrize("seed", range(20))
def test_no_message_looks_younger_than_it_is_by_more_than_the_shortest_journey(seed: int) -> None:
    chosen = random.Random(seed)
    clock, now_s = PublisherClock(), 0.0
    shortest_s = 0.001
    for number in range(400):
        delay_s = shortest_s + chosen.choice([0.0, 0.01, 0.3, 5.0]) * chosen.random()
        now_s = max(now_s + 1e-4, number * PERIOD_S + delay_s)  # messages come in order
        age_s = next(ages([(number, now_s)], clock))
        if number > 100 and age_s is not None:
            true_age_s = now_s - number * PERIOD_S
            assert true_age_s - 0.25 <= age_s <= true_age_s + 1e-6


@pytest.mark.parametrize("drift", [-6e-4, 6e-4])
def test_clocks_that_drift_for_a_day_make_no_message_old(drift: float) -> None:
    clock = PublisherClock()
    journeys = [(number, number * PERIOD_S * (1 + drift)) for number in range(0, 172_800, 7)]
    assert max(age_s or 0.0 for age_s in ages(journeys, clock)) < oldest_s(PERIOD_S) / 2


def test_a_standing_delay_is_not_taken_for_a_clock_that_is_behind() -> None:
    clock = PublisherClock()
    list(ages(live(0, 10), clock))
    assert min(ages(live(10, 2000, 5.0), clock)) == pytest.approx(5.0 - 1e-3 * 1000, abs=0.02)


def test_the_period_is_learned_whatever_is_lost_or_late() -> None:
    clock = PublisherClock()
    list(ages([(3, 10.0), (4, 30.0), (9, 30.0), (17, 31.0)], clock))
    assert clock.period_s == pytest.approx(PERIOD_S)


@pytest.mark.parametrize("given_s", [30.0, 0.1])
def test_a_given_period_holds_until_a_shorter_one_is_learned(given_s: float) -> None:
    clock = PublisherClock(given_s)
    list(ages(live(0, 1), clock))
    assert clock.period_s == given_s
    list(ages(live(1, 9), clock))
    assert clock.period_s == pytest.approx(min(given_s, PERIOD_S))


@pytest.mark.parametrize(("period_s", "limit_s"), [(None, 2.0), (0.001, 0.1), (0.5, 1.0), (60.0, 120.0)])
def test_two_periods_are_the_oldest(period_s: float | None, limit_s: float) -> None:
    assert oldest_s(period_s) == limit_s
