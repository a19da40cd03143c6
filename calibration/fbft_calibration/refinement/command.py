"""A bundle and image files in; refined masks, pictures of both masks and one line of results per image out.

Also what `fbft-edge inspect --refine` finds as its entry point. Knows nothing about how masks are refined.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fbft_calibration.refinement.bundle_detector import BundleDetector
from fbft_calibration.refinement.f2pad import RefineSettings, refine
from fbft_calibration.refinement.pictures import Changes, before_and_after
from fbft_edge.bundle.reading import Bundle
from fbft_edge.closeable import Closeable
from fbft_edge.detectors.judge import find_regions
from fbft_edge.errors import BundleError, ImageError, MapError
from fbft_edge.frames.frame import Detection, Uint8
from fbft_edge.frames.images import read_image, write_image
from fbft_edge.jobs.earlier_results import clear
from fbft_edge.jobs.inspection import OVERVIEW, output_names
from fbft_edge.jobs.results_file import results_file
from fbft_edge.progress import SILENT, Progress


@dataclass(slots=True)
class Refined:
    """What came of a batch, in images.

    Attributes:
        redrawn: Whose mask is another one now.
        unchanged: Flagged, but with the mask that they had.
        nominal: In which nothing is flagged.
        faults: That cannot be read or judged.
    """

    redrawn: int = 0
    unchanged: int = 0
    nominal: int = 0
    faults: int = 0

    @property
    def exit_status(self) -> int:
        """1 when an image has no mask, as `fbft-edge inspect` ends; else 0."""
        return 1 if self.faults else 0


class BundleRefiner(Closeable):
    """Refines detections of one bundle; see `fbft_edge.jobs.refiner.Refiner`.

    Args:
        bundle: With thresholds.
        weights: Local teacher weights, or None for the teacher's own.
        settings: None for the defaults.

    Raises:
        BundleError: The bundle has no thresholds.
        TeacherError: The teacher cannot be had, or its weights are not those that the bundle was fitted with.
    """

    def __init__(self, bundle: Bundle, weights: Path | None = None, settings: RefineSettings | None = None) -> None:
        self._detector = BundleDetector(bundle, weights)
        self._settings = settings

    def detect(self, pixels: Uint8) -> Detection:
        """See `BundleDetector.detect`."""
        return self._detector.detect(pixels)

    def refined(self, pixels: Uint8, detection: Detection) -> Detection:
        """See `fbft_edge.jobs.refiner.Refiner`."""
        return self.explained(pixels, detection)[0]

    def explained(self, pixels: Uint8, detection: Detection) -> tuple[Detection, tuple[float, ...]]:
        """The refined detection, and the energy before each step; see `fbft_edge.jobs.refiner.Refiner`.

        Args:
            pixels: (height, width, 3) uint8 RGB.
            detection: Of another engine, perhaps, whose map is not quite ours; without a map it is made here.
        """
        if not detection.mask.any():
            return detection, ()
        anomaly_map = detection.anomaly_map
        if anomaly_map is None:
            anomaly_map = self._detector.map_of(pixels)
        relative = self._detector.relative(anomaly_map)
        refinement = refine(self._detector, pixels, self._settings, relative, detection.mask)
        regions = find_regions(refinement.mask, anomaly_map)
        return replace(detection, mask=refinement.mask, regions=regions), refinement.energies

    def close(self) -> None:
        """Give the models' memory back."""
        self._detector.close()


def refine_images(
    bundle: Bundle,
    paths: Sequence[Path],
    out: Path,
    settings: RefineSettings,
    weights: Path | None = None,
    progress: Progress = SILENT,
    *,
    folders: Sequence[Path] = (),
    overwrite: bool = False,
) -> Refined:
    """Refine the masks of image files; a line of results is on disk before the next image is read.

    Args:
        bundle: With thresholds.
        paths: Image files; one that cannot be read gets a line with the reason as its `fault`.
        out: Made if it does not exist; gets `masks/`, `overlays/`, `results.jsonl` and `overview.png`.
        settings: How an image is explained.
        weights: Local teacher weights, or None for the teacher's own.
        progress: Shown how far it is.
        folders: See `fbft_edge.jobs.inspection.output_names`.
        overwrite: Replace results that `out` has.

    Raises:
        ArgumentError: Results of an earlier run are in the way.
        BundleError: The bundle has no thresholds.
        TeacherError: The teacher cannot be had, or its weights are not those that the bundle was fitted with.
        ImageError: The results cannot be written.
    """
    clear(out, overwrite=overwrite)
    with BundleRefiner(bundle, weights, settings) as refiner, results_file(out, ("masks", "overlays")) as file:
        writer = _Writer(bundle, refiner, out, {"bundle_sha256": bundle.sha256, "settings": asdict(settings)})
        named = list(zip(paths, output_names(paths, folders), strict=True))
        for path, name in progress.track(named, "Refining"):
            file.write(json.dumps(writer.refined(path, name), sort_keys=True, allow_nan=False) + "\n")
            file.flush()
    writer.write_overview()
    return writer.counts


class _Writer:
    """Writes what belongs to one image, and keeps the pictures of what changed most."""

    def __init__(self, bundle: Bundle, refiner: BundleRefiner, out: Path, constants: dict[str, Any]) -> None:
        self._bundle, self._refiner, self._out, self._constants = bundle, refiner, out, constants
        self._changes = Changes()
        self.counts = Refined()

    def refined(self, path: Path, name: str) -> dict[str, Any]:
        """Refine one image, write its pictures, return its line."""
        line = {"file": str(path), **self._constants, **_NOTHING}
        began = time.perf_counter()
        try:
            pixels = read_image(path)
            line["height"], line["width"] = pixels.shape[:2]
            self._bundle.require_frame_size(pixels.shape[0], pixels.shape[1], str(path))
            before = self._refiner.detect(pixels)
        except (BundleError, ImageError, MapError) as error:
            self.counts.faults += 1
            return {**line, "fault": str(error)}
        after, energies = self._refiner.explained(pixels, before)
        seconds = time.perf_counter() - began
        self._count(before, after)
        self._write_pictures(name, pixels, before, after)
        return {
            **line,
            "flagged": bool(before.mask.any()),
            "area_px_before": int(before.mask.sum()),
            "area_px_after": int(after.mask.sum()),
            "regions_before": [asdict(region) for region in before.regions],
            "regions_after": [asdict(region) for region in after.regions],
            "energies": [energy if math.isfinite(energy) else None for energy in energies],
            "seconds": round(seconds, 3),
            "mask": f"masks/{name}.png",
            "overlay": f"overlays/{name}.jpg",
        }

    def write_overview(self) -> None:
        """Write the contact sheet of what changed most, unless nothing did."""
        overview = self._changes.overview()
        if overview is not None:
            write_image(self._out / OVERVIEW, overview)

    def _count(self, before: Detection, after: Detection) -> None:
        if not before.mask.any():
            self.counts.nominal += 1
        elif np.array_equal(before.mask, after.mask):
            self.counts.unchanged += 1
        else:
            self.counts.redrawn += 1

    def _write_pictures(self, name: str, pixels: Uint8, before: Detection, after: Detection) -> None:
        for folder in ("masks", "overlays"):
            (self._out / folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_image(self._out / "masks" / f"{name}.png", after.mask.astype(np.uint8) * 255)
        write_image(self._out / "overlays" / f"{name}.jpg", before_and_after(pixels, before, after))
        self._changes.offer(name, pixels, before, after)


_NOTHING: dict[str, Any] = {
    "height": None,
    "width": None,
    "fault": None,
    "flagged": None,
    "area_px_before": None,
    "area_px_after": None,
    "regions_before": [],
    "regions_after": [],
    "energies": [],
    "seconds": None,
    "mask": None,
    "overlay": None,
}
