"""Whatever cameras, engine, triggers and models do, and whenever: every message keeps the laws of the line."""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files

import numpy as np
import pytest
from doubles import SIZE, FakeCamera, Observing, Sent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from fbft_edge.detectors.model import DetectorPool, Model
from fbft_edge.errors import ArgumentError, CameraError, EngineError
from fbft_edge.frames.frame import Detection, Frame, Pixels, Verdict
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.line.pipeline import Pipeline, Settings, Station, Summary
from fbft_edge.messages.ledger import LedgerSnapshot
from fbft_edge.messages.reading import Result, decode_message
from fbft_edge.names import TRIGGERS

VALIDATOR = Draft202012Validator(json.loads((files("fbft_edge.messages") / "result.schema.json").read_text()))
FRESH = (Verdict.OK, Verdict.ANOMALOUS)
LONGEST_S = 1.0


@dataclass(frozen=True)
class Event:
    """What a camera does next, after a pause."""

    pause_s: float
    kind: str
    level: int


@dataclass(frozen=True)
class Plan:
    """One camera: how it is triggered, and what it does; then it ends, or is silent."""

    trigger: str
    events: tuple[Event, ...]
    ends: bool


@dataclass(frozen=True)
class Act:
    """What someone outside does to the line."""

    pause_s: float
    kind: str
    camera: int


pauses = st.sampled_from((0.0, 0.0, 0.0, 0.001, 0.004, 0.02))
events = st.builds(
    Event,
    pauses,
    st.sampled_from(("frame", "frame", "frame", "burst", "lost", "bug", "odd size", "odd clock", "hang")),
    st.integers(0, 255),
)
plans = st.builds(Plan, st.sampled_from(TRIGGERS), st.lists(events, max_size=60).map(tuple), st.booleans())
acts = st.builds(
    Act, st.sampled_from((0.0, 0.002, 0.01, 0.05)), st.sampled_from(("trigger", "trigger", "model")), st.integers(0, 2)
)
line_settings = st.builds(
    Settings,
    fps=st.sampled_from((50.0, 200.0, 1000.0)),
    site=st.just("hall-3"),
    duration_s=st.sampled_from((None, 0.05, 0.5)),
    with_preview=st.booleans(),
    stale_after_s=st.sampled_from((0.0, 0.02, 100.0)),
    late_after_s=st.sampled_from((0.0, 0.01, 0.05)),
    engine_timeout_s=st.sampled_from((0.01, 10.0)),
)


class PlannedCamera(FakeCamera):
    """Follows its plan; errors are those of a camera, of its driver and of its own code."""

    def __init__(self, name: str, plan: Plan) -> None:
        super().__init__(name)
        self._events, self._ends = list(reversed(plan.events)), plan.ends
        self._burst = self._clock_error_ns = 0

    def read(self) -> Frame | None:
        self._clock_error_ns = 0
        if self._burst:
            self._burst -= 1
            return self.frame(100)
        if not self._events:
            if not self._ends:
                self.closed.wait()
            return None
        event = self._events.pop()
        if self.closed.wait(0.06 if event.kind == "hang" else event.pause_s):
            return None
        if event.kind in ("lost", "bug"):
            raise CameraError("cable pulled") if event.kind == "lost" else ValueError("odd")
        self._burst = 5 if event.kind == "burst" else 0
        self._clock_error_ns = (event.level - 128) * 10**9 * (event.kind == "odd clock")
        return self.frame(event.level, (8, 16) if event.kind == "odd size" else SIZE)

    def now_ns(self) -> int:
        return super().now_ns() + self._clock_error_ns


@dataclass
class LevelDetector:
    """Fails when it begins and when it is asked, says nonsense and is slow, as the frame's level has it."""

    frames_in_flight: int
    closed: int = 0
    asked: int = 0

    def begin(self, pixels: Pixels) -> Callable[[], Detection]:
        level = int(pixels[0, 0, 0])
        if level < 15:
            raise EngineError("no memory on the device")
        return partial(self._detection, level, pixels.shape[:2])

    def _detection(self, level: int, size: tuple[int, int]) -> Detection:
        assert self.closed == 0
        time.sleep(0.04 if level > 245 else level % 4 * 0.001)
        if level < 30:
            raise RuntimeError("the kernel was not launched")
        score = float("nan") if level < 45 else level / 255
        return Detection(score, 1.0, np.zeros(size, bool), (), level > 150)

    def close(self) -> None:
        self.closed += 1


@dataclass
class Outcome:
    cameras: list[PlannedCamera]
    messages: list[list[bytes]]
    summaries: dict[str, Summary]
    accepted: dict[str, list[str]]
    detectors: list[LevelDetector]
    observer: Observing


def made_model(frames_in_flight: int, number: int, detectors: list[LevelDetector]) -> Model:
    def make(layout: FrameLayout) -> LevelDetector:
        if number % 2 and layout.width == 16:
            raise EngineError("frames of 8x16 pixels need more memory")
        detectors.append(LevelDetector(frames_in_flight))
        return detectors[-1]

    return Model(DetectorPool(make, most=None), 0.5, f"{number:064x}")


def run(
    cameras: Sequence[Plan], chosen: Settings, frames_in_flight: int, doings: Sequence[Act], observer: Observing
) -> Outcome:
    """Run a line until all of its cameras have ended, its duration is over, or for a second."""
    planned = [PlannedCamera(f"press-{index}", plan) for index, plan in enumerate(cameras)]
    stations = [Station(camera, chosen, plan.trigger, 0.02) for camera, plan in zip(planned, cameras, strict=True)]
    recorder, detectors = Sent(), []
    accepted: dict[str, list[str]] = {station.name: [] for station in stations}
    pipeline = Pipeline(stations, made_model(frames_in_flight, 0, detectors), recorder, chosen, [observer])
    started_s = time.monotonic()
    pipeline.start()
    for number, doing in enumerate(doings, 1):
        if pipeline.wait(doing.pause_s):
            break
        station = stations[doing.camera % len(stations)]
        if doing.kind == "model":
            pipeline.replace_model(made_model(frames_in_flight, number, detectors))
            continue
        with contextlib.suppress(ArgumentError):
            station.trigger(str(number))
            accepted[station.name].append(str(number))
    pipeline.wait(max(0.0, started_s + LONGEST_S - time.monotonic()))
    return Outcome(planned, recorder.messages, pipeline.stop(), accepted, detectors, observer)


def totals(ledger: LedgerSnapshot) -> tuple[int, ...]:
    published = (ledger.published_fresh, ledger.published_stale, ledger.published_fault)
    return (ledger.captured, *published, *ledger.dropped.values(), ledger.missed_triggers)


def never_falls(values: Sequence[int]) -> bool:
    return all(before <= after for before, after in itertools.pairwise(values))


def check_messages(results: Sequence[Result]) -> None:
    """What a subscriber may rely on in every message."""
    assert [result.sequence for result in results] == list(range(len(results)))
    assert len({result.session for result in results}) <= 1
    for result in results:
        assert result.ledger.is_closed
        assert result.ledger.messages == result.sequence + 1
        assert result.captured_ns is None or result.captured_ns <= result.published_ns
    for counts in zip(*(totals(result.ledger) for result in results), strict=True):
        assert never_falls(counts)
    assert never_falls([result.published_ns for result in results])
    # After a fault about a newer frame the last result is repeated, which is older.
    spoken = [result.captured_ns for result in results if result.verdict is not Verdict.STALE]
    assert never_falls([captured_ns for captured_ns in spoken if captured_ns is not None])


def check_account(results: Sequence[Result], ledger: LedgerSnapshot, accepted: Sequence[str]) -> None:
    """The ledger says what a subscriber can count itself."""
    assert (ledger.is_closed, ledger.in_flight, ledger.messages) == (True, 0, len(results))
    fresh = dict.fromkeys(result.frame_id for result in results if result.verdict in FRESH)
    assert len(fresh) == ledger.published_fresh
    failed = [result.frame_id for result in results if result.verdict is Verdict.FAULT and result.frame_id is not None]
    assert len(failed) == ledger.dropped["inference_error"] + ledger.dropped["too_late"]
    assert sorted({*fresh, *failed}) == sorted([*fresh, *failed])
    answers = dict.fromkeys(result.trigger_id for result in results if result.trigger_id is not None)
    assert list(answers) == list(accepted)[: len(answers)]
    assert len(accepted) - len(answers) <= 1


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    cameras=st.lists(plans, min_size=1, max_size=3),
    chosen=line_settings,
    frames_in_flight=st.sampled_from((1, 2)),
    doings=st.lists(acts, max_size=25),
    raises_at=st.none() | st.integers(1, 40),
)
def test_every_message_keeps_the_laws_of_the_line(
    cameras: list[Plan], chosen: Settings, frames_in_flight: int, doings: list[Act], raises_at: int | None
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("fbft_edge.line.intake.CAMERA_RETRY_S", 0.002)
        outcome = run(cameras, chosen, frames_in_flight, doings, Observing(raises_at))
    for parts in outcome.messages:
        VALIDATOR.validate(json.loads(parts[1]))
    results = [decode_message(parts) for parts in outcome.messages]
    for camera, plan in zip(outcome.cameras, cameras, strict=True):
        told = [result for result in results if result.camera == camera.name]
        ledger = outcome.summaries[camera.name].ledger
        check_messages(told)
        check_account(told, ledger, outcome.accepted[camera.name])
        assert ledger.captured == camera.delivered or plan.trigger == "software"
    assert {detector.closed for detector in outcome.detectors} <= {1}
    assert len(outcome.observer.told) == min(raises_at or len(results), len(results))
