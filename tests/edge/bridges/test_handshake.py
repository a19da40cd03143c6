"""The handshake: nothing is shown twice, changed while it is shown, or lost without being counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fbft_edge.bridges.camera_state import Line
from fbft_edge.bridges.handshake import MAX_WAITING, ResultLatch, Trigger, Triggers
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


LINE = Line("a session", 5_000_000_000, 0)


class Sent:
    """Takes triggers; the test says what becomes of them."""

    def __init__(self) -> None:
        self.triggers: list[Trigger] = []
        self.done: list[Callable[[bool], object]] = []

    def __call__(self, trigger: Trigger, done: Callable[[bool], object]) -> None:
        self.triggers.append(trigger)
        self.done.append(done)

    @property
    def last_id(self) -> str:
        return self.triggers[-1].trigger_id


def test_a_trigger_is_acknowledged_when_the_line_took_it_and_until_it_falls() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    assert triggers.signals(True).is_ready
    triggers.write(True, LINE)
    assert not triggers.signals(True).is_acknowledged
    sent.done[0](True)
    assert triggers.signals(True).is_acknowledged
    triggers.write(False, LINE)
    assert (triggers.signals(True).is_acknowledged, triggers.signals(True).missed) == (False, 0)


def test_no_trigger_is_ready_from_one_until_its_answer_came() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    seen = []
    triggers.write(True, LINE)
    seen.append(triggers.signals(True))
    sent.done[0](True)
    triggers.write(False, LINE)
    seen.append(triggers.signals(True))
    triggers.answer("another")
    seen.append(triggers.signals(True))
    triggers.answer(sent.last_id)
    seen.append(triggers.signals(True))
    assert [(one.is_ready, one.is_busy) for one in seen] == [(False, True)] * 3 + [(True, False)]


def test_no_trigger_is_ready_while_a_result_waits_to_be_taken() -> None:
    triggers = Triggers(sent := Sent())
    triggers.write(True, LINE, is_clear=False)
    assert (triggers.signals(True, is_clear=False).is_ready, sent.triggers, triggers.signals(True).missed) == (
        False,
        [],
        1,
    )


def test_a_trigger_names_the_line_and_ends_a_second_later_on_its_clock() -> None:
    triggers = Triggers(sent := Sent())
    triggers.write(True, LINE)
    assert (sent.triggers[0].session, sent.triggers[0].deadline_ns) == ("a session", 6_000_000_000)


def test_no_bridge_begins_with_the_identifiers_of_another() -> None:
    sent = Sent()
    for _ in range(3):
        Triggers(sent).write(True, LINE)
    identifiers = {one.trigger_id for one in sent.triggers}
    assert len(identifiers) == 3
    assert all(0 < int(one) < 2**32 for one in identifiers)


def test_an_answer_that_comes_before_the_line_said_that_it_took_the_trigger_acknowledges_it() -> None:
    triggers = Triggers(sent := Sent())
    triggers.write(True, LINE)
    triggers.answer(sent.last_id)
    sent.done[0](False)
    assert (triggers.signals(True).is_acknowledged, triggers.signals(True).missed) == (True, 0)


@pytest.mark.parametrize("line", [Line("another session", 0, 0), Line("a session", 0, 1)], ids=["restart", "loss"])
def test_a_trigger_whose_answer_cannot_come_any_more_is_missed_and_what_comes_is_no_answer(line: Line) -> None:
    triggers = Triggers(sent := Sent())
    triggers.write(True, LINE)
    sent.done[0](True)
    triggers.note_line(LINE)
    assert triggers.is_answer(sent.last_id)
    triggers.note_line(line)
    triggers.write(False, line)
    signals = triggers.signals(True)
    assert (signals.is_missed, signals.missed, signals.is_busy, signals.is_ready) == (True, 1, False, True)
    triggers.answer(sent.last_id)
    assert not triggers.is_answer(sent.last_id)
    assert triggers.signals(True).is_unanswered


def test_a_trigger_that_stays_up_is_sent_once() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    for _ in range(3):
        triggers.write(True, LINE)
    assert len(sent.done) == 1


def test_a_refused_trigger_is_missed_until_the_next_is_passed_on() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    triggers.write(True, LINE)
    sent.done[0](False)
    triggers.write(False, LINE)
    assert (triggers.signals(True).is_missed, triggers.signals(True).missed) == (True, 1)
    triggers.write(True, LINE)
    assert (triggers.signals(True).is_missed, triggers.signals(True).missed) == (False, 1)


def test_of_two_refused_triggers_each_is_seen_to_be_missed() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    seen = []
    for number in range(2):
        triggers.write(True, LINE)
        seen.append(triggers.signals(True).is_missed)
        sent.done[number](False)
        seen.append(triggers.signals(True).is_missed)
        triggers.write(False, LINE)
    assert seen == [False, True, False, True]


def test_a_trigger_while_the_line_is_in_fault_is_missed_and_not_sent() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    triggers.write(True, None)
    assert (len(sent.done), triggers.signals(True).missed) == (0, 1)


def test_a_trigger_without_a_way_to_the_line_is_missed() -> None:
    triggers = Triggers()
    triggers.write(True, LINE)
    signals = triggers.signals(True)
    assert (signals.is_ready, signals.missed, signals.is_unanswered) == (False, 1, False)


def test_an_acknowledgement_of_the_line_after_the_trigger_fell_raises_nothing() -> None:
    sent = Sent()
    triggers = Triggers(sent)
    triggers.write(True, LINE)
    triggers.write(False, LINE)
    sent.done[0](True)
    assert not triggers.signals(True).is_acknowledged


@pytest.mark.parametrize("is_taken", [True, False])
def test_who_asks_without_signals_is_told_whether_the_line_took_it(is_taken: bool) -> None:
    triggers, told = Triggers(sent := Sent()), list[bool]()
    triggers.ask(LINE, told.append)
    triggers.ask(LINE, told.append)
    sent.done[0](is_taken)
    assert told == [False, is_taken]


def test_triggers_that_the_line_missed_count_from_now_on_over_its_restarts() -> None:
    triggers = Triggers(Sent())
    for missed in (7, 7, 9, 0, 1):
        triggers.note_missed(missed)
    assert triggers.signals(True).missed == 3
