"""The handshake: nothing is shown twice, changed while it is shown, or lost without being counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from fbft_edge.bridges.handshake import MAX_WAITING, ResultLatch, Triggers
from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.reading import Result, decode_message
from fbft_edge.messages.writing import MessageWriter, encode_no_detection

BLANK = decode_message(
    MessageWriter("site", "camera", 0.5, "ab" * 32).write(
        encode_no_detection(), Verdict.STALE, 0, Ledger().snapshot(), Health("ok")
    )
)


def result(frame_id: int, verdict: Verdict = Verdict.OK) -> Result:
    return replace(BLANK, frame_id=frame_id, verdict=verdict)


def shown(latch: ResultLatch) -> int | None:
    current = latch.signals().shown
    return None if current is None else current.frame_id


def acknowledge(latch: ResultLatch) -> None:
    latch.acknowledge(True)
    latch.acknowledge(False)


def test_what_is_shown_stays_until_it_is_acknowledged() -> None:
    latch = ResultLatch()
    for frame_id in range(5):
        latch.offer(result(frame_id))
    assert shown(latch) == 0


def test_the_next_is_shown_when_the_acknowledgement_falls() -> None:
    latch = ResultLatch()
    latch.offer(result(0))
    latch.offer(result(1))
    latch.acknowledge(True)
    assert shown(latch) is None
    latch.acknowledge(False)
    assert shown(latch) == 1


def test_an_acknowledgement_that_stays_up_counts_once() -> None:
    latch = ResultLatch()
    latch.offer(result(0))
    latch.offer(result(1))
    for _ in range(3):
        latch.acknowledge(True)
    latch.acknowledge(False)
    assert shown(latch) == 1


def test_an_acknowledgement_of_nothing_takes_nothing_away() -> None:
    latch = ResultLatch()
    acknowledge(latch)
    latch.offer(result(0))
    assert shown(latch) == 0


def test_an_anomalous_result_takes_the_place_of_an_ok_one() -> None:
    latch = ResultLatch()
    for frame_id in range(MAX_WAITING + 1):
        latch.offer(result(frame_id))
    latch.offer(result(99, Verdict.ANOMALOUS))
    seen = []
    while (frame_id := shown(latch)) is not None:
        seen.append(frame_id)
        acknowledge(latch)
    assert seen == [0, *range(2, MAX_WAITING + 1), 99]


def test_an_overrun_can_be_seen_with_a_whole_result() -> None:
    latch = ResultLatch()
    for frame_id in range(MAX_WAITING + 2):
        latch.offer(result(frame_id))
    bits = []
    for _ in range(3):
        bits.append(latch.signals().has_overrun)
        acknowledge(latch)
    assert bits == [True, True, False]


@given(st.lists(st.sampled_from(["ok", "anomalous", "fault", "acknowledge"]), max_size=80))
def test_every_result_is_shown_or_counted_and_ok_ones_go_first(steps: list[str]) -> None:
    latch, offered, seen = ResultLatch(), [], []
    for step in [*steps, *["acknowledge"] * (MAX_WAITING + 2)]:
        if step == "acknowledge":
            if (current := latch.signals().shown) is not None:
                seen.append(current)
            acknowledge(latch)
        else:
            offered.append(result(len(offered), Verdict(step)))
            latch.offer(offered[-1])
    assert len(seen) + latch.signals().overruns == len(offered)
    assert [one.frame_id for one in seen] == sorted(one.frame_id for one in seen)
    lost = [one for one in offered if one not in seen]
    if any(one.verdict is not Verdict.OK for one in lost):
        assert max(sum(one.verdict is not Verdict.OK for one in offered), 0) > MAX_WAITING


class Sent:
    """Takes triggers; the test says what becomes of them."""

    def __init__(self) -> None:
        self.done: list[Callable[[bool], object]] = []

    def __call__(self, done: Callable[[bool], object]) -> None:
        self.done.append(done)


def test_a_trigger_is_acknowledged_when_the_line_took_it_and_until_it_falls() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    assert triggers.signals(True).is_ready
    triggers.write(True, True)
    assert not triggers.signals(True).is_ready
    assert not triggers.signals(True).is_acknowledged
    sent.done[0](True)
    assert triggers.signals(True).is_acknowledged
    triggers.write(False, True)
    signals = triggers.signals(True)
    assert (signals.is_acknowledged, signals.is_ready, signals.missed) == (False, True, 0)


def test_a_trigger_that_stays_up_is_sent_once() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    for _ in range(3):
        triggers.write(True, True)
    assert len(sent.done) == 1


def test_a_refused_trigger_is_missed_until_the_next_is_passed_on() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    triggers.write(True, True)
    sent.done[0](False)
    triggers.write(False, True)
    assert (triggers.signals(True).is_missed, triggers.signals(True).missed) == (True, 1)
    triggers.write(True, True)
    assert (triggers.signals(True).is_missed, triggers.signals(True).missed) == (False, 1)


def test_of_two_refused_triggers_each_is_seen_to_be_missed() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    seen = []
    for number in range(2):
        triggers.write(True, True)
        seen.append(triggers.signals(True).is_missed)
        sent.done[number](False)
        seen.append(triggers.signals(True).is_missed)
        triggers.write(False, True)
    assert seen == [False, True, False, True]


def test_a_trigger_while_the_line_is_in_fault_is_missed_and_not_sent() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    triggers.write(True, False)
    assert (len(sent.done), triggers.signals(True).missed) == (0, 1)


def test_a_trigger_without_a_way_to_the_line_is_missed() -> None:
    triggers = Triggers()
    triggers.write(True, True)
    assert (triggers.signals(True).is_ready, triggers.signals(True).missed) == (False, 1)


def test_an_answer_after_the_trigger_fell_acknowledges_nothing() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    triggers.write(True, True)
    triggers.write(False, True)
    sent.done[0](True)
    assert not triggers.signals(True).is_acknowledged


def test_triggers_that_the_line_missed_count_from_now_on_over_its_restarts() -> None:
    triggers = Triggers(Sent())
    for missed in (7, 7, 9, 0, 1):
        triggers.note_missed(missed)
    assert triggers.signals(True).missed == 3
