"""Another bundle while the line runs: a path in, a report out, and a model that takes over between two frames.

The bundle is verified, its engine loaded aside and tried on frames that the line has just inspected before it takes
over; whatever goes wrong until then leaves everything as it was. Knows nothing about sockets.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.detectors.model import Model, OpenModel
from fbft_edge.errors import BundleError, CommandError, EngineError, FbftError
from fbft_edge.service.canary_frames import CanaryFrame

MOST_NEWLY_ANOMALOUS = 0.5
JOIN_TIMEOUT_S = 10.0
_ARGUMENTS = {"bundle", "force"}

_logger = logging.getLogger(__name__)


class ModelUser(Protocol):
    """Who inspects; see `fbft_edge.line.pipeline.Pipeline`."""

    def replace_model(self, model: Model) -> None:
        """Let another model inspect, from the next frame on; the old one is closed once nobody uses it."""
        ...


@dataclass(frozen=True, slots=True)
class Trial:
    """What the old and the new model say about one frame."""

    camera: str
    frame_id: int
    old_score: float
    new_score: float
    was_anomalous: bool
    is_anomalous: bool


@dataclass(frozen=True, slots=True)
class ReloadReport:
    """A model that took over.

    Attributes:
        bundle: Its folder.
        bundle_sha256: Identifies it.
        engine: What runs it, and why that.
        trials: Frames that it was tried on; none when the line had inspected none.
    """

    bundle: Path
    bundle_sha256: str
    engine: str
    trials: tuple[Trial, ...]

    @property
    def text(self) -> str:
        """The report in one line."""
        flipped, nominal = _newly_anomalous(self.trials), sum(not trial.was_anomalous for trial in self.trials)
        newly_ok = sum(trial.was_anomalous and not trial.is_anomalous for trial in self.trials)
        return (
            f"{self.bundle} ({self.bundle_sha256[:12]}) inspects now on {self.engine}; tried on {len(self.trials)} "
            f"frames: {flipped} of {nominal} that were ok are anomalous, {newly_ok} that were anomalous are ok"
        )

    def to_json(self) -> dict[str, Any]:
        """The report as JSON members."""
        return {
            "bundle": str(self.bundle),
            "bundle_sha256": self.bundle_sha256,
            "engine": self.engine,
            "trials": [asdict(trial) for trial in self.trials],
        }


class Reloader:
    """Puts other bundles into a running line.

    Args:
        line: Runs.
        open_model: Loads a verified bundle's engine for the line's frames; its errors are why there is no reload.
        canary: Frames to try a new model on.
        trusted: Public keys; when there are any, one of them must have signed the bundle.
        replaced: Called after a model took over; must not raise.
        most_newly_anomalous: A model is refused when it calls a larger share of the frames that were ok anomalous.
    """

    def __init__(
        self,
        line: ModelUser,
        open_model: Callable[[Bundle], OpenModel],
        canary: Callable[[], Sequence[CanaryFrame]],
        trusted: Sequence[Path] = (),
        replaced: Callable[[Bundle, OpenModel], None] = lambda bundle, opened: None,
        most_newly_anomalous: float = MOST_NEWLY_ANOMALOUS,
    ) -> None:
        self._line, self._open_model, self._canary = line, open_model, canary
        self._trusted, self._replaced, self._most = trusted, replaced, most_newly_anomalous
        self._lock = threading.Lock()

    def reload(self, path: Path, *, force: bool = False) -> ReloadReport:
        """Let another bundle inspect, from the next frame on.

        Takes as long as loading the engine and inspecting the canary frames; the line runs on meanwhile.

        Args:
            path: The bundle's folder; the one that runs may be loaded again.
            force: Take a model that calls too many frames anomalous.

        Raises:
            FbftError: The bundle is not taken; the old model goes on.
        """
        if not self._lock.acquire(blocking=False):
            raise BundleError(f"{path} is not loaded, another bundle is being loaded; try again when it is")
        try:
            return self._reload(path, force)
        finally:
            self._lock.release()

    def _reload(self, path: Path, force: bool) -> ReloadReport:
        bundle = open_bundle(path, self._trusted)
        opened = self._open_model(bundle)
        try:
            trials = tuple(_trial(opened.model, frame) for frame in self._canary())
            if not force:
                _require_likeness(path, trials, self._most)
        except BaseException:
            opened.model.detectors.close()
            raise
        self._line.replace_model(opened.model)
        self._replaced(bundle, opened)
        report = ReloadReport(path, bundle.sha256, opened.reason, trials)
        _logger.info("%s", report.text)
        return report


def reload_handler(reloader: Reloader) -> Callable[[Mapping[str, Any]], Mapping[str, Any]]:
    """What the command socket calls for `reload`; see `fbft_edge.sockets.command_server.CommandServer`.

    It takes `bundle`, a path on this machine, and perhaps `force`, true or false; the answer is the report.
    """

    def handle(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        bundle, force = arguments.get("bundle"), arguments.get("force", False)
        if not isinstance(bundle, str) or not bundle or not isinstance(force, bool) or arguments.keys() - _ARGUMENTS:
            raise CommandError('reload takes "bundle", a path, and perhaps "force", true or false; send it like that')
        return reloader.reload(Path(bundle), force=force).to_json()

    return handle


@contextlib.contextmanager
def reloading_on_hangup(reload: Callable[[], object]) -> Iterator[None]:
    """Call `reload` in a thread of its own whenever SIGHUP comes; why it failed is logged.

    Signals that come meanwhile make it be called once more. To be entered in the main thread.
    """
    asked: SimpleQueue[bool] = SimpleQueue()
    thread = threading.Thread(target=_reload_when_asked, args=(asked, reload), name="fbft-reload", daemon=True)
    previous = signal.signal(signal.SIGHUP, lambda number, frame: asked.put(True))
    thread.start()
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, previous)
        asked.put(False)
        thread.join(JOIN_TIMEOUT_S)


def _reload_when_asked(asked: SimpleQueue[bool], reload: Callable[[], object]) -> None:
    while asked.get():
        with contextlib.suppress(Empty):
            while asked.get_nowait():
                pass
            return
        try:
            reload()
        except FbftError as error:
            _logger.error("not reloaded, the old model goes on: %s", error)
        except Exception:
            _logger.exception("not reloaded, the old model goes on")


def _trial(model: Model, kept: CanaryFrame) -> Trial:
    frame = kept.frame
    try:
        found = model.detectors.of(frame.layout).begin(frame.pixels)()
    except Exception as error:
        raise EngineError(
            f"the new model cannot inspect frame {frame.frame_id} of camera {frame.camera} "
            f"({type(error).__name__}: {error}); export the bundle again, or keep the old one"
        ) from error
    if not (math.isfinite(found.score) and math.isfinite(found.peak)):
        raise EngineError(
            f"the new model's score of frame {frame.frame_id} of camera {frame.camera} is not a number; "
            "export again with --precision f32"
        )
    return Trial(frame.camera, frame.frame_id, kept.score, found.score, kept.is_anomalous, found.is_anomalous)


def _newly_anomalous(trials: Sequence[Trial]) -> int:
    return sum(trial.is_anomalous and not trial.was_anomalous for trial in trials)


def _require_likeness(path: Path, trials: Sequence[Trial], most: float) -> None:
    flipped, nominal = _newly_anomalous(trials), sum(not trial.was_anomalous for trial in trials)
    if flipped > most * nominal:
        raise BundleError(
            f"{path} calls {flipped} of {nominal} frames anomalous that were ok just now, more than {most:.0%}; "
            "fit it on images of this camera and product, or reload with force if this is meant"
        )
