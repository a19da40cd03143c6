"""A category's test images and any detector in; what was said about each image, and the figures, out.

Knows nothing about how detectors are made, or what is kept of an earlier run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fbft_calibration.benchmark.pictures import Album
from fbft_calibration.benchmark.result import InspectedImage
from fbft_calibration.data.layouts import Category, TestImage
from fbft_calibration.data.nominal import about_dark_16_bit, peak_of_dark_16_bit
from fbft_calibration.metrics import CategoryFigures, CategoryTally
from fbft_edge.errors import ImageError
from fbft_edge.frames.frame import Bool, Detection, Float32, Uint8
from fbft_edge.frames.images import read_image
from fbft_edge.progress import SILENT, Progress

Detect = Callable[[Uint8], tuple[Detection, Float32]]


@dataclass(frozen=True, slots=True)
class Measured:
    """What inspecting a category's test images came to.

    Attributes:
        figures: Of the category.
        images: Every test image that could be read.
        problems: A line for every file that does not count, or not for all figures.
        cautions: A line for whatever else is likely a mistake.
        sizes: Different (height, width) of them, with their number.
        scoring_s: Seconds that the figures took beyond inspection, all images together.
        largest: The test image with the most pixels.
    """

    figures: CategoryFigures
    images: tuple[InspectedImage, ...]
    problems: tuple[str, ...]
    cautions: tuple[str, ...]
    sizes: Counter[tuple[int, int]]
    scoring_s: float
    largest: Path


def measure(
    category: Category,
    root: Path,
    detect: Detect,
    album: Album,
    pixel_size_mm: float | None,
    progress: Progress = SILENT,
    *,
    prepare: Callable[[Uint8], object] | None = None,
    has_thresholds: bool = True,
) -> Measured:
    """Inspect a category's test images and tally what is said about them; any detector will do.

    Args:
        category: Of the data set at `root`.
        root: Files are named from there.
        detect: From a picture of any size to its detection and its (height, width) float32 anomaly map, which is
            valid until the next call.
        album: Is offered every image.
        pixel_size_mm: Side of a pixel on the part, or None.
        progress: Shown how far it is.
        prepare: Called with each picture before its time is taken, for what a line does once.
        has_thresholds: False for a detector whose detections flag nothing because it has no thresholds; figures at
            thresholds then mean nothing, and no image says whether it was flagged.

    Raises:
        ImageError: No test image could be read.
    """
    tally = CategoryTally(pixel_size_mm)
    images: list[InspectedImage] = []
    problems: list[str] = []
    sizes: Counter[tuple[int, int]] = Counter()
    dark: dict[Path, int] = {}
    scoring_s = 0.0
    largest, most_pixels = Path(), 0
    for test in progress.track(category.tests, f"inspecting {category.name}"):
        try:
            pixels = read_image(test.path)
        except ImageError as error:
            problems.append(f"{error}; it counts for no figure")
            continue
        if prepare is not None:
            prepare(pixels)
        started = time.perf_counter()
        detection, anomaly_map = detect(pixels)
        seconds = time.perf_counter() - started
        size = pixels.shape[0], pixels.shape[1]
        sizes[size] += 1
        if (peak := peak_of_dark_16_bit(test.path, pixels)) is not None:
            dark[test.path] = peak
        truth, problem = test.truth(size)
        problems += [problem] if problem else []
        if pixels.size > most_pixels:
            largest, most_pixels = test.path, pixels.size
        images.append(_inspected(test, root, detection, truth, seconds, has_thresholds=has_thresholds))
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
    scoring_s += time.perf_counter() - started
    cautions = [*category.problems, *([about_dark_16_bit(dark)] if dark else [])]
    return Measured(
        figures=figures,
        images=tuple(images),
        problems=tuple(line.replace(f"{root}/", "") for line in problems),
        cautions=tuple(line.replace(f"{root}/", "") for line in cautions),
        sizes=sizes,
        scoring_s=scoring_s,
        largest=largest,
    )


def _inspected(
    test: TestImage, root: Path, detection: Detection, truth: Bool | None, seconds: float, *, has_thresholds: bool
) -> InspectedImage:
    marked = detection.mask & truth if has_thresholds and test.is_defective and truth is not None else None
    return InspectedImage(
        file=test.path.relative_to(root).as_posix(),
        defect_type=test.defect_type,
        is_defective=test.is_defective,
        score=detection.score,
        is_flagged=detection.is_anomalous if has_thresholds else None,
        is_located=None if marked is None else bool(marked.any()),
        seconds=seconds,
    )
