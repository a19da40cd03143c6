"""A category's test images and any detector in; what was said about each image, and the figures, out.

Knows nothing about how detectors are made, or what is kept of an earlier run.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fbft_calibration.benchmark.pictures import Album
from fbft_calibration.benchmark.result import InspectedImage
from fbft_calibration.data.layouts import Category, TestImage
from fbft_calibration.metrics import CategoryFigures, CategoryTally
from fbft_edge.errors import ImageError
from fbft_edge.frames.frame import Bool, Detection, Float32, Uint8
from fbft_edge.frames.images import about_dark_16_bit, peak_of_dark_16_bit, read_image
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
    seen = _Seen(root, CategoryTally(pixel_size_mm))
    for test in progress.track(category.tests, f"inspecting {category.name}"):
        try:
            pixels = read_image(test.path)
        except ImageError as error:
            seen.problems.append(f"{error}; it counts for no figure")
            continue
        if prepare is not None:
            prepare(pixels)
        started = time.perf_counter()
        detection, anomaly_map = detect(pixels)
        seconds = time.perf_counter() - started
        truth = seen.truth_of(test, pixels)
        image = _inspected(test, root, detection, truth, seconds, has_thresholds=has_thresholds)
        seen.add(test, image, detection, anomaly_map, truth)
        album.offer(pixels, truth, detection, anomaly_map, image)
    if not seen.images:
        raise ImageError(f"none of the {len(category.tests)} test images of {category.name} could be read")
    return seen.measured(category.problems)


@dataclass(slots=True)
class _Seen:
    """What the test images that were inspected so far came to; see `Measured`."""

    root: Path
    tally: CategoryTally
    images: list[InspectedImage] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    dark: dict[Path, int] = field(default_factory=dict)
    scoring_s: float = 0.0
    largest: Path = Path()
    most_pixels: int = 0

    def truth_of(self, test: TestImage, pixels: Uint8) -> Bool | None:
        """The true mask of an image, (height, width); None where none serves. What is odd about the file is noted."""
        size = pixels.shape[0], pixels.shape[1]
        self.sizes[size] += 1
        if (peak := peak_of_dark_16_bit(test.path, pixels)) is not None:
            self.dark[test.path] = peak
        if pixels.size > self.most_pixels:
            self.largest, self.most_pixels = test.path, pixels.size
        truth, problem = test.truth(size)
        self.problems += [problem] if problem else []
        return truth

    def add(
        self, test: TestImage, image: InspectedImage, detection: Detection, anomaly_map: Float32, truth: Bool | None
    ) -> None:
        """Tally what was said about an image."""
        self.images.append(image)
        started = time.perf_counter()
        self.tally.add(
            anomaly_map,
            truth,
            detection.score,
            is_defective=test.is_defective,
            is_flagged=detection.is_anomalous,
            mask=detection.mask,
            defect_type=test.defect_type,
        )
        self.scoring_s += time.perf_counter() - started

    def measured(self, category_problems: Sequence[str]) -> Measured:
        """All of it; files are named from the root."""
        started = time.perf_counter()
        figures = self.tally.figures()
        self.scoring_s += time.perf_counter() - started
        cautions = [*category_problems, *([about_dark_16_bit(self.dark)] if self.dark else [])]
        return Measured(
            figures=figures,
            images=tuple(self.images),
            problems=tuple(line.replace(f"{self.root}/", "") for line in self.problems),
            cautions=tuple(line.replace(f"{self.root}/", "") for line in cautions),
            sizes=self.sizes,
            scoring_s=self.scoring_s,
            largest=self.largest,
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
