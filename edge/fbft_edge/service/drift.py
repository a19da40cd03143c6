"""Messages in, a word when pictures or scores are no longer like those of calibration.

For each statistic calibration's nominal images give two limits: the least and the largest value, for scores the outer
quarters. When frames are like those images, how many of them lie beyond a limit follows a beta-binomial distribution
whatever the statistic's own is, the small number of images included; an alarm needs so many that this happens less
often than stated. Knows nothing about cameras, detectors or sockets.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from fbft_edge.bundle.nominal_statistics import SCORE, STATISTICS, Reference
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.frame import Frame, Verdict
from fbft_edge.frames.statistics import picture_statistics
from fbft_edge.messages.published import Published
from fbft_edge.ranges import DRIFT_WINDOW

FALSE_ALARM_RATE = 1e-4
LEAST_SHARE = 0.25
MARGIN = 0.02

WORDS = {  # what has changed, and what to check then
    "level": ("mean level", "light and exposure"),
    "red": ("share of red", "white balance and the light's colour"),
    "blue": ("share of blue", "white balance and the light's colour"),
    "sharpness": ("sharpness", "focus, vibration and dirt on the lens"),
    "contrast": ("contrast", "light, exposure and lens"),
    SCORE: ("median score", "camera, light and what has changed about the parts"),
}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Reading:
    """How one statistic of one camera stands.

    Attributes:
        reference: What calibration had.
        median: Of the frames in the window.
        frames: In the window; nothing is said before it is full.
        below: Of those, beyond the lower limit and its margin.
        above: Of those, beyond the upper one.
        limit: So many beyond either limit raise the alarm; more than the window holds when calibration had too few
            images to tell.
        is_alarm: True from then until half as many are beyond.
    """

    reference: Reference
    median: float
    frames: int
    below: int
    above: int
    limit: int
    is_alarm: bool


class Window:
    """The last values of one statistic of one camera, beside its reference.

    A value counts as beyond a limit when it lies further out than `MARGIN` of calibration's median: nominal images of
    one hour are often so equal that what is beyond them is still of no consequence. An alarm needs `LEAST_SHARE` of
    the window, so that single odd frames are none.

    Args:
        reference: What calibration had.
        length: Values in the window.
        false_alarm_rate: Of each limit, over so many frames as the window holds.
    """

    def __init__(self, reference: Reference, length: int, false_alarm_rate: float) -> None:
        self._reference = reference
        margin = MARGIN * abs(reference.median)
        self._low, self._high = reference.low - margin, reference.high + margin
        self._values: deque[float] = deque(maxlen=length)
        # Each of the window's frames brings a new look at it.
        chance = alarm_count(reference, length, false_alarm_rate / length)
        self._limit = max(chance, math.ceil(LEAST_SHARE * length))
        self._is_alarm = False

    def add(self, value: float) -> Reading:
        """Take in the newest value; returns how it all stands."""
        self._values.append(value)
        below = sum(value < self._low for value in self._values)
        above = sum(value > self._high for value in self._values)
        if len(self._values) == self._values.maxlen:
            self._is_alarm = max(below, above) >= (self._limit // 2 + 1 if self._is_alarm else self._limit)
        ordered = sorted(self._values)
        median = ordered[len(ordered) // 2]
        return Reading(self._reference, median, len(ordered), below, above, self._limit, self._is_alarm)


def alarm_count(reference: Reference, length: int, chance: float) -> int:
    """Least number of values beyond one limit whose chance, without drift, is at most `chance`.

    The share of frames beyond a limit is Beta(rank, images + 1 - rank) over the draw of calibration's images, so the
    number of them is beta-binomial. `length + 1` when even all of them are not rare enough.
    """
    tail, count = 0.0, length + 1
    while count > 0 and (tail := tail + _chance_of(count - 1, reference, length)) <= chance:
        count -= 1
    return count


class DriftMonitor:
    """Compares what is published with calibration; see `fbft_edge.messages.published.Observer`.

    Pictures count whatever their verdict, because other light may make all of them anomalous; scores count when the
    verdict is `ok`. A thread of its own looks at the newest frame of each camera and leaves out those that it has no
    time for.

    Args:
        references: What calibration had, from a bundle's notes; nothing is compared when they are empty, which is
            logged once.
        window: Frames.
        false_alarm_rate: Of a camera, over so many frames as the window holds, as long as they are like calibration's
            images. An upper bound: measured rates are lower.

    Raises:
        ArgumentError: The window is out of its range.
    """

    def __init__(
        self, references: Mapping[str, Reference], window: int = 200, false_alarm_rate: float = FALSE_ALARM_RATE
    ) -> None:
        if window not in DRIFT_WINDOW:
            raise ArgumentError(f"cannot watch for drift over {window} frames; use a window {DRIFT_WINDOW}")
        self._window, self._false_alarm_rate = window, false_alarm_rate
        self._waiting: dict[str, tuple[Frame, float | None]] = {}
        self._wake = threading.Event()
        self._is_closed = False
        self.compare_with(references)
        self._thread = threading.Thread(target=self._work, name="fbft-drift", daemon=True)
        self._thread.start()

    def compare_with(self, references: Mapping[str, Reference]) -> None:
        """Begin anew with what another bundle's calibration had."""
        if not references:
            _logger.warning(
                "the bundle holds no statistics of its nominal images, so there is no drift alarm; "
                "fbft-calibrate threshold adds them"
            )
        self._comparison = _Comparison(references, self._window, self._false_alarm_rate)

    def published(self, message: Published) -> None:
        """See `fbft_edge.messages.published.Observer`; keeps each camera's newest frame until it was looked at."""
        if message.fresh is not None and self._comparison.references:
            score = message.fresh.detection.score if message.verdict is Verdict.OK else None
            self._waiting[message.camera] = message.fresh.frame, score
            self._wake.set()

    def advice(self) -> str | None:
        """Which camera's pictures or scores have changed, and what to check; None while there is no alarm."""
        return self._comparison.advice

    @property
    def readings(self) -> Mapping[str, Mapping[str, Reading]]:
        """By camera and statistic."""
        return self._comparison.readings

    def alarms(self) -> dict[tuple[str, ...], float]:
        """1 or 0 by camera and statistic; any thread may ask."""
        return self._of_each(lambda reading: reading.is_alarm)

    def medians(self) -> dict[tuple[str, ...], float]:
        """Of the window's frames, by camera and statistic; any thread may ask."""
        return self._of_each(lambda reading: reading.median)

    def _of_each(self, value: Callable[[Reading], float]) -> dict[tuple[str, ...], float]:
        return {
            (camera, name): float(value(reading))
            for camera, readings in self.readings.items()
            for name, reading in readings.items()
        }

    def close(self) -> None:
        """End; may be called twice."""
        self._is_closed = True
        self._wake.set()
        self._thread.join()

    def _work(self) -> None:
        while self._wake.wait() and not self._is_closed:
            self._wake.clear()
            try:
                for camera in list(self._waiting):
                    self._comparison.add(camera, *self._waiting.pop(camera))
            except Exception:
                _logger.exception("a frame cannot be compared with calibration; drift is not watched any more")
                return


class _Comparison:
    """One bundle's references beside the frames of every camera; one thread adds, any reads."""

    def __init__(self, references: Mapping[str, Reference], length: int, false_alarm_rate: float) -> None:
        self.references = references
        self.readings: dict[str, dict[str, Reading]] = {}
        self.advice: str | None = None
        self._length, self._rate_per_limit = length, false_alarm_rate / max(1, 2 * len(references))
        self._windows: dict[tuple[str, str], Window] = {}

    def add(self, camera: str, frame: Frame, score: float | None) -> None:
        values = picture_statistics(frame.pixels, frame.pixel_format)
        if score is not None:
            values[SCORE] = score
        new = {name: self._window(camera, name).add(values[name]) for name in self.references if name in values}
        self.readings = {**self.readings, camera: {**self.readings.get(camera, {}), **new}}
        self.advice = _advice(self.readings)

    def _window(self, camera: str, name: str) -> Window:
        if (camera, name) not in self._windows:
            self._windows[camera, name] = Window(self.references[name], self._length, self._rate_per_limit)
        return self._windows[camera, name]


def _advice(readings: Mapping[str, Mapping[str, Reading]]) -> str | None:
    """The first alarm in words, causes before consequences."""
    for name in STATISTICS:
        title, remedy = WORDS[name]
        for camera, of_camera in readings.items():
            reading = of_camera.get(name)
            if reading is not None and reading.is_alarm:
                return f"drift: {camera}: {title} {_alarm_text(reading)}; check {remedy}, or fit again"
    return None


def _alarm_text(reading: Reading) -> str:
    reference = reading.reference
    had = "had" if reference.rank == 1 else "mostly had"
    side = "above" if reading.above > reading.below else "below"
    return (
        f"{reading.median:.4g} where calibration {had} {reference.low:.4g} to {reference.high:.4g} "
        f"({max(reading.above, reading.below)} of {reading.frames} frames {side})"
    )


def _chance_of(count: int, reference: Reference, length: int) -> float:
    """Chance of exactly so many of `length` values beyond one limit."""
    beyond, within = reference.rank, reference.images + 1 - reference.rank
    log_ways = -math.log(length + 1) - _log_beta(length - count + 1, count + 1)
    return math.exp(log_ways + _log_beta(beyond + count, within + length - count) - _log_beta(beyond, within))


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
