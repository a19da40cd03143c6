"""What a PLC may believe: only new ok messages, and none that was sent more than two periods ago."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace

import pytest

from fbft_edge.bridges.camera_state import CameraState, Fault
from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.age import MIN_LIMIT_S, PublisherClock
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.reading import Result, decode_message
from fbft_edge.messages.writing import MessageWriter, encode_no_detection

PERIOD_S = 0.5


class Line:
    """Messages of one session, dated as a subscriber dates them, and the clock they come by."""

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self.now_s, self.period_s = 100.0, period_s
        self._publisher_clock = PublisherClock()
        self._sequences = itertools.count()
        parts = MessageWriter("site", "camera", 0.5, "ab" * 32).write(
            encode_no_detection(), Verdict.STALE, 0, Ledger().snapshot(), Health("ok")
        )
        self._message = decode_message(parts)

    def clock(self) -> float:
        return self.now_s

    def message(
        self, verdict: Verdict = Verdict.OK, frame_id: int | None = 0, reason: str | None = None, late_s: float = 0.0
    ) -> Result:
        """The next message, a period after the last, and so long on its way."""
        self.now_s += self.period_s
        health = Health("ok") if reason is None else Health("fault", reason)
        sequence, published_ns = next(self._sequences), round(1e9 * (self.now_s - late_s))
        return replace(
            self._message,
            verdict=verdict,
            frame_id=frame_id,
            health=health,
            sequence=sequence,
            published_ns=published_ns,
            sent_s=self._publisher_clock.sent_s(self._message.session, sequence, published_ns, self.now_s),
            period_s=self._publisher_clock.period_s,
        )

    def restart(self) -> None:
        self._message = replace(self._message, session=str(uuid.uuid4()))
        self._sequences = itertools.count()


def running(line: Line, period_s: float | None = None, messages: int = 5) -> CameraState:
    state = CameraState("camera", period_s, line.clock)
    for frame_id in range(messages):
        state.receive(line.message(frame_id=frame_id))
    return state


def test_before_the_first_message_there_is_a_fault() -> None:
    standing = CameraState("camera").standing()
    assert (standing.verdict, standing.fault, standing.is_good) == (Verdict.FAULT, Fault.NO_MESSAGE, False)


def test_standings_between_two_messages_are_the_same_however_old_they_have_become() -> None:
    line = Line()
    state = running(line)
    before = state.standing()
    line.now_s += 0.5 * PERIOD_S
    assert (state.standing() == before, state.standing().current_for_s < before.current_for_s) == (True, True)


@pytest.mark.parametrize("verdict", Verdict)
def test_only_ok_is_good(verdict: Verdict) -> None:
    line = Line()
    state = running(line)
    state.receive(line.message(verdict, 9, "camera: gone" if verdict is Verdict.FAULT else None))
    assert state.standing().is_good is (verdict is Verdict.OK)


@pytest.mark.parametrize("given_s", [None, PERIOD_S])
@pytest.mark.parametrize(("periods", "fault"), [(1.0, Fault.NONE), (1.99, Fault.NONE), (2.01, Fault.SILENCE)])
def test_silence_of_more_than_two_periods_is_a_fault(given_s: float | None, periods: float, fault: Fault) -> None:
    line = Line()
    state = running(line, given_s)
    line.now_s += periods * PERIOD_S
    assert state.standing().fault is fault


def test_a_message_ends_the_silence() -> None:
    line = Line()
    state = running(line)
    line.now_s += 60
    assert state.standing().fault is Fault.SILENCE
    state.receive(line.message(frame_id=77))
    assert state.standing().is_good


@pytest.mark.parametrize("given_s", [None, PERIOD_S])
def test_an_ok_that_comes_too_late_is_no_good_and_its_result_is_a_fault(given_s: float | None) -> None:
    line = Line()
    state = running(line, given_s)
    shown = state.receive(line.message(frame_id=77, late_s=2.1 * PERIOD_S))
    assert (state.standing().fault, shown.verdict, shown.health.state) == (Fault.SILENCE, Verdict.FAULT, "fault")


def test_an_anomalous_result_that_comes_too_late_stays_anomalous() -> None:
    line = Line()
    state = running(line)
    assert state.receive(line.message(Verdict.ANOMALOUS, 77, late_s=60.0)).verdict is Verdict.ANOMALOUS


def test_messages_that_waited_for_a_bridge_that_was_held_up_are_no_good() -> None:
    line = Line()
    state = running(line, messages=12)
    line.period_s, goods = 0.0, []
    for periods in reversed(range(3, 40)):
        state.receive(line.message(frame_id=77 + periods, late_s=periods * PERIOD_S))
        goods.append(state.standing().is_good)
    assert not any(goods)


def test_late_messages_that_come_at_once_do_not_make_the_next_period_a_silence() -> None:
    line = Line()
    state = running(line, messages=12)
    line.now_s += 20 * PERIOD_S
    line.period_s = 0.0
    for frame_id in range(77, 97):
        state.receive(line.message(frame_id=frame_id))
    line.now_s += 1.5 * PERIOD_S
    assert state.standing().is_good


def test_lost_messages_do_not_lengthen_the_period() -> None:
    line = Line()
    state = CameraState("camera", None, line.clock)
    for index in range(30):
        message = line.message(frame_id=index)
        if index % 3 == 0:
            state.receive(message)
    assert state.standing().period_s == pytest.approx(PERIOD_S)


def test_a_period_that_was_given_too_large_keeps_no_silent_line_good() -> None:
    line = Line()
    state = running(line, period_s=30.0)
    assert state.standing().is_good
    line.now_s += 2.1 * PERIOD_S
    assert state.standing().fault is Fault.SILENCE


def test_a_restarted_line_has_a_period_of_its_own() -> None:
    line = Line()
    state = running(line)
    line.restart()
    line.period_s = 5.0
    for frame_id in range(3):
        state.receive(line.message(frame_id=frame_id))
    assert state.standing().period_s == pytest.approx(5.0)


def test_a_single_message_is_not_believed_as_it_may_be_old() -> None:
    line = Line()
    state = running(line, messages=1)
    assert state.standing().fault is Fault.NO_MESSAGE
    state.receive(line.message(frame_id=1))
    assert state.standing().is_good


def test_a_pause_of_the_operating_system_is_no_silence() -> None:
    line = Line(period_s=0.001)
    state = running(line)
    line.now_s += 0.9 * MIN_LIMIT_S
    assert state.standing().is_good


@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("camera: unplugged", Fault.CAMERA),
        ("inference: out of memory", Fault.INFERENCE),
        ("the disk is full", Fault.LINE),
        ("cameras: two", Fault.LINE),
        ("trigger: no frame within 1.000 s", Fault.TRIGGER),
    ],
)
def test_a_fault_message_names_its_stage(reason: str, fault: Fault) -> None:
    line = Line()
    state = running(line)
    state.receive(line.message(Verdict.FAULT, None, reason))
    standing = state.standing()
    assert (standing.fault, standing.reason) == (fault, reason)


def test_each_frame_is_new_once_however_often_it_is_repeated() -> None:
    line, new = Line(), []
    state = CameraState("camera", None, line.clock)
    stream = [
        (Verdict.OK, 1, True),
        (Verdict.OK, 1, False),
        (Verdict.STALE, 1, False),
        (Verdict.ANOMALOUS, 2, True),
        (Verdict.FAULT, None, False),
        (Verdict.STALE, 2, False),
        (Verdict.FAULT, 3, True),
    ]
    for verdict, frame_id, _ in stream:
        reason = "camera: x" if verdict is Verdict.FAULT else None
        new.append(state.receive(line.message(verdict, frame_id, reason)) is not None)
    assert new == [is_new for *_, is_new in stream]
    assert (state.standing().results, state.standing().anomalous) == (3, 1)


def test_the_first_frame_of_a_restarted_line_is_new_though_its_number_is_the_old_one() -> None:
    line = Line()
    state = running(line, messages=1)
    line.restart()
    assert state.receive(line.message(frame_id=0))


def test_what_is_heard_first_of_a_restarted_line_may_be_a_repeat_and_is_no_result() -> None:
    line = Line()
    state = running(line)
    line.restart()
    line.message(frame_id=0)
    assert [state.receive(line.message(frame_id=frame_id)) is not None for frame_id in (0, 0, 1)] == [
        False,
        False,
        True,
    ]


def test_a_repeat_of_a_result_that_was_lost_is_none() -> None:
    line = Line()
    state = running(line)
    line.message(frame_id=77)
    assert state.receive(line.message(Verdict.STALE, frame_id=77)) is None


def test_the_lines_clock_goes_on_between_its_messages() -> None:
    line = Line()
    state = running(line)
    clocks = [state.line()]
    line.now_s += 0.25 * PERIOD_S
    clocks.append(state.line())
    before, after = (known.now_ns for known in clocks if known is not None)
    assert after - before == round(0.25e9 * PERIOD_S)


def test_a_trigger_without_a_frame_has_one_result_and_it_is_a_fault() -> None:
    line, new = Line(), []
    state = running(line, messages=1)
    for trigger_id in ("7", "7", None, "8"):
        message = line.message(Verdict.FAULT, None, "trigger: no frame within 1.000 s")
        new.append(state.receive(replace(message, trigger_id=trigger_id)) is not None)
    assert new == [True, False, False, True]
