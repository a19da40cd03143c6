"""Whatever fails at random, at camera, detector or publisher: no frame and no message goes missing."""

from __future__ import annotations

import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
import zmq

from fbft_edge.clock import now_ns
from fbft_edge.detectors.model import DetectorsByLayout, Model
from fbft_edge.errors import CameraError, EngineError
from fbft_edge.frames.frame import Detection, Frame, Pixels, Verdict
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.line.pipeline import Pipeline, Sender, Settings, Station, Summary
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.messages.reading import Result, decode_message
from fbft_edge.sockets.publisher import ResultPublisher
from fbft_edge.sockets.subscriber import ResultSubscriber

SIZE = (8, 12)
SEEDS = range(12)
FPS = 400.0
FRESH = (Verdict.OK, Verdict.ANOMALOUS)


class RandomCamera:
    """So many reads: frames that say what the detector is to do with them, and errors of a camera and of its driver."""

    name, size, pixel_format = "press-1", SIZE, PixelFormat.RGB8

    def __init__(self, seed: int, num_reads: int = 150) -> None:
        self._random, self._left = random.Random(seed), num_reads
        self._closed = threading.Event()
        self.delivered = 0

    def read(self) -> Frame | None:
        self._left -= 1
        if self._closed.wait(self._random.choice((0, 0, 0.001, 0.004))) or self._left < 0:
            return None
        if self._random.random() < 0.15:
            raise self._random.choice(
                (CameraError("cable pulled"), OSError(5, "Input/output error"), ValueError("odd"))
            )
        self.delivered += 1
        pixels = np.full((*SIZE, 3), self._random.randrange(256), np.uint8)
        return Frame(self.name, self.delivered - 1, now_ns(), pixels)

    def close(self) -> None:
        self._closed.set()


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


class Recorder:
    """Keeps messages; breaks at one of them if it is told to."""

    def __init__(self, breaks_at: int | None = None) -> None:
        self._breaks_at = breaks_at
        self.results: list[Result] = []

    def send(self, parts: Sequence[bytes]) -> None:
        if len(self.results) == self._breaks_at:
            raise zmq.ZMQError(zmq.ENOTSUP)
        self.results.append(decode_message(parts))


@pytest.fixture(autouse=True)
def _retries_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbft_edge.line.station.CAMERA_RETRY_S", 0.002)


def assembled(camera: RandomCamera, detector: RandomDetector, publisher: Sender, settings: Settings) -> Pipeline:
    model = Model(DetectorsByLayout(lambda *layout: detector), 0.5, "ab" * 32)
    return Pipeline([Station(camera, settings)], model, publisher, settings)


def line(seed: int, recorder: Recorder) -> tuple[Pipeline, RandomCamera]:
    camera = RandomCamera(seed)
    settings = Settings(FPS, "hall-3", with_preview=seed % 2 == 0)
    return assembled(camera, RandomDetector(1 + seed % 2), recorder, settings), camera


@pytest.fixture(scope="module", params=SEEDS)
def outcome(request: pytest.FixtureRequest) -> tuple[list[Result], Summary, RandomCamera]:
    """What a line published until its camera ended."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("fbft_edge.line.station.CAMERA_RETRY_S", 0.002)
        recorder = Recorder()
        pipeline, camera = line(request.param, recorder)
        pipeline.start()
        assert pipeline.wait(60)
        return recorder.results, pipeline.stop()["press-1"], camera


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
    recorder = Recorder(breaks_at=seed * 5)
    pipeline, camera = line(seed, recorder)
    pipeline.start()
    assert pipeline.wait(60)
    with pytest.raises(zmq.ZMQError):
        pipeline.stop()
    ledger = pipeline.status()["press-1"].ledger
    assert len(recorder.results) == seed * 5
    assert (ledger.is_closed, ledger.in_flight, ledger.captured) == (True, 0, camera.delivered)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_line_stopped_anywhere_accounts_for_every_frame(seed: int) -> None:
    recorder = Recorder()
    pipeline, camera = line(seed, recorder)
    pipeline.start()
    pipeline.wait(0.007 * seed)
    ledger = pipeline.stop()["press-1"].ledger
    assert (ledger.is_closed, ledger.in_flight, ledger.captured) == (True, 0, camera.delivered)
    assert ledger.messages == len(recorder.results)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_duration_ends_a_failing_line_with_its_exact_number_of_messages(seed: int) -> None:
    recorder = Recorder()
    camera = RandomCamera(seed, num_reads=10**9)
    pipeline = assembled(camera, RandomDetector(2), recorder, Settings(FPS, "hall-3", 0.01 * (seed + 1)))
    pipeline.start()
    assert pipeline.wait(60)
    assert pipeline.stop()["press-1"].ledger.messages == len(recorder.results) == 4 * (seed + 1)


def test_a_frame_that_cannot_begin_is_a_fault_and_the_next_one_is_inspected() -> None:
    class Scripted(RandomCamera):
        def read(self) -> Frame | None:
            if self._closed.wait(0.02) or self.delivered == 6:
                return None
            self.delivered += 1
            level = 5 if self.delivered % 2 else 100
            return Frame(self.name, self.delivered - 1, now_ns(), np.full((*SIZE, 3), level, np.uint8))

    recorder, detector = Recorder(), RandomDetector(2)
    pipeline = assembled(Scripted(0), detector, recorder, Settings(FPS, "hall-3"))
    pipeline.start()
    assert pipeline.wait(60)
    pipeline.stop()
    told = [(result.frame_id, result.verdict) for result in recorder.results if result.frame_id is not None]
    first = dict(reversed(told))
    assert {frame_id: first[frame_id] for frame_id in (0, 2, 4)} == dict.fromkeys((0, 2, 4), Verdict.FAULT)
    assert {frame_id: first[frame_id] for frame_id in (1, 3, 5)} == dict.fromkeys((1, 3, 5), Verdict.OK)
    reasons = {result.health.reason for result in recorder.results if result.verdict is Verdict.FAULT}
    assert reasons == {"inference: no memory on the device"}
    assert detector.judged == [100] * 3


@pytest.mark.parametrize("seed", SEEDS[:4])
def test_a_subscriber_on_a_socket_learns_the_same_as_the_line_knows(seed: int) -> None:
    with ResultPublisher("tcp://127.0.0.1:*") as publisher, ResultSubscriber(publisher.endpoint) as subscriber:
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
