"""What a PLC may believe: only new ok messages, and none that is older than two periods."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import replace

import pytest

from fbft_edge.bridges.camera_state import MIN_SILENCE_S, UNKNOWN_PERIOD_SILENCE_S, CameraState, Fault
from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.reading import Result, decode_message
from fbft_edge.messages.writing import MessageWriter, encode_no_detection

PERIOD_S = 0.5


class Line:
    """Messages of one session, and the clock they come by."""

    def __init__(self, period_s: float = PERIOD_S) -> None:
        self.now_s, self.period_s = 100.0, period_s
        self._sequences = itertools.count()
        parts = MessageWriter("site", "camera", 0.5, "ab" * 32).write(
            encode_no_detection(), Verdict.STALE, 0, Ledger().snapshot(), Health("ok")
        )
        self._message = decode_message(parts)

    def clock(self) -> float:
        return self.now_s

    def message(self, verdict: Verdict = Verdict.OK, frame_id: int | None = 0, reason: str | None = None) -> Result:
        """The next message, a period after the last."""
        self.now_s += self.period_s
        health = Health("ok") if reason is None else Health("fault", reason)
        return replace(
            self._message,
            verdict=verdict,
            frame_id=frame_id,
            health=health,
            sequence=next(self._sequences),
            published_ns=round(1e9 * self.now_s),
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


def test_a_restarted_line_has_a_period_of_its_own() -> None:
    line = Line()
    state = running(line)
    line.restart()
    line.period_s = 5.0
    for frame_id in range(3):
        state.receive(line.message(frame_id=frame_id))
    assert state.standing().period_s == pytest.approx(5.0)


def test_a_single_message_is_believed_for_two_seconds() -> None:
    line = Line()
    state = running(line, messages=1)
    line.now_s += UNKNOWN_PERIOD_SILENCE_S + 0.01
    assert state.standing().fault is Fault.SILENCE


def test_a_pause_of_the_operating_system_is_no_silence() -> None:
    line = Line(period_s=0.001)
    state = running(line)
    line.now_s += 0.9 * MIN_SILENCE_S
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
        new.append(state.receive(line.message(verdict, frame_id, "camera: x" if verdict is Verdict.FAULT else None)))
    assert new == [is_new for *_, is_new in stream]
    assert (state.standing().results, state.standing().anomalous) == (3, 1)


def test_the_first_frame_of_a_restarted_line_is_new_though_its_number_is_the_old_one() -> None:
    line = Line()
    state = running(line, messages=1)
    line.restart()
    assert state.receive(line.message(frame_id=0))


def test_a_trigger_without_a_frame_has_one_result_and_it_is_a_fault() -> None:
    line, new = Line(), []
    state = running(line, messages=1)
    for trigger_id in ("7", "7", None, "8"):
        message = line.message(Verdict.FAULT, None, "trigger: no frame within 1.000 s")
        new.append(state.receive(replace(message, trigger_id=trigger_id)))
    assert new == [True, False, False, True]
