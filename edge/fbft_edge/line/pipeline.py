"""A line: cameras side by side, one engine, one message per camera and period, whatever cameras and engine do.

    camera -> station -+                           +-> station -> tick -+
                       +-> inference (in turns) -->+                    +-> publisher, observers
    camera -> station -+                           +-> station -> tick -+

Tick k is due at t0 + k * period on the monotonic clock, so lateness never adds up. When the process was held up past
several ticks, the late ones are sent at once, one after the other: the count of messages stays exact, and no result
that waits is skipped. One thread sends for all stations, in their order.

Each station has a topic, a session, a sequence and a ledger of its own (`fbft_edge.line.station`), and a thread that
reads its camera: a camera that dies, hangs or ends touches no other. The engine is shared (`fbft_edge.line.inference`).
Knows nothing about sockets and files.
"""

from __future__ import annotations

import gc
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from fbft_edge.clock import wait_for
from fbft_edge.detectors.model import Model
from fbft_edge.errors import ArgumentError
from fbft_edge.line.inference import Inference
from fbft_edge.line.settings import Settings, late_after_by_rule
from fbft_edge.line.station import Station
from fbft_edge.line.status import LineState, Status, Summary
from fbft_edge.messages.published import Observer, Published
from fbft_edge.messages.writing import encode_bundle
from fbft_edge.names import printable
from fbft_edge.priority import make_preferred, make_real_time

__all__ = ["Advice", "Pipeline", "Sender", "Settings", "Station", "Status", "Summary"]

JOIN_TIMEOUT_S = 30.0
HUNG_JOIN_TIMEOUT_S = 1.0
SWITCH_INTERVAL_S = 0.0005

Advice = Callable[[], "str | None"]

_logger = logging.getLogger(__name__)


class Sender(Protocol):
    """Where messages go."""

    def send(self, parts: Sequence[bytes]) -> None:
        """Send the parts of one message, without ever waiting."""
        ...


class Pipeline:
    """Runs stations through one model to one publisher.

    Args:
        stations: One for each camera, with the same settings; their cameras are closed by `stop`.
        model: What inspects; closed by `stop`, or after `replace_model` once nothing of it is in flight.
        publisher: Where messages go; stays open.
        settings: Of the line.
        observers: Told about each message after it was sent. One that raises is logged and not told any more.
        advice: Asked at each tick what is wrong with the line: None, or a text that makes health `degraded`. One that
            raises is logged and not asked any more.

    Attributes:
        stations: By the camera's name.

    Raises:
        ArgumentError: There is no station, or two cameras have the same name.
    """

    def __init__(
        self,
        stations: Sequence[Station],
        model: Model,
        publisher: Sender,
        settings: Settings,
        observers: Iterable[Observer] = (),
        advice: Iterable[Advice] = (),
    ) -> None:
        self.stations: Mapping[str, Station] = {station.name: station for station in stations}
        if not stations or len(self.stations) < len(stations):
            names = ", ".join(station.name for station in stations) or "none"
            raise ArgumentError(f"a line needs cameras, each with a name of its own; there are: {names}")
        self._publisher, self._settings = publisher, settings
        self._observers, self._advice = list(observers), list(advice)
        self._inference = Inference(stations, model)
        self._limit_age(model)
        duration_s = settings.duration_s
        self._num_ticks = None if duration_s is None else max(1, round(duration_s * settings.fps))
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._priority = "normal"
        self._threads = [
            threading.Thread(target=self._guard, args=(work,), name=f"fbft-{work.__name__.strip('_')}", daemon=True)
            for work in (self._publish, self._inference.infer, self._inference.begin)
        ]
        for station in stations:
            station.attach(self._inference.wake, self._stop_if_all_ended)
            self._threads.append(_thread(station.capture, station))

    def start(self) -> None:
        """Start the threads; the first tick is due at once."""
        self._switch_interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.collect()
        gc.freeze()
        self._start_ns = time.monotonic_ns()
        for thread in self._threads:
            thread.start()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the duration is over, all cameras have ended or publishing failed; False on timeout."""
        if timeout_s is None:
            return self._stopping.wait()
        return wait_for(self._stopping, timeout_s)

    def stop(self) -> dict[str, Summary]:
        """End the run; frames in flight are counted as `shutdown`.

        Cameras and engine get 30 s to end, 1 s when the engine hangs.

        Returns:
            What the run amounted to, by the camera's name.

        Raises:
            BaseException: Whatever ended a thread before its time.
        """
        self._stopping.set()
        elapsed_s = (time.monotonic_ns() - self._start_ns) / 1e9
        self._inference.stop()
        closing = [_thread(station.close, station) for station in self.stations.values()]
        for thread in closing:
            thread.start()
        self._join([*self._threads, *closing])
        sys.setswitchinterval(self._switch_interval_s)
        gc.unfreeze()
        for station in self.stations.values():
            station.finish()
        self._inference.close()
        failures = (self._failure, *(station.failure for station in self.stations.values()))
        if (failure := next(filter(None, failures), None)) is not None:
            raise failure
        return {name: station.summary(elapsed_s, self._priority) for name, station in self.stations.items()}

    def status(self) -> dict[str, Status]:
        """What the last messages said, by the camera's name."""
        return {name: station.status() for name, station in self.stations.items()}

    @property
    def model(self) -> Model:
        """What inspects the next frame."""
        return self._inference.model

    def replace_model(self, model: Model) -> None:
        """Let another model inspect from the next frame on; every message names the one that its result is from.

        The former model is closed as soon as nothing of it is in flight.
        """
        self._inference.replace_model(model)
        self._limit_age(model)

    def is_hung(self, for_s: float) -> bool:
        """True when one frame has been in the engine for longer than that: only a new process can help."""
        return self._inference.running_s > for_s

    def _limit_age(self, model: Model) -> None:
        if self._settings.late_after_s is None:
            late_after_s = late_after_by_rule(self._settings.fps, len(self.stations), model.frame_s)
            _logger.info("frames older than %.4g s get no verdict (late_after_s)", late_after_s)
            for station in self.stations.values():
                station.limit_age(late_after_s)

    def _guard(self, work: Callable[[], None]) -> None:
        make_preferred()
        try:
            work()
        except BaseException as error:
            self._failure = error
        self._stopping.set()

    def _stop_if_all_ended(self) -> None:
        if all(station.has_ended for station in self.stations.values()):
            self._stopping.set()

    def _join(self, threads: Sequence[threading.Thread]) -> None:
        is_hopeless = self.is_hung(self._settings.engine_timeout_s)
        deadline_s = time.monotonic() + (HUNG_JOIN_TIMEOUT_S if is_hopeless else JOIN_TIMEOUT_S)
        for thread in threads:
            thread.join(max(0.0, deadline_s - time.monotonic()))

    def _publish(self) -> None:
        self._priority = make_real_time()
        start_ns = time.monotonic_ns()
        tick = 0
        while tick != self._num_ticks:
            due_ns = start_ns + round(tick * 1e9 / self._settings.fps)
            if wait_for(self._stopping, (due_ns - time.monotonic_ns()) / 1e9):
                return
            self._tick(due_ns)
            self._stop_if_all_ended()
            tick += 1

    def _tick(self, due_ns: int) -> None:
        self._inference.tick()
        model = self._inference.model
        bundle = encode_bundle(model.image_threshold, model.bundle_sha256, model.pixel_threshold)
        line = LineState(bundle, self._engine_fault(), self._advised())
        for station in self.stations.values():
            self._tell(station.publish(self._publisher.send, due_ns, line))

    def _engine_fault(self) -> str | None:
        running_s, limit_s = self._inference.running_s, self._settings.engine_timeout_s
        if running_s <= limit_s:
            distrust = self._inference.distrust
            return None if distrust is None else printable(f"inference: {distrust}")
        return f"inference: one frame has been in the engine for {running_s:.1f} s, the limit is {limit_s:g} s"

    def _advised(self) -> str | None:
        texts = []
        for advice in tuple(self._advice):
            try:
                text = advice()
                texts.append(text and printable(text))
            except Exception:
                self._advice.remove(advice)
                _logger.exception("%s is not asked for advice any more", getattr(advice, "__qualname__", "an object"))
        return next(filter(None, texts), None)

    def _tell(self, message: Published) -> None:
        for observer in tuple(self._observers):
            try:
                observer.published(message)
            except Exception:
                self._observers.remove(observer)
                _logger.exception("observer %s is not told about messages any more", type(observer).__name__)


def _thread(work: Callable[[], None], station: Station) -> threading.Thread:
    def run() -> None:
        make_preferred()
        work()

    return threading.Thread(target=run, name=f"fbft-{work.__name__}-{station.name}", daemon=True)
