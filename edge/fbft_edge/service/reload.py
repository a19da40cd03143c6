"""Another bundle while the line runs: a path in, a report out, and a model that takes over between two frames.

The bundle is verified, its engine loaded aside and tried on frames that the line has just inspected before it takes
over; whatever goes wrong until then leaves everything as it was. A model that would blind the line, or about which the
trial can say nothing, takes over by force alone. Knows nothing about sockets.
"""

from __future__ import annotations

import contextlib
import logging
import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Protocol

import numpy as np

from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.detectors.model import Model, OpenModel
from fbft_edge.errors import BundleError, CommandError, EngineError, FbftError
from fbft_edge.frames.frame import Detection, Frame
from fbft_edge.service.canary_frames import CanaryFrame

MOST_FLIPPED = 0.5
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
        trials: Frames that it was tried on.
        objection: Why it would not have been taken without force; None where the trial found nothing.
    """

    bundle: Path
    bundle_sha256: str
    engine: str
    trials: tuple[Trial, ...]
    objection: str | None = None

    @property
    def text(self) -> str:
        """The report in one line."""
        (alarms, nominal), (passes, anomalous) = _flipped(self.trials, False), _flipped(self.trials, True)
        forced = f"; BY FORCE, though it {self.objection}" if self.objection else ""
        return (
            f"{self.bundle} ({self.bundle_sha256[:12]}) inspects now on {self.engine}; tried on {len(self.trials)} "
            f"frames: {alarms} of {nominal} that were ok are anomalous, {passes} of {anomalous} that were anomalous "
            f"are ok{forced}"
        )

    def to_json(self) -> dict[str, Any]:
        """The report as JSON members."""
        return {
            "bundle": str(self.bundle),
            "bundle_sha256": self.bundle_sha256,
            "engine": self.engine,
            "trials": [asdict(trial) for trial in self.trials],
            "objection": self.objection,
        }


class Reloader:
    """Puts other bundles into a running line.

    Args:
        line: Runs.
        open_model: Loads a verified bundle's engine for the line's frames; its errors are why there is no reload.
        canary: Frames to try a new model on.
        trusted: Public keys; when there are any, one of them must have signed the bundle.
        replaced: Called after a model took over; must not raise.
        most_flipped: A model is refused when it calls a larger share of the frames that were ok anomalous, or, of one
            camera, a larger share of those that were anomalous ok.
    """

    def __init__(
        self,
        line: ModelUser,
        open_model: Callable[[Bundle], OpenModel],
        canary: Callable[[], Sequence[CanaryFrame]],
        trusted: Sequence[Path] = (),
        replaced: Callable[[Bundle, OpenModel], None] = lambda bundle, opened: None,
        most_flipped: float = MOST_FLIPPED,
    ) -> None:
        self._line, self._open_model, self._canary = line, open_model, canary
        self._trusted, self._replaced, self._most = trusted, replaced, most_flipped
        self._lock = threading.Lock()

    def reload(self, path: Path, *, force: bool = False) -> ReloadReport:
        """Let another bundle inspect, from the next frame on.

        Takes as long as loading the engine and inspecting the canary frames; the line runs on meanwhile.

        Args:
            path: The bundle's folder; the one that runs may be loaded again.
            force: Take a model whatever its verdicts are, and without any frame to try it on; it must still be
                verified, and be able to inspect.

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
            frames = self._canary()
            for kept in frames:
                bundle.require_look(kept.frame.pixels, kept.frame.pixel_format, f"camera {kept.frame.camera!r}")
            trials = tuple(_trial(opened.model, frame) for frame in frames)
            objection = _objection(opened.model, frames, trials, self._most)
            if objection and not force:
                raise BundleError(
                    f"{path} is not taken, it {objection}; check the bundle, or if this is meant, "
                    f"fbft-edge command reload {path} --force"
                )
        except BaseException:
            opened.model.detectors.close()
            raise
        self._line.replace_model(opened.model)
        self._replaced(bundle, opened)
        report = ReloadReport(path, bundle.sha256, opened.reason, trials, objection)
        _logger.log(logging.WARNING if objection else logging.INFO, "%s", report.text)
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
    found = _inspected(model, kept.frame)
    frame = kept.frame
    return Trial(frame.camera, frame.frame_id, kept.score, found.score, kept.is_anomalous, found.is_anomalous)


def _inspected(model: Model, frame: Frame) -> Detection:
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
    return found


def _flipped(trials: Sequence[Trial], was_anomalous: bool) -> tuple[int, int]:
    """How many of the frames that had this verdict have the other one now, and how many there are."""
    of_these = [trial for trial in trials if trial.was_anomalous is was_anomalous]
    return sum(trial.is_anomalous is not was_anomalous for trial in of_these), len(of_these)


def _objection(model: Model, frames: Sequence[CanaryFrame], trials: Sequence[Trial], most: float) -> str | None:
    """What speaks against a model after its trial, as the rest of a sentence: no camera may be blinded."""
    if not trials:
        return "could not be tried: the line has inspected no frame yet since it began, or since its last reload"
    newest = {kept.frame.camera: kept.frame for kept in reversed(frames)}
    for camera, frame in newest.items():
        passes, anomalous = _flipped([trial for trial in trials if trial.camera == camera], True)
        if passes > most * anomalous:
            return (
                f"calls {passes} of {anomalous} frames ok that were anomalous just now at camera {camera}, more than "
                f"{most:.0%}"
            )
        if not anomalous and not _inspected(model, _defaced(frame)).is_anomalous:
            return (
                f"calls a frame of camera {camera} ok even with a chequerboard over its middle, and the line has kept "
                "no anomalous one of it to try it on"
            )
    alarms, nominal = _flipped(trials, False)
    if alarms > most * nominal:
        return f"calls {alarms} of {nominal} frames anomalous that were ok just now, more than {most:.0%}"
    return None


def _defaced(frame: Frame) -> Frame:
    """A frame with a black and white chequerboard over its middle: what no nominal image looks like.

    It stands in for the anomalous frames that a good line does not have. Bytes are painted, not colours, so that it
    works in every pixel format.
    """
    pixels = frame.pixels.copy()
    rows, columns = pixels.shape[:2]
    middle = pixels[rows // 4 : -(rows // 4) or None, columns // 4 : -(columns // 4) or None]
    side = max(1, min(middle.shape[:2]) // 2)
    down, across = (np.arange(length) // side % 2 == 0 for length in middle.shape[:2])
    middle[...] = 0
    middle[down[:, None] ^ across] = np.iinfo(pixels.dtype).max
    return replace(frame, pixels=pixels)
