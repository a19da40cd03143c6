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
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from fbft_calibration.benchmark.kept import is_finished, refuse_other_results
from fbft_calibration.benchmark.measurement import measure
from fbft_calibration.benchmark.peer_results import finish_peer, peer_folder, read_peer_runs
from fbft_calibration.benchmark.pictures import Album
from fbft_calibration.benchmark.plan import choose, counts, data_sha256, nominal_sha256, require_own_file
from fbft_calibration.benchmark.report import REPORT, cautions_of, in_words, write_summary
from fbft_calibration.benchmark.result import (
    CategoryResult,
    finished,
    provenance,
    read_run,
    write_json,
    write_result,
)
from fbft_calibration.data.layouts import Category, categories
from fbft_calibration.fitting.bundling import BundleSettings, fit_bundle
from fbft_calibration.fitting.students import FitSettings
from fbft_calibration.out_folder import make_out_folder
from fbft_calibration.peers import peer_settings
from fbft_calibration.peers.bundle_peer import peak_memory_bytes
from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.detectors.host import OpenVinoDetector, accepted_precision
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.errors import ArgumentError, BundleError, EngineError, FbftError, ImageError, PeerError
from fbft_edge.frames.frame import Detection, Float32, Uint8
from fbft_edge.frames.images import image_paths, read_image
from fbft_edge.frames.pixel_format import layout_of
from fbft_edge.plain_file import file_sha256
from fbft_edge.progress import SILENT, Progress
from fbft_export.prototypes import PATCH_DISTANCE

_FIT = "fit.json"
_SHOWN = 3
_PAPER_EPOCHS = 50
_PAPER_BATCH_IMAGES = 4
_PAPER_PATCHES = 74 * 74  # of an image of 1036x1036
_PAPER_LEARNING_RATE = 1e-3


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
        if self.bundle.prototypes:
            contents["patch_distance"] = PATCH_DISTANCE
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
    root: Path,
    out: Path,
    settings: BenchmarkSettings,
    progress: Progress = SILENT,
    names: Sequence[str] = (),
    peers: Sequence[str] = (),
    resnet_weights: Path | None = None,
) -> None:
    """Measure categories one after the other, peers beside each; the summary is written anew after each of them.

    What an earlier run with the same settings has finished is kept.

    Args:
        root: Of the data set.
        out: Made if it does not exist.
        settings: How.
        progress: Told what is done.
        names: Of the categories to measure; empty for all of them.
        peers: To be fitted and measured on the same images; keys of `fbft_calibration.peers.PEERS`.
        resnet_weights: As `fbft_calibration.peers.open_peer` takes it.

    Raises:
        FbftError: Anything the user can act on. What is wrong with one category or peer is said after the others are
            done.
    """
    chosen = choose(categories(root), names, root)
    make_out_folder(out)
    refuse_other_results(out, root.resolve().name, settings.of_fit())
    for peer in peers:
        refuse_other_results(peer_folder(out, peer), root.resolve().name, peer_settings(peer, resnet_weights))
    refused: dict[str, str] = {}
    failed: dict[str, str] = {}
    for number, category in enumerate(chosen, start=1):
        progress.say(f"{category.name}, {number} of {len(chosen)}", "heading")
        digest = data_sha256(category)
        try:
            _finish(category, root, out, digest, settings, progress)
        except (ArgumentError, ImageError, BundleError, EngineError) as error:
            refused[category.name] = str(error).replace(f"{root}/", "")
            progress.say(f"{category.name} cannot be measured: {error}", "failure")
            _summarise(out, failed, refused)
            continue
        _summarise(out, failed, refused)
        for peer in peers:
            try:
                finish_peer(peer, category, root, out, digest, resnet_weights, progress)
            except FbftError as error:
                failed[f"{peer} on {category.name}"] = str(error)
                progress.say(f"{peer} cannot be measured: {error}", "failure")
            _summarise(out, failed, refused)
    if (out / REPORT).is_file():
        progress.say(f"open {out / REPORT}", "done")
    _refuse_the_incomplete(refused, failed, len(chosen), len(peers) * (len(chosen) - len(refused)))


def _summarise(out: Path, failed: Mapping[str, str], refused: Mapping[str, str]) -> None:
    if finished(out):
        write_summary(dataclasses.replace(read_run(out), refused=refused), out, read_peer_runs(out), failed)


def _refuse_the_incomplete(
    refused: Mapping[str, str], failed: Mapping[str, str], num_categories: int, num_beside: int
) -> None:
    said = {
        f"{len(refused)} of {num_categories} categories could not be measured": refused,
        f"{len(failed)} of {num_beside} measurements of peers failed": failed,
    }
    lines = [
        f"{words}: {'; '.join(f'{name}: {cause}' for name, cause in causes.items())}"
        for words, causes in said.items()
        if causes
    ]
    if lines:
        raise ArgumentError("; ".join(lines))


def _finish(
    category: Category, root: Path, out: Path, digest: str, settings: BenchmarkSettings, progress: Progress
) -> None:
    """Bring one category to its end, whatever of it is there."""
    require_own_file(category)
    target = out / f"{category.name}.json"
    if is_finished(target, settings.as_dict(), digest, progress):
        return
    bundle, fit_s = _fitted(category, out / category.name, settings, progress)
    album = Album(bundle.require_thresholds().pixel)
    with DetectorPool(partial(OpenVinoDetector, bundle)) as detectors:
        measured = measure(
            *(category, root, partial(_detect, detectors), album, settings.pixel_size_mm, progress),
            prepare=lambda pixels: detectors.of(layout_of(pixels)),
        )
    left_out = [f"{name}, {reason}: not fitted on" for name, reason in bundle.notes.left_out]
    peak_memory, cautions = None, [*measured.cautions, *_foreign_sizes(measured.sizes, bundle)]
    try:
        peak_memory = peak_memory_bytes(bundle, read_image(measured.largest))
    except PeerError as error:
        cautions.append(f"peak memory is not known: {error}")
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
        peak_memory_bytes=peak_memory,
        counts=counts(category),
        figures=measured.figures.as_dict(),
        images=measured.images,
        pictures=album.write(out / category.name / "pictures", out),
        problems=(*left_out, *measured.problems),
        cautions=tuple(cautions),
    )
    write_result(result, target)
    for line in (*cautions_of(result), *_first(result.problems)):
        progress.say(f"  {line}", "caution")
    progress.say(in_words(result))


def _first(lines: Sequence[str]) -> list[str]:
    """The first few of what may be many lines, and how many there are beyond."""
    beyond = len(lines) - _SHOWN
    return [*lines[:_SHOWN], *([f"and {beyond} more files, see {REPORT}"] if beyond > 0 else [])]


def _foreign_sizes(sizes: Counter[tuple[int, int]], bundle: Bundle) -> list[str]:
    """A line if test images have sizes that a line with this bundle would refuse; a bundle may take all sizes."""
    foreign = Counter({size: number for size, number in sizes.items() if size not in bundle.frame_sizes})
    if not foreign or not bundle.frame_sizes:
        return []
    said = ", ".join(f"{height}x{width}: {number}" for (height, width), number in foreign.most_common(_SHOWN))
    return [
        f"{foreign.total()} test images have a size that the thresholds were not found on (height x width "
        f"{said}{', ...' if len(foreign) > _SHOWN else ''}): their false-alarm rate is not known, and a line would "
        "refuse such frames. Fit again with images of that size."
    ]


def _fitted(category: Category, folder: Path, settings: BenchmarkSettings, progress: Progress) -> tuple[Bundle, float]:
    """The category's bundle and the seconds that fitting took; a complete one of the same settings is kept."""
    path, note = folder / f"{category.name}.fbft", folder / _FIT
    wanted = {"settings": settings.of_fit(), "nominal_sha256": nominal_sha256(category)}
    if note.is_file() and path.is_dir():
        with contextlib.suppress(ValueError, KeyError, BundleError):
            known = json.loads(note.read_text(encoding="utf-8"))
            bundle = open_bundle(path)
            if known["wanted"] == wanted and known["bundle_sha256"] == bundle.sha256:
                progress.say(f"kept: {path} is complete")
                return bundle, float(known["fit_s"])
    started = time.monotonic()
    with _nominal_folder(category, folder) as nominal:
        bundle = fit_bundle(nominal, path, settings.for_images(len(category.nominal)), progress)
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
        are_unique = len({path.name for path in category.nominal}) == len(category.nominal)
        for number, path in enumerate(category.nominal):
            name = path.name if are_unique else f"{number:05d}-{path.name}"
            (links / name).symlink_to(path.resolve())
        yield links
    finally:
        shutil.rmtree(links)


def _bundle_facts(bundle: Bundle) -> dict[str, Any]:
    return {
        "sha256": bundle.sha256,
        "teacher": asdict(bundle.teacher),
        "tile": asdict(bundle.tile),
        "frame_sizes": [list(size) for size in bundle.frame_sizes],
        "thresholds": asdict(bundle.require_thresholds()),
        "precision": accepted_precision(bundle),
        "fitted_on": len(bundle.notes.fit_images_sha256),
    }


def _detect(detectors: DetectorPool[OpenVinoDetector], pixels: Uint8) -> tuple[Detection, Float32]:
    """See `measure`."""
    detector = detectors.of(layout_of(pixels))
    anomaly_map = detector.map_of(pixels)
    return detector.judge(anomaly_map), anomaly_map
