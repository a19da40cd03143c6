"""A nominal image that is not like the others is named, with what the thresholds would be without it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from doubles import Said

from fbft_calibration.data.nominal import scan_nominal
from fbft_calibration.fitting.bundling import fit_bundle
from fbft_calibration.fitting.cross_check import compare
from fbft_calibration.fitting.feature_cache import FeatureCache
from fbft_calibration.fitting.outliers import outliers_of, stand_out, thresholds_without
from fbft_calibration.fitting.scores import MeasuredScores
from fbft_calibration.fitting.settings import BundleSettings
from fbft_calibration.fitting.students import FitSettings
from fbft_calibration.fitting.thresholds import conformal_thresholds
from fbft_edge.bundle.reading import REPORT, Bundle
from fbft_edge.frames.frame import Uint8
from fbft_edge.frames.images import write_image
from fbft_edge.synthetic import render_part
from fbft_export.graph import PatchDistanceModel

DEFECT = slice(70, 98), slice(84, 112)


def defective() -> Uint8:
    """A part with a spot of noise in its middle."""
    pixels = render_part(30, 140, 182).pixels.copy()
    pixels[DEFECT] = np.random.default_rng(0).integers(0, 256, (28, 28, 3))
    return pixels


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98, 1.3], []),
        ([1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98, 2.0], [7]),
        ([1.0, 1.1, 0.9, 1.05, 0.95, 1.02, 0.98, 0.2], []),
        ([1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.05, 1.2], [7]),
        ([0.0] * 8, []),
    ],
)
def test_only_scores_far_above_the_others_stand_out(scores: list[float], expected: list[int]) -> None:
    assert np.flatnonzero(stand_out(np.array(scores))).tolist() == expected


def test_in_a_clean_set_nothing_stands_out(small_bundle: Bundle) -> None:
    assert small_bundle.notes.outliers == ()


def test_images_of_several_sizes_are_compared_wherever_their_patches_lie(
    nominal_folder: Path, small_model: PatchDistanceModel, small_bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(nominal_folder, tmp_path / "images")
    for seed in range(4):
        write_image(tmp_path / "images" / f"wide{seed}.png", render_part(40 + seed, 140, 196).pixels)
    write_image(tmp_path / "images" / "defective.png", defective())
    images = scan_nominal(tmp_path / "images", mixed_sizes=True).images
    found = compare(FeatureCache(tmp_path / "cache", small_model, small_bundle.tile), images, 0)
    assert max(found, key=lambda each: each.score).image.path.name == "defective.png"


# A fit with a defective image among those held out


class Tainted(NamedTuple):
    """Such a fit."""

    name: str
    bundle: Bundle
    said: Said


@pytest.fixture(scope="module")
def tainted(nominal_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Tainted:
    folder = tmp_path_factory.mktemp("tainted")
    shutil.copytree(nominal_folder, folder / "images")
    place = max(np.random.default_rng(0).permutation(13)[:4])  # by name, one of those that the seed holds out
    name = f"part{place:02d}-defective.png"  # sorted before that part
    write_image(folder / "images" / name, defective())
    said, settings = Said(), BundleSettings(tile_px=112, students=FitSettings(steps=20), prototypes=32)
    return Tainted(name, fit_bundle(folder / "images", folder / "part.fbft", settings, said), said)


def test_a_defective_image_is_named_with_its_place(tainted: Tainted) -> None:
    outliers = tainted.bundle.notes.outliers or ()
    assert [outlier.name for outlier in outliers] == [tainted.name]
    assert (outliers[0].times_median > 1.2, f"{tainted.name}: " in tainted.said.text) == (True, True)
    x, y = outliers[0].peak_xy
    assert (84 - 14 <= x < 112 + 14, 70 - 14 <= y < 98 + 14) == (True, True)


def test_the_thresholds_without_it_are_those_of_the_other_held_out_images(tainted: Tainted) -> None:
    notes = tainted.bundle.notes
    named = {outlier.pixels_sha256 for outlier in notes.outliers or ()}
    kept = [index for index, sha256 in enumerate(notes.calibration.images_sha256) if sha256 not in named]
    score, peak = (np.array(column)[kept] for column in (notes.calibration.score, notes.calibration.peak))
    assert notes.units is not None
    expected = conformal_thresholds(MeasuredScores(score, peak), notes.units.score, notes.units.peak, 0.01)
    assert len(kept) == len(notes.calibration.score) - 1
    assert (
        f"image threshold would be {expected.image:.4g} instead of {tainted.bundle.require_thresholds().image:.4g}, "
        f"the pixel threshold {expected.pixel:.4g} instead of" in tainted.said.text
    )


def test_the_report_shows_it_and_the_thresholds_without(tainted: Tainted, read_page: Callable[[str], Any]) -> None:
    page = read_page(tainted.bundle.file(REPORT).read_text(encoding="utf-8"))
    assert page.tags.count("img") == 2 * 3 + 2
    assert (f"{tainted.name}: " in page.text, "Without the 1 held-out of them" in page.text) == (True, True)


def test_an_image_that_was_fitted_on_is_said_to_need_a_new_fit(
    nominal_folder: Path, small_model: PatchDistanceModel, small_bundle: Bundle, tmp_path: Path
) -> None:
    shutil.copytree(nominal_folder, tmp_path / "images")
    write_image(tmp_path / "images" / "defective.png", defective())
    cache = FeatureCache(tmp_path / "cache", small_model, small_bundle.tile)
    outliers = tuple(outlier for outlier, _ in outliers_of(compare(cache, scan_nominal(tmp_path / "images").images, 0)))
    fitted = tuple(outlier.pixels_sha256 for outlier in outliers)
    notes = replace(small_bundle.notes, outliers=outliers, fit_images_sha256=fitted)
    lines = thresholds_without(notes, small_bundle.require_thresholds())
    assert [line[:52] for line in lines] == ["students and prototypes have seen the 1 fitted of th"]
