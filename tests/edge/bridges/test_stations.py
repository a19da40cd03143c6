"""What a PLC reads of a camera over time: no ok that is another part's, a repeat, or older than its line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from fbft_edge.bridges.camera_state import CameraState
from fbft_edge.bridges.handshake import MAX_GOOD_S, Trigger
from fbft_edge.bridges.modbus import Station
from fbft_edge.bridges.registers import Control, Snapshot, Status
from fbft_edge.frames.frame import Detection, Frame, Verdict
from fbft_edge.messages.age import PublisherClock
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger
from fbft_edge.messages.reading import decode_message
from fbft_edge.messages.writing import MessageWriter, encode_detection, encode_no_detection

PERIOD_S = 0.1
CAMERA = "camera"
PIXELS = np.zeros((1, 1, 3), np.uint8)
MASK = np.zeros((4, 4), bool)


class Line:
    """Says what a test wants, once a period, to a bridge's station; all on one clock that the test moves."""

    def __init__(self, with_handshake: bool = True, with_triggers: bool = False) -> None:
        """One that runs, and a bridge that has heard enough of it to know how old its messages are."""
        self.now_s = 0.0
        self.sent: list[Trigger] = []
        self._with_handshake, self._with_triggers = with_handshake, with_triggers
        self.restart()
        self.restart_bridge()
        self.idle()

    def idle(self) -> None:
        for _ in range(5):
            self.say(Verdict.STALE)

    def restart(self) -> None:
        self.writer, self.ledger = MessageWriter("site", CAMERA, 0.5, "ab" * 32), Ledger()

    def restart_bridge(self) -> None:
        send = self._send if self._with_triggers else None
        self._clock = PublisherClock(PERIOD_S)
        self.station = Station(CameraState(CAMERA, PERIOD_S, lambda: self.now_s), self._with_handshake, send)

    def _send(self, camera: str, trigger: Trigger, done: Callable[[bool], object]) -> None:
        self.sent.append(trigger)
        done(True)

    def say(self, verdict: Verdict, frame_id: int | None = None, trigger_id: str | None = None, lost: int = 0) -> None:
        """One message a period later, behind others that were lost; without a frame it says nothing of one."""
        self.now_s += PERIOD_S
        now_ns = round(self.now_s * 1e9)
        if frame_id is None:
            encoded = encode_no_detection(trigger_id=trigger_id)
        else:
            detection = Detection(0.1, 1.0, MASK, (), verdict is Verdict.ANOMALOUS)
            encoded = encode_detection(Frame(CAMERA, frame_id, now_ns, PIXELS), detection, trigger_id=trigger_id)
        health = Health("fault", "trigger: no frame") if verdict is Verdict.FAULT else Health("ok")
        message = decode_message(self.writer.write(encoded, verdict, now_ns, self.ledger.snapshot(), health))
        sent_s = self._clock.sent_s(message.session, message.sequence, now_ns, self.now_s)
        result = self.station.state.receive(replace(message, lost=lost, sent_s=sent_s))
        if result is not None:
            self.station.offer(result)

    def seen(self) -> Snapshot:
        return self.station.snapshot(0)

    def trigger(self) -> str:
        """The PLC triggers; the identifier."""
        self.station.write_control(Control.TRIGGER)
        self.station.write_control(0)
        return self.sent[-1].trigger_id


def is_good(snapshot: Snapshot) -> bool:
    return Status.GOOD in snapshot.status


@pytest.mark.parametrize("verdict", [Verdict.OK, Verdict.ANOMALOUS])
def test_a_bridge_that_was_restarted_shows_no_repeat_as_a_result(verdict: Verdict) -> None:
    line = Line()
    line.say(verdict, 5)
    line.restart_bridge()
    for _ in range(5):
        line.say(verdict, 5)
    assert (line.seen().result, line.seen().standing.results) == (None, 0)
    line.say(verdict, 6)
    assert line.seen().result.frame_id == 6


def test_a_result_of_an_earlier_run_of_the_line_is_never_good_again() -> None:
    line = Line()
    line.say(Verdict.OK, 0)
    line.restart()
    line.idle()
    snapshot = line.seen()
    assert (snapshot.result.frame_id, snapshot.verdict, is_good(snapshot)) == (0, Verdict.STALE, False)


def test_a_waiting_result_of_an_earlier_run_is_not_good_when_its_turn_comes() -> None:
    line = Line()
    line.say(Verdict.OK, 0)
    line.say(Verdict.OK, 1)
    line.restart()
    line.idle()
    line.station.write_control(Control.RESULTS_ACKNOWLEDGE)
    line.station.write_control(0)
    assert (line.seen().result.frame_id, is_good(line.seen())) == (1, False)


def test_an_anomalous_result_of_an_earlier_run_stays_anomalous() -> None:
    line = Line()
    line.say(Verdict.ANOMALOUS, 0)
    line.restart()
    line.idle()
    assert line.seen().verdict is Verdict.ANOMALOUS


def test_an_ok_that_nobody_takes_is_good_for_a_bounded_time() -> None:
    line = Line()
    line.say(Verdict.OK, 0)
    seen = []
    for _ in range(round(MAX_GOOD_S / PERIOD_S) + 2):
        seen.append(is_good(line.seen()))
        line.say(Verdict.STALE)
    assert (seen[-4], is_good(line.seen()), Status.RESULTS_VALID in line.seen().status) == (True, False, True)


def test_an_ok_that_is_shown_reads_as_fault_while_the_line_is_silent() -> None:
    line = Line()
    line.say(Verdict.OK, 5)
    line.now_s += 3 * PERIOD_S
    shown = line.seen()
    assert (shown.verdict, Status.RESULTS_VALID in shown.status) == (Verdict.FAULT, True)


def test_without_the_handshake_nothing_is_shown_while_the_line_is_silent() -> None:
    line = Line(with_handshake=False)
    line.say(Verdict.ANOMALOUS, 5)
    line.now_s += 3 * PERIOD_S
    assert (line.seen().result, line.seen().verdict) == (None, Verdict.FAULT)


def test_a_trigger_while_the_line_is_silent_is_missed_and_not_sent() -> None:
    line = Line(with_triggers=True)
    line.now_s += 3 * PERIOD_S
    line.station.write_control(Control.TRIGGER)
    assert (line.sent, Status.MISSED_ACQUISITION in line.seen().status) == ([], True)


def test_ready_is_low_from_the_trigger_until_its_answer_was_taken() -> None:
    line = Line(with_triggers=True)
    line.say(Verdict.STALE)
    seen = [line.seen().status]
    trigger_id = line.trigger()
    seen.append(line.seen().status)
    line.say(Verdict.STALE)
    seen.append(line.seen().status)
    line.say(Verdict.OK, 1, trigger_id)
    seen.append(line.seen().status)
    line.station.write_control(Control.RESULTS_ACKNOWLEDGE)
    seen.append(line.seen().status)
    bits = [tuple(bit in status for bit in (Status.TRIGGER_READY, Status.BUSY, Status.GOOD)) for status in seen]
    ready, busy, answered = (True, False, False), (False, True, False), (False, False, True)
    assert bits == [ready, busy, busy, answered, ready]


def test_a_result_of_a_trigger_that_another_gave_is_not_shown() -> None:
    line = Line(with_triggers=True)
    line.say(Verdict.STALE)
    line.say(Verdict.OK, 1, "by hand")
    assert line.seen().result is None
    line.trigger()
    line.say(Verdict.OK, 2, "by hand")
    line.say(Verdict.OK, 3)
    assert (line.seen().result, Status.BUSY in line.seen().status) == (None, True)


def test_what_a_missed_trigger_brings_later_is_not_shown() -> None:
    line = Line(with_triggers=True)
    line.say(Verdict.STALE)
    trigger_id = line.trigger()
    line.say(Verdict.STALE, lost=1)
    snapshot = line.seen()
    line.say(Verdict.OK, 1, trigger_id)
    assert Status.MISSED_ACQUISITION in snapshot.status
    assert (line.seen().result, is_good(line.seen())) == (None, False)


def test_a_trigger_of_a_line_that_was_started_again_is_missed() -> None:
    line = Line(with_triggers=True)
    line.say(Verdict.STALE)
    line.trigger()
    line.restart()
    line.idle()
    status = line.seen().status
    assert (Status.MISSED_ACQUISITION in status, Status.BUSY in status, Status.TRIGGER_READY in status) == (
        True,
        False,
        True,
    )


def test_without_the_handshake_the_ok_before_a_trigger_is_not_good_until_its_own_came() -> None:
    line = Line(with_handshake=False, with_triggers=True)
    line.say(Verdict.OK, 0)
    seen = [is_good(line.seen())]
    trigger_id = line.trigger()
    seen.append(is_good(line.seen()))
    line.say(Verdict.OK, 0)  # repeated
    seen.append(is_good(line.seen()))
    line.say(Verdict.OK, 1, trigger_id)
    seen.append(is_good(line.seen()))
    assert seen == [True, False, False, True]


def test_without_the_handshake_a_refused_trigger_leaves_nothing_good() -> None:
    line = Line(with_handshake=False, with_triggers=True)
    line.say(Verdict.OK, 0)
    line.trigger()
    line.restart()
    line.idle()
    line.say(Verdict.OK, 1)
    assert not is_good(line.seen())
