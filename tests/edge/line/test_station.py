"""Several cameras on one engine: none touches another, each gets its share, and each message says what it knows."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from doubles import BAD, BROKEN, SHA256, SIZE, FakeCamera, FakeDetector, Observing, Sent, model_of
from waiting import wait_until

from fbft_edge.bundle.reading import Bundle
from fbft_edge.cli.console import live_line, summaries_text
from fbft_edge.clock import now_ns
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import DetectorPool, open_model
from fbft_edge.errors import ArgumentError, BundleError, CameraError, EngineError
from fbft_edge.frames.frame import Detection, Frame, Pixels, Verdict
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat
from fbft_edge.line.inference import Acquisition, Inference, Inspection
from fbft_edge.line.pipeline import Advice, Pipeline, Settings, Station
from fbft_edge.line.settings import late_after_by_rule
from fbft_edge.messages.reading import Result
from fbft_edge.names import MAX_REASON_LENGTH
from fbft_edge.sockets.publisher import ResultPublisher
from fbft_edge.sockets.subscriber import ResultSubscriber

BrightBundle = Callable[..., Bundle]
OTHER_SHA256 = "cd" * 32
DEADLINE_S = 30.0


def settings(fps: float = 100.0, duration_s: float | None = None, **more: Any) -> Settings:
    return Settings(fps, "hall-3", duration_s, **more)


@contextlib.contextmanager
def running(
    stations: Sequence[Station], detector: FakeDetector, chosen: Settings, **more: object
) -> Iterator[tuple[Pipeline, Sent]]:
    """A line that runs until the block ends."""
    recorder = Sent()
    pipeline = Pipeline(stations, model_of(detector), recorder, chosen, **more)  # type: ignore[arg-type]
    pipeline.start()
    try:
        yield pipeline, recorder
    finally:
        detector.gate.set()
        pipeline.stop()


def cameras_of(number: int, every_s: float | None = 0.003) -> list[FakeCamera]:
    return [FakeCamera(f"press-{index + 1}", every_s) for index in range(number)]


def verdicts(results: Sequence[Result]) -> list[str]:
    return [result.verdict.value for result in results]


# Cameras beside each other


def test_each_camera_has_a_topic_a_session_a_sequence_and_a_ledger_of_its_own() -> None:
    chosen, recorder = settings(duration_s=0.3), Sent()
    pipeline = Pipeline(
        [Station(camera, chosen) for camera in cameras_of(3)], model_of(FakeDetector()), recorder, chosen
    )
    pipeline.start()
    assert pipeline.wait(DEADLINE_S)
    summaries = pipeline.stop()
    for name in ("press-1", "press-2", "press-3"):
        results = recorder.results(name)
        assert [result.sequence for result in results] == list(range(30))
        assert {result.session for result in results} == {summaries[name].session}
        assert [result.ledger.messages for result in results] == list(range(1, 31))
        assert (summaries[name].ledger.is_closed, summaries[name].ledger.in_flight) == (True, 0)
    assert len({summary.session for summary in summaries.values()}) == 3


@pytest.mark.parametrize("names", [[], ["press-1", "press-1"]])
def test_a_line_without_cameras_or_with_two_of_one_name_is_refused(names: list[str]) -> None:
    stations = [Station(FakeCamera(name), settings()) for name in names]
    with pytest.raises(ArgumentError, match="each with a name of its own"):
        Pipeline(stations, model_of(FakeDetector()), Sent(), settings())


def test_a_camera_whose_thread_dies_is_a_fault_to_the_end_and_touches_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dead, well = cameras_of(2)
    chosen, recorder = settings(), Sent()
    pipeline = Pipeline([Station(dead, chosen), Station(well, chosen)], model_of(FakeDetector()), recorder, chosen)
    pipeline.start()
    dead.push(SystemExit("the driver calls exit"))
    recorder.wait_for(lambda result: result.verdict is Verdict.FAULT)
    before = len(recorder.results("press-2"))
    recorder.wait_for(lambda result: result.sequence > before + 20 and result.verdict is Verdict.OK, "press-2")
    assert "the driver calls exit" in str(recorder.results("press-1")[-1].health.reason)
    assert all(result.health.state == "ok" for result in recorder.results("press-2"))
    said = [record for record in caplog.records if "the driver calls exit" in record.message]
    assert [getattr(record, "camera", None) for record in said] == ["press-1"]
    with pytest.raises(SystemExit):
        pipeline.stop()


def test_a_camera_that_hangs_and_cannot_be_closed_touches_no_other() -> None:
    class Hanging(FakeCamera):
        def close(self) -> None:
            super().close()
            raise OSError(5, "Input/output error")

    hanging, well = Hanging("press-1"), FakeCamera("press-2", 0.003)
    chosen = settings()
    with running([Station(hanging, chosen), Station(well, chosen)], FakeDetector(), chosen) as (_, recorder):
        recorder.wait_for(lambda result: result.sequence > 20 and result.verdict is Verdict.OK, "press-2")
    assert {result.frame_id for result in recorder.results("press-1")} == {None}


def test_a_line_goes_on_until_its_last_camera_has_ended() -> None:
    first, last = cameras_of(2, None)
    chosen = settings()
    with running([Station(first, chosen), Station(last, chosen)], FakeDetector(), chosen) as (pipeline, recorder):
        first.push(10, None)
        recorder.wait_for(lambda result: result.health.reason == "camera: its source has ended")
        last.push(10)
        recorder.wait_for(lambda result: result.verdict is Verdict.OK, "press-2")
        assert not pipeline.wait(0.1)
        last.push(None)
        assert pipeline.wait(DEADLINE_S)
    assert verdicts(recorder.results("press-1")).count("ok") == verdicts(recorder.results("press-2")).count("ok") == 1


# Turns


class Busy:
    """A client of the engine that always has a frame, or only when it is told to."""

    def __init__(self, level: int, frames: int | None = None) -> None:
        self._level, self.frames = level, frames

    def is_ready(self, most: int) -> bool:
        return self.frames != 0

    def take(self) -> Acquisition:
        if self.frames is not None:
            self.frames -= 1
        return Acquisition(Frame("press", 0, 0, np.full((*SIZE, 3), self._level, np.uint8)), None, 0)

    def deliver(self, inspection: Inspection) -> None: ...


class Noting(FakeDetector):
    """Notes the level of every frame, and does at one of them what a test wants."""

    def __init__(self, frames_in_flight: int = 1) -> None:
        super().__init__()
        self.frames_in_flight = frames_in_flight
        self.levels: list[int] = []
        self.at: dict[int, Callable[[], None]] = {}

    def begin(self, pixels: Pixels) -> Callable[[], Detection]:
        self.levels.append(int(pixels[0, 0, 0]))
        self.at.get(len(self.levels), lambda: None)()
        return super().begin(pixels)


def inspected_by(clients: Sequence[Busy], detector: Noting, number: int) -> list[int]:
    inference, enough = Inference(clients, model_of(detector)), threading.Event()
    detector.at[number] = enough.set
    threads = [threading.Thread(target=work) for work in (inference.begin, inference.infer)]
    for thread in threads:
        thread.start()
    assert enough.wait(DEADLINE_S)
    inference.stop()
    for thread in threads:
        thread.join(DEADLINE_S)
    return detector.levels[:number]


@pytest.mark.parametrize("frames_in_flight", [1, 2])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_busy_cameras_get_the_same_share_of_the_engine(number: int, frames_in_flight: int) -> None:
    clients = [Busy(level) for level in range(number)]
    levels = inspected_by(clients, Noting(frames_in_flight), 40 * number)
    for turn in range(0, len(levels), number):
        assert sorted(levels[turn : turn + number]) == list(range(number))


def test_a_camera_that_comes_rarely_is_next_when_it_comes() -> None:
    rare, detector = Busy(0, frames=0), Noting()
    for at in (20, 50, 80):
        detector.at[at] = lambda: setattr(rare, "frames", 1)
    levels = inspected_by([Busy(1), Busy(2), Busy(3), rare], detector, 100)
    assert [index for index, level in enumerate(levels, 1) if level == 0] == [21, 51, 81]


def test_a_fast_camera_does_not_starve_a_slow_one() -> None:
    fast, slow = FakeCamera("press-1", 0.0005), FakeCamera("press-2", 0.1)
    chosen = settings(fps=200.0)
    with running([Station(fast, chosen), Station(slow, chosen)], FakeDetector(0.01), chosen) as (pipeline, recorder):
        recorder.wait_for(lambda result: result.ledger.captured >= 10, "press-2")
        ledgers = {name: status.ledger for name, status in pipeline.status().items()}
    assert ledgers["press-1"].dropped["replaced"] > 100
    assert ledgers["press-2"].published_fresh >= 7


# Frame layouts


def test_cameras_of_one_layout_share_a_detector_and_each_other_layout_has_its_own() -> None:
    made: list[FrameLayout] = []

    def make(layout: FrameLayout) -> FakeDetector:
        made.append(layout)
        return FakeDetector()

    detectors = DetectorPool(make, most=None)
    frame = Frame("press-1", 0, 0, np.zeros((*SIZE, 3), np.uint8))
    wide = Frame("press-2", 0, 0, np.zeros((8, 20, 3), np.uint8))
    bgr = Frame("press-3", 0, 0, np.zeros((*SIZE, 3), np.uint8), PixelFormat.BGR8)
    assert detectors.of(frame.layout) is detectors.of(FrameLayout(*SIZE))
    assert len({id(detectors.of(each.layout)) for each in (frame, wide, bgr)}) == len(made) == 3


@pytest.fixture(scope="module")
def bundle(bright_bundle: BrightBundle) -> Bundle:
    return bright_bundle(frame_sizes=((168, 168), (168, 336), (84, 84)))


def test_frames_of_different_sizes_share_the_compiled_model(bundle: Bundle) -> None:
    layouts = [FrameLayout(168, 168), FrameLayout(168, 336), FrameLayout(84, 84)]
    detectors = open_model(bundle, layouts, "openvino").model.detectors
    square, wide, small = (detectors.of(layout) for layout in layouts)
    assert isinstance(square, OpenVinoDetector)
    assert isinstance(wide, OpenVinoDetector)
    assert isinstance(small, OpenVinoDetector)
    assert (square.engine is wide.engine, square.engine is small.engine) == (True, False)


def test_a_frame_is_judged_the_same_beside_frames_of_another_size(bundle: Bundle) -> None:
    layouts = [FrameLayout(168, 168), FrameLayout(168, 336)]
    detectors = open_model(bundle, layouts, "openvino").model.detectors
    random = np.random.default_rng(0)
    for layout in layouts * 2:
        pixels = (
            random.integers(0, 256, (layout.height // 28, layout.width // 28, 3), np.uint8).repeat(28, 0).repeat(28, 1)
        )
        together = detectors.of(layout).begin(pixels)()
        alone = OpenVinoDetector(bundle, layout).detect(pixels)
        assert (together.score, together.regions) == (alone.score, alone.regions)
        np.testing.assert_array_equal(together.mask, alone.mask)


def test_a_size_that_the_bundle_was_not_fitted_on_is_refused_when_it_comes(bundle: Bundle) -> None:
    detectors = open_model(bundle, [FrameLayout(84, 84)], "openvino").model.detectors
    with pytest.raises(BundleError, match="98x84"):
        detectors.of(FrameLayout(84, 98))


def test_a_bundle_without_thresholds_makes_no_model(bright_bundle: BrightBundle) -> None:
    with pytest.raises(BundleError, match="has no thresholds"):
        open_model(bright_bundle(thresholds=None), [], "openvino")


# Repeats, late results, an engine that does not come back


@pytest.mark.parametrize(("level", "said"), [(10, "ok"), (BAD, "anomalous")])
def test_a_verdict_is_repeated_until_it_is_too_old_and_then_stale(level: int, said: str) -> None:
    camera, chosen = FakeCamera(), settings(stale_after_s=0.4)
    with running([Station(camera, chosen)], FakeDetector(), chosen) as (_, recorder):
        camera.push(level)
        recorder.wait_for(lambda result: result.verdict is Verdict.STALE and result.frame_id is not None)
    about = [result for result in recorder.results("press-1") if result.frame_id == 0]
    spoken, silent = (list(group) for _, group in itertools.groupby(about, lambda each: each.verdict is Verdict.STALE))
    assert set(verdicts(spoken)) == {said}
    assert len(spoken) > 5
    assert all(result.published_ns - result.captured_ns <= 4e8 for result in spoken)
    assert all(result.published_ns - result.captured_ns > 4e8 for result in silent)
    assert about[-1].ledger.published_fresh == 1
    assert {(result.score, result.trigger_id) for result in about} == {(level / 255, None)}


def test_a_fault_ends_the_repeating_of_a_verdict() -> None:
    camera, chosen = FakeCamera(), settings(stale_after_s=1000.0)
    with running([Station(camera, chosen)], FakeDetector(), chosen) as (_, recorder):
        camera.push(10)
        recorder.wait_for(lambda result: result.verdict is Verdict.OK)
        camera.push(BROKEN)
        fault = recorder.wait_for(lambda result: result.verdict is Verdict.FAULT)
        recorder.wait_for(lambda result: result.sequence > fault.sequence + 5)
    after = recorder.results("press-1")[fault.sequence + 1 :]
    assert {(result.verdict, result.health.state) for result in after} == {(Verdict.STALE, "degraded")}


def test_a_result_that_comes_too_late_is_a_fault_about_its_frame() -> None:
    chosen, detector = settings(late_after_s=0.05, stale_after_s=1000.0), FakeDetector(0.1)
    with running([Station(FakeCamera(every_s=0.01), chosen)], detector, chosen) as (_, recorder):
        recorder.wait_for(lambda result: result.ledger.dropped["too_late"] >= 3)
    results = recorder.results("press-1")
    late = [result for result in results if result.verdict is Verdict.FAULT]
    assert set(verdicts(results)) == {"fault", "stale"}
    assert all(result.frame_id is not None and result.score is None for result in late)
    assert "the limit is 0.05 s" in str(late[0].health.reason)
    assert late[-1].ledger.dropped["too_late"] == len(late)


@pytest.mark.parametrize("every_s", [None, 0.003], ids=["idle", "busy"])
def test_an_engine_that_no_longer_proves_itself_is_a_fault_until_it_does_again(every_s: float | None) -> None:
    wrong: list[str] = []

    def prove() -> None:
        if wrong:
            raise EngineError(wrong[0])

    chosen, recorder, camera = settings(stale_after_s=1000.0), Sent(), FakeCamera(every_s=every_s)
    model = replace(model_of(FakeDetector()), prove=prove, prove_every_s=0.02)
    pipeline = Pipeline([Station(camera, chosen)], model, recorder, chosen)
    pipeline.start()
    try:
        camera.push(10)
        recorder.wait_for(lambda result: result.verdict is Verdict.OK)
        wrong.append("the engine strays")
        found = recorder.wait_for(lambda result: result.verdict is Verdict.FAULT)
        sent = len(recorder.results("press-1"))
        camera.push(10)
        recorder.wait_for(lambda result: result.sequence > sent + 20)
        assert found.health.reason == "inference: the engine strays"
        assert "ok" not in verdicts(recorder.results("press-1")[found.sequence :])
        wrong.clear()
        recorder.wait_for(lambda result: result.sequence > sent and result.verdict is not Verdict.FAULT)
        camera.push(10)
        recorder.wait_for(lambda result: result.sequence > sent and result.verdict is Verdict.OK)
    finally:
        pipeline.stop()


def test_a_frame_of_an_engine_that_is_not_believed_is_a_fault_though_another_takes_over_meanwhile() -> None:
    def prove() -> None:
        raise EngineError("the engine strays")

    chosen, recorder, camera, held = settings(), Sent(), FakeCamera(every_s=None), FakeDetector()
    held.gate.clear()
    strays = replace(model_of(held), prove=prove, prove_every_s=0.02)
    pipeline = Pipeline([Station(camera, chosen)], strays, recorder, chosen)
    pipeline.start()
    try:
        recorder.wait_for(lambda result: result.verdict is Verdict.FAULT)
        camera.push(10)
        assert held.entered.wait(DEADLINE_S)
        pipeline.replace_model(model_of(FakeDetector()))
        held.gate.set()
        assert recorder.wait_for(lambda result: result.frame_id == 0).verdict is Verdict.FAULT
    finally:
        held.gate.set()
        pipeline.stop()


class OldCamera(FakeCamera):
    """Delivers frames that were taken some time ago."""

    old_ns = 0

    def frame(self, level: int, size: tuple[int, int] = SIZE) -> Frame:
        return replace(super().frame(level, size), captured_ns=now_ns() - self.old_ns)


def test_a_frame_that_is_too_late_already_is_not_inspected_and_its_fault_says_so() -> None:
    camera, chosen, detector = OldCamera(), settings(late_after_s=5.0, stale_after_s=1000.0), FakeDetector()
    camera.old_ns = 266 * 10**9
    with running([Station(camera, chosen)], detector, chosen) as (_, recorder):
        camera.push(10)
        late = recorder.wait_for(lambda result: result.frame_id == 0)
        recorder.wait_for(lambda result: result.sequence > late.sequence + 5)
    assert (late.verdict, late.ledger.dropped["too_late"], detector.inspected) == (Verdict.FAULT, 1, 0)
    assert re.search(r"frame 0 was 266\.\d+ s old before its inspection, the limit is 5 s", str(late.health.reason))
    assert set(verdicts(recorder.results("press-1")[late.sequence + 1 :])) == {"stale"}


def test_a_frame_that_is_late_by_the_rule_is_not_inspected_either() -> None:
    camera, chosen, detector = OldCamera(), settings(late_after_s=None), FakeDetector()
    camera.old_ns = 60 * 10**9
    with running([Station(camera, chosen)], detector, chosen) as (_, recorder):
        camera.push(10)
        late = recorder.wait_for(lambda result: result.frame_id == 0)
    assert (late.verdict, detector.inspected, "the limit is 2.02 s" in str(late.health.reason)) == (
        Verdict.FAULT,
        0,
        True,
    )


def test_a_hardware_trigger_faster_than_the_engine_still_gets_verdicts() -> None:
    """Each part that waits its turn among eight would be too late: some are let go so that others are in time."""
    chosen, detector = settings(late_after_s=0.3), FakeDetector(0.1)
    camera = FakeCamera(every_s=0.03)
    with running([Station(camera, chosen, "hardware")], detector, chosen) as (_, recorder):
        recorder.wait_for(lambda result: result.ledger.dropped["too_late"] >= 5 and result.ledger.published_fresh >= 5)
    results = recorder.results("press-1")
    spoken = [result.frame_id for result in results if result.verdict is not Verdict.STALE]
    assert spoken == sorted(set(spoken))
    assert detector.inspected <= results[-1].ledger.published_fresh + results[-1].ledger.in_flight + 5


@pytest.mark.parametrize(
    ("fps", "cameras", "frame_s", "limit_s"), [(30.0, 1, 0.0, 2.0667), (1.0, 1, 0.5, 6.0), (10.0, 3, 0.2, 3.8)]
)
def test_the_age_that_is_too_late_follows_period_cameras_and_engine(
    fps: float, cameras: int, frame_s: float, limit_s: float
) -> None:
    assert late_after_by_rule(fps, cameras, frame_s) == pytest.approx(limit_s, rel=1e-3)


def test_an_engine_that_does_not_come_back_is_a_fault_of_every_camera_until_it_does() -> None:
    chosen, detector = settings(engine_timeout_s=0.1), FakeDetector()
    stations = [Station(camera, chosen) for camera in cameras_of(2)]
    with running(stations, detector, chosen) as (pipeline, recorder):
        recorder.wait_for(lambda result: result.verdict is Verdict.OK, "press-2")
        detector.gate.clear()
        for name in ("press-1", "press-2"):
            hung = recorder.wait_for(lambda result: "in the engine for" in str(result.health.reason), name)
            assert hung.verdict is Verdict.FAULT
        assert (pipeline.is_hung(0.1), pipeline.is_hung(1000.0)) == (True, False)
        detector.gate.set()
        for name in ("press-1", "press-2"):
            number = len(recorder.results(name))
            recorder.wait_for(
                lambda result, number=number: result.sequence > number and result.verdict is Verdict.OK, name
            )
        assert not pipeline.is_hung(0.1)


def test_a_line_with_a_hung_engine_can_be_stopped_and_leaves_its_model_alone() -> None:
    chosen, detector, recorder = settings(engine_timeout_s=0.05), FakeDetector(), Sent()
    pipeline = Pipeline([Station(FakeCamera(every_s=0.003), chosen)], model_of(detector), recorder, chosen)
    detector.gate.clear()
    pipeline.start()
    try:
        recorder.wait_for(lambda result: result.verdict is Verdict.FAULT)
        ledger = pipeline.stop()["press-1"].ledger
        assert (ledger.is_closed, ledger.in_flight, detector.closed) == (True, 0, 0)
        assert ledger.dropped["shutdown"] >= 1
    finally:
        detector.gate.set()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("stale_after_s", -1.0), ("late_after_s", float("nan")), ("engine_timeout_s", 0.0), ("late_after_s", 1e7)],
)
def test_an_impossible_time_is_refused_by_name(setting: str, value: float) -> None:
    with pytest.raises(ArgumentError, match=setting):
        settings(**{setting: value})


# Triggers


def triggered(camera: FakeCamera, chosen: Settings, timeout_s: float = DEADLINE_S) -> Station:
    return Station(camera, chosen, "software", timeout_s)


def test_only_the_frame_that_was_asked_for_is_captured_and_says_who_asked() -> None:
    camera, chosen = FakeCamera(every_s=0.002), settings()
    with running([station := triggered(camera, chosen)], FakeDetector(), chosen) as (_, recorder):
        recorder.wait_for(lambda result: result.sequence > 10)
        asked_ns = now_ns()
        station.trigger("part-7")
        answer = recorder.wait_for(lambda result: result.trigger_id is not None)
        recorder.wait_for(lambda result: result.sequence > answer.sequence + 10)
    assert {result.ledger.captured for result in recorder.results("press-1")} <= {0, 1}
    assert (answer.verdict, answer.trigger_id, answer.captured_ns >= asked_ns) == (Verdict.OK, "part-7", True)
    assert recorder.results("press-1")[-1].ledger.published_fresh == 1


def test_a_picture_from_before_the_trigger_does_not_answer_it() -> None:
    class Late(FakeCamera):
        """Delivers pictures half a second after they were taken."""

        def now_ns(self) -> int:
            return now_ns() - 500_000_000

    camera, chosen = Late(every_s=0.01), settings()
    with running([station := triggered(camera, chosen)], FakeDetector(), chosen) as (_, recorder):
        asked_ns = now_ns()
        station.trigger()
        answer = recorder.wait_for(lambda result: result.frame_id is not None)
    assert answer.captured_ns >= asked_ns
    assert answer.published_ns - asked_ns >= 500_000_000


def test_a_trigger_before_the_last_one_is_answered_is_refused() -> None:
    camera, chosen, detector = FakeCamera(), settings(), FakeDetector()
    with running([station := triggered(camera, chosen)], detector, chosen) as (_, recorder):
        detector.gate.clear()
        station.trigger("1")
        with pytest.raises(ArgumentError, match=r"'press-1' has not answered trigger '1' of 0\.\d+ s ago"):
            station.trigger("2")
        camera.push(10)
        assert detector.entered.wait(DEADLINE_S)
        with pytest.raises(ArgumentError, match="has not answered"):
            station.trigger("3")
        detector.gate.set()
        recorder.wait_for(lambda result: result.trigger_id == "1")
        station.trigger("4")
        camera.push(BAD)
        assert recorder.wait_for(lambda result: result.trigger_id == "4").verdict is Verdict.ANOMALOUS


def test_a_trigger_after_its_deadline_is_refused_and_one_before_it_is_taken() -> None:
    camera, chosen = FakeCamera(every_s=0.002), settings()
    with running([station := triggered(camera, chosen)], FakeDetector(), chosen) as (_, recorder):
        with pytest.raises(ArgumentError, match=r"\d+\.\d+ s after its deadline"):
            station.trigger("late", now_ns() - 1)
        station.trigger("in time", now_ns() + 3_600_000_000_000)
        recorder.wait_for(lambda result: result.trigger_id == "in time")
    assert not any(result.trigger_id == "late" for result in recorder.results("press-1"))


def test_every_trigger_is_answered_by_exactly_one_verdict_or_fault() -> None:
    levels = [10, BAD, BROKEN, None, 10, None, BROKEN, BAD]
    camera, chosen = FakeCamera(), settings(fps=200.0)
    with running([station := triggered(camera, chosen, 0.05)], FakeDetector(), chosen) as (_, recorder):
        for number, level in enumerate(levels):
            station.trigger(str(number), part_id=f"SN-{number}")
            if level is not None:
                camera.push(level)
            recorder.wait_for(lambda result, number=number: result.trigger_id == str(number))
    spoken = [result for result in recorder.results("press-1") if result.verdict is not Verdict.STALE]
    expected = {10: "ok", BAD: "anomalous", BROKEN: "fault", None: "fault"}
    assert [(result.trigger_id, result.part_id, result.verdict.value) for result in spoken] == [
        (str(number), f"SN-{number}", expected[level]) for number, level in enumerate(levels)
    ]
    ledger = recorder.results("press-1")[-1].ledger
    assert (ledger.missed_triggers, ledger.captured, ledger.dropped["inference_error"]) == (2, 6, 2)


def test_a_trigger_without_a_frame_is_missed_and_no_verdict_is_repeated_after_it() -> None:
    camera, chosen = FakeCamera(), settings(stale_after_s=1000.0)
    with running([station := triggered(camera, chosen, 0.1)], FakeDetector(), chosen) as (_, recorder):
        station.trigger("1")
        camera.push(10)
        recorder.wait_for(lambda result: result.verdict is Verdict.OK)
        station.trigger("2")
        missed = recorder.wait_for(lambda result: result.verdict is Verdict.FAULT)
        recorder.wait_for(lambda result: result.sequence > missed.sequence + 5)
    assert (missed.trigger_id, missed.frame_id, missed.ledger.missed_triggers) == ("2", None, 1)
    assert str(missed.health.reason).startswith("trigger: no frame within 0.1")
    assert {result.verdict for result in recorder.results("press-1")[missed.sequence + 1 :]} == {Verdict.STALE}


@pytest.mark.parametrize("trigger", ["free", "hardware"])
def test_a_camera_that_runs_by_itself_takes_no_trigger(trigger: str) -> None:
    station = Station(FakeCamera(), settings(), trigger)
    with pytest.raises(ArgumentError, match=f"runs with trigger '{trigger}'"):
        station.trigger()


@pytest.mark.parametrize("trigger_id", ["", "x" * 65, "a\nb", "\u00e9"])
def test_a_trigger_that_cannot_stand_in_a_message_is_refused_and_leaves_room_for_the_next(trigger_id: str) -> None:
    station = triggered(FakeCamera(), settings())
    with pytest.raises(ArgumentError, match="64 printable characters"):
        station.trigger(trigger_id)
    station.trigger("fine")


@pytest.mark.parametrize("part_id", ["", "x" * 65, "a\nb", "a\0b", "\u00e9"])
def test_a_part_that_cannot_stand_in_a_message_is_refused_and_leaves_room_for_the_next(part_id: str) -> None:
    station = triggered(FakeCamera(), settings())
    with pytest.raises(ArgumentError, match=r"part .* cannot stand in a message; use 1 to 64 printable characters"):
        station.trigger("1", part_id=part_id)
    station.trigger("2", part_id="fine")


def test_a_part_stays_with_the_result_of_its_trigger_as_long_as_that_is_repeated() -> None:
    camera, chosen = FakeCamera(), settings(stale_after_s=1000.0)
    with running([station := triggered(camera, chosen)], FakeDetector(), chosen) as (_, recorder):
        for number, part_id in enumerate(("SN-1", None)):
            station.trigger(str(number), part_id=part_id)
            camera.push(10)
            recorder.wait_for(lambda result, number=number: result.trigger_id == str(number))
    told = {(result.trigger_id, result.part_id) for result in recorder.results("press-1")}
    assert told <= {(None, None), ("0", "SN-1"), ("1", None)}


@pytest.mark.parametrize(("trigger", "timeout_s"), [("laser", 1.0), ("software", 0.0), ("software", float("nan"))])
def test_a_trigger_setting_that_is_none_is_refused(trigger: str, timeout_s: float) -> None:
    with pytest.raises(ArgumentError, match="camera 'press-1'"):
        Station(FakeCamera(), settings(), trigger, timeout_s)


def test_a_camera_with_a_shutter_has_it_released_by_the_trigger() -> None:
    class Shutter(FakeCamera):
        is_there = True

        def trigger(self) -> bool:
            if not self.is_there:
                raise CameraError("cable pulled")
            self.push(BAD)
            return True

    camera, chosen = Shutter(), settings()
    with running([station := triggered(camera, chosen)], FakeDetector(), chosen) as (_, recorder):
        camera.is_there = False
        with pytest.raises(CameraError, match="cable pulled"):
            station.trigger("1")
        camera.is_there = True
        station.trigger("2")
        answer = recorder.wait_for(lambda result: result.verdict is Verdict.ANOMALOUS)
    assert answer.trigger_id == "2"


def test_a_shutter_that_opened_and_did_not_say_so_answers_its_own_trigger_and_no_other() -> None:
    class Mute(FakeCamera):
        def trigger(self) -> bool:
            self.push(BAD)
            assert detector.entered.wait(DEADLINE_S)
            raise CameraError("no answer")

    camera, chosen, detector = Mute(), settings(), FakeDetector()
    with running([station := triggered(camera, chosen)], detector, chosen) as (_, recorder):
        detector.gate.clear()
        with pytest.raises(CameraError, match="no answer"):
            station.trigger("1")
        with pytest.raises(ArgumentError, match="has not answered trigger '1'"):
            station.trigger("2")
        detector.gate.set()
        recorder.wait_for(lambda result: result.trigger_id == "1")
        detector.entered.clear()
        with pytest.raises(CameraError, match="no answer"):
            station.trigger("3")
        assert recorder.wait_for(lambda result: result.trigger_id == "3").verdict is Verdict.ANOMALOUS


def test_behind_a_hardware_trigger_a_burst_of_parts_is_inspected_to_the_last() -> None:
    camera, chosen = FakeCamera(), settings()
    with running([Station(camera, chosen, "hardware")], FakeDetector(0.03), chosen) as (_, recorder):
        camera.push(10, BAD, 10, 10, BAD, 10)
        recorder.wait_for(lambda result: result.frame_id == 5)
    spoken = [result for result in recorder.results("press-1") if result.verdict is not Verdict.STALE]
    assert [result.frame_id for result in spoken] == list(range(6))
    assert verdicts(spoken) == ["ok", "anomalous", "ok", "ok", "anomalous", "ok"]


def test_a_picture_that_came_in_parts_is_a_missed_hardware_trigger() -> None:
    camera, chosen = FakeCamera(), settings()
    camera.incomplete = 0
    with running([Station(camera, chosen, "hardware")], FakeDetector(), chosen) as (_, recorder):
        camera.incomplete = 2
        camera.push(10)
        result = recorder.wait_for(lambda result: result.frame_id == 0)
    assert (result.ledger.missed_triggers, result.ledger.captured, result.ledger.is_closed) == (2, 1, True)


def test_a_picture_that_never_came_is_a_missed_hardware_trigger() -> None:
    camera, chosen = FakeCamera(), settings()
    camera.lost = 0
    with running([Station(camera, chosen, "hardware")], FakeDetector(), chosen) as (_, recorder):
        camera.lost = 3
        camera.push(10)
        result = recorder.wait_for(lambda result: result.frame_id == 0)
    assert (result.ledger.missed_triggers, result.ledger.is_closed) == (3, True)


def test_a_refused_picture_is_a_missed_hardware_trigger_before_another_one_comes() -> None:
    camera, chosen = FakeCamera(), settings()
    camera.refused = 0
    with running([Station(camera, chosen, "hardware")], FakeDetector(), chosen) as (_, recorder):
        camera.push(10)
        recorder.wait_for(lambda result: result.frame_id == 0)
        camera.refused = 1
        result = recorder.wait_for(lambda result: result.ledger.missed_triggers > 0)
    assert (result.ledger.missed_triggers, result.ledger.refused, result.ledger.captured) == (1, 1, 1)


@pytest.mark.parametrize("trigger", ["free", "software", "hardware"])
def test_what_the_camera_numbered_is_captured_lost_or_refused(trigger: str) -> None:
    camera, chosen = FakeCamera(), settings()
    camera.lost = camera.incomplete = camera.refused = 0
    with running([Station(camera, chosen, trigger)], FakeDetector(), chosen) as (_, recorder):
        camera.lost, camera.incomplete, camera.refused = 4, 2, 1
        result = recorder.wait_for(lambda result: result.ledger.refused > 0)
        camera.lost, camera.refused = 0, 3  # while it is opened again
        result = recorder.wait_for(lambda result: result.ledger.refused > 1)
    ledger = result.ledger
    assert (ledger.captured, ledger.lost, ledger.refused, ledger.is_closed) == (0, 6, 3, True)
    assert ledger.missed_triggers == (9 if trigger == "hardware" else 0)


def test_no_part_in_front_of_a_triggered_camera_is_no_reason_for_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fbft_edge.line.saying.SILENCE_NS", 50_000_000)
    chosen = settings(duration_s=0.3)
    free, software, hardware = cameras_of(3, None)
    stations = [Station(free, chosen), triggered(software, chosen), Station(hardware, chosen, "hardware")]
    with running(stations, FakeDetector(), chosen) as (pipeline, recorder):
        assert pipeline.wait(DEADLINE_S)
    last = [recorder.results(station.name)[-1].health.state for station in stations]
    assert last == ["degraded", "ok", "ok"]


# Models that are replaced


def test_every_message_names_the_model_that_its_result_was_made_with() -> None:
    old, new, chosen = FakeDetector(0.002, 0.1), FakeDetector(0.002, 0.2), settings(fps=200.0)
    stations = [Station(camera, chosen) for camera in cameras_of(2, 0.001)]
    with running(stations, old, chosen) as (pipeline, recorder):
        recorder.wait_for(lambda result: result.score == 0.1, "press-2")
        pipeline.replace_model(replacing := model_of(new, OTHER_SHA256))
        for name in ("press-1", "press-2"):
            recorder.wait_for(lambda result: result.score == 0.2, name)
        assert (pipeline.model is replacing, old.closed, new.closed) == (True, 1, 0)
    assert (old.closed, new.closed) == (1, 1)
    for name in ("press-1", "press-2"):
        made = [(result.bundle_sha256, result.score) for result in recorder.results(name) if result.score is not None]
        assert set(made) == {(SHA256, 0.1), (OTHER_SHA256, 0.2)}
        assert made == sorted(made)


def test_a_model_is_closed_only_when_nothing_of_it_is_in_flight() -> None:
    camera, old, chosen = FakeCamera(), FakeDetector(score=0.1), settings()
    with running([Station(camera, chosen)], old, chosen) as (pipeline, recorder):
        old.gate.clear()
        camera.push(10)
        assert old.entered.wait(DEADLINE_S)
        pipeline.replace_model(model_of(FakeDetector(score=0.2), OTHER_SHA256))
        camera.push(10)
        recorder.wait_for(lambda result: result.bundle_sha256 == OTHER_SHA256)
        assert old.closed == 0
        old.gate.set()
        recorder.wait_for(lambda result: result.score == 0.2)
        assert old.closed == 1
    fresh = [
        (result.bundle_sha256, result.score) for result in recorder.results("press-1") if result.verdict is Verdict.OK
    ]
    assert fresh == [(SHA256, 0.1), (OTHER_SHA256, 0.2)]


# Observers and advice


def test_an_observer_is_told_about_every_message_as_it_was_sent() -> None:
    observer, camera, chosen = Observing(), FakeCamera(every_s=0.02, answers=BAD), settings(duration_s=0.3)
    with running([Station(camera, chosen)], FakeDetector(0.01), chosen, observers=[observer]) as (pipeline, recorder):
        assert pipeline.wait(DEADLINE_S)
    results = recorder.results("press-1")
    assert len(observer.told) == len(results) == 30
    for told, result in zip(observer.told, results, strict=True):
        assert (told.camera, told.sequence, told.verdict) == (result.camera, result.sequence, result.verdict)
        assert (told.ledger, told.health, told.published_ns) == (result.ledger, result.health, result.published_ns)
        assert (told.fresh is not None) == (result.verdict is Verdict.ANOMALOUS)
        assert 0 <= told.deviation_ns < 30e9
    fresh = [told.fresh for told in observer.told if told.fresh is not None]
    assert [inspected.frame.frame_id for inspected in fresh] == sorted({each.frame.frame_id for each in fresh})
    assert all(inspected.inferred_ns >= 10_000_000 and inspected.waited_ns >= 0 for inspected in fresh)
    assert all(inspected.encoded_ns > 0 and inspected.detection.score == BAD / 255 for inspected in fresh)


def test_an_observer_that_raises_is_told_nothing_more_and_stops_no_message(caplog: pytest.LogCaptureFixture) -> None:
    failing, well, chosen = Observing(raises_at=5), Observing(), settings(duration_s=0.2)
    observers = [failing, well]
    with running([Station(FakeCamera(), chosen)], FakeDetector(), chosen, observers=observers) as (pipeline, recorder):
        assert pipeline.wait(DEADLINE_S)
    assert (len(failing.told), len(well.told), len(recorder.results("press-1"))) == (5, 20, 20)
    assert [record.levelno for record in caplog.records if "not told" in record.message] == [logging.ERROR]


def test_advice_degrades_health_and_never_hides_a_fault() -> None:
    advice, camera, chosen = ["drift: scores\ncreep"], FakeCamera(), settings()
    with running([Station(camera, chosen)], FakeDetector(), chosen, advice=[lambda: advice[0]]) as (_, recorder):
        camera.push(10)
        result = recorder.wait_for(lambda result: result.verdict is Verdict.OK)
        assert (result.health.state, result.health.reason) == ("degraded", "drift: scores creep")
        camera.push(CameraError("cable pulled"))
        fault = recorder.wait_for(lambda result: result.verdict is Verdict.FAULT)
        assert fault.health.reason == "camera: cable pulled"
        advice[0] = None  # type: ignore[call-overload]
        camera.push(10)
        recorder.wait_for(lambda result: result.frame_id == 1 and result.health.state == "ok")


def _raises() -> str:
    raise ValueError("a bug")


@pytest.mark.parametrize("bad", [_raises, lambda: 7, lambda: "x" * 5000], ids=["raises", "no text", "long text"])
def test_no_advice_stops_a_tick(bad: Advice) -> None:
    chosen = settings(duration_s=0.2)
    with running([Station(FakeCamera(), chosen)], FakeDetector(), chosen, advice=[bad, lambda: "late"]) as line:
        assert line[0].wait(DEADLINE_S)
    reasons = {result.health.reason for result in line[1].results()}
    assert len(line[1].results()) == 20
    assert reasons in ({"late"}, {"x" * MAX_REASON_LENGTH})


# Time


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_step_of_the_wall_clock_does_not_reach_the_messages(monkeypatch: pytest.MonkeyPatch, step_s: int) -> None:
    camera, chosen = FakeCamera(every_s=0.005), settings()
    with running([Station(camera, chosen)], FakeDetector(), chosen) as (_, recorder):
        recorder.wait_for(lambda result: result.verdict is Verdict.OK)
        wall_ns, wall_s = time.time_ns, time.time
        monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + step_s * 10**9)
        monkeypatch.setattr(time, "time", lambda: wall_s() + step_s)
        number = len(recorder.results("press-1"))
        recorder.wait_for(lambda result: result.sequence > number + 20 and result.verdict is Verdict.OK)
    results = recorder.results("press-1")
    published = [result.published_ns for result in results]
    captured = [result.captured_ns for result in results if result.captured_ns is not None]
    assert (published, captured) == (sorted(published), sorted(captured))
    assert published[-1] - published[0] < DEADLINE_S * 1e9


def test_a_camera_whose_clock_goes_back_or_ahead_does_not_take_the_session_with_it() -> None:
    class Odd(FakeCamera):
        def now_ns(self) -> int:
            return now_ns() + (0, -(10**12), 10**12)[self.delivered % 3]

    camera, chosen = Odd(every_s=0.005), settings()
    with running([Station(camera, chosen)], FakeDetector(), chosen) as (_, recorder):
        recorder.wait_for(lambda result: result.ledger.published_fresh > 12)
    about = [result for result in recorder.results("press-1") if result.captured_ns is not None]
    captured = [result.captured_ns for result in about]
    assert captured == sorted(captured)
    assert all(result.captured_ns <= result.published_ns for result in about)


def test_who_joins_late_gets_the_last_value_with_the_first_message() -> None:
    camera, chosen = FakeCamera(), settings(stale_after_s=1000.0)
    with ResultPublisher("tcp://127.0.0.1:*") as publisher:
        pipeline = Pipeline([Station(camera, chosen)], model_of(FakeDetector()), publisher, chosen)
        pipeline.start()
        camera.push(BAD)
        wait_until(lambda: pipeline.status()["press-1"].verdict is Verdict.ANOMALOUS, "a defect")
        with ResultSubscriber(publisher.endpoint, every=True) as late:
            first = late.receive(DEADLINE_S)
        pipeline.stop()
    assert first is not None
    assert (first.verdict, first.frame_id, first.score) == (Verdict.ANOMALOUS, 0, BAD / 255)
    assert first.sequence > 0


def test_a_person_sees_every_camera_in_one_line_and_in_the_summary() -> None:
    chosen, recorder = settings(), Sent()
    good, bad = FakeCamera("press-1", 0.003), FakeCamera("press-2", 0.003, BAD)
    stations = [Station(good, chosen), Station(bad, chosen)]
    pipeline = Pipeline(stations, model_of(FakeDetector()), recorder, chosen)
    pipeline.start()
    recorder.wait_for(lambda result: result.verdict is Verdict.OK, "press-1")
    recorder.wait_for(lambda result: result.verdict is Verdict.ANOMALOUS, "press-2")
    line = live_line(pipeline.status(), {"press-1": 9.0, "press-2": 8.0}).plain
    summary = summaries_text(pipeline.stop())
    assert re.fullmatch(r"press-1 (ok|stale) 9.0/s \| press-2 (anomalous|stale) 8.0/s", line)
    assert re.findall(r"^camera +(.+)$", summary, re.MULTILINE) == ["press-1", "press-2"]
    assert summary.count("in flight 0") == 2
