"""Drift is said when pictures or scores change, and otherwise no more often than stated."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from doubles import MessageSource
from hypothesis import given
from hypothesis import strategies as st
from waiting import wait_until

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.bundle.nominal_statistics import SCORE, STATISTICS, Reference, nominal_statistics
from fbft_edge.bundle.notes import Notes, notes_from_json, notes_to_json
from fbft_edge.bundle.reading import MANIFEST, Bundle, TeacherIdentity, open_bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.clock import now_ns
from fbft_edge.errors import ArgumentError, BundleError
from fbft_edge.frames.frame import Detection, Frame, Uint8
from fbft_edge.frames.pixel_format import PixelFormat, frame_array_shape, pixel_dtype, rgb_from_pixels
from fbft_edge.frames.statistics import picture_statistics
from fbft_edge.service.drift import WORDS, DriftMonitor, Window, alarm_count
from fbft_edge.synthetic import render_part

SIZE = (140, 182)
NUM_IMAGES = 24
LENGTH = 40
PARTS = [render_part(seed, *SIZE).pixels for seed in range(2 * NUM_IMAGES)]


def read_back(statistics: Mapping[str, Reference]) -> Mapping[str, Reference]:
    """Through JSON, as a bundle stores them."""
    stored = json.dumps(notes_to_json(Notes(nominal_statistics=statistics)))
    return notes_from_json(json.loads(stored)).references


def scores(count: int, seed: int = 0) -> list[float]:
    return [float(score) for score in np.random.default_rng(seed).uniform(0.2, 0.3, count)]


@pytest.fixture(scope="module")
def references() -> Mapping[str, Reference]:
    """Of parts that are like those that follow; as a bundle stores them."""
    return read_back(nominal_statistics(scores(NUM_IMAGES), [picture_statistics(part) for part in PARTS[:NUM_IMAGES]]))


class Line(MessageSource):
    """Publishes about frames to a monitor as a pipeline does, one after the other."""

    def __init__(self, monitor: DriftMonitor, camera: str = "press-1", is_watched: bool = True) -> None:
        super().__init__(camera)
        self._monitor, self._is_watched = monitor, is_watched
        self._scores = np.random.default_rng(1)

    def show(self, pixels: Uint8, shift: float = 0.0, anomalous: bool = False) -> str | None:
        """Publish one frame, wait until it was looked at, return the advice."""
        score = 0.9 if anomalous else float(self._scores.uniform(0.2, 0.3)) + shift
        detection = Detection(score, score, np.zeros(SIZE, bool), (), anomalous)
        before = self._monitor.readings.get(self.camera)
        self._monitor.published(self.about(Frame(self.camera, self.count, now_ns(), pixels), detection))
        if self._is_watched:
            wait_until(lambda: self._monitor.readings.get(self.camera) is not before, "the frame to be looked at")
        return self._monitor.advice()


@contextlib.contextmanager
def watching(references: Mapping[str, Reference], window: int = LENGTH) -> Iterator[DriftMonitor]:
    monitor = DriftMonitor(references, window)
    try:
        yield monitor
    finally:
        monitor.close()


def darker(pixels: Uint8) -> Uint8:
    return cv2.convertScaleAbs(pixels, alpha=0.6)


def brighter(pixels: Uint8) -> Uint8:
    return cv2.convertScaleAbs(pixels, alpha=1.0, beta=45)


def blurred(pixels: Uint8) -> Uint8:
    return cv2.GaussianBlur(pixels, (0, 0), 2.5)


def reddish(pixels: Uint8) -> Uint8:
    return np.clip(pixels * np.array([1.1, 1.0, 0.85]), 0, 255).astype(np.uint8)


def flat(pixels: Uint8) -> Uint8:
    return np.clip(128 + 0.4 * (pixels.astype(np.float32) - 128), 0, 255).astype(np.uint8)


def unchanged(pixels: Uint8) -> Uint8:
    return pixels


def advice_after(references: Mapping[str, Reference], change: Callable[[Uint8], Uint8], **how: Any) -> str | None:
    with watching(references) as monitor:
        line = Line(monitor)
        advice = None
        for index in range(LENGTH):
            advice = line.show(change(PARTS[NUM_IMAGES + index % NUM_IMAGES]), **how)
    return advice


# What is found


def test_parts_like_those_of_calibration_raise_no_alarm(references: Mapping[str, Reference]) -> None:
    assert advice_after(references, unchanged) is None


@pytest.mark.parametrize(
    ("change", "named", "remedy"),
    [
        (darker, "mean level", "light and exposure"),
        (brighter, "mean level", "light and exposure"),
        (blurred, "sharpness", "focus"),
        (reddish, "share of red", "white balance"),
        (flat, "contrast", "lens"),
    ],
)
def test_a_change_of_the_picture_is_named_with_what_to_check(
    references: Mapping[str, Reference], change: Callable[[Uint8], Uint8], named: str, remedy: str
) -> None:
    advice = advice_after(references, change)
    assert advice is not None
    assert (advice.startswith(f"drift: press-1: {named} "), remedy in advice) == (True, True)


def test_the_advice_holds_todays_value_and_calibrations_range(references: Mapping[str, Reference]) -> None:
    advice = advice_after(references, darker)
    level = references["level"]
    today = float(np.median([picture_statistics(darker(part))["level"] for part in PARTS[NUM_IMAGES:]]))
    assert advice is not None
    assert f"where calibration had {level.low:.4g} to {level.high:.4g} (40 of 40 frames below)" in advice
    assert float(advice.split("mean level ")[1].split()[0]) == pytest.approx(today, rel=0.05)


def test_scores_that_creep_up_below_the_threshold_are_found(references: Mapping[str, Reference]) -> None:
    advice = advice_after(references, unchanged, shift=0.08)
    assert advice is not None
    assert "median score" in advice


def test_light_that_makes_every_frame_anomalous_is_found_all_the_same(references: Mapping[str, Reference]) -> None:
    advice = advice_after(references, darker, anomalous=True)
    assert advice is not None
    assert "mean level" in advice


def test_scores_of_anomalous_frames_do_not_count(references: Mapping[str, Reference]) -> None:
    assert advice_after(references, unchanged, anomalous=True) is None


def test_each_camera_is_watched_on_its_own(references: Mapping[str, Reference]) -> None:
    with watching(references) as monitor:
        lines = Line(monitor, "press-1"), Line(monitor, "press-2")
        for index in range(LENGTH):
            part = PARTS[NUM_IMAGES + index % NUM_IMAGES]
            lines[0].show(part)
            advice = lines[1].show(darker(part))
        alarms = {camera: monitor.alarms()[camera, "level"] for camera in ("press-1", "press-2")}
        medians = monitor.medians()
    assert medians["press-2", "level"] < medians["press-1", "level"]
    assert (alarms, advice is not None and "press-2" in advice) == ({"press-1": 0.0, "press-2": 1.0}, True)


def test_nothing_is_said_before_the_window_is_full(references: Mapping[str, Reference]) -> None:
    with watching(references) as monitor:
        line = Line(monitor)
        said = [line.show(darker(PARTS[index])) for index in range(LENGTH)]
    assert (said[:-1], said[-1] is None) == ([None] * (LENGTH - 1), False)


def test_the_numbers_can_be_read(references: Mapping[str, Reference]) -> None:
    with watching(references) as monitor:
        line = Line(monitor)
        for index in range(5):
            line.show(darker(PARTS[index]))
        reading = monitor.readings["press-1"]["level"]
        names = set(monitor.readings["press-1"])
    assert (reading.frames, reading.below, reading.above, reading.is_alarm) == (5, 5, 0, False)
    assert (names, reading.reference) == ({"level", "contrast", "sharpness", "red", "blue", SCORE}, references["level"])


def test_another_bundle_begins_anew(references: Mapping[str, Reference]) -> None:
    with watching(references) as monitor:
        line = Line(monitor)
        for index in range(LENGTH):
            line.show(darker(PARTS[index]))
        before = monitor.advice()
        monitor.compare_with(references)
        assert (before is None, monitor.advice(), monitor.readings) == (False, None, {})


def test_an_alarm_ends_when_half_as_many_frames_are_beyond() -> None:
    window = Window(Reference(99, 1, 0.0, 0.5, 1.0), 100, 1e-5)
    readings = [window.add(2.0) for _ in range(100)] + [window.add(0.5) for _ in range(100)]
    limit = readings[0].limit
    began = next(index for index, reading in enumerate(readings) if reading.is_alarm)
    ended = next(index for index in range(began, 200) if not readings[index].is_alarm)
    assert (began, readings[ended].above, any(reading.is_alarm for reading in readings[ended:])) == (
        99,
        limit // 2,
        False,
    )


# How often it is wrong


@pytest.mark.parametrize(("images", "rank"), [(9, 1), (24, 1), (40, 10)])
def test_false_alarms_are_no_more_frequent_than_stated(images: int, rank: int) -> None:
    """Of 3,000 calibrations, each followed by two windows of frames that are like its images."""
    stated, length, repetitions = 0.1, 30, 3000
    generator = np.random.default_rng(images)
    alarms = 0
    for _ in range(repetitions):
        nominal = np.sort(generator.lognormal(0, 1, images))
        reference = Reference(images, rank, nominal[rank - 1], 1.0, nominal[-rank])
        limit = max(alarm_count(reference, length, stated / 2 / length), math.ceil(length / 4))
        frames = generator.lognormal(0, 1, 2 * length - 1)
        for beyond in (frames < reference.low, frames > reference.high):
            totals = np.concatenate([[0], np.cumsum(beyond)])
            alarms += (totals[length:] - totals[:-length]).max() >= limit
    assert alarms / repetitions <= stated


def test_the_window_counts_as_the_simulation_does() -> None:
    generator = np.random.default_rng(0)
    reference, values = Reference(20, 2, -1.0, 0.0, 1.0), generator.normal(0, 1.2, 300)
    window = Window(reference, 30, 0.1)
    for index, value in enumerate(values):
        reading = window.add(float(value))
        last = values[max(0, index - 29) : index + 1]
        assert (reading.below, reading.above) == (np.count_nonzero(last < -1), np.count_nonzero(last > 1))
        assert (reading.frames, reading.median in last) == (len(last), True)


@pytest.mark.parametrize(("images", "rank", "length"), [(8, 1, 20), (29, 1, 200), (30, 7, 50)])
def test_so_many_frames_beyond_a_limit_are_as_rare_as_computed(images: int, rank: int, length: int) -> None:
    generator = np.random.default_rng(0)
    share = generator.beta(rank, images + 1 - rank, 400_000)
    counts = generator.binomial(length, share)
    for chance in (0.1, 0.01, 0.001):
        count = alarm_count(Reference(images, rank, 0, 0, 0), length, chance)
        found = np.mean(counts >= count), np.mean(counts >= count - 1)
        margin = 4 * math.sqrt(chance / 400_000)
        assert found[0] <= chance + margin
        assert found[1] >= chance - margin


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([20, 200, 10_000]), st.floats(1e-9, 0.5))
def test_a_limit_is_found_for_every_calibration(images: int, rank: int, length: int, chance: float) -> None:
    count = alarm_count(Reference(images, min(rank, (images + 1) // 2), 0, 0, 0), length, chance)
    assert 1 <= count <= length + 1


def test_too_few_images_to_tell_never_raise_an_alarm() -> None:
    window = Window(Reference(2, 1, 0.0, 0.5, 1.0), 20, 1e-6)
    readings = [window.add(9.0) for _ in range(60)]
    assert (readings[-1].limit, any(reading.is_alarm for reading in readings)) == (21, False)


def test_what_is_of_no_consequence_is_no_drift_however_equal_the_images_were() -> None:
    window = Window(Reference(1000, 1, 117.9, 118.0, 118.1), 50, 1e-6)
    assert not any(window.add(119.9).is_alarm for _ in range(100))
    assert any(window.add(121.0).is_alarm for _ in range(100))


def test_a_few_strange_frames_are_no_drift_however_many_images_there_were() -> None:
    window = Window(Reference(100_000, 1, 0.0, 0.5, 1.0), 200, 1e-6)
    assert not any(window.add(9.0 if index % 5 == 0 else 0.5).is_alarm for index in range(400))


# What a picture is like


@pytest.mark.parametrize("pixel_format", PixelFormat)
def test_a_picture_has_the_same_statistics_in_its_own_format_and_as_rgb(pixel_format: PixelFormat) -> None:
    dtype = pixel_dtype(pixel_format)
    shape = frame_array_shape(pixel_format, 600, 800)
    smooth = cv2.GaussianBlur(np.random.default_rng(0).random(shape), (0, 0), 3)
    pixels = (smooth / smooth.max() * np.iinfo(dtype).max).astype(dtype)
    assert picture_statistics(pixels, pixel_format) == picture_statistics(rgb_from_pixels(pixels, pixel_format))


def test_light_changes_level_and_contrast_and_neither_sharpness_nor_colour() -> None:
    pixels = (PARTS[0] // 4).astype(np.uint8)
    one, two = picture_statistics(pixels), picture_statistics(pixels * 2)
    assert (two["level"], two["contrast"]) == pytest.approx((2 * one["level"], 2 * one["contrast"]), abs=0.02)
    assert (two["sharpness"], two["red"], two["blue"]) == (one["sharpness"], one["red"], one["blue"])


def test_a_large_picture_is_sampled_as_good_as_looked_at_whole() -> None:
    pixels = render_part(3, 1036, 1400).pixels
    level = pixels.astype(np.float64).mean(axis=2)
    found = picture_statistics(pixels)
    assert (found["level"], found["contrast"]) == pytest.approx((level.mean(), level.std()), rel=0.01)


@pytest.mark.parametrize("level", [0, 255])
def test_an_even_picture_has_numbers_too(level: int) -> None:
    found = picture_statistics(np.full((50, 60, 3), level, np.uint8))
    assert found == {"level": level, "contrast": 0, "sharpness": 0, "red": 0.3333, "blue": 0.3333}


# Bundles


def test_a_bundle_without_statistics_says_so_once_and_never_raises_an_alarm(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with watching(Notes().references) as monitor:
        line = Line(monitor, is_watched=False)
        for index in range(2 * LENGTH):
            line.show(darker(PARTS[index % NUM_IMAGES]))
    assert (monitor.advice(), monitor.readings) == (None, {})
    assert len([record for record in caplog.records if "no drift alarm" in record.message]) == 1


@pytest.mark.parametrize(
    "stored",
    [
        [],
        {"level": {}},
        {"level": {"images": 0, "rank": 1, "low": 0, "median": 1, "high": 2}},
        {"level": {"images": 9, "rank": 6, "low": 0, "median": 1, "high": 2}},
        {"level": {"images": 9, "rank": 1, "low": 3, "median": 1, "high": 2}},
        {"level": {"images": 9, "rank": 1, "low": math.nan, "median": 1, "high": 2}},
        {"level": {"images": 9, "rank": 1, "low": "0", "median": 1, "high": 2}},
    ],
)
def test_statistics_that_calibration_never_writes_are_refused(tmp_path: Path, stored: Any) -> None:
    teacher, tile = TeacherIdentity("none", "0" * 64, 1, (0, 1)), TileGeometry(28, 14, 0)
    seal_bundle(Bundle(tmp_path, "p", "2026-01-01T00:00:00Z", teacher, tile, (), None))
    contents = json.loads((tmp_path / MANIFEST).read_text())
    contents["notes"] = {"nominal_statistics": stored}
    (tmp_path / MANIFEST).write_text(json.dumps(contents))
    with pytest.raises(BundleError, match=r"nominal_statistics|NaN"):
        open_bundle(tmp_path)


@given(st.lists(st.floats(0, 4), min_size=1, max_size=60))
def test_what_calibration_stores_is_read_back(values: list[float]) -> None:
    pictures = [{"level": value} for value in values]
    found = read_back(nominal_statistics(values, pictures))
    assert (found["level"].low, found["level"].high) == (min(values), max(values))
    inside = [value for value in values if found[SCORE].low <= value <= found[SCORE].high]
    assert len(inside) >= len(values) / 2 - 1


@pytest.mark.parametrize("window", [0, 19, 10_001])
def test_a_window_out_of_its_range_is_refused(window: int) -> None:
    with pytest.raises(ArgumentError, match=str(window)):
        DriftMonitor({}, window)


def test_all_that_is_measured_of_a_picture_is_stored_watched_and_has_its_words() -> None:
    measured = {*picture_statistics(PARTS[0]), SCORE}
    assert (set(STATISTICS), set(WORDS)) == (measured, measured)
