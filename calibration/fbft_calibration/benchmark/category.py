"""One category of a data set and the settings in; its bundle, its result and its pictures on disk out.

What an earlier run has finished is kept. Knows nothing about the other categories, peers or reports.
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from fbft_calibration.benchmark.kept import is_finished
from fbft_calibration.benchmark.measurement import measure
from fbft_calibration.benchmark.pictures import Album
from fbft_calibration.benchmark.plan import counts, nominal_sha256, require_own_file
from fbft_calibration.benchmark.report import REPORT, cautions_of, in_words
from fbft_calibration.benchmark.result import CategoryResult, provenance, write_json, write_result
from fbft_calibration.benchmark.settings import BenchmarkSettings
from fbft_calibration.data.layouts import Category
from fbft_calibration.fitting.bundling import fit_bundle
from fbft_calibration.peers.bundle_peer import peak_memory_bytes
from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.detectors.host import OpenVinoDetector, accepted_precision
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.errors import ArgumentError, BundleError, PeerError
from fbft_edge.frames.frame import Detection, Float32, Uint8
from fbft_edge.frames.images import image_paths, read_image
from fbft_edge.frames.pixel_format import layout_of
from fbft_edge.progress import Progress
from fbft_edge.strict_json import json_from_bytes

_FIT = "fit.json"
_SHOWN = 3


def finish_category(
    category: Category, root: Path, out: Path, data_sha256: str, settings: BenchmarkSettings, progress: Progress
) -> None:
    """Bring one category to its end, whatever of it is there.

    Args:
        category: Of the data set at `root`.
        root: Files are named from there.
        out: Folder of the results; gets `NAME.json`, and `NAME/` with the bundle and the pictures.
        data_sha256: Identity of the category's files.
        settings: How.
        progress: Told what is done.

    Raises:
        FbftError: Anything that the user can act on.
    """
    require_own_file(category)
    target = out / f"{category.name}.json"
    if is_finished(target, settings.as_dict(), data_sha256, progress):
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
        data_sha256=data_sha256,
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
    said = ", ".join(f"{width}x{height}: {number}" for (height, width), number in foreign.most_common(_SHOWN))
    return [
        f"{foreign.total()} test images have a size that the thresholds were not found on (width x height "
        f"{said}{', ...' if len(foreign) > _SHOWN else ''}): their false-alarm rate is not known, and a line would "
        "refuse such frames. Fit again with images of that size."
    ]


def _fitted(category: Category, folder: Path, settings: BenchmarkSettings, progress: Progress) -> tuple[Bundle, float]:
    """The category's bundle and the seconds that fitting took; a complete one of the same settings is kept."""
    path, note = folder / f"{category.name}.fbft", folder / _FIT
    wanted = {"settings": settings.of_fit(), "nominal_sha256": nominal_sha256(category)}
    if note.is_file() and path.is_dir():
        with contextlib.suppress(ValueError, KeyError, BundleError):
            known = json_from_bytes(note.read_bytes())
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
