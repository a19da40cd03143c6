"""Image files in, a folder of masks, overlays and one line of results per image out.

Knows nothing about cameras, rates or how a detection is made.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.detectors import Detector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.detectors.selection import open_detector
from fbft_edge.errors import ArgumentError, ImageError, MapError
from fbft_edge.frames.drawing import Entry, card, contact_sheet, overlay
from fbft_edge.frames.explanation import explained
from fbft_edge.frames.frame import Detection, Uint8, Verdict
from fbft_edge.frames.images import image_paths, read_image, write_image
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.jobs.refiner import Refiner, open_refiner, require_refiner
from fbft_edge.jobs.results_file import results_file
from fbft_edge.progress import SILENT, Progress

OVERVIEW = "overview.png"
_NUM_CARDS = 12


@dataclass(slots=True)
class Inspection:
    """What came of a batch.

    Attributes:
        counts: Images per verdict: ok, anomalous, and fault for those without a verdict.
        foreign_sizes: (height, width) of images that the thresholds were not found on, with their number.
    """

    counts: Counter[Verdict] = field(default_factory=Counter)
    foreign_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)

    def exit_status(self, fail_on_anomaly: bool) -> int:
        """1 when an image has no verdict, or when one is anomalous and that was to fail; else 0."""
        failed = self.counts[Verdict.FAULT] or (fail_on_anomaly and self.counts[Verdict.ANOMALOUS])
        return 1 if failed else 0


def inspect(
    bundle_path: Path,
    inputs: Sequence[Path],
    out: Path,
    engine: str = "auto",
    *,
    sharpen: bool = False,
    refine: bool = False,
    weights: Path | None = None,
    progress: Progress = SILENT,
) -> Inspection:
    """Inspect image files and folders of them with a bundle.

    Args:
        bundle_path: Of the bundle.
        inputs: Image files, and folders of them.
        out: See `inspect_images`.
        engine: See `fbft_edge.detectors.selection.open_detector`.
        sharpen: See there.
        refine: Redraw what is flagged by `fbft_edge.jobs.refiner`; verdicts and scores stay.
        weights: Local teacher weights for that, or None for the teacher's own.
        progress: Told the engine, and how far it is.

    Raises:
        ArgumentError: There is nothing to inspect, masks cannot be refined here, or options contradict each other.
        BundleError: The bundle does not verify, or has no thresholds.
        EngineError: No engine can run the bundle's model here.
        ImageError: A named folder holds no image, or the results cannot be written.
        TeacherError: Masks were to be refined, and the bundle's teacher cannot be had.
    """
    _require_one_way(sharpen, refine, weights)
    paths = expanded(inputs)
    bundle = open_bundle(bundle_path)
    told: set[str] = set()

    def made(layout: FrameLayout) -> Detector:
        opened = open_detector(bundle, layout, engine, sharpen=sharpen)
        if opened.reason not in told:
            progress.say(f"engine: {opened.reason}")
        told.add(opened.reason)
        return opened.detector

    with ExitStack() as stack:
        detect: Callable[[Uint8], Detection] = stack.enter_context(DetectorPool(made)).detect
        if refine:
            refiner = stack.enter_context(closing(open_refiner(bundle, weights)))
            detect = partial(_refined, detect, refiner)
        return inspect_images(bundle, paths, out, detect, progress)


def _require_one_way(sharpen: bool, refine: bool, weights: Path | None) -> None:
    if refine and sharpen:
        raise ArgumentError(
            "--sharpen and --refine both redraw the masks; give one: --sharpen takes milliseconds, --refine seconds"
        )
    if weights is not None and not refine:
        raise ArgumentError("--weights names the teacher that --refine asks; give both, or neither")
    if refine:
        require_refiner()


def _refined(detect: Callable[[Uint8], Detection], refiner: Refiner, pixels: Uint8) -> Detection:
    return refiner.refined(pixels, detect(pixels))


def inspect_images(
    bundle: Bundle,
    paths: Sequence[Path],
    out: Path,
    detect: Callable[[Uint8], Detection],
    progress: Progress = SILENT,
) -> Inspection:
    """Inspect image files and write `out`; a line of results is on disk before the next image is read.

    Args:
        bundle: Its thresholds and its SHA-256 go into every line.
        paths: Image files; one that cannot be read gets a line with verdict `fault` and the reason.
        out: Made if it does not exist; gets `masks/`, `overlays/`, `results.jsonl` and `overview.png`.
        detect: Takes a picture of any size.
        progress: Told how far it is.

    Raises:
        BundleError: The bundle has no thresholds.
        ImageError: The results cannot be written.
    """
    writer = _Writer(bundle, out)
    inspection = Inspection()
    named = list(zip(paths, output_names(paths), strict=True))
    with results_file(out, ("masks", "overlays")) as file:
        for path, name in progress.track(named, "Inspecting"):
            line = writer.inspected(path, name, detect)
            inspection.counts[Verdict(line["verdict"])] += 1
            size = (line["height"], line["width"])
            if line["height"] and bundle.frame_sizes and size not in bundle.frame_sizes:
                inspection.foreign_sizes[size] += 1
            file.write(json.dumps(line, sort_keys=True, allow_nan=False) + "\n")
            file.flush()
    writer.write_overview()
    return inspection


def expanded(inputs: Sequence[Path]) -> list[Path]:
    """Files as they are, folders replaced by the image files directly in them.

    Raises:
        ArgumentError: There is no input.
        ImageError: A folder holds no image.
    """
    if not inputs:
        raise ArgumentError("no images to inspect; name image files or folders of them")
    return [path for given in inputs for path in (image_paths(given) if given.is_dir() else [given])]


def output_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file's outputs: its own without the suffix, numbered where that is taken already."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name.casefold() in taken:  # some file systems do not tell A.png from a.png
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name.casefold())
        names.append(name)
    return names


class _Writer:
    """Writes what belongs to one image, and keeps the cards of the highest scores."""

    def __init__(self, bundle: Bundle, out: Path) -> None:
        thresholds = self._thresholds = bundle.require_thresholds()
        self._out = out
        self._constants = {
            "bundle_sha256": bundle.sha256,
            "image_threshold": thresholds.image,
            "pixel_threshold": thresholds.pixel,
        }
        self._cards: list[tuple[float, int, Uint8]] = []
        self._count = 0

    def inspected(self, path: Path, name: str, detect: Callable[[Uint8], Detection]) -> dict[str, Any]:
        """Inspect one image, write its pictures, return its line."""
        try:
            pixels = read_image(path)
        except ImageError as error:
            return self._line(path, None, Verdict.FAULT, str(error))
        height, width = pixels.shape[:2]
        try:
            detection = detect(pixels)
        except MapError as error:
            return self._line(path, (height, width), Verdict.FAULT, str(error))
        self._write_pictures(name, pixels, detection)
        verdict = Verdict.ANOMALOUS if detection.is_anomalous else Verdict.OK
        return {
            **self._line(path, (height, width), verdict, None),
            "score": detection.score,
            "peak": detection.peak,
            "peak_xy": detection.peak_xy,
            "decided_by": detection.decided_by,
            "regions": [asdict(region) for region in detection.regions],
            "mask": f"masks/{name}.png",
            "overlay": f"overlays/{name}.jpg",
        }

    def write_overview(self) -> None:
        """Write the contact sheet, the highest scores first."""
        if not self._cards:
            return
        cards = [picture for _, _, picture in sorted(self._cards, reverse=True)]
        shown = f"the {len(cards)} highest image scores of {self._count}" if len(cards) > 1 else "1 image"
        write_image(self._out / OVERVIEW, contact_sheet(cards, "Inspection", shown))

    def _line(self, path: Path, size: tuple[int, int] | None, verdict: Verdict, reason: str | None) -> dict[str, Any]:
        height, width = size or (None, None)
        about = {
            "file": str(path),
            "height": height,
            "width": width,
            "verdict": verdict.value,
            "reason": reason,
        }
        return {**about, **self._constants, **_NOTHING_DETECTED}

    def _write_pictures(self, name: str, pixels: Uint8, detection: Detection) -> None:
        write_image(self._out / "masks" / f"{name}.png", detection.mask.astype(np.uint8) * 255)
        peak = detection.peak, self._thresholds.pixel, detection.peak_xy
        note = explained(detection.score, self._thresholds.image, *peak, detection.decided_by)
        marked = overlay(pixels, detection, note if detection.is_anomalous else "")
        write_image(self._out / "overlays" / f"{name}.jpg", marked)
        self._count += 1
        picture = card(Entry(name, pixels, detection, note=note))
        heapq.heappush(self._cards, (detection.score, -self._count, picture))
        if len(self._cards) > _NUM_CARDS:
            heapq.heappop(self._cards)


_NOTHING_DETECTED: dict[str, Any] = {
    "score": None,
    "peak": None,
    "peak_xy": None,
    "decided_by": None,
    "regions": [],
    "mask": None,
    "overlay": None,
}
