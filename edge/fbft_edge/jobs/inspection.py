"""Image files in, a folder of masks, overlays and one line of results per image out.

Knows nothing about cameras, rates or how a detection is made.
"""

from __future__ import annotations

import hashlib
import heapq
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.detectors import Detector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.detectors.selection import open_detector
from fbft_edge.errors import ArgumentError, BundleError, ImageError, MapError
from fbft_edge.frames.drawing import Entry, card, contact_sheet, overlay
from fbft_edge.frames.explanation import explained
from fbft_edge.frames.frame import Detection, Uint8, Verdict
from fbft_edge.frames.images import (
    decode_image,
    file_bytes,
    image_paths,
    images_below,
    images_in,
    peak_of_dark_16_bit,
    write_image,
)
from fbft_edge.frames.pixel_format import FrameLayout, PixelFormat
from fbft_edge.jobs.earlier_results import Earlier, kept_lines, picture_names
from fbft_edge.jobs.refiner import Refiner, open_refiner, require_refiner
from fbft_edge.jobs.results_file import results_file
from fbft_edge.plain_file import file_sha256
from fbft_edge.progress import SILENT, Progress

OVERVIEW = "overview.png"
_NUM_CARDS = 12


@dataclass(slots=True)
class Inspection:
    """What came of a batch.

    Attributes:
        counts: Images per verdict: ok, anomalous, and fault for those without a verdict.
        foreign_sizes: (height, width) of images that the thresholds were not found on, with their number; they have no
            verdict.
        foreign_look: How many images are mono and the nominal ones are not, or the other way round; they have no
            verdict.
        dark: Largest value of 16-bit files that are nearly black, by file.
    """

    counts: Counter[Verdict] = field(default_factory=Counter)
    foreign_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    foreign_look: int = 0
    dark: dict[Path, int] = field(default_factory=dict)

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
    recursive: bool = False,
    earlier: Earlier = Earlier.REFUSED,
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
        recursive: Inspect what is in folders of these folders, too; its pictures lie in folders of the same names.
        earlier: See `inspect_images`.
        progress: Told the engine, what is left out, and how far it is.

    Raises:
        ArgumentError: There is nothing to inspect, masks cannot be refined here, options contradict each other, or
            results of an earlier run are in the way.
        BundleError: The bundle does not verify, or has no thresholds.
        EngineError: No engine can run the bundle's model here.
        ImageError: A named folder holds no image, or the results cannot be written.
        TeacherError: Masks were to be refined, and the bundle's teacher cannot be had.
    """
    _require_one_way(sharpen, refine, weights)
    paths = expanded(inputs, recursive=recursive, out=out, progress=progress)
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
        folders = [given for given in inputs if given.is_dir()]
        return inspect_images(bundle, paths, out, detect, progress, folders=folders, earlier=earlier)


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
    *,
    folders: Sequence[Path] = (),
    earlier: Earlier = Earlier.REFUSED,
) -> Inspection:
    """Inspect image files and write `out`; a line of results is on disk before the next image is read.

    Args:
        bundle: Its thresholds and its SHA-256 go into every line.
        paths: Image files; one that cannot be read, has a size that the thresholds were not found on, or is mono where
            the nominal images have colour (or the other way round), gets a line with verdict `fault` and the reason.
        out: Made if it does not exist; gets `masks/`, `overlays/`, `results.jsonl` and `overview.png`.
        detect: Takes a picture of any size.
        progress: Told how far it is.
        folders: Those among which `paths` were found, for the names of masks and overlays; see `output_names`.
        earlier: What becomes of results that `out` has. Resumed, an image whose file has a verdict of this bundle there
            and is as it was is not inspected again; its line and verdict stay.

    Raises:
        ArgumentError: Results of an earlier run are in the way, or another bundle made them.
        BundleError: The bundle has no thresholds.
        ImageError: The results cannot be written.
    """
    inspection = Inspection()
    writer = _Writer(bundle, out, inspection)
    kept = kept_lines(out, earlier, bundle.sha256)
    done = {line["file"] for line in kept}
    left = [path for path in paths if str(path) not in done]
    named = list(zip(left, output_names(left, folders, picture_names(kept)), strict=True))
    with results_file(out, ("masks", "overlays")) as file:
        for line in kept:
            inspection.counts[Verdict(line["verdict"])] += 1
            _write_line(file, line)
        for path, name in progress.track(named, "Inspecting"):
            line = writer.inspected(path, name, detect)
            inspection.counts[Verdict(line["verdict"])] += 1
            _write_line(file, line)
    writer.write_overview(len(kept))
    return inspection


def _write_line(file: IO[str], line: dict[str, Any]) -> None:
    file.write(json.dumps(line, sort_keys=True, allow_nan=False) + "\n")
    file.flush()


def expanded(
    inputs: Sequence[Path], *, recursive: bool = False, out: Path | None = None, progress: Progress = SILENT
) -> list[Path]:
    """Files as they are, folders replaced by the image files in them.

    Args:
        inputs: Files and folders.
        recursive: Take what is in folders of the folders, too.
        out: What lies in this folder is left out below others: masks and overlays are no images to inspect.
        progress: Told of images that are left out because they are in folders of the folders.

    Raises:
        ArgumentError: There is no input.
        ImageError: A folder holds no image.
    """
    if not inputs:
        raise ArgumentError("no images to inspect; name image files or folders of them")
    paths: list[Path] = []
    for given in inputs:
        if not given.is_dir():
            paths.append(given)
            continue
        below = [path for path in images_below(given) if out is None or out.resolve() not in path.resolve().parents]
        if recursive and below:
            paths += sorted([*images_in(given), *below])
            continue
        if below and not images_in(given):
            raise ImageError(f"{given} holds no image, its subfolders hold {len(below)}; --recursive takes them")
        paths += image_paths(given)
        if below:
            progress.say(
                f"{len(below)} images in subfolders of {given} are left out; --recursive takes them", "caution"
            )
    return paths


def output_names(paths: Sequence[Path], folders: Sequence[Path] = (), taken: Iterable[str] = ()) -> list[str]:
    """A name for each file's outputs: its own without the suffix, numbered where that is taken already.

    Args:
        paths: Of the files.
        folders: A file below one of them has the folders in between before its name.
        taken: Names that others have.
    """
    all_taken = {name.casefold() for name in taken}
    names = []
    for path in paths:
        folder = next((folder for folder in folders if folder in path.parents), path.parent)
        own = str(path.relative_to(folder).with_suffix(""))
        name, number = own, 1
        while name.casefold() in all_taken:  # some file systems do not tell A.png from a.png
            number += 1
            name = f"{own}-{number}"
        all_taken.add(name.casefold())
        names.append(name)
    return names


class _Writer:
    """Writes what belongs to one image, and keeps the cards of the highest scores."""

    def __init__(self, bundle: Bundle, out: Path, inspection: Inspection) -> None:
        thresholds = self._thresholds = bundle.require_thresholds()
        self._bundle, self._out, self._inspection = bundle, out, inspection
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
            encoded = file_bytes(path)
            pixels = decode_image(encoded, str(path))
        except ImageError as error:
            return self._line(path, None, Verdict.FAULT, str(error))
        height, width = pixels.shape[:2]
        try:
            self._require_size(height, width, path)
            self._require_look(pixels, path)
            if (peak := peak_of_dark_16_bit(path, pixels)) is not None:
                self._inspection.dark[path] = peak
            sha256 = hashlib.sha256(encoded.data).hexdigest()
            detection = detect(pixels)
            _require_unchanged(path, sha256)
        except (BundleError, ImageError, MapError, OSError) as error:
            return self._line(path, (height, width), Verdict.FAULT, str(error))
        self._write_pictures(name, pixels, detection)
        verdict = Verdict.ANOMALOUS if detection.is_anomalous else Verdict.OK
        return {
            **self._line(path, (height, width), verdict, None),
            "file_sha256": sha256,
            "score": detection.score,
            "peak": detection.peak,
            "peak_xy": detection.peak_xy,
            "decided_by": detection.decided_by,
            "regions": [asdict(region) for region in detection.regions],
            "mask": f"masks/{name}.png",
            "overlay": f"overlays/{name}.jpg",
        }

    def _require_size(self, height: int, width: int, path: Path) -> None:
        try:
            self._bundle.require_frame_size(height, width, str(path))
        except BundleError:
            self._inspection.foreign_sizes[height, width] += 1
            raise

    def _require_look(self, pixels: Uint8, path: Path) -> None:
        try:
            self._bundle.require_look(pixels, PixelFormat.RGB8, str(path))
        except BundleError:
            self._inspection.foreign_look += 1
            raise

    def write_overview(self, kept: int) -> None:
        """Write the contact sheet, the highest scores first; of so many images more it knows nothing."""
        if not self._cards:
            return
        cards = [picture for _, _, picture in sorted(self._cards, reverse=True)]
        shown = f"the {len(cards)} highest image scores of {self._count}" if len(cards) > 1 else "1 image"
        if kept:
            shown += f" inspected in this run, after {kept} of earlier ones"
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
        for folder in ("masks", "overlays"):
            (self._out / folder / name).parent.mkdir(parents=True, exist_ok=True)
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


def _require_unchanged(path: Path, sha256: str) -> None:
    """Accept a verdict about a file that still is what was inspected.

    Many programs give a file its whole size first and its pixels afterwards; what is missing is black until then.

    Raises:
        ImageError: Somebody is writing it.
    """
    if file_sha256(path) != sha256:
        raise ImageError(f"{path} changed while it was inspected; wait until it is written, and go on with --resume")


_NOTHING_DETECTED: dict[str, Any] = {
    "file_sha256": None,
    "score": None,
    "peak": None,
    "peak_xy": None,
    "decided_by": None,
    "regions": [],
    "mask": None,
    "overlay": None,
}
