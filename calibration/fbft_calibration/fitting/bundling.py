"""The whole of `fbft-calibrate fit` and `threshold`: nominal images in, a sealed bundle out.

The stages live in their own modules; here is only their order.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

import numpy as np

from fbft_calibration.data.nominal import NominalImage, NominalSet, require_enough, scan_nominal
from fbft_calibration.fitting.features import cached_features, cut_tiles
from fbft_calibration.fitting.prototypes import find_prototypes
from fbft_calibration.fitting.report import write_report
from fbft_calibration.fitting.students import FitSettings, fit_students
from fbft_calibration.fitting.thresholds import conformal_thresholds, explain, measure_scores
from fbft_calibration.out_folder import make_out_folder
from fbft_edge.bundle.manifest import TeacherIdentity, TileGeometry
from fbft_edge.bundle.nominal_statistics import nominal_statistics
from fbft_edge.bundle.notes import NominalScores, Notes, Units
from fbft_edge.bundle.reading import GRAPH, MANIFEST, PROTOTYPES, REPORT, STUDENTS, Bundle, open_bundle
from fbft_edge.bundle.sealing import building, revising, seal_bundle, written
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.detectors.tiling import LEAST_TILE_PATCHES, TilePlan, best_tile_px, patch_grid
from fbft_edge.errors import ArgumentError, BundleError
from fbft_edge.frames.frame import Uint8
from fbft_edge.progress import SILENT, Progress
from fbft_export.engines import add_openvino, hold_to_thresholds
from fbft_export.graph import PatchDistanceModel, write_graph
from fbft_export.parity import PARITY_FILE
from fbft_export.prototypes import save_prototypes
from fbft_export.reference import write_reference
from fbft_export.students import Students, save_students
from fbft_export.teacher import OFFLINE_TEACHER, Teacher, load_teacher

_MIN_FIT_IMAGES = 4
_PARITY_TILES = 24
_PROBE_TILE_PX = 224  # a multiple of every patch size from 7 to 32 that ViTs have
_UNIT_IMAGES = 16


@dataclass(frozen=True, slots=True)
class BundleSettings:
    """What `fit` is told.

    Attributes:
        teacher: Name of the teacher.
        weights: Local weights, or None for the teacher's own.
        blocks: (j, k), or None for the teacher's own.
        scale: `1` for native pixels, a factor, or `518px` for the longer side.
        tile_px: Side of a tile, or None for the cheapest for the frame size.
        overlap_patches: Least overlap of neighbouring tiles.
        held_out: Fraction of the images that thresholds are found on.
        false_alarm_rate: Asked of the thresholds.
        precision: Of the OpenVINO engine; None is the machine's own.
        mixed_sizes: Use nominal images of every size.
        students: How they are fitted.
        prototypes: Most nominal prototypes; 0 for none, and the paper's patch distance.
    """

    teacher: str = OFFLINE_TEACHER
    weights: Path | None = None
    blocks: tuple[int, int] | None = None
    scale: str = "1"
    tile_px: int | None = None
    overlap_patches: int = 1
    held_out: float = 1 / 3
    false_alarm_rate: float = 0.01
    precision: str | None = None
    mixed_sizes: bool = False
    students: FitSettings = dataclasses.field(default_factory=FitSettings)
    prototypes: int = 1024


def fit_bundle(
    folder: Path, out: Path, settings: BundleSettings = BundleSettings(), progress: Progress = SILENT
) -> Bundle:
    """Fit, export and calibrate; the bundle appears at `out` only when all of it is done.

    Raises:
        FbftError: Anything the user can act on; nothing is left at `out`, and what was there stays.
    """
    started = time.monotonic()
    _check_target(out)
    nominal = scan_nominal(folder, progress, mixed_sizes=settings.mixed_sizes)
    require_enough(nominal)
    fit_images, held_out = nominal.split(settings.held_out, settings.students.seed)
    if len(fit_images) < _MIN_FIT_IMAGES:
        raise ArgumentError(
            f"--held-out {settings.held_out:.3g} leaves {len(fit_images)} of {len(nominal)} images to fit on, "
            f"at least {_MIN_FIT_IMAGES} are needed; hold out less, or add images"
        )
    teacher, geometry = _teacher_and_geometry(nominal, settings, progress)
    model = PatchDistanceModel(teacher, Students(teacher.embed_dim))
    f_j, f_k = cached_features(model, fit_images, geometry, settings.students.seed, progress)
    progress.say(f"{len(f_j):,} patches of {len(fit_images)} images, blocks {teacher.blocks}, {_time_since(started)}")
    result = fit_students(f_j, f_k, settings.students, progress)
    model.students = result.students
    model.prototypes = find_prototypes(f_k, settings.prototypes, settings.students.seed, progress)
    step, _, loss = min(result.losses, key=lambda entry: entry[2])
    progress.say(f"students fitted: held-out loss {loss:.4f} after {step} steps, {_time_since(started)}")
    del f_j, f_k
    with building(out) as folder:
        draft = _describe(folder, out.stem, teacher, geometry, nominal, fit_images, result.losses)
        draft = _with_model(draft, model, _parity_tiles(geometry, held_out))
        draft, parity = add_openvino(draft, settings.precision)
        progress.say(
            f"exported for OpenVINO: map within {parity.map_max:.2%} of float32 on {parity.num_tiles} real tiles"
        )
        bundle = seal_bundle(calibrate(draft, held_out, fit_images, settings.false_alarm_rate, progress))
    progress.say(f"{out} is ready, {_time_since(started)}; open {out / REPORT}", "done")
    return dataclasses.replace(bundle, path=out)


def threshold_bundle(
    path: Path, folder: Path, rate: float, progress: Progress = SILENT, *, mixed_sizes: bool = False
) -> Bundle:
    """Find new thresholds on a folder of nominal images; those that were fitted on are left out.

    Raises:
        FbftError: Anything the user can act on; the bundle stays as it was.
    """
    bundle = open_bundle(path)
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


def _teacher_and_geometry(
    nominal: NominalSet, settings: BundleSettings, progress: Progress
) -> tuple[Teacher, TileGeometry]:
    height, width = nominal.sizes[0]
    scale = scale_factor(settings.scale, height, width)
    # The patch size is the teacher's; a probe without weights tells it before the tile size is chosen.
    tile_px = _PROBE_TILE_PX if settings.tile_px is None else settings.tile_px
    probe = load_teacher(settings.teacher, tile_px=tile_px, blocks=settings.blocks, pretrained=False)
    grid = patch_grid((round(height * scale), round(width * scale)), probe.patch_px)
    if min(grid) < 2:
        raise ArgumentError(
            f"--scale {settings.scale} leaves {grid[0]}x{grid[1]} patches of {probe.patch_px} px; "
            "choose a larger scale, down to two patches a side"
        )
    most = (LEAST_TILE_PATCHES if settings.tile_px is None else tile_px // probe.patch_px) // 2
    if not 0 <= settings.overlap_patches <= most:
        raise ArgumentError(f"--overlap {settings.overlap_patches} does not fit; choose 0 to {most} patches")
    if settings.tile_px is None:
        tile_px = best_tile_px(grid, probe.patch_px, settings.overlap_patches, probe.embed_dim)
    geometry = TileGeometry(tile_px, probe.patch_px, settings.overlap_patches, scale)
    plan = TilePlan(geometry, height, width)
    progress.say(
        f"frames {height}x{width}, scale {scale:.4g}, {plan.num_tiles} tiles of {tile_px} px, "
        f"patch grid {plan.grid[0]}x{plan.grid[1]}"
    )
    return (
        load_teacher(settings.teacher, tile_px=tile_px, blocks=settings.blocks, weights=settings.weights),
        geometry,
    )


def scale_factor(scale: str, height: int, width: int) -> float:
    """`0.5` as it is; `518px` as the factor that brings the longer side there.

    Raises:
        ArgumentError: Neither.
    """
    try:
        factor = float(scale[:-2]) / max(height, width) if scale.endswith("px") else float(scale)
    except ValueError:
        factor = 0.0
    if not 0 < factor <= 4:
        raise ArgumentError(f"--scale {scale!r} is neither a factor in (0, 4] nor a length such as 518px")
    return factor


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


def _describe(
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
