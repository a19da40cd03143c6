"""Messages in, Prometheus metrics out: what the line does, how fast, how near to its threshold.

Counting costs the publishing thread about 1 us a message: plain lists that it alone writes and a scrape reads, so
that it never waits for a lock that a scrape holds. Memory depends on the number of cameras alone. Knows nothing
about HTTP.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from fbft_edge.frames.frame import Verdict
from fbft_edge.messages.header import Health
from fbft_edge.messages.ledger import Ledger, LedgerSnapshot
from fbft_edge.messages.published import Inspected, Published

STAGE_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
DEVIATION_BOUNDS_S = (0.00001, 0.00005, 0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 1.0)
SCORE_BOUNDS = (0.1, 0.25, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0)
STAGES = ("waited", "inferred", "encoded")
HEALTH_STATES = ("ok", "degraded", "fault")

Counts = Callable[[], Mapping[str, int]]
Values = Callable[[], Mapping[tuple[str, ...], float]]


class _Histogram:
    """Counts values between fixed bounds; one thread adds, any thread reads."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def read(self) -> tuple[list[tuple[str, float]], float]:
        """Upper bounds with cumulative counts, and the sum of all values."""
        total, counts, running = self._total, list(self._counts), 0
        buckets = []
        for bound, count in zip((*self._bounds, math.inf), counts, strict=True):
            running += count
            buckets.append(("+Inf" if bound == math.inf else str(bound), float(running)))
        return buckets, total


class _Totals:
    """Of one camera."""

    __slots__ = ("deviation", "health", "latency", "ledger", "messages", "score", "stages")

    def __init__(self) -> None:
        self.stages = tuple(_Histogram(STAGE_BOUNDS_S) for _ in STAGES)
        self.latency, self.deviation = _Histogram(STAGE_BOUNDS_S), _Histogram(DEVIATION_BOUNDS_S)
        self.score = _Histogram(SCORE_BOUNDS)
        self.messages = dict.fromkeys(Verdict, 0)
        self.ledger: LedgerSnapshot = Ledger().snapshot()
        self.health: Health | None = None

    def add(self, message: Published, image_threshold: float) -> None:
        self.messages[message.verdict] += 1
        self.deviation.add(abs(message.deviation_ns) / 1e9)
        self.ledger, self.health = message.ledger, message.health
        if (fresh := message.fresh) is not None:
            self.latency.add((message.published_ns - fresh.frame.captured_ns) / 1e9)
            self._add_inspected(fresh, image_threshold)

    def _add_inspected(self, fresh: Inspected, image_threshold: float) -> None:
        waited, inferred, encoded = self.stages
        waited.add(fresh.waited_ns / 1e9)
        inferred.add(fresh.inferred_ns / 1e9)
        encoded.add(fresh.encoded_ns / 1e9)
        if image_threshold > 0:
            self.score.add(fresh.detection.score / image_threshold)


@dataclass(frozen=True, slots=True)
class _Source:
    family: Callable[..., CounterMetricFamily | GaugeMetricFamily]
    name: str
    documentation: str
    labels: tuple[str, ...]
    values: Values


class Telemetry(Collector):
    """Counts messages as an observer of the line, and shows the totals in Prometheus' text format.

    Args:
        cameras: Whose series are there from the start, at 0.
    """

    def __init__(self, cameras: Sequence[str]) -> None:
        self._totals = {camera: _Totals() for camera in cameras}
        self._sources: list[_Source] = []
        self._image_threshold = 0.0
        self._info = {"version": version("fbft-edge"), "bundle_sha256": "", "engine": ""}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def use_model(self, image_threshold: float, bundle_sha256: str, engine: str) -> None:
        """Say which model inspects from now on; scores are counted in multiples of its threshold."""
        self._image_threshold = image_threshold
        self._info = {**self._info, "bundle_sha256": bundle_sha256, "engine": engine}

    def add_counter(self, name: str, documentation: str, counts: Counts, label: str = "camera") -> None:
        """Show what another part counts.

        Args:
            name: Of the metric, without `_total`.
            documentation: One line.
            counts: Asked at each scrape, from its thread: running totals by value of the label.
            label: The one label's name.
        """

        def values() -> Mapping[tuple[str, ...], float]:
            return {(value,): count for value, count in counts().items()}

        self._sources.append(_Source(CounterMetricFamily, name, documentation, (label,), values))

    def add_gauge(self, name: str, documentation: str, values: Values, labels: tuple[str, ...]) -> None:
        """Show how another part stands.

        Args:
            name: Of the metric.
            documentation: One line.
            values: Asked at each scrape, from its thread: by the labels' values.
            labels: Their names.
        """
        self._sources.append(_Source(GaugeMetricFamily, name, documentation, labels, values))

    def published(self, message: Published) -> None:
        """See `fbft_edge.messages.published.Observer`."""
        totals = self._totals.get(message.camera)
        if totals is None:
            totals = self._totals[message.camera] = _Totals()
        totals.add(message, self._image_threshold)

    def render(self) -> bytes:
        """Every metric in Prometheus' text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        totals = dict(self._totals)
        yield InfoMetricFamily("fbft_line", "What runs.", value=self._info)
        yield GaugeMetricFamily("fbft_image_threshold", "Scores above it are anomalous.", self._image_threshold)
        yield from _durations(totals)
        yield from _frames(totals)
        yield _messages(totals)
        yield _health(totals)
        for source in self._sources:
            family = source.family(source.name, source.documentation, labels=source.labels)
            for labels, value in source.values().items():
                family.add_metric(labels, value)
            yield family

    def describe(self) -> list[Metric]:
        """No metric is asked for at registration: what others count may not be there yet."""
        return []


def _durations(totals: Mapping[str, _Totals]) -> Iterator[Metric]:
    stages = HistogramMetricFamily("fbft_stage_seconds", "Time of a frame in each stage.", labels=("camera", "stage"))
    latency = HistogramMetricFamily("fbft_latency_seconds", "From capture to publishing.", labels=("camera",))
    deviation = HistogramMetricFamily("fbft_deviation_seconds", "Of a message from its due time.", labels=("camera",))
    score = HistogramMetricFamily(
        "fbft_score_threshold_ratio", "Image score in multiples of the image threshold.", labels=("camera",)
    )
    for camera, total in totals.items():
        for stage, histogram in zip(STAGES, total.stages, strict=True):
            stages.add_metric((camera, stage), *histogram.read())
        latency.add_metric((camera,), *total.latency.read())
        deviation.add_metric((camera,), *total.deviation.read())
        score.add_metric((camera,), *total.score.read())
    yield from (stages, latency, deviation, score)


def _frames(totals: Mapping[str, _Totals]) -> Iterator[Metric]:
    captured = CounterMetricFamily("fbft_frames_captured", "Frames that left the camera.", labels=("camera",))
    published = CounterMetricFamily("fbft_frames_published", "Frames with a verdict of their own.", labels=("camera",))
    dropped = CounterMetricFamily("fbft_frames_dropped", "Frames without a verdict.", labels=("camera", "cause"))
    missed = CounterMetricFamily("fbft_missed_triggers", "Triggers that brought no frame.", labels=("camera",))
    in_flight = GaugeMetricFamily("fbft_frames_in_flight", "Frames on their way.", labels=("camera",))
    for camera, total in totals.items():
        ledger = total.ledger
        captured.add_metric((camera,), ledger.captured)
        published.add_metric((camera,), ledger.published_fresh)
        for cause, count in ledger.dropped.items():
            dropped.add_metric((camera, cause), count)
        missed.add_metric((camera,), ledger.missed_triggers)
        in_flight.add_metric((camera,), ledger.in_flight)
    yield from (captured, published, dropped, missed, in_flight)


def _messages(totals: Mapping[str, _Totals]) -> Metric:
    family = CounterMetricFamily("fbft_messages", "Messages sent.", labels=("camera", "verdict"))
    for camera, total in totals.items():
        for verdict, count in total.messages.items():
            family.add_metric((camera, verdict.value), count)
    return family


def _health(totals: Mapping[str, _Totals]) -> Metric:
    family = GaugeMetricFamily("fbft_health", "1 for the state of the last message.", labels=("camera", "state"))
    for camera, total in totals.items():
        for state in HEALTH_STATES:
            family.add_metric((camera, state), total.health is not None and total.health.state == state)
    return family
