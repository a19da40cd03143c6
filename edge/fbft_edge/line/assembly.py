"""A line from its configuration: all that `fbft-edge run` starts, wired together, and taken down in the reverse order.

Knows how the parts fit, and nothing about how any of them works.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.cameras import WatchedCamera, open_watched_camera
from fbft_edge.cameras.video import without_password
from fbft_edge.config.line_config import CameraConfig, LineConfig
from fbft_edge.detectors.model import OpenModel, open_model
from fbft_edge.errors import BundleError, CommandError, EngineError
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.line.pipeline import Advice, Pipeline, Settings, Station, Status, Summary
from fbft_edge.messages.published import Observer
from fbft_edge.names import RELOAD_COMMAND, STATUS_COMMAND, TRIGGER_COMMAND
from fbft_edge.recording.recorder import Recorder, RecorderSettings
from fbft_edge.service.canary_frames import CanaryFrames
from fbft_edge.service.drift import DriftMonitor
from fbft_edge.service.http_endpoint import HttpEndpoint, monitoring_pages
from fbft_edge.service.liveness import Liveness
from fbft_edge.service.reload import Reloader, reload_handler, reloading_on_hangup
from fbft_edge.service.systemd import ServiceNotifier
from fbft_edge.service.telemetry import Telemetry
from fbft_edge.sockets.access import CurveServer
from fbft_edge.sockets.command_server import CommandServer
from fbft_edge.sockets.publisher import ResultPublisher

SHOW_EVERY_S = 0.25
HUNG_AFTER_S = 60.0
DRIFT_LABELS = ("camera", "statistic")

_logger = logging.getLogger(__name__)


def run_line(
    config: LineConfig,
    read_again: Callable[[], LineConfig] | None = None,
    *,
    say: Callable[[str], None] | None = None,
    show: Callable[[Mapping[str, Status]], None] | None = None,
) -> dict[str, Summary]:
    """Run a line until its duration is over, its cameras have ended, or SIGINT or SIGTERM comes.

    Signals are heard in the main thread only, as Python has it; elsewhere they stay with whoever has them.

    Args:
        config: Of the line.
        read_again: Reads the configuration for SIGHUP, which loads its bundle; None leaves SIGHUP as it is.
        say: Takes what was opened, one line each: engine, endpoints; None to log it.
        show: Takes each camera's newest status four times a second, by the camera's name.

    Returns:
        What the run amounted to, by the camera's name.

    Raises:
        FbftError: Something cannot be used, or the engine does not come back.
    """
    with contextlib.ExitStack() as stack:
        signals = stack.enter_context(_StopSignals())
        line = _Line(config, stack, say or _log)
        if read_again is not None:
            stack.enter_context(reloading_on_hangup(lambda: line.reload(read_again().bundle)))
        line.open()
        signals.collect()
        return line.run(signals.received, show or _show_nothing)


class _Line:
    """The parts of one line, opened one after the other; what is opened is closed by the stack."""

    def __init__(self, config: LineConfig, stack: contextlib.ExitStack, say: Callable[[str], None]) -> None:
        self._config, self._stack, self._say = config, stack, say
        names = [camera.name for camera in config.cameras]
        on_demand = [camera.name for camera in config.cameras if camera.trigger != "free"]
        self._telemetry, self._liveness = Telemetry(names), Liveness(names, config.fps, on_demand)
        self._canary, self._notifier = CanaryFrames(), ServiceNotifier()
        stack.callback(self._notifier.close)
        self._trusted = config.trust.keys if config.trust else ()
        curve = config.curve
        self._curve = CurveServer(curve.secret_key, curve.clients) if curve else None
        self._recorder: Recorder | None = None
        self._drift: DriftMonitor | None = None
        self._reloader: Reloader | None = None

    def open(self) -> None:
        """Open bundle, cameras, sockets, engine and whatever else the configuration asks for."""
        config = self._config
        if config.http is not None:  # before the rest, so that /readyz can say what is awaited
            pages = monitoring_pages(self._liveness, self._telemetry)
            self._stack.enter_context(HttpEndpoint(config.http.bind, pages, insecure=config.publish.insecure))
        bundle = self._opened_bundle()
        with contextlib.ExitStack() as starting:  # what the pipeline closes, without waiting for what hangs
            self._cameras = {camera.name: self._opened_camera(camera, bundle, starting) for camera in config.cameras}
            publisher = self._opened_publisher()
            opened = self._opened_model(bundle)
            starting.callback(opened.model.detectors.close)
            self._pipeline = self._made_pipeline(bundle, opened, publisher)
            self._use(bundle, opened)
            self._reloader = Reloader(self._pipeline, self._opened_model, self._canary.frames, self._trusted, self._use)
            self._open_commands()
            starting.pop_all()
        self._say(f"engine: {opened.reason}")
        self._say(f"results: {publisher.endpoint}")

    def reload(self, path: Path) -> None:
        """Let another bundle inspect.

        Raises:
            FbftError: It is not taken; the old one goes on.
        """
        if self._reloader is None:
            raise BundleError(f"{path} is not loaded, the line is still starting; try again when it runs")
        self._reloader.reload(path)

    def run(self, signals: Sequence[int], show: Callable[[Mapping[str, Status]], None]) -> dict[str, Summary]:
        """Run to the end, or until there is a signal, showing how it goes."""
        self._pipeline.start()
        try:
            while not signals and not self._pipeline.wait(SHOW_EVERY_S):
                show(self._pipeline.status())
                self._require_engine()
        finally:
            self._notifier.stopping()
            summaries = self._pipeline.stop()
        return summaries

    def _opened_bundle(self) -> Bundle:
        bundle = open_bundle(self._config.bundle, self._trusted)
        bundle.require_thresholds()
        return bundle

    def _opened_camera(self, camera: CameraConfig, bundle: Bundle, starting: contextlib.ExitStack) -> WatchedCamera:
        only_size = bundle.frame_sizes[0] if camera.wait and len(bundle.frame_sizes) == 1 else None
        opened = open_watched_camera(
            camera.uri,
            camera.name,
            camera.frozen_after,
            camera.black_below,
            camera.white_above,
            camera.wait,
            only_size,
            camera.latency_s or 0.0,
        )
        starting.callback(opened.close)
        source = f"camera {without_password(camera.uri)}"
        bundle.require_frame_size(*opened.size, source)
        bundle.require_pixel_format(opened.pixel_format, source)
        return opened

    def _opened_publisher(self) -> ResultPublisher:
        publish = self._config.publish
        publisher = ResultPublisher(publish.bind, insecure=publish.insecure, curve=self._curve)
        self._stack.callback(publisher.close)
        return publisher

    def _opened_model(self, bundle: Bundle) -> OpenModel:
        layouts = dict.fromkeys(FrameLayout(*camera.size, camera.pixel_format) for camera in self._cameras.values())
        return open_model(bundle, layouts, self._config.engine, sharpen=self._config.sharpen)

    def _made_pipeline(self, bundle: Bundle, opened: OpenModel, publisher: ResultPublisher) -> Pipeline:
        config = self._config
        settings = Settings(
            config.fps,
            config.site,
            config.duration_s,
            config.preview,
            config.stale_after_s,
            config.late_after_s,
            config.engine_timeout_s,
        )
        stations = [
            Station(self._cameras[camera.name], settings, camera.trigger, camera.trigger_timeout_s)
            for camera in config.cameras
        ]
        observers: list[Observer] = [self._notifier, self._liveness, self._telemetry, self._canary]
        advice: list[Advice] = []
        if (kept := config.recorder) is not None:
            self._recorder = Recorder(
                kept.folder, RecorderSettings(kept.max_gib, kept.max_days, kept.nominal_every), opened.reason
            )
            self._stack.callback(self._recorder.close)
            observers.append(self._recorder)
            advice.append(self._recorder.advice)
        if config.drift is not None:
            self._drift = DriftMonitor(bundle.notes.references, config.drift.window)
            self._stack.callback(self._drift.close)
            observers.append(self._drift)
            advice.append(self._drift.advice)
        self._count(publisher)
        return Pipeline(stations, opened.model, publisher, settings, observers, advice)

    def _count(self, publisher: ResultPublisher) -> None:
        add, cameras = self._telemetry.add_counter, self._cameras
        add(
            "fbft_camera_reconnects",
            "Attempts to open a lost camera again.",
            lambda: {name: camera.reconnects for name, camera in cameras.items()},
        )
        add(
            "fbft_camera_refused",
            "Pictures that must not be judged.",
            lambda: {name: camera.refused for name, camera in cameras.items()},
        )
        add(
            "fbft_camera_lost",
            "Pictures that never reached this program, as far as the camera numbers them.",
            lambda: {name: camera.lost + camera.incomplete for name, camera in cameras.items()},
        )
        add("fbft_refused_connections", "Connections that were not let in.", publisher.refused, "cause")
        add("fbft_messages_dropped", "Messages that no subscriber got.", publisher.dropped, "cause")
        if (drift := self._drift) is not None:
            self._telemetry.add_gauge("fbft_drift_alarm", "1 while it is drift.", drift.alarms, DRIFT_LABELS)
            self._telemetry.add_gauge("fbft_drift_median", "Over the window's frames.", drift.medians, DRIFT_LABELS)
        if (recorder := self._recorder) is not None:
            add(
                "fbft_recordings",
                "Recordings written and dropped.",
                lambda: {"written": recorder.counts.recorded, "dropped": recorder.counts.dropped},
                "outcome",
            )

    def _use(self, bundle: Bundle, opened: OpenModel) -> None:
        """Tell everyone which model inspects now."""
        self._canary.forget()
        for camera in self._cameras.values():
            camera.expected = bundle.notes.look
        self._telemetry.use_model(opened.model.image_threshold, bundle.sha256, opened.reason)
        self._liveness.engine = self._engine = opened.reason
        if self._recorder is not None:
            self._recorder.engine = opened.reason
        if self._drift is not None:
            self._drift.compare_with(bundle.notes.references)

    def _open_commands(self) -> None:
        commands = self._config.commands
        if commands is None or self._reloader is None:
            return
        handlers = {
            TRIGGER_COMMAND: self._trigger,
            STATUS_COMMAND: self._status,
            RELOAD_COMMAND: reload_handler(self._reloader),
        }
        server = CommandServer(
            commands.bind,
            handlers,
            long=(RELOAD_COMMAND,),
            curve=self._curve.for_commands() if self._curve else None,
        )
        self._telemetry.add_counter("fbft_refused_commands", "Commands that were not let in.", server.refused, "cause")
        self._stack.enter_context(server)
        self._say(f"commands: {server.endpoint}")

    def _trigger(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        trigger_id, part_id = arguments.get("trigger_id"), arguments.get("part_id")
        session, deadline_s = arguments.get("session"), arguments.get("deadline_s")
        stations = self._pipeline.stations
        station = stations.get(str(arguments.get("camera")))
        is_typed = isinstance(deadline_s, int | float | None) and all(
            isinstance(text, str | None) for text in (trigger_id, part_id)
        )
        if station is None or not is_typed or isinstance(deadline_s, bool):
            raise CommandError(
                f'trigger takes "camera", one of {", ".join(stations)}, and perhaps "trigger_id", "part_id" and '
                '"session", texts, and "deadline_s", a number; send it so'
            )
        if session not in (None, station.session):
            raise CommandError(
                f"camera {station.name!r}: the trigger was meant for another run of this line, session {session!r}; "
                "wait for a message of this one, and trigger again"
            )
        station.trigger(trigger_id, None if deadline_s is None else round(deadline_s * 1e9), part_id)
        return {"camera": station.name}

    def _status(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        cameras = {name: _status_json(status) for name, status in self._pipeline.status().items()}
        return {"bundle_sha256": self._pipeline.model.bundle_sha256, "engine": self._engine, "cameras": cameras}

    def _require_engine(self) -> None:
        limit_s = max(HUNG_AFTER_S, 2 * self._config.engine_timeout_s)
        if self._pipeline.is_hung(limit_s):
            raise EngineError(
                f"one frame has been in the engine for more than {limit_s:g} s; start the line again, and check driver "
                "and memory when that happens twice"
            )


def _status_json(status: Status) -> dict[str, Any]:
    return {
        "verdict": status.verdict.value,
        "score": status.score,
        "latency_ms": status.latency_ms,
        "health": asdict(status.health),
        "ledger": status.ledger.to_json(),
    }


def _log(text: str) -> None:
    _logger.info("%s", text)


def _show_nothing(_: Mapping[str, Status]) -> None: ...


class _StopSignals:
    """SIGINT and SIGTERM: they end a start as ever; from `collect` to the end of the last part they only count.

    Nothing is changed outside the main thread, where Python lets nobody handle a signal.

    Attributes:
        received: Their numbers, as they came.
    """

    def __init__(self) -> None:
        self.received: list[int] = []
        is_main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if is_main else ()
        self._previous = {number: signal.getsignal(number) for number in numbers}

    def collect(self) -> None:
        """Do not be ended by them any more."""
        for number in self._previous:
            signal.signal(number, lambda number, _: self.received.append(number))

    def __enter__(self) -> _StopSignals:
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
