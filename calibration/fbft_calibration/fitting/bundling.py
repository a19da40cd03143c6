"""The whole of `fbft-calibrate fit` and `threshold`: nominal images in, a sealed bundle out.

The stages live in their own modules; here is only their order.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np

from fbft_calibration.data.nominal import NominalImage, NominalSet, require_enough, scan_nominal
from fbft_calibration.fitting.cross_check import Compared, compare
from fbft_calibration.fitting.feature_cache import FeatureCache, cache_folder
from fbft_calibration.fitting.features import cut_tiles
from fbft_calibration.fitting.geometry import teacher_and_geometry
from fbft_calibration.fitting.outliers import about, outliers_of, thresholds_without
from fbft_calibration.fitting.prototypes import find_prototypes
from fbft_calibration.fitting.report import write_report
from fbft_calibration.fitting.scores import MeasuredScores, joined, measure_scores, scores_of
from fbft_calibration.fitting.settings import BundleSettings
from fbft_calibration.fitting.students import fit_students
from fbft_calibration.fitting.thresholds import explain, thresholds_of, worsened
from fbft_calibration.out_folder import make_out_folder
from fbft_edge.bundle.manifest import TeacherIdentity, Thresholds, TileGeometry
from fbft_edge.bundle.nominal_statistics import COLOUR, nominal_statistics, widened
from fbft_edge.bundle.notes import NominalOutlier, NominalScores, Notes, Units
from fbft_edge.bundle.reading import GRAPH, MANIFEST, PROTOTYPES, REPORT, STUDENTS, Bundle, open_bundle
from fbft_edge.bundle.sealing import building, open_to_change, revising, seal_bundle, written
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.errors import ArgumentError, BundleError
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.pixel_format import PixelFormat
from fbft_edge.progress import SILENT, Progress
from fbft_export.engines import add_openvino, hold_to_thresholds
from fbft_export.graph import PatchDistanceModel, write_graph
from fbft_export.parity import PARITY_FILE
from fbft_export.prototypes import save_prototypes
from fbft_export.reference import write_reference
from fbft_export.students import Students, save_students
from fbft_export.teacher import Teacher

_MIN_FIT_IMAGES = 4
_PARITY_TILES = 24
_UNIT_IMAGES = 16
_MOST_NAMED = 8


def fit_bundle(
    folder: Path, out: Path, settings: BundleSettings = BundleSettings(), progress: Progress = SILENT
) -> Bundle:
    """Fit, export and calibrate; the bundle appears at `out` only when all of it is done.

    Args:
        folder: Nominal images, directly inside.
        out: The bundle to make, `NAME.fbft`; one that is there is replaced.
        settings: How.
        progress: Told how it goes.

    Raises:
        FbftError: Anything the user can act on; nothing is left at `out`, and what was there stays.
    """
    started = time.monotonic()
    _check_target(out)
    with building(out) as place, cache_folder(out) as cached:  # from here on no other fit of the same bundle begins
        bundle = _fitted(place, cached, out.stem, folder, settings, progress, started)
    progress.say(f"{out} is ready, {_time_since(started)}; open {out / REPORT}", "done")
    return dataclasses.replace(bundle, path=out)


def _fitted(
    place: Path, cached: Path, product: str, folder: Path, settings: BundleSettings, progress: Progress, started: float
) -> Bundle:
    nominal = scan_nominal(folder, progress, mixed_sizes=settings.mixed_sizes)
    require_enough(nominal)
    fit_images, held_out = nominal.split(settings.held_out, settings.students.seed)
    if len(fit_images) < _MIN_FIT_IMAGES:
        raise ArgumentError(
            f"--held-out {settings.held_out:.3g} leaves {len(fit_images)} of {len(nominal)} images to fit on, "
            f"at least {_MIN_FIT_IMAGES} are needed; hold out less, or add images"
        )
    teacher, geometry = teacher_and_geometry(nominal, settings, progress)
    model = PatchDistanceModel(teacher, Students(teacher.embed_dim))
    cache = FeatureCache(cached, model, geometry, progress)
    cache.fill(nominal.images)
    outliers = outliers_of(compare(cache, nominal.images, settings.students.seed, progress))
    noted = tuple(outlier for outlier, _ in outliers)
    _name(noted, nominal, fit_images, progress)
    f_j, f_k = cache.sample(fit_images, settings.students.seed)
    progress.say(f"{len(f_j):,} patches of {len(fit_images)} images, blocks {teacher.blocks}, {_time_since(started)}")
    result = fit_students(f_j, f_k, settings.students, progress)
    model.students = result.students
    model.prototypes = find_prototypes(f_k, settings.prototypes, settings.students.seed, progress)
    step, _, loss = min(result.losses, key=lambda entry: entry[2])
    progress.say(f"students fitted: held-out loss {loss:.4f} after {step} steps, {_time_since(started)}")
    del f_j, f_k
    draft = _draft_of(place, product, teacher, geometry, nominal, fit_images, result.losses, noted)
    draft = _with_model(draft, model, _parity_tiles(geometry, held_out))
    draft, parity = add_openvino(draft, settings.precision)
    progress.say(f"exported for OpenVINO: map within {parity.map_max:.2%} of float32 on {parity.num_tiles} real tiles")
    standing_out = [compared for _, compared in outliers]
    return seal_bundle(calibrate(draft, held_out, fit_images, settings.false_alarm_rate, progress, standing_out))


def threshold_bundle(
    path: Path,
    folder: Path,
    rate: float,
    progress: Progress = SILENT,
    *,
    mixed_sizes: bool = False,
    forget_earlier: bool = False,
    replace: bool = False,
    dry_run: bool = False,
) -> Bundle:
    """Add a folder of nominal images to those behind a bundle's thresholds, and find these anew.

    Images that were fitted on are left out; one that was added before is measured again.

    Args:
        path: The bundle.
        folder: Nominal images, directly inside.
        rate: False-alarm rate asked for, a fraction in (0, 1).
        progress: Told how it goes, and what the thresholds are before and after.
        mixed_sizes: Use images of every size; otherwise those of the most common one.
        forget_earlier: Let these images alone count, for another light or camera.
        replace: Take thresholds that are worse than those before; see `fbft_calibration.fitting.thresholds.worsened`.
        dry_run: Change nothing, only tell.

    Raises:
        FbftError: Anything the user can act on, and thresholds that would be worse; the bundle stays as it was.
    """
    bundle = open_bundle(path) if dry_run else open_to_change(path)
    nominal = scan_nominal(folder, progress, mixed_sizes=mixed_sizes)
    for height, width in nominal.sizes:
        bundle.require_frame_size(height, width, str(folder))
    known, units = set(bundle.notes.fit_images_sha256), bundle.notes.units
    if not known or units is None:
        raise _unknown_fit(path)
    fitted = [(image.path, "was fitted on") for image in nominal if image.pixels_sha256 in known]
    fresh = [image for image in nominal if image.pixels_sha256 not in known]
    if fitted:
        progress.say(f"{len(fitted)} images were fitted on and cannot calibrate; left out")
    require_enough(NominalSet(tuple(fresh), (*nominal.left_out, *fitted)), least=2)
    with DetectorPool(partial(OpenVinoDetector, bundle)) as detectors:
        measured = measure_scores(detectors, fresh, progress)
    _require_look(bundle, fresh, measured)
    found = scores_of(fresh, measured)
    references = nominal_statistics(found.score, measured.pictures)
    earlier = NominalScores() if forget_earlier else _earlier(bundle, progress)
    if earlier.score:
        added = len(set(found.images_sha256) - set(earlier.images_sha256))
        progress.say(f"{added} images are added to {len(earlier.score)} earlier ones")
        found = joined(found, earlier)
        references = widened(nominal_statistics(found.score, measured.pictures), bundle.notes.references, added)
    thresholds = thresholds_of(found, units, rate)
    worse = _compare(bundle, thresholds, fresh, measured, progress)
    if dry_run:
        progress.say(f"{path} was not changed{', and would only be with --replace' if worse else ''}")
        return bundle
    if worse and not replace:
        raise ArgumentError(
            f"{path} keeps its thresholds, the new ones would be worse: {'; '.join(worse)}; take out what shows a "
            "defect, add more images, or take them all the same with --replace"
        )
    with revising(bundle) as draft, DetectorPool(partial(OpenVinoDetector, draft)) as detectors:
        notes = dataclasses.replace(draft.notes, calibration=found, nominal_statistics=references)
        draft = dataclasses.replace(draft, thresholds=thresholds, notes=notes)
        sealed = seal_bundle(_reported(draft, fresh, detectors))
    return dataclasses.replace(sealed, path=bundle.path)


def _require_look(bundle: Bundle, images: Sequence[NominalImage], measured: MeasuredScores) -> None:
    """Accept only images that have colour, or none, as all before them have.

    Raises:
        BundleError: One is the other way round.
    """
    for image, picture in zip(images, measured.pictures, strict=True):
        if bundle.notes.look.has_colour not in (None, picture[COLOUR] > 0):
            bundle.require_look(image.read(), PixelFormat.RGB8, str(image.path))


def _earlier(bundle: Bundle, progress: Progress) -> NominalScores:
    """The scores that new ones are added to; none where it is not known of which images they are."""
    earlier = bundle.notes.calibration
    if earlier.score and not earlier.can_be_added_to:
        progress.say(
            f"the {len(earlier.score)} earlier held-out scores do not say of which images they are (an earlier version "
            "made the bundle): the new ones take their place",
            "caution",
        )
        return NominalScores()
    return earlier


def _compare(
    bundle: Bundle, after: Thresholds, fresh: Sequence[NominalImage], measured: MeasuredScores, progress: Progress
) -> list[str]:
    """Say what thresholds were and will be; returns in what they will be worse."""
    before = bundle.thresholds
    if before is None:
        worse = []
    else:
        worse = worsened(before, after)
        progress.say(f"before: {explain(before)[0]}")
        above = (measured.score > before.image) | (measured.peak > before.pixel)
        names = [image.path.name for image, is_above in zip(fresh, above, strict=True) if is_above]
        if names:
            more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
            progress.say(
                f"anomalous by the thresholds before: {', '.join(names[:_MOST_NAMED])}{more}; look at them, a defect "
                "among nominal images hides others",
                "caution",
            )
    first, *others = explain(after)
    progress.say(f"after: {first}")
    for line in others:
        progress.say(line)
    for cause in worse:
        progress.say(f"worse: {cause}", "caution")
    return worse


def _name(
    outliers: Sequence[NominalOutlier], nominal: NominalSet, fit_images: Sequence[NominalImage], progress: Progress
) -> None:
    """Say which images stand out, if any does."""
    if not outliers:
        progress.say(f"cross-checked: none of {len(nominal)} images stands out from the others")
        return
    verb = "stands" if len(outliers) == 1 else "stand"
    progress.say(
        f"{len(outliers)} of {len(nominal)} images {verb} out from the others; look at them, a defect among nominal "
        "images hides others: if one shows a defect, remove the file and fit again",
        "caution",
    )
    fitted = {image.pixels_sha256 for image in fit_images}
    for outlier in outliers[:_MOST_NAMED]:
        progress.say(f"  {about(outlier, fitted)}", "caution")
    if len(outliers) > _MOST_NAMED:
        progress.say(f"  and {len(outliers) - _MOST_NAMED} more, which the report names", "caution")


def calibrate(
    draft: Bundle,
    held_out: Sequence[NominalImage],
    fitted: Sequence[NominalImage],
    rate: float,
    progress: Progress,
    standing_out: Sequence[Compared] = (),
) -> Bundle:
    """Score held-out images with the bundle's own engine, set thresholds, hold the engine to them, and report.

    Args:
        draft: Exported.
        held_out: Images that were not fitted on.
        fitted: Images that were, to bring score and peak to one scale.
        rate: False-alarm rate asked for.
        progress: Told what came of it.
        standing_out: The images of the notes' outliers, in their order.

    Returns:
        The draft with thresholds and report, to be sealed by the caller.
    """
    with DetectorPool(partial(OpenVinoDetector, draft)) as detectors:
        known = measure_scores(detectors, fitted[:_UNIT_IMAGES], progress, "scoring fitted images")
        units = Units(float(np.median(known.score)), float(np.median(known.peak)))
        measured = measure_scores(detectors, held_out, progress)
        found = scores_of(held_out, measured)
        thresholds = thresholds_of(found, units, rate)
        for line in explain(thresholds):
            progress.say(line)
        references = nominal_statistics(found.score, (*known.pictures, *measured.pictures))
        if (colour := references[COLOUR]).low < colour.high:
            progress.say(
                "some nominal images have colour and some are mono: a mono camera in the place of a colour one will "
                "not be noticed; take images from the line's camera alone",
                "caution",
            )
        notes = dataclasses.replace(draft.notes, units=units, calibration=found, nominal_statistics=references)
        for line in thresholds_without(notes, thresholds):
            progress.say(line, "caution")
        calibrated = dataclasses.replace(draft, thresholds=thresholds, notes=notes)
        return _reported(calibrated, held_out, detectors, standing_out)


def _reported(
    draft: Bundle,
    images: Sequence[NominalImage],
    detectors: DetectorPool[OpenVinoDetector],
    standing_out: Sequence[Compared] = (),
) -> Bundle:
    """A calibrated draft with its report, its engine held to the thresholds."""
    write_report(draft, images, detectors, draft.path / REPORT, standing_out)
    return hold_to_thresholds(draft)


def _unknown_fit(path: Path) -> BundleError:
    return BundleError(f"{path} does not say what it was fitted on; fit it again with fbft-calibrate fit")


def _time_since(started: float) -> str:
    """Seconds since a monotonic time, in words."""
    return f"{time.monotonic() - started:.0f} s"


def _check_target(out: Path) -> None:
    if out.suffix != ".fbft":
        raise ArgumentError(f"--out {out} must end in .fbft; try {out}.fbft")
    make_out_folder(Path(os.path.realpath(out)).parent)
    if out.exists() and not (out / MANIFEST).is_file():
        raise ArgumentError(f"{out} exists and is not a bundle; choose another --out")


def _parity_tiles(geometry: TileGeometry, images: Sequence[NominalImage]) -> Uint8:
    tiles = [cut_tiles(TilePlan(geometry, *image.size), image.read()) for image in images[:_PARITY_TILES]]
    return np.concatenate([part[i % len(part)][None] for i, part in enumerate(tiles)])


def _with_model(draft: Bundle, model: PatchDistanceModel, tiles: Uint8) -> Bundle:
    """The draft with what was learnt, the graph, and the reference that engines are held to."""
    names = [STUDENTS, GRAPH, PARITY_FILE]
    save_students(model.students, draft.path / STUDENTS)
    if model.prototypes is not None:
        save_prototypes(model.prototypes, draft.path / PROTOTYPES)
        names.append(PROTOTYPES)
    write_graph(model, draft.path / GRAPH)
    write_reference(model, tiles, draft.path / PARITY_FILE)
    return written(draft, *names)


def _draft_of(
    path: Path,
    product: str,
    teacher: Teacher,
    geometry: TileGeometry,
    nominal: NominalSet,
    fit_images: Sequence[NominalImage],
    losses: Sequence[tuple[int, float, float]],
    outliers: tuple[NominalOutlier, ...],
) -> Bundle:
    notes = Notes(
        fit_images_sha256=tuple(image.pixels_sha256 for image in fit_images),
        left_out=tuple((path.name, reason) for path, reason in nominal.left_out),
        losses=tuple(losses),
        outliers=outliers,
    )
    return Bundle(
        path=path,
        product=product,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        teacher=TeacherIdentity(teacher.name, teacher.weights_sha256, teacher.embed_dim, teacher.blocks),
        tile=geometry,
        frame_sizes=tuple(nominal.sizes) if len(nominal.sizes) <= 8 else (),
        thresholds=None,
        notes=notes,
    )
