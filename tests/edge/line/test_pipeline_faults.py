"""Whatever fails at random, at camera, detector or publisher: no frame and no message goes missing."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import zmq
from doubles import SIZE, Answer, FakeCamera, Sent

from fbft_edge.detectors.model import DetectorPool, Model
from fbft_edge.errors import CameraError, EngineError
from fbft_edge.frames.frame import Detection, Pixels, Verdict
from fbft_edge.line.pipeline import Pipeline, Sender, Settings, Station, Summary
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.messages.reading import Result
from fbft_edge.sockets.publisher import ResultPublisher
from fbft_edge.sockets.subscriber import ResultSubscriber

SEEDS = range(12)
FPS = 400.0
FRESH = (Verdict.OK, Verdict.ANOMALOUS)


class RandomCamera(FakeCamera):
    """So many reads: frames that say what the detector is to do with them, and errors of a camera and of its driver."""

    def __init__(self, seed: int, num_reads: int = 150) -> None:
        super().__init__(every_s=0.0, answers=self._any)
        self._random, self._num_reads = random.Random(seed), num_reads

    def _any(self, number: int) -> Answer:
        self.closed.wait(self._random.choice((0, 0, 0.001, 0.004)))
        if number == self._num_reads:
            return None
        if self._random.random() < 0.15:
            return self._random.choice(
                (CameraError("cable pulled"), OSError(5, "Input/output error"), ValueError("odd"))
            )
        return self._random.randrange(256)


class RandomDetector:
    """Fails when it begins and when it is asked, says nonsense, and takes its time; the frame's level says which."""

    def __init__(self, frames_in_flight: int) -> None:
        self.frames_in_flight = frames_in_flight
        self.begun: list[int] = []
        self.judged: list[int] = []

    def begin(self, pixels: Pixels) -> Callable[[], Detection]:
        level = int(pixels[0, 0, 0])
        self.begun.append(level)
        if level < 20:
            raise EngineError("no memory on the device")
        return partial(self._judged, level)

    def _judged(self, level: int) -> Detection:
        self.judged.append(level)
        threading.Event().wait(level % 4 * 0.001)
        if level < 40:
            raise RuntimeError("the kernel was not launched")
        mask = np.zeros(SIZE, bool)
        mask.flat[: level % 7] = level > 150
        score = float("nan") if level < 60 else level / 255
        return Detection(score, 1.0, mask, (), level > 150)

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def _retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbft_edge.line.intake.CAMERA_RETRY_S", 0.002)


def assembled(camera: FakeCamera, detector: RandomDetector, publisher: Sender, settings: Settings) -> Pipeline:
    model = Model(DetectorPool(lambda layout: detector, most=None), 0.5, "ab" * 32)
    return Pipeline([Station(camera, settings)], model, publisher, settings)


def line(seed: int, recorder: Sent) -> tuple[Pipeline, RandomCamera]:
    camera = RandomCamera(seed)
    settings = Settings(FPS, "hall-3", with_preview=seed % 2 == 0)
    return assembled(camera, RandomDetector(1 + seed % 2), recorder, settings), camera


@pytest.fixture(scope="module", params=SEEDS)
def outcome(request: pytest.FixtureRequest) -> tuple[list[Result], Summary, RandomCamera]:
    """What a line published until its camera ended."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("fbft_edge.line.intake.CAMERA_RETRY_S", 0.002)
        recorder = Sent()
        pipeline, camera = line(request.param, recorder)
        pipeline.start()
        assert pipeline.wait(60)
        return recorder.results(), pipeline.stop()["press-1"], camera


Outcome = tuple[list[Result], Summary, RandomCamera]


def test_the_ledger_closes_in_every_message_and_at_the_end(outcome: Outcome) -> None:
    results, summary, camera = outcome
    assert all(result.ledger.is_closed for result in results)
    assert (summary.ledger.captured, summary.ledger.in_flight) == (camera.delivered, 0)
    assert summary.ledger.is_closed


def test_the_ledger_counts_what_a_subscriber_can_count(outcome: Outcome) -> None:
    results, summary, _ = outcome
    verdicts = Counter(result.verdict for result in results)
    assert summary.ledger.published_fresh == sum(verdicts[verdict] for verdict in FRESH)
    assert summary.ledger.published_stale == verdicts[Verdict.STALE]
    assert summary.ledger.published_fault == verdicts[Verdict.FAULT]
    assert [result.sequence for result in results] == list(range(summary.ledger.messages))


def test_no_total_ever_falls(outcome: Outcome) -> None:
    def totals(ledger: LedgerSnapshot) -> tuple[int, ...]:
        published = ledger.published_fresh, ledger.published_stale, ledger.published_fault
        return (ledger.captured, *published, *ledger.dropped.values())

    for before, after in itertools.pairwise(totals(result.ledger) for result in outcome[0]):
        assert all(earlier <= later for earlier, later in zip(before, after, strict=True))


def test_every_failed_inspection_is_one_fault_about_its_frame(outcome: Outcome) -> None:
    results, summary, _ = outcome
    failed = [result for result in results if result.verdict is Verdict.FAULT and result.frame_id is not None]
    assert len(failed) == summary.ledger.dropped["inference_error"]
    assert all(result.health.reason.startswith("inference: ") for result in failed)


def test_no_frame_is_spoken_of_twice_and_none_out_of_order(outcome: Outcome) -> None:
    spoken = [result.frame_id for result in outcome[0] if result.verdict is not Verdict.STALE]
    ids = [frame_id for frame_id in spoken if frame_id is not None]
    assert ids == sorted(set(ids))


def test_a_score_is_never_published_for_a_frame_that_had_none(outcome: Outcome) -> None:
    for result in outcome[0]:
        if result.verdict in FRESH:
            assert result.score is not None
            assert result.score >= 60 / 255
            assert (result.verdict is Verdict.ANOMALOUS) == (result.score > 150 / 255)


def test_a_camera_that_ends_takes_no_inspected_frame_with_it(outcome: Outcome) -> None:
    _, summary, camera = outcome
    ledger = summary.ledger
    assert ledger.dropped["shutdown"] == 0
    assert ledger.published_fresh + ledger.dropped["inference_error"] + ledger.dropped["replaced"] == camera.delivered


@pytest.mark.parametrize("seed", SEEDS)
def test_a_publisher_that_breaks_anywhere_leaves_a_closed_ledger_and_its_error(seed: int) -> None:
    recorder = Sent(breaks_at=seed * 5)
    pipeline, camera = line(seed, recorder)
    pipeline.start()
    assert pipeline.wait(60)
    with pytest.raises(zmq.ZMQError):
        pipeline.stop()
    ledger = pipeline.status()["press-1"].ledger
    assert len(recorder.messages) == seed * 5
    assert (ledger.is_closed, ledger.in_flight, ledger.captured) == (True, 0, camera.delivered)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_line_stopped_anywhere_accounts_for_every_frame(seed: int) -> None:
    recorder = Sent()
    pipeline, camera = line(seed, recorder)
    pipeline.start()
    pipeline.wait(0.007 * seed)
    ledger = pipeline.stop()["press-1"].ledger
    assert (ledger.is_closed, ledger.in_flight, ledger.captured) == (True, 0, camera.delivered)
    assert ledger.messages == len(recorder.messages)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_duration_ends_a_failing_line_with_its_exact_number_of_messages(seed: int) -> None:
    recorder = Sent()
    camera = RandomCamera(seed, num_reads=10**9)
    pipeline = assembled(camera, RandomDetector(2), recorder, Settings(FPS, "hall-3", 0.01 * (seed + 1)))
    pipeline.start()
    assert pipeline.wait(60)
    assert pipeline.stop()["press-1"].ledger.messages == len(recorder.messages) == 4 * (seed + 1)


def test_a_frame_that_cannot_begin_is_a_fault_and_the_next_one_is_inspected() -> None:
    camera, recorder, detector = FakeCamera(), Sent(), RandomDetector(2)
    pipeline = assembled(camera, detector, recorder, Settings(FPS, "hall-3"))
    pipeline.start()
    for frame_id, level in enumerate((5, 100) * 3):
        camera.push(level)
        recorder.wait_for(lambda result, frame_id=frame_id: result.frame_id == frame_id)
    camera.push(None)
    assert pipeline.wait(60)
    pipeline.stop()
    told = [(result.frame_id, result.verdict) for result in recorder.results() if result.frame_id is not None]
    first = dict(reversed(told))
    assert {frame_id: first[frame_id] for frame_id in (0, 2, 4)} == dict.fromkeys((0, 2, 4), Verdict.FAULT)
    assert {frame_id: first[frame_id] for frame_id in (1, 3, 5)} == dict.fromkeys((1, 3, 5), Verdict.OK)
    reasons = {result.health.reason for result in recorder.results() if result.verdict is Verdict.FAULT}
    assert reasons == {"inference: no memory on the device"}
    assert detector.judged == [100] * 3


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_a_subscriber_on_a_socket_learns_the_same_as_the_line_knows(seed: int) -> None:
    with (
        ResultPublisher("tcp://127.0.0.1:*") as publisher,
        ResultSubscriber(publisher.endpoint, every=True) as subscriber,
    ):
        settings = Settings(50.0, "hall-3", 1.0)
        pipeline = assembled(RandomCamera(seed, 10**9), RandomDetector(1), publisher, settings)
        pipeline.start()
        received: list[Result] = []
        while not received or received[-1].sequence < 49:
            result = subscriber.receive(30)
            assert result is not None
            received.append(result)
        ledger = pipeline.stop()["press-1"].ledger
    assert received[0].sequence + len(received) + sum(result.lost for result in received) == 50
    seen = received[-1].ledger
    # The last message was written before the line came to rest.
    assert (seen.published_fresh, seen.published_stale, seen.published_fault) == (
        ledger.published_fresh,
        ledger.published_stale,
        ledger.published_fault,
    )
