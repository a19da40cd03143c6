"""How old a message is: when it was published and when it came in, by two clocks that share nothing, an age out.

A publisher's clock runs evenly within a session, and no message comes before it was sent: of all that have come, the
one that seems to have travelled shortest shows how the two clocks differ. Two cases would make old messages look new,
and neither does:

- The first messages may have waited long in a queue. A queue that is read gives its messages faster than they were
  sent, so a message is dated only after the difference has stood still for half a period. What is read in seven eighths
  of a period each, or more slowly, cannot be told from what is sent now.
- Clocks of two machines drift. The difference may therefore grow by `DRIFT`; what is delayed for good, by a congested
  network for instance, is taken for a clock that is behind only after 1000 times its delay.

What stays unknown is the shortest journey itself. Knows nothing about sockets and verdicts.
"""

from __future__ import annotations

OLDEST_PERIODS = 2
MIN_LIMIT_S = 0.1  # less is a pause of the operating system, not of the line
UNKNOWN_LIMIT_S = 2.0
DRIFT = 1e-3  # crystals differ by 1e-4, and NTP turns a clock by 5e-4


def oldest_s(period_s: float | None) -> float:
    """How old a message may be and still say what is true now: two periods, at least 0.1 s; 2 s when none is known."""
    return UNKNOWN_LIMIT_S if period_s is None else max(MIN_LIMIT_S, OLDEST_PERIODS * period_s)


def shorter(given_s: float | None, learned_s: float | None) -> float | None:
    """The smaller one of two periods that may be unknown."""
    return min((period_s for period_s in (given_s, learned_s) if period_s is not None), default=None)


class PublisherClock:
    """Dates one camera's messages by the reader's clock, in the order in which they come.

    Args:
        period_s: Between messages, until it is learned, and never more than that afterwards: a period that somebody
            gave too large must not keep an old message good. None leaves it to be learned.

    The period is learned as the mean since a session's first message. The grid is absolute: late messages that come at
    once do not change it.
    """

    def __init__(self, period_s: float | None = None) -> None:
        self._given_period_s, self._session = period_s, ""
        self._first_s = self._behind_s = self._last_s = self._since_s = 0.0
        self._first_sequence = 0
        self._period_s, self._is_settled = period_s, False

    @property
    def period_s(self) -> float | None:
        """Between messages, the smaller one of what was given and what was learned; None when neither is known yet."""
        return self._period_s

    def sent_s(self, session: str, sequence: int, published_ns: int, now_s: float) -> float | None:
        """When a message was sent.

        Args:
            session: Whose clock it is; each new one is learned anew.
            sequence: Of the message.
            published_ns: What the publisher's clock showed.
            now_s: When the message came, seconds of the reader's clock, which never goes back.

        Returns:
            Seconds of the reader's clock; None as long as the message may have waited in a queue for any time.
        """
        published_s = published_ns / 1e9
        if session != self._session:
            self._begin(session, sequence, published_s, now_s)
            return None
        if sequence > self._first_sequence:
            learned_s = max(0.0, published_s - self._first_s) / (sequence - self._first_sequence)
            self._period_s = shorter(self._given_period_s, learned_s)
        self._compare(now_s - published_s, now_s)
        return min(now_s, published_s + self._behind_s) if self._is_settled else None

    def _begin(self, session: str, sequence: int, published_s: float, now_s: float) -> None:
        self._session, self._first_sequence, self._first_s = session, sequence, published_s
        self._period_s, self._is_settled = self._given_period_s, False
        self._behind_s, self._last_s, self._since_s = now_s - published_s, now_s, now_s

    def _compare(self, behind_s: float, now_s: float) -> None:
        expected_s = self._behind_s + DRIFT * (now_s - self._last_s)
        self._behind_s, self._last_s = min(expected_s, behind_s), now_s
        period_s = self._period_s
        if period_s is None or behind_s < expected_s - period_s / 8:  # what came before was old, and this may be, too
            self._is_settled, self._since_s = False, now_s
        elif not self._is_settled and behind_s > expected_s + max(MIN_LIMIT_S / 2, period_s / 4):
            self._since_s = now_s
        elif now_s - self._since_s >= period_s / 2:
            self._is_settled = True
