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
from fbft_calibration.fitting.features import cut_tiles, teacher_features
from fbft_calibration.fitting.geometry import teacher_and_geometry
from fbft_calibration.fitting.prototypes import find_prototypes
from fbft_calibration.fitting.report import write_report
from fbft_calibration.fitting.scores import measure_scores
from fbft_calibration.fitting.settings import BundleSettings
from fbft_calibration.fitting.students import fit_students
from fbft_calibration.fitting.thresholds import conformal_thresholds, explain
from fbft_calibration.out_folder import make_out_folder
from fbft_edge.bundle.manifest import TeacherIdentity, TileGeometry
from fbft_edge.bundle.nominal_statistics import nominal_statistics
from fbft_edge.bundle.notes import NominalScores, Notes, Units
from fbft_edge.bundle.reading import GRAPH, MANIFEST, PROTOTYPES, REPORT, STUDENTS, Bundle
from fbft_edge.bundle.sealing import building, open_to_change, revising, seal_bundle, written
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.detectors.tiling import TilePlan
from fbft_edge.errors import ArgumentError, BundleError
from fbft_edge.frames.frame import Uint8
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
    with building(out) as place:  # from here on no other fit of the same bundle begins
        bundle = _fitted(place, out.stem, folder, settings, progress, started)
    progress.say(f"{out} is ready, {_time_since(started)}; open {out / REPORT}", "done")
    return dataclasses.replace(bundle, path=out)


def _fitted(
    place: Path, product: str, folder: Path, settings: BundleSettings, progress: Progress, started: float
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
    f_j, f_k = teacher_features(model, fit_images, geometry, settings.students.seed, progress)
    progress.say(f"{len(f_j):,} patches of {len(fit_images)} images, blocks {teacher.blocks}, {_time_since(started)}")
    result = fit_students(f_j, f_k, settings.students, progress)
    model.students = result.students
    model.prototypes = find_prototypes(f_k, settings.prototypes, settings.students.seed, progress)
    step, _, loss = min(result.losses, key=lambda entry: entry[2])
    progress.say(f"students fitted: held-out loss {loss:.4f} after {step} steps, {_time_since(started)}")
    del f_j, f_k
    draft = _draft_of(place, product, teacher, geometry, nominal, fit_images, result.losses)
    draft = _with_model(draft, model, _parity_tiles(geometry, held_out))
    draft, parity = add_openvino(draft, settings.precision)
    progress.say(f"exported for OpenVINO: map within {parity.map_max:.2%} of float32 on {parity.num_tiles} real tiles")
    return seal_bundle(calibrate(draft, held_out, fit_images, settings.false_alarm_rate, progress))


def threshold_bundle(
    path: Path, folder: Path, rate: float, progress: Progress = SILENT, *, mixed_sizes: bool = False
) -> Bundle:
    """Find new thresholds on a folder of nominal images; those that were fitted on are left out.

    Args:
        path: The bundle.
        folder: Nominal images, directly inside.
        rate: False-alarm rate asked for, a fraction in (0, 1).
        progress: Told how it goes.
        mixed_sizes: Use images of every size; otherwise those of the most common one.

    Raises:
        FbftError: Anything the user can act on; the bundle stays as it was.
    """
    bundle = open_to_change(path)
    nominal = scan_nominal(folder, progress, mixed_sizes=mixed_sizes)
    for height, width in nominal.sizes:
        bundle.require_frame_size(height, width, str(folder))
    known = set(bundle.notes.fit_images_sha256)
    if not known or bundle.notes.units is None:
        raise _unknown_fit(path)
    fitted = [(image.path, "was fitted on") for image in nominal if image.pixels_sha256 in known]
    fresh = [image for image in nominal if image.pixels_sha256 not in known]
    if fitted:
        progress.say(f"{len(fitted)} images were fitted on and cannot calibrate; left out")
    require_enough(NominalSet(tuple(fresh), (*nominal.left_out, *fitted)), least=2)
    with revising(bundle) as draft:
        sealed = seal_bundle(calibrate(draft, fresh, [], rate, progress))
    return dataclasses.replace(sealed, path=bundle.path)


def calibrate(
    draft: Bundle, held_out: Sequence[NominalImage], fitted: Sequence[NominalImage], rate: float, progress: Progress
) -> Bundle:
    """Score held-out images with the bundle's own engine, set thresholds, hold the engine to them, and report.

    Args:
        draft: Exported.
        held_out: Images that were not fitted on.
        fitted: Images that were, to bring score and peak to one scale; empty to use the bundle's stored scale.
        rate: False-alarm rate asked for.
        progress: Told what came of it.

    Returns:
        The draft with thresholds and report, to be sealed by the caller.
    """
    units = draft.notes.units
    pictures: tuple[dict[str, float], ...] = ()
    with DetectorPool(partial(OpenVinoDetector, draft)) as detectors:
        if fitted:
            known = measure_scores(detectors, fitted[:_UNIT_IMAGES], progress, "scoring fitted images")
            units, pictures = Units(float(np.median(known.score)), float(np.median(known.peak))), known.pictures
        if units is None:
            raise _unknown_fit(draft.path)
        scores = measure_scores(detectors, held_out, progress)
        thresholds = conformal_thresholds(scores, units.score, units.peak, rate)
        notes = dataclasses.replace(
            draft.notes,
            units=units,
            calibration=NominalScores(tuple(scores.score.tolist()), tuple(scores.peak.tolist())),
            nominal_statistics=nominal_statistics(scores.score.tolist(), (*pictures, *scores.pictures)),
        )
        for line in explain(thresholds):
            progress.say(line)
        draft = dataclasses.replace(draft, thresholds=thresholds, notes=notes)
        write_report(draft, held_out, detectors, draft.path / REPORT)
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
) -> Bundle:
    notes = Notes(
        fit_images_sha256=tuple(image.pixels_sha256 for image in fit_images),
        left_out=tuple((path.name, reason) for path, reason in nominal.left_out),
        losses=tuple(losses),
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
