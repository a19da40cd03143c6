"""A fit ends with a whole bundle or with what was there before; thresholds come from unseen images only."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from doubles import Said

from fbft_calibration.data.nominal import scan_nominal
from fbft_calibration.fitting.bundling import fit_bundle, threshold_bundle
from fbft_calibration.fitting.scores import measure_scores
from fbft_calibration.fitting.settings import BundleSettings
from fbft_calibration.fitting.students import FitSettings
from fbft_edge.bundle.engines import sidecars, write_sidecar
from fbft_edge.bundle.notes import Notes
from fbft_edge.bundle.reading import Bundle, open_bundle
from fbft_edge.bundle.sealing import building, seal_bundle
from fbft_edge.detectors.host import OpenVinoDetector, accepted_precision
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.errors import ArgumentError, BundleError, FbftError
from fbft_edge.frames.images import image_paths, read_image, write_image
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.frames.statistics import Look, picture_statistics
from fbft_edge.synthetic import render_part
from fbft_export.students import load_students


@pytest.fixture
def copied(small_bundle: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(small_bundle.path, tmp_path / "copy.fbft")
    return open_bundle(tmp_path / "copy.fbft")


@pytest.fixture(scope="module")
def fresh_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty parts that were not fitted on."""
    folder = tmp_path_factory.mktemp("fresh")
    for seed in range(200, 220):
        write_image(folder / f"{seed}.png", render_part(seed, 140, 182).pixels)
    return folder


def fitted_images(bundle: Bundle, folder: Path) -> list[Path]:
    known = set(bundle.notes.fit_images_sha256)
    return [image.path for image in scan_nominal(folder) if image.pixels_sha256 in known]


# A whole bundle


def test_fit_and_held_out_images_are_together_all_images(small_bundle: Bundle, nominal_folder: Path) -> None:
    counts = len(small_bundle.notes.fit_images_sha256), small_bundle.require_thresholds().num_images
    assert counts == (8, 4)


def test_the_thresholds_are_those_of_the_held_out_images(small_bundle: Bundle, nominal_folder: Path) -> None:
    known = set(small_bundle.notes.fit_images_sha256)
    held_out = [image for image in scan_nominal(nominal_folder) if image.pixels_sha256 not in known]
    with DetectorPool(partial(OpenVinoDetector, small_bundle)) as detectors:
        scores = measure_scores(detectors, held_out)
    assert (scores.score.tolist(), scores.peak.tolist()) == (
        list(small_bundle.notes.calibration.score),
        list(small_bundle.notes.calibration.peak),
    )
    assert scores.ordinary is not None
    assert small_bundle.require_thresholds().outline == scores.ordinary.mean()


def test_the_bundle_knows_what_its_nominal_pictures_and_scores_are_like(
    small_bundle: Bundle, nominal_folder: Path
) -> None:
    levels = [picture_statistics(read_image(path))["level"] for path in image_paths(nominal_folder)]
    found = small_bundle.notes.references
    assert (found["level"].images, found["level"].low, found["level"].high) == (12, min(levels), max(levels))
    assert (found["score"].images, found["score"].high) == (4, max(small_bundle.notes.calibration.score))


def test_the_bundle_knows_that_its_nominal_images_have_colour(small_bundle: Bundle) -> None:
    assert small_bundle.notes.look == Look(has_colour=True)


def test_mono_images_are_not_added_to_those_with_colour(copied: Bundle, fresh_folder: Path, tmp_path: Path) -> None:
    for path in image_paths(fresh_folder):
        level = read_image(path).mean(axis=2).astype(np.uint8)
        write_image(tmp_path / path.name, np.dstack([level] * 3))
    with pytest.raises(BundleError, match=r"200\.png is mono: .* the bundle was fitted on colour images"):
        threshold_bundle(copied.path, tmp_path, 0.1, replace=True)


def test_the_bundle_knows_its_frames_and_tiles(small_bundle: Bundle) -> None:
    found = small_bundle.frame_sizes, small_bundle.tile.tile_px, small_bundle.tile.scale, small_bundle.product
    assert found == (((140, 182),), 112, 1.0, "small")


def test_anyone_may_read_a_bundle(small_bundle: Bundle) -> None:
    assert [
        path for path in [small_bundle.path, *small_bundle.path.rglob("*")] if not path.stat().st_mode & 0o044
    ] == []


def test_the_students_in_the_bundle_are_trained(small_bundle: Bundle) -> None:
    assert load_students(small_bundle.file("students.safetensors")).forward_student[0].in_features == 384


def test_a_fit_seals_its_bundle_once(small_bundle: Bundle, seals_of: Callable[[Path], int]) -> None:
    assert seals_of(small_bundle.path) == 1


def test_a_fit_returns_what_its_bundle_is(small_bundle: Bundle) -> None:
    assert open_bundle(small_bundle.path) == small_bundle


# All or nothing


@pytest.fixture(scope="module")
def failed_fit(
    small_bundle: Bundle, nominal_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Bundle, Path]:
    """What a fit leaves that fails at its last stage, over an older bundle."""
    folder = tmp_path_factory.mktemp("failed")
    shutil.copytree(small_bundle.path, folder / "part.fbft")
    before = open_bundle(folder / "part.fbft")
    settings = BundleSettings(tile_px=112, false_alarm_rate=2.0, precision="f32", students=FitSettings(steps=1))
    with pytest.raises(ArgumentError):
        fit_bundle(nominal_folder, before.path, settings)
    return before, folder


def test_a_failed_fit_leaves_the_bundle_that_was_there(failed_fit: tuple[Bundle, Path]) -> None:
    before, _ = failed_fit
    assert open_bundle(before.path) == before


def test_a_failed_fit_leaves_nothing_else(failed_fit: tuple[Bundle, Path]) -> None:
    assert [path.name for path in failed_fit[1].iterdir()] == ["part.fbft"]


@pytest.mark.parametrize("name", ["part", "part.zip", "notes.fbft", "file.fbft"])
def test_a_target_that_is_no_bundle_is_refused_before_any_work(nominal_folder: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.fbft").mkdir()
    (tmp_path / "notes.fbft" / "thesis.txt").write_text("precious")
    (tmp_path / "file.fbft").write_text("precious")
    with pytest.raises(ArgumentError, match=name):
        fit_bundle(nominal_folder, tmp_path / name, BundleSettings())
    assert (tmp_path / "notes.fbft" / "thesis.txt").read_text() == (tmp_path / "file.fbft").read_text() == "precious"


def test_a_second_fit_of_one_bundle_is_refused_before_any_work(nominal_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "part.fbft"
    with building(out), pytest.raises(ArgumentError, match="is being written by"):
        fit_bundle(nominal_folder, out, BundleSettings())


# New thresholds


def tree(path: Path) -> dict[str, bytes]:
    """Every file of a bundle."""
    return {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_new_images_are_added_to_earlier_ones_once(copied: Bundle, fresh_folder: Path) -> None:
    first = threshold_bundle(copied.path, fresh_folder, 0.1, replace=True)
    again = threshold_bundle(copied.path, fresh_folder, 0.1)
    found, before = first.notes.calibration, copied.notes.calibration
    assert first.require_thresholds().num_images == 24
    assert (found.score[20:], found.images_sha256[20:]) == (before.score, before.images_sha256)
    assert (again.require_thresholds(), again.notes) == (first.require_thresholds(), first.notes)


def test_earlier_images_are_forgotten_when_asked_for(copied: Bundle, fresh_folder: Path) -> None:
    bundle = threshold_bundle(copied.path, fresh_folder, 0.1, forget_earlier=True, replace=True)
    thresholds = bundle.require_thresholds()
    assert (thresholds.num_images, thresholds.requested_rate) == (20, 0.1)


def test_fewer_images_are_worse_and_refused_with_the_numbers(copied: Bundle, tmp_path: Path) -> None:
    (tmp_path / "two").mkdir()
    for seed in (300, 301):
        write_image(tmp_path / "two" / f"{seed}.png", render_part(seed, 140, 182).pixels)
    before = tree(copied.path)
    with pytest.raises(ArgumentError, match=r"rate rises from 20\.00% to 33\.33%.*--replace"):
        threshold_bundle(copied.path, tmp_path / "two", 0.01, forget_earlier=True)
    assert tree(copied.path) == before
    taken = threshold_bundle(copied.path, tmp_path / "two", 0.01, forget_earlier=True, replace=True)
    assert taken.require_thresholds().num_images == 2


def test_a_defect_among_the_new_images_is_named_and_hides_none_without_replace(
    copied: Bundle, fresh_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(fresh_folder, tmp_path / "mixed")
    pixels = read_image(next(iter(image_paths(fresh_folder)))).copy()
    pixels[40:100, 60:120] = np.random.default_rng(0).integers(0, 256, (60, 60, 3))
    write_image(tmp_path / "mixed" / "scratched.png", pixels)
    before, said = tree(copied.path), Said()
    with pytest.raises(ArgumentError, match="image threshold rises"):
        threshold_bundle(copied.path, tmp_path / "mixed", 0.01, said)
    assert "scratched.png" in next(line for line in said.lines if line.startswith("anomalous by the thresholds before"))
    assert tree(copied.path) == before


def test_a_dry_run_tells_before_and_after_and_changes_nothing(
    copied: Bundle, fresh_folder: Path, seals_of: Callable[[Path], int]
) -> None:
    before, said = tree(copied.path), Said()
    threshold_bundle(copied.path, fresh_folder, 0.1, said, dry_run=True)
    assert (tree(copied.path), seals_of(copied.path)) == (before, 0)
    assert [line.partition(":")[0] for line in said.lines if "image threshold" in line and "from" in line][:2] == [
        "before",
        "after",
    ]
    assert "was not changed" in said.lines[-1]


def test_scores_of_unknown_images_are_not_added_to(copied: Bundle, fresh_folder: Path) -> None:
    before = copied.notes.calibration
    old = dataclasses.replace(before, ordinary=(), images_sha256=())
    seal_bundle(dataclasses.replace(copied, notes=dataclasses.replace(copied.notes, calibration=old)))
    said = Said()
    bundle = threshold_bundle(copied.path, fresh_folder, 0.1, said, replace=True)
    assert (bundle.require_thresholds().num_images, "do not say of which images" in said.text) == (20, True)


def test_new_thresholds_seal_the_bundle_once(
    copied: Bundle, fresh_folder: Path, seals_of: Callable[[Path], int]
) -> None:
    bundle = threshold_bundle(copied.path, fresh_folder, 0.1, replace=True)
    assert (seals_of(copied.path), open_bundle(copied.path)) == (1, bundle)


def test_new_thresholds_come_with_what_all_images_are_like(copied: Bundle, fresh_folder: Path) -> None:
    found = threshold_bundle(copied.path, fresh_folder, 0.1, replace=True).notes.references
    before, levels = (
        copied.notes.references["level"],
        [picture_statistics(read_image(path))["level"] for path in image_paths(fresh_folder)],
    )
    expected = (32, min(before.low, *levels), max(before.high, *levels))
    assert (found["level"].images, found["level"].low, found["level"].high) == expected
    assert found["score"].images == 24


def test_new_thresholds_change_nothing_but_themselves_the_report_and_what_engines_are_held_to(
    copied: Bundle, fresh_folder: Path
) -> None:
    bundle = threshold_bundle(copied.path, fresh_folder, 0.1, replace=True)
    changed = {name for name in bundle.files if bundle.files[name] != copied.files.get(name)}
    engine = f"engines/openvino-{accepted_precision(copied)}.json"
    assert (changed, bundle.teacher, bundle.tile) == ({"report.html", engine}, copied.teacher, copied.tile)


def test_engines_are_held_to_the_thresholds_that_ship(copied: Bundle, fresh_folder: Path) -> None:
    foreign = dataclasses.replace(sidecars(copied)[0], name="tensorrt-rtx-fp16", runtime="tensorrt-rtx")
    write_sidecar(copied, foreign)
    bundle = threshold_bundle(seal_bundle(copied).path, fresh_folder, 0.1, replace=True)
    ours, theirs = (sidecar.parity["device"] for sidecar in sidecars(bundle))
    assert ours["verdict_flips"] == 0
    assert ours["map_max_of_threshold"] < 0.1
    assert theirs == {name: ours[name] for name in ("num_tiles", "map_max", "map_mean", "score_max")}


def test_new_thresholds_keep_their_rate_on_the_images_behind_them(copied: Bundle, fresh_folder: Path) -> None:
    from fbft_edge.detectors.host import OpenVinoDetector

    detector = OpenVinoDetector(threshold_bundle(copied.path, fresh_folder, 0.1, replace=True), FrameLayout(140, 182))
    alarms = [detector.detect(read_image(path)).is_anomalous for path in image_paths(fresh_folder)]
    assert sum(alarms) <= 1


def test_images_that_were_fitted_on_never_calibrate_even_renamed(
    copied: Bundle, nominal_folder: Path, fresh_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(fresh_folder, folder)
    for index, path in enumerate(fitted_images(copied, nominal_folder)):
        write_image(folder / f"renamed{index}.bmp", read_image(path))
    bundle = threshold_bundle(copied.path, folder, 0.1, replace=True)
    assert bundle.require_thresholds().num_images == 24


def test_only_images_that_were_fitted_on_are_refused_with_their_number(
    copied: Bundle, nominal_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "known").mkdir()
    for path in fitted_images(copied, nominal_folder):
        shutil.copy(path, tmp_path / "known")
    with pytest.raises(ArgumentError, match="8 were left out"):
        threshold_bundle(copied.path, tmp_path / "known", 0.1)


def test_thresholds_are_never_found_on_frames_that_the_bundle_would_refuse(copied: Bundle, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for seed in range(3):
        write_image(tmp_path / "other" / f"{seed}.png", render_part(seed, 100, 120).pixels)
    with pytest.raises(BundleError, match="120x100"):
        threshold_bundle(copied.path, tmp_path / "other", 0.1)


@pytest.mark.parametrize("rate", [0.0, 1.0, float("nan")])
def test_a_refused_rate_leaves_the_bundle_as_it_was(copied: Bundle, fresh_folder: Path, rate: float) -> None:
    with pytest.raises(FbftError):
        threshold_bundle(copied.path, fresh_folder, rate)
    assert open_bundle(copied.path) == copied


def test_a_seal_that_fails_leaves_the_bundle_as_it_was(
    copied: Bundle, fresh_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seal(bundle: Bundle) -> Bundle:
        raise OSError("no space left")

    monkeypatch.setattr("fbft_calibration.fitting.bundling.seal_bundle", seal)
    with pytest.raises(OSError, match="no space left"):
        threshold_bundle(copied.path, fresh_folder, 0.1, replace=True)
    assert open_bundle(copied.path) == copied


def test_a_bundle_without_a_record_of_its_fit_is_refused(copied: Bundle, fresh_folder: Path) -> None:
    seal_bundle(dataclasses.replace(copied, notes=Notes()))
    with pytest.raises(BundleError):
        threshold_bundle(copied.path, fresh_folder, 0.1, replace=True)


def test_pictures_on_which_the_students_disagree_score_higher(small_bundle: Bundle) -> None:
    from fbft_edge.detectors.host import OpenVinoDetector

    detector = OpenVinoDetector(small_bundle, FrameLayout(140, 182))
    noise = np.random.default_rng(0).integers(0, 256, (140, 182, 3), np.uint8)
    assert detector.detect(noise).score > detector.detect(render_part(200, 140, 182).pixels).score
