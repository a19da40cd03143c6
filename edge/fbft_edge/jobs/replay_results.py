"""Replayed recordings in; lines of results, a picture of those that differ and a summary out.

Knows nothing about bundles and engines.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fbft_edge.frames.drawing import Closeup, Entry, card, contact_sheet, smallest_region
from fbft_edge.frames.explanation import explained
from fbft_edge.frames.frame import Detection, Uint8
from fbft_edge.frames.images import dark_peak, write_image
from fbft_edge.jobs.replay import Comparison, Outcome, Replayed
from fbft_edge.jobs.results_file import results_file

DIFFERENCES = "differences.png"
_AS_PUBLISHED = (Outcome.IDENTICAL, Outcome.WITHIN_TOLERANCE)
_NUM_PAIRS = 8
_ABOUT = ("camera", "session", "sequence", "frame_id", "captured_ns", "trigger_id", "part_id")


@dataclass(slots=True)
class Summary:
    """What came of all recordings.

    Attributes:
        counts: Recordings per outcome.
        largest_change: Of a score, either way, in units of the image threshold.
        other_bundles: Which bundle published and which was replayed with, where they differ, with their number.
        other_engines: The same of engines.
        differing: Recordings that differ or could not be replayed, each in a line.
        dark: Largest value of recorded 16-bit frames that are nearly black.
    """

    counts: Counter[Outcome] = field(default_factory=Counter)
    largest_change: float = 0.0
    other_bundles: Counter[tuple[str, str]] = field(default_factory=Counter)
    other_engines: Counter[tuple[str, str]] = field(default_factory=Counter)
    differing: list[str] = field(default_factory=list)
    dark: dict[Path, int] = field(default_factory=dict)

    @property
    def exit_status(self) -> int:
        """0 when all are as published, else 1."""
        return 0 if set(self.counts) <= {*_AS_PUBLISHED} else 1

    def add(self, replayed: Replayed) -> None:
        """Count one more."""
        self.counts[replayed.outcome] += 1
        if replayed.outcome not in _AS_PUBLISHED:
            self.differing.append(_one_line(replayed))
        if comparison := replayed.comparison:
            if (peak := dark_peak(comparison.recording.frame.pixels)) is not None:
                self.dark[replayed.path] = peak
            self.largest_change = max(self.largest_change, abs(comparison.score_change))
            bundles = comparison.recording.result.bundle_sha256, comparison.bundle_sha256
            engines = _engine_name(comparison.recording.engine), _engine_name(comparison.engine)
            self.other_bundles[bundles] += bundles[0] != bundles[1]
            self.other_engines[engines] += engines[0] != engines[1]


def write_results(all_replayed: Iterable[Replayed], out: Path) -> Summary:
    """Write `results.jsonl`, a line for each as it comes, and then `differences.png` if some differ.

    Raises:
        ImageError: The results cannot be written.
    """
    summary, pairs = Summary(), _Pairs()
    with results_file(out) as file:
        for replayed in all_replayed:
            file.write(json.dumps(_result(replayed), allow_nan=False) + "\n")
            file.flush()
            summary.add(replayed)
            pairs.add(replayed)
        (out / DIFFERENCES).unlink(missing_ok=True)
    pairs.write(out / DIFFERENCES)
    return summary


class _Pairs:
    """Cards of the largest differences, as published beside as detected today."""

    def __init__(self) -> None:
        self._kept: list[tuple[tuple[bool, float, float], int, list[Uint8]]] = []
        self._count = 0

    def add(self, replayed: Replayed) -> None:
        """Draw it if it differs, and more than others do."""
        comparison = replayed.comparison
        if comparison is None or replayed.outcome in _AS_PUBLISHED:
            return
        self._count += 1
        is_other_verdict = replayed.outcome is Outcome.VERDICT
        size = is_other_verdict, abs(comparison.score_change), 1 - comparison.mask_overlap
        if len(self._kept) < _NUM_PAIRS:
            heapq.heappush(self._kept, (size, -self._count, _cards(comparison)))
        elif size > self._kept[0][0]:
            heapq.heapreplace(self._kept, (size, -self._count, _cards(comparison)))

    def write(self, path: Path) -> None:
        """Write the contact sheet; without a difference there is none."""
        if self._kept:
            cards = [picture for _, _, pair in sorted(self._kept, reverse=True) for picture in pair]
            shown = f"{len(self._kept)} of {self._count} recordings that differ; left as published, right as it is now"
            write_image(path, contact_sheet(cards, "Replay", shown, num_columns=2))


def _cards(comparison: Comparison) -> list[Uint8]:
    published, detection = comparison.recording.detection, comparison.detection
    pixels = comparison.recording.frame.rgb
    closeup = smallest_region(published) or smallest_region(detection)
    time = comparison.recording.path.name[:12]
    return [
        card(Entry(f"{time} {when}", pixels, found, _captioned(closeup, found), why))
        for when, found, why in zip(("published", "now"), (published, detection), _reasons(comparison), strict=True)
    ]


def _reasons(comparison: Comparison) -> tuple[str, str]:
    """Why the published verdict is what it is, and why today's."""
    result, thresholds = comparison.recording.result, comparison.thresholds
    both = (
        (comparison.recording.detection, result.image_threshold, result.pixel_threshold),
        (comparison.detection, thresholds.image, thresholds.pixel),
    )
    published, now = (
        explained(found.score, image, found.peak, pixel, found.peak_xy, found.decided_by)
        for found, image, pixel in both
    )
    return published, now


def _captioned(closeup: Closeup | None, detection: Detection) -> Closeup | None:
    """The same place with what this detection has of it."""
    return closeup and replace(closeup, caption=f"mask of {np.count_nonzero(detection.mask)} px in all")


def _result(replayed: Replayed) -> dict[str, Any]:
    """One line of the results."""
    about = {"recording": str(replayed.path), "outcome": replayed.outcome.value, "reason": replayed.reason}
    comparison = replayed.comparison
    if comparison is None:
        return about
    result, published = comparison.recording.result, comparison.recording.detection
    return {
        **about,
        **{name: getattr(result, name) for name in _ABOUT},
        "published": _described(
            *(published, comparison.recording.engine, result.bundle_sha256),
            *(result.image_threshold, result.pixel_threshold),
        ),
        "replayed": _described(
            *(comparison.detection, comparison.engine, comparison.bundle_sha256),
            *(comparison.thresholds.image, comparison.thresholds.pixel),
        ),
        "score_change": comparison.score_change,
        "mask_changed_px": comparison.mask_changed_px,
        "mask_overlap": comparison.mask_overlap,
    }


def _described(
    detection: Detection, engine: str, bundle_sha256: str, image_threshold: float, pixel_threshold: float | None
) -> dict[str, Any]:
    return {
        "verdict": _verdict(detection),
        "score": detection.score,
        "peak": detection.peak,
        "peak_xy": detection.peak_xy,
        "decided_by": detection.decided_by,
        "mask_px": int(np.count_nonzero(detection.mask)),
        "engine": engine,
        "bundle_sha256": bundle_sha256,
        "image_threshold": image_threshold,
        "pixel_threshold": pixel_threshold,
    }


def _one_line(replayed: Replayed) -> str:
    comparison = replayed.comparison
    if comparison is None:
        return f"{replayed.path}: {replayed.reason}"
    published, detection = comparison.recording.detection, comparison.detection
    why_published, why_now = _reasons(comparison)
    return (
        f"{replayed.path}: {_verdict(published)} ({why_published}), now {_verdict(detection)} "
        f"({why_now}), {comparison.mask_changed_px} px of the mask differ"
    )


def _verdict(detection: Detection) -> str:
    return "anomalous" if detection.is_anomalous else "ok"


def _engine_name(reason: str) -> str:
    """The engine without why it was chosen."""
    return reason.partition(" (")[0]
