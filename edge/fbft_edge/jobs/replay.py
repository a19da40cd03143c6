"""Recordings and a bundle in; what it says about them today, compared with what was published, out.

Knows nothing about how recordings came to be, and how the comparison is shown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import numpy as np

from fbft_edge.bundle.manifest import Thresholds
from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.detectors import Detector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.detectors.selection import open_detector
from fbft_edge.errors import ArgumentError, FbftError
from fbft_edge.frames.frame import Detection
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.progress import SILENT, Progress
from fbft_edge.recording.recordings import Recording, find_recordings, read_recording


class Outcome(str, Enum):
    """How a replay compares with what was published."""

    IDENTICAL = "identical"
    WITHIN_TOLERANCE = "within the tolerance"
    SCORE_OR_MASK = "score or mask differs"
    VERDICT = "verdict differs"
    NOT_REPLAYED = "not replayed"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was published, and what is detected today.

    Attributes:
        recording: What was published, and on which frame.
        detection: What is detected today.
        engine: What inferred today, in words.
        bundle_sha256: Of the bundle today.
        thresholds: Of that bundle.
        score_change: Today's score less the published one, in units of the published image threshold.
        mask_changed_px: Pixels in which the masks differ.
        mask_overlap: Their intersection over union; 1 when both are empty.
    """

    recording: Recording
    detection: Detection
    engine: str
    bundle_sha256: str
    thresholds: Thresholds
    score_change: float
    mask_changed_px: int
    mask_overlap: float

    def outcome(self, tolerance: float) -> Outcome:
        """How both compare; see `replay` for the tolerance."""
        if self.detection.is_anomalous is not self.recording.detection.is_anomalous:
            return Outcome.VERDICT
        if self.detection.score == self.recording.detection.score and self.mask_changed_px == 0:
            return Outcome.IDENTICAL
        is_close = abs(self.score_change) <= tolerance and 1 - self.mask_overlap <= tolerance
        return Outcome.WITHIN_TOLERANCE if is_close else Outcome.SCORE_OR_MASK


@dataclass(frozen=True, slots=True)
class Replayed:
    """One recording, replayed.

    Attributes:
        path: Its folder.
        outcome: How both compare.
        comparison: None when it could not be replayed.
        reason: Why it could not; None when it could.
    """

    path: Path
    outcome: Outcome
    comparison: Comparison | None
    reason: str | None = None


def replay(
    inputs: Sequence[Path],
    bundle_path: Path,
    engine: str = "auto",
    tolerance: float = 0.0,
    *,
    sharpen: bool = False,
    progress: Progress = SILENT,
) -> Iterator[Replayed]:
    """Replay recordings one after the other, as they are asked for.

    Args:
        inputs: Recordings, or folders of them.
        bundle_path: What they are replayed with.
        engine: See `open_detector`.
        tolerance: The score may change by this share of the image threshold, and the masks' intersection over union
            be this far from 1; 0 when every bit has to be the same.
        sharpen: See `open_detector`; as the line had it that recorded.
        progress: Told the engine, and how far it is.

    Raises:
        ArgumentError: The tolerance is not a fraction.
        BundleError: The bundle does not verify, or has no thresholds.
        EngineError: No engine can run the bundle's model here.
        RecordingError: There is nothing to replay.
    """
    if not 0 <= tolerance < 1:
        raise ArgumentError(f"a tolerance of {tolerance:g} is no fraction; use --tolerance from 0 to below 1")
    paths = [path for given in inputs for path in find_recordings(given)]
    bundle = open_bundle(bundle_path)
    bundle.require_thresholds()
    return _each(paths, _Replayer(bundle, engine, sharpen, progress), tolerance, progress)


def _each(paths: Sequence[Path], replayer: _Replayer, tolerance: float, progress: Progress) -> Iterator[Replayed]:
    with closing(replayer):
        for path in progress.track(paths, "Replaying"):
            yield replayer.replayed(path, tolerance)


class _Replayer:
    """Replays recordings, with one detector for each layout."""

    def __init__(self, bundle: Bundle, engine: str, sharpen: bool, progress: Progress) -> None:
        self._bundle, self._engine, self._sharpen, self._progress = bundle, engine, sharpen, progress
        self._detectors: DetectorPool[Detector] = DetectorPool(self._opened, most=None)
        self._engines: dict[FrameLayout, str] = {}

    def replayed(self, path: Path, tolerance: float) -> Replayed:
        try:
            recording = read_recording(path)
            height, width = recording.detection.mask.shape
            self._bundle.require_frame_size(height, width, str(path))
            self._bundle.require_look(recording.frame.pixels, recording.frame.pixel_format, str(path))
        except FbftError as error:
            return Replayed(path, Outcome.NOT_REPLAYED, None, str(error))
        layout = FrameLayout(height, width, recording.frame.pixel_format)
        detector = self._detectors.of(layout)
        try:
            detection = detector.begin(recording.frame.pixels)()
        except FbftError as error:
            return Replayed(path, Outcome.NOT_REPLAYED, None, str(error))
        comparison = _compared(recording, detection, self._engines[layout], self._bundle)
        return Replayed(path, comparison.outcome(tolerance), comparison)

    def close(self) -> None:
        self._detectors.close()

    def _opened(self, layout: FrameLayout) -> Detector:
        opened = open_detector(self._bundle, layout, self._engine, sharpen=self._sharpen)
        self._engines[layout] = opened.reason
        self._progress.say(f"engine: {opened.reason}")
        return opened.detector


def _compared(recording: Recording, detection: Detection, engine: str, bundle: Bundle) -> Comparison:
    published = recording.detection
    either = int(np.count_nonzero(published.mask | detection.mask))
    changed = int(np.count_nonzero(published.mask ^ detection.mask))
    change = (detection.score - published.score) / (recording.result.image_threshold or 1.0)
    overlap = 1 - changed / either if either else 1.0
    about = engine, bundle.sha256, bundle.require_thresholds()
    return Comparison(recording, detection, *about, change, changed, overlap)
