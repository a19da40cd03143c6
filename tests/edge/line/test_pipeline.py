"""One message per period, whatever camera, detector and subscribers do; no frame unaccounted for."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.resources import files

import numpy as np
import pytest
import zmq
from doubles import SIZE, FakeCamera, FakeDetector, Sent, model_of
from jsonschema import Draft202012Validator
from waiting import wait_until

from fbft_edge.errors import ArgumentError, CameraError
from fbft_edge.frames.frame import Detection, Uint8, Verdict
from fbft_edge.line.pipeline import Pipeline, Sender, Settings, Station, Summary
from fbft_edge.line.status import LineState
from fbft_edge.messages.published import Published
from fbft_edge.messages.reading import decode_message
from fbft_edge.sockets.publisher import ResultPublisher

VALIDATOR = Draft202012Validator(json.loads((files("fbft_edge.messages") / "result.schema.json").read_text()))


def settings(fps: float = 50.0, duration_s: float | None = 0.3, with_preview: bool = False) -> Settings:
    return Settings(fps, "hall-3", duration_s, with_preview)


def line(camera: FakeCamera, detector: FakeDetector, publisher: Sender, chosen: Settings) -> Pipeline:
    return Pipeline([Station(camera, chosen)], model_of(detector), publisher, chosen)


def ran(
    script: Callable[[int], int | Exception | None],
    detector: FakeDetector | None = None,
    chosen: Settings | None = None,
    period_s: float = 0.01,
) -> tuple[Sent, Summary]:
    recorder = Sent()
    camera = FakeCamera(every_s=period_s, answers=script)
    pipeline = line(camera, detector or FakeDetector(), recorder, chosen or settings())
    pipeline.start()
    try:
        assert pipeline.wait(20)
    finally:
        summary = pipeline.stop()["press-1"]
    return recorder, summary


def verdicts(recorder: Sent) -> list[str]:
    return [result.verdict.value for result in recorder.results()]


# The period


@pytest.mark.parametrize(("fps", "duration_s", "expected"), [(50.0, 0.4, 20), (100.0, 0.25, 25), (30.0, 0.5, 15)])
def test_a_run_sends_exactly_one_message_per_period(fps: float, duration_s: float, expected: int) -> None:
    recorder, _ = ran(lambda index: 10, chosen=settings(fps, duration_s))
    assert len(recorder.messages) == expected


@pytest.mark.parametrize(
    ("script", "detector"),
    [
        (lambda index: 10, FakeDetector(0.1)),
        (lambda index: CameraError("gone"), FakeDetector()),
        (lambda index: 200, FakeDetector()),
        (lambda index: 10 if index else ValueError("a bug"), FakeDetector(0.05)),
    ],
    ids=["slow detector", "dead camera", "failing detector", "camera bug"],
)
def test_whatever_happens_the_count_of_messages_is_exact(script, detector: FakeDetector) -> None:
    recorder, _ = ran(script, detector)
    assert len(recorder.messages) == 15


def test_sequence_has_no_gap() -> None:
    recorder, _ = ran(lambda index: 10)
    assert [result.sequence for result in recorder.results()] == list(range(15))


class Noting(Station):
    """Notes when its messages are due."""

    def __init__(self, camera: FakeCamera, chosen: Settings) -> None:
        super().__init__(camera, chosen)
        self.due_ns: list[int] = []

    def publish(self, send: Callable[[Sequence[bytes]], None], due_ns: int, line: LineState) -> Published:
        self.due_ns.append(due_ns)
        return super().publish(send, due_ns, line)


class Held(Sent):
    """Takes ten periods for one message."""

    def send(self, parts: Sequence[bytes]) -> None:
        super().send(parts)
        if len(self.messages) == 5:
            time.sleep(0.2)


@pytest.mark.parametrize("recorder", [Sent(), Held()], ids=["sent at once", "once held up"])
def test_messages_keep_to_the_grid_without_drift_and_catch_up(recorder: Sent) -> None:
    station = Noting(FakeCamera(every_s=0.01), settings())
    pipeline = Pipeline([station], model_of(FakeDetector(0.03)), recorder, settings())
    pipeline.start()
    assert pipeline.wait(60)
    pipeline.stop()
    assert len(recorder.messages) == 15
    assert set(np.diff(station.due_ns)) == {20_000_000}


def test_deviation_and_latency_are_reported() -> None:
    _, summary = ran(lambda index: 10)
    p50_ms, p99_ms, max_ms = summary.deviation_ms
    assert 0 <= p50_ms <= p99_ms <= max_ms
    assert 0 < summary.latency_ms[0] <= summary.latency_ms[2]


def test_the_summary_says_what_priority_was_granted() -> None:
    _, summary = ran(lambda index: 10)
    assert summary.priority in ("real-time", "nice -10", "normal")


# Every message


SCRIPTS: dict[str, Callable[[int], int | Exception | None]] = {
    "good": lambda index: 10,
    "mixed": lambda index: (10, 150, 200)[index % 3],
    "broken": lambda index: CameraError("gone \x1b[2J\nfor good"),
}


@pytest.fixture(
    scope="module", params=itertools.product(SCRIPTS, [0.0, 0.05]), ids=lambda param: f"{param[0]}-{param[1]}"
)
def any_run(request: pytest.FixtureRequest) -> tuple[Sent, Summary]:
    script, seconds = request.param
    return ran(SCRIPTS[script], FakeDetector(seconds))


def test_every_header_is_valid_under_the_schema(any_run: tuple[Sent, Summary]) -> None:
    for header in any_run[0].headers:
        VALIDATOR.validate(header)


def test_the_ledger_closes_in_every_message(any_run: tuple[Sent, Summary]) -> None:
    assert all(result.ledger.is_closed for result in any_run[0].results())


def test_the_ledger_counts_every_message_so_far(any_run: tuple[Sent, Summary]) -> None:
    assert all(result.ledger.messages == result.sequence + 1 for result in any_run[0].results())


def test_totals_never_fall(any_run: tuple[Sent, Summary]) -> None:
    ledgers = [result.ledger for result in any_run[0].results()]
    assert [ledger.captured for ledger in ledgers] == sorted(ledger.captured for ledger in ledgers)


def test_the_final_ledger_has_nothing_in_flight(any_run: tuple[Sent, Summary]) -> None:
    ledger = any_run[1].ledger
    assert (ledger.in_flight, ledger.is_closed) == (0, True)


def test_a_preview_comes_only_when_asked_for() -> None:
    plain, _ = ran(lambda index: 10)
    asked, _ = ran(lambda index: 10, chosen=settings(with_preview=True))
    assert {len(parts) for parts in plain.messages} == {3}
    assert asked.results()[-1].preview_jpeg is not None


# Verdicts


def test_frames_within_limits_are_ok() -> None:
    recorder, _ = ran(lambda index: 10)
    assert set(verdicts(recorder)) <= {"ok", "stale"}
    assert "ok" in verdicts(recorder)


def test_a_new_result_is_published_once_and_then_stale() -> None:
    recorder, _ = ran(lambda index: 10, FakeDetector(0.1))
    fresh_ids = [result.frame_id for result in recorder.results() if result.verdict is Verdict.OK]
    assert len(fresh_ids) == len(set(fresh_ids))
    assert verdicts(recorder).count("stale") > 8


def test_a_stale_message_repeats_the_last_result() -> None:
    recorder, _ = ran(lambda index: 150, FakeDetector(0.1))
    for before, after in zip(recorder.results(), recorder.results()[1:], strict=False):
        if after.verdict is Verdict.STALE:
            assert (after.frame_id, after.score, after.regions) == (
                before.frame_id,
                before.score,
                before.regions,
            )


def test_before_the_first_result_messages_are_stale_without_a_frame() -> None:
    recorder, _ = ran(lambda index: 10, FakeDetector(0.2))
    first = recorder.results()[0]
    assert (first.verdict, first.frame_id, first.mask) == (Verdict.STALE, None, None)


def test_the_newest_frame_wins_before_inference() -> None:
    camera, detector, recorder = FakeCamera(), FakeDetector(), Sent()
    pipeline = line(camera, detector, recorder, settings(duration_s=None))
    detector.gate.clear()
    pipeline.start()
    camera.push(10)
    assert detector.entered.wait(60)
    camera.push(*[10] * 9)
    recorder.wait_for(lambda result: result.ledger.captured == 10)
    detector.gate.set()
    recorder.wait_for(lambda result: result.frame_id == 9)
    ledger = pipeline.stop()["press-1"].ledger
    assert [result.frame_id for result in recorder.results() if result.verdict is Verdict.OK] == [0, 9]
    assert ledger.dropped["replaced"] == 8


@pytest.mark.parametrize("fps", [10.0, 40.0])
def test_no_inspected_result_is_ever_lost(fps: float) -> None:
    detector = FakeDetector()
    recorder, summary = ran(SCRIPTS["mixed"], detector, settings(fps, 0.5), period_s=0.003)
    published = sum(verdict != "stale" for verdict in verdicts(recorder))
    assert detector.inspected - published <= 2
    assert summary.ledger.dropped["shutdown"] <= 3


def test_a_single_anomalous_frame_among_inspected_ones_is_published() -> None:
    class OneBad(FakeDetector):
        def detect(self, pixels: Uint8) -> Detection:
            return super().detect(np.full_like(pixels, 150) if self.inspected == 3 else pixels)

    recorder, _ = ran(lambda index: 10, OneBad(), settings(20.0, 0.5), period_s=0.002)
    assert verdicts(recorder).count("anomalous") == 1


def test_a_detector_that_takes_two_frames_at_once_gets_the_next_before_it_is_asked_for_the_last() -> None:
    class TwoAtOnce(FakeDetector):
        frames_in_flight = 2
        begun = most = 0

        def begin(self, pixels: Uint8) -> Callable[[], Detection]:
            self.begun += 1
            self.most = max(self.most, self.begun)
            return partial(self.ended, pixels)

        def ended(self, pixels: Uint8) -> Detection:
            detection = self.detect(pixels)
            self.begun -= 1
            return detection

    detector = TwoAtOnce(seconds=0.02)
    recorder, summary = ran(lambda index: 10, detector, settings(50.0, 1.0), period_s=0.002)
    frame_ids = [result.frame_id for result in recorder.results() if result.verdict is Verdict.OK]
    assert detector.most == 2
    assert frame_ids == sorted(frame_ids)
    assert summary.ledger.in_flight == 0


def test_a_mask_arrives_as_the_detector_made_it() -> None:
    recorder, _ = ran(lambda index: 150)
    anomalous = next(result for result in recorder.results() if result.verdict is Verdict.ANOMALOUS)
    assert anomalous.mask.shape == SIZE
    assert anomalous.mask.sum() == 1
    assert anomalous.mask[0, 0]


# Faults


def test_a_failed_inspection_is_a_fault_with_its_reason() -> None:
    recorder, _ = ran(lambda index: 200)
    fault = next(result for result in recorder.results() if result.verdict is Verdict.FAULT)
    assert (fault.health.reason, fault.score, fault.mask) == (
        "inference: RuntimeError: out of memory",
        None,
        None,
    )


def test_a_failed_inspection_is_counted_once_and_named() -> None:
    recorder, summary = ran(lambda index: 200)
    assert summary.ledger.dropped["inference_error"] == verdicts(recorder).count("fault") > 0


def test_after_a_failed_inspection_good_results_come_again() -> None:
    recorder, _ = ran(lambda index: 200 if index == 0 else 10)
    assert verdicts(recorder)[-1] in ("ok", "stale")
    assert "fault" in verdicts(recorder)
    assert recorder.results()[-1].health.state == "ok"


def test_until_then_health_is_degraded() -> None:
    recorder, _ = ran(lambda index: 200, FakeDetector(0.1))
    states = [(result.verdict.value, result.health.state) for result in recorder.results()]
    assert ("stale", "degraded") in states


def test_a_score_that_is_not_a_number_is_a_fault() -> None:
    class NotANumber(FakeDetector):
        def detect(self, pixels: Uint8) -> Detection:
            return Detection(float("nan"), 0.0, np.zeros(SIZE, bool), (), False)

    recorder, _ = ran(lambda index: 10, NotANumber())
    assert "fault" in verdicts(recorder)
    assert "ok" not in verdicts(recorder)


def test_a_dead_camera_is_a_fault_with_its_reason() -> None:
    recorder, _ = ran(lambda index: 10 if index < 5 else CameraError("cable pulled"))
    last = recorder.results()[-1]
    assert (last.verdict, last.health.reason) == (Verdict.FAULT, "camera: cable pulled")


def test_a_camera_that_never_delivers_is_a_fault() -> None:
    recorder, _ = ran(lambda index: CameraError("cable pulled"))
    assert verdicts(recorder)[-1] == "fault"


def test_a_camera_that_comes_back_ends_the_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbft_edge.line.intake.CAMERA_RETRY_S", 0.1)
    recorder, _ = ran(lambda index: CameraError("cable pulled") if index == 3 else 10, chosen=settings(50.0, 0.6))
    seen = verdicts(recorder)
    assert "fault" in seen
    assert "ok" in seen[seen.index("fault") :]


def test_a_silent_camera_degrades_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbft_edge.line.saying.SILENCE_NS", 50_000_000)
    recorder, _ = ran(lambda index: 10, period_s=30.0)
    last = recorder.results()[-1]
    assert (last.verdict, last.health.state) == (Verdict.STALE, "degraded")


# Ends


def test_a_finite_camera_ends_the_run_after_its_last_result() -> None:
    recorder, summary = ran(lambda index: 10 if index < 5 else None, chosen=settings(50.0, None), period_s=0.05)
    fresh = [result.frame_id for result in recorder.results() if result.verdict is Verdict.OK]
    assert (fresh, summary.ledger.captured, summary.ledger.published_fresh) == ([0, 1, 2, 3, 4], 5, 5)


def test_the_last_frame_of_a_finite_camera_is_inspected_however_slow_inference_is() -> None:
    recorder, summary = ran(
        lambda index: 10 if index < 4 else None, FakeDetector(0.15), settings(50.0, None), period_s=0.01
    )
    assert recorder.results()[-1].frame_id == 3
    assert summary.ledger.dropped["shutdown"] == 0


def test_an_empty_camera_ends_the_run() -> None:
    _, summary = ran(lambda index: None, chosen=settings(50.0, None))
    assert summary.ledger.captured == 0


def test_frames_in_flight_at_the_end_go_to_shutdown() -> None:
    _, summary = ran(lambda index: 10, FakeDetector(0.3), settings(50.0, 0.2))
    assert summary.ledger.dropped["shutdown"] >= 1


def test_stop_ends_a_run_that_would_go_on() -> None:
    pipeline = line(FakeCamera(every_s=0.01), FakeDetector(), Sent(), settings(50.0, None))
    pipeline.start()
    assert not pipeline.wait(0.1)
    assert pipeline.stop()["press-1"].ledger.is_closed


def test_stop_does_not_wait_for_a_slow_camera() -> None:
    camera = FakeCamera(every_s=60.0)
    pipeline = line(camera, FakeDetector(), Sent(), settings(0.1, None))
    pipeline.start()
    ledger = pipeline.stop()["press-1"].ledger
    assert (camera.closed.is_set(), ledger.captured) == (True, 0)


def test_a_publisher_that_breaks_ends_the_run_with_its_error() -> None:
    class Broken(Sent):
        def send(self, parts: Sequence[bytes]) -> None:
            raise zmq.ZMQError(zmq.ETERM)

    pipeline = line(FakeCamera(every_s=0.01), FakeDetector(), Broken(), settings(50.0, None))
    pipeline.start()
    assert pipeline.wait(20)
    with pytest.raises(zmq.ZMQError):
        pipeline.stop()


def test_status_says_what_the_last_message_said() -> None:
    pipeline = line(FakeCamera(every_s=0.01, answers=150), FakeDetector(), Sent(), settings(20.0, None))
    pipeline.start()
    status = wait_until(
        lambda: pipeline.status()["press-1"], "a defect", lambda status: status.verdict is Verdict.ANOMALOUS
    )
    pipeline.stop()
    assert status.score == pytest.approx(150 / 255)
    assert status.latency_ms is not None


@pytest.mark.parametrize("fps", [0.0, -1.0, 1001.0, float("nan"), float("inf")])
def test_an_impossible_rate_is_refused(fps: float) -> None:
    with pytest.raises(ArgumentError, match="--fps"):
        settings(fps)


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf")])
def test_an_impossible_duration_is_refused(duration_s: float) -> None:
    with pytest.raises(ArgumentError, match="--duration"):
        settings(duration_s=duration_s)


# Real sockets


@contextlib.contextmanager
def subscribed(endpoint: str, receive_queue: int = 1000) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    subscriber = context.socket(zmq.SUB)
    subscriber.setsockopt(zmq.RCVHWM, receive_queue)
    subscriber.setsockopt(zmq.SUBSCRIBE, b"")
    subscriber.connect(endpoint)
    try:
        yield subscriber
    finally:
        context.destroy(linger=0)


def sequences(subscriber: zmq.Socket[bytes]) -> list[int]:
    received = []
    while subscriber.poll(300):
        received.append(decode_message(subscriber.recv_multipart()).sequence)
    return received


def published(publisher: ResultPublisher, duration_s: float, fps: float = 50.0) -> Summary:
    pipeline = line(FakeCamera(every_s=0.01, answers=150), FakeDetector(), publisher, settings(fps, duration_s))
    pipeline.start()
    pipeline.wait(20)
    return pipeline.stop()["press-1"]


def test_a_subscriber_receives_every_message_in_order() -> None:
    with ResultPublisher("tcp://127.0.0.1:*") as publisher, subscribed(publisher.endpoint) as subscriber:
        time.sleep(0.3)
        published(publisher, 0.5)
        assert sequences(subscriber) == list(range(25))


def test_a_late_subscriber_receives_the_rest_without_a_gap() -> None:
    with ResultPublisher("tcp://127.0.0.1:*") as publisher:
        thread = threading.Thread(target=published, args=(publisher, 1.0))
        thread.start()
        time.sleep(0.3)
        with subscribed(publisher.endpoint) as late:
            thread.join()
            received = sequences(late)
    assert received == list(range(received[0], 50))


def test_a_stalled_subscriber_does_not_delay_a_tick() -> None:
    with ResultPublisher("tcp://127.0.0.1:*") as publisher, subscribed(publisher.endpoint, receive_queue=1):
        time.sleep(0.3)
        summary = published(publisher, 1.0, fps=200.0)
    assert summary.ledger.messages == 200


def test_a_stalled_subscriber_takes_nothing_from_another() -> None:
    with (
        ResultPublisher("tcp://127.0.0.1:*") as publisher,
        subscribed(publisher.endpoint, receive_queue=1),
        subscribed(publisher.endpoint) as reading,
    ):
        time.sleep(0.3)
        published(publisher, 0.5, fps=100.0)
        assert sequences(reading) == list(range(50))
