"""The whole of `fbft-calibrate benchmark`: a data set in; per category a bundle, its figures and pictures; one report.

Here is only the order, and what is kept from an earlier run. Knows nothing about how data sets are laid out, how
figures are computed or how a report looks.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from fbft_calibration.benchmark.pictures import Album
from fbft_calibration.benchmark.plan import choose, counts, data_sha256, listing_sha256
from fbft_calibration.benchmark.report import REPORT, in_words, write_summary
from fbft_calibration.benchmark.result import (
    CategoryResult,
    InspectedImage,
    finished,
    flat_settings,
    provenance,
    read_result,
    read_run,
    write_json,
    write_result,
)
from fbft_calibration.bundling import BundleSettings, fit_bundle
from fbft_calibration.fit import FitSettings
from fbft_calibration.layouts import Category, TestImage, categories
from fbft_calibration.metrics import CategoryFigures, CategoryTally
from fbft_calibration.progress import tracked
from fbft_edge.bundle import Bundle, file_sha256, open_bundle
from fbft_edge.detectors.openvino import OpenVinoDetector, accepted_precision
from fbft_edge.detectors.selection import DetectorPool
from fbft_edge.errors import ArgumentError, BundleError, ImageError
from fbft_edge.frame import Bool, Detection, Float32, Uint8
from fbft_edge.images import image_paths, read_image

_FIT = "fit.json"
_MOST_SIZES = 4
_PAPER_EPOCHS = 50
_PAPER_BATCH_IMAGES = 4
_PAPER_PATCHES = 74 * 74  # of an image of 1036x1036
_PAPER_LEARNING_RATE = 1e-3

Detect = Callable[[Uint8], tuple[Detection, Float32]]


@dataclass(frozen=True, slots=True)
class BenchmarkSettings:
    """What `benchmark` is told.

    Attributes:
        bundle: How bundles are made.
        epochs: Passes over the nominal images, in the place of the bundle's number of steps; None keeps that.
        pixel_size_mm: Side of a pixel on the part, or None when it is not known.
    """

    bundle: BundleSettings = field(default_factory=BundleSettings)
    epochs: int | None = None
    pixel_size_mm: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """All that decides the figures, fit for JSON."""
        return {**self.of_fit(), "pixel_size_mm": self.pixel_size_mm}

    def of_fit(self) -> dict[str, Any]:
        """All that decides the bundle; weights by their name and SHA-256 rather than where they lie."""
        contents = asdict(self.bundle)
        weights = self.bundle.weights
        contents["weights"] = f"{weights.name}, SHA-256 {file_sha256(weights)}" if weights else None
        contents["blocks"] = list(self.bundle.blocks) if self.bundle.blocks else None
        if self.epochs:
            contents["students"]["steps"] = f"{self.epochs} epochs"
        return contents

    def for_images(self, num_nominal: int) -> BundleSettings:
        """How the bundle of a category with so many nominal images is made."""
        if self.epochs is None:
            return self.bundle
        num_fitted = num_nominal - max(1, round(self.bundle.held_out * num_nominal))
        steps = self.epochs * max(1, math.ceil(num_fitted / _PAPER_BATCH_IMAGES))
        students = dataclasses.replace(self.bundle.students, steps=steps, patience=steps)
        return dataclasses.replace(self.bundle, students=students)


@dataclass(frozen=True, slots=True)
class Measured:
    """What inspecting a category's test images came to.

    Attributes:
        figures: Of the category.
        images: Every test image that could be read.
        problems: A line for every file that does not count, or not for all figures.
        scoring_s: Seconds that the figures took beyond inspection, all images together.
    """

    figures: CategoryFigures
    images: tuple[InspectedImage, ...]
    problems: tuple[str, ...]
    scoring_s: float


def paper_settings(bundle: BundleSettings, steps: int | None, pixel_size_mm: float | None) -> BenchmarkSettings:
    """The paper's fit, as far as this one can say it: Adam at 1e-3, batches of 4 images, 50 epochs unless told."""
    students = FitSettings(
        steps=steps or 1,
        batch_patches=_PAPER_BATCH_IMAGES * _PAPER_PATCHES,
        learning_rate=_PAPER_LEARNING_RATE,
        seed=bundle.students.seed,
    )
    epochs = None if steps else _PAPER_EPOCHS
    return BenchmarkSettings(dataclasses.replace(bundle, students=students), epochs, pixel_size_mm)


def run_benchmark(
    root: Path, out: Path, settings: BenchmarkSettings, console: Console, names: Sequence[str] = ()
) -> None:
    """Measure categories one after the other; the summary is written anew after each.

    What an earlier run with the same settings has finished is kept.

    Args:
        root: Of the data set.
        out: Made if it does not exist.
        settings: How.
        console: Shows what is done.
        names: Of the categories to measure; empty for all of them.

    Raises:
        FbftError: Anything the user can act on. What is wrong with one category is said after the others are done.
    """
    chosen = choose(categories(root), names, root)
    _refuse_other_results(out, root, settings)
    refused: dict[str, str] = {}
    for number, category in enumerate(chosen, start=1):
        console.print(f"{category.name}, {number} of {len(chosen)}", style="bold", markup=False)
        try:
            _finish(category, root, out, settings, console)
        except (ArgumentError, ImageError, BundleError) as error:
            refused[category.name] = str(error)
            console.print(f"{category.name} cannot be measured: {error}", style="red", markup=False)
        else:
            write_summary(read_run(out), out)
    if refused:
        causes = "; ".join(f"{name}: {cause}" for name, cause in refused.items())
        raise ArgumentError(f"{len(refused)} of {len(chosen)} categories could not be measured: {causes}")
    console.print(f"open {out / REPORT}", style="bold green", markup=False)


def _finish(category: Category, root: Path, out: Path, settings: BenchmarkSettings, console: Console) -> None:
    """Bring one category to its end, whatever of it is there."""
    target = out / f"{category.name}.json"
    digest = data_sha256(category, root)
    if target.is_file():
        kept = read_result(target)
        if (kept.settings, kept.data_sha256) == (settings.as_dict(), digest):
            console.print(f"kept: {target} is finished", markup=False)
            return
        console.print(f"{target} has other images or another pixel size; measured again", markup=False)
    bundle, fit_s = _fitted(category, root, out / category.name, settings, console)
    album = Album(bundle.require_thresholds().pixel)
    with _Detectors(bundle) as detectors:
        measured = measure(category, root, detectors.detect, album, settings.pixel_size_mm, console)
    for line in measured.problems:
        console.print(f"  {line}", style="yellow", markup=False)
    result = CategoryResult(
        category=category.name,
        dataset=root.resolve().name,
        layout=category.layout,
        settings=settings.as_dict(),
        data_sha256=digest,
        bundle=_bundle_facts(bundle),
        provenance=provenance(),
        seconds={
            "fit": fit_s,
            "image_median": statistics.median(image.seconds for image in measured.images),
            "scoring": measured.scoring_s,
        },
        counts=counts(category),
        figures=measured.figures.as_dict(),
        images=measured.images,
        pictures=album.write(out / category.name / "pictures", out),
        problems=measured.problems,
    )
    write_result(result, target)
    console.print(in_words(result), markup=False)


def measure(
    category: Category, root: Path, detect: Detect, album: Album, pixel_size_mm: float | None, console: Console
) -> Measured:
    """Inspect a category's test images and tally what is said about them; any detector will do.

    Args:
        category: Of the data set at `root`.
        root: Files are named from there.
        detect: From a picture of any size to its detection and its (height, width) float32 anomaly map, which is
            valid until the next call.
        album: Is offered every image.
        pixel_size_mm: Side of a pixel on the part, or None.
        console: Shows the progress bar.

    Raises:
        ImageError: No test image could be read.
    """
    tally = CategoryTally(pixel_size_mm)
    images: list[InspectedImage] = []
    problems = list(category.problems)
    scoring_s = 0.0
    for test in tracked(category.tests, f"inspecting {category.name}", console):
        try:
            pixels = read_image(test.path)
        except ImageError as error:
            problems.append(f"{error}; it counts for no figure")
            continue
        started = time.perf_counter()
        detection, anomaly_map = detect(pixels)
        seconds = time.perf_counter() - started
        truth, problem = test.truth((pixels.shape[0], pixels.shape[1]))
        problems += [problem] if problem else []
        images.append(_inspected(test, root, detection, truth, seconds))
        started = time.perf_counter()
        tally.add(
            anomaly_map,
            truth,
            detection.score,
            is_defective=test.is_defective,
            is_flagged=detection.is_anomalous,
            mask=detection.mask,
            defect_type=test.defect_type,
        )
        scoring_s += time.perf_counter() - started
        album.offer(pixels, truth, detection, anomaly_map, images[-1])
    if not images:
        raise ImageError(f"none of the {len(category.tests)} test images of {category.name} could be read")
    started = time.perf_counter()
    figures = tally.figures()
    problems = [line.replace(f"{root}/", "") for line in problems]
    return Measured(figures, tuple(images), tuple(problems), scoring_s + time.perf_counter() - started)


def _refuse_other_results(out: Path, root: Path, settings: BenchmarkSettings) -> None:
    """Hours of an earlier run are not overwritten, and one summary has one data set and one kind of bundle."""
    wanted = {"dataset": root.resolve().name, **flat_settings(settings.of_fit())}
    for result in finished(out):
        kept = {"dataset": result.dataset, **flat_settings(result.settings)}
        other = [f"{name} {kept.get(name)}, now {value}" for name, value in wanted.items() if kept.get(name) != value]
        if other:
            raise ArgumentError(
                f"{out} holds {result.category} with other settings ({'; '.join(other)}); "
                f"choose another --out, or remove {out}"
            )


def _fitted(
    category: Category, root: Path, folder: Path, settings: BenchmarkSettings, console: Console
) -> tuple[Bundle, float]:
    """The category's bundle and the seconds that fitting took; a complete one of the same settings is kept."""
    path, note = folder / f"{category.name}.fbft", folder / _FIT
    wanted = {"settings": settings.of_fit(), "nominal_sha256": listing_sha256(category.nominal, root)}
    if note.is_file() and path.is_dir():
        with contextlib.suppress(ValueError, KeyError, BundleError):
            known = json.loads(note.read_text(encoding="utf-8"))
            bundle = open_bundle(path)
            if known["wanted"] == wanted and known["bundle_sha256"] == bundle.sha256:
                console.print(f"kept: {path} is complete", markup=False)
                return bundle, float(known["fit_s"])
    started = time.monotonic()
    with _nominal_folder(category, folder) as nominal:
        bundle = fit_bundle(nominal, path, settings.for_images(len(category.nominal)), console)
    fit_s = time.monotonic() - started
    write_json({"wanted": wanted, "bundle_sha256": bundle.sha256, "fit_s": fit_s}, note)
    return bundle, fit_s


@contextlib.contextmanager
def _nominal_folder(category: Category, folder: Path) -> Iterator[Path]:
    """The folder that holds the nominal images and no others; of links to them where a data set's split is a list."""
    if not category.nominal:
        raise ArgumentError(f"{category.name} has no nominal image to fit on ({'; '.join(category.problems)})")
    parent = category.nominal[0].parent
    if parent.is_dir() and tuple(image_paths(parent)) == category.nominal:
        yield parent
        return
    links = folder / "nominal"
    shutil.rmtree(links, ignore_errors=True)
    links.mkdir(parents=True)
    try:
        for number, path in enumerate(category.nominal):
            (links / f"{number:05d}-{path.name}").symlink_to(path.resolve())
        yield links
    finally:
        shutil.rmtree(links)


def _inspected(test: TestImage, root: Path, detection: Detection, truth: Bool | None, seconds: float) -> InspectedImage:
    is_located = bool((detection.mask & truth).any()) if test.is_defective and truth is not None else None
    name = test.path.relative_to(root).as_posix()
    return InspectedImage(
        name, test.defect_type, test.is_defective, detection.score, detection.is_anomalous, is_located, seconds
    )


def _bundle_facts(bundle: Bundle) -> dict[str, Any]:
    return {
        "sha256": bundle.sha256,
        "teacher": asdict(bundle.teacher),
        "tile": asdict(bundle.tile),
        "frame_sizes": [list(size) for size in bundle.frame_sizes],
        "thresholds": asdict(bundle.require_thresholds()),
        "precision": accepted_precision(bundle),
        "fitted_on": len(bundle.notes["fit_images_sha256"]),
    }


class _Detectors:
    """Detections with their maps, of pictures of any size; few sizes at a time, each holds a compiled model."""

    def __init__(self, bundle: Bundle) -> None:
        self._pool = DetectorPool(partial(OpenVinoDetector, bundle))
        self._sizes: set[tuple[int, int]] = set()

    def __enter__(self) -> _Detectors:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.close()

    def detect(self, pixels: Uint8) -> tuple[Detection, Float32]:
        """See `Detect`."""
        size = pixels.shape[0], pixels.shape[1]
        if size not in self._sizes and len(self._sizes) == _MOST_SIZES:
            self._sizes.clear()
            self._pool.close()
        self._sizes.add(size)
        detector = self._pool.of(*size)
        anomaly_map = detector.map_of(pixels)
        return detector.judge(anomaly_map), anomaly_map
