"""Features on disk are those of the pixels and settings asked for, or they are computed again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from doubles import Said

from fbft_calibration.data.nominal import NominalImage, scan_nominal
from fbft_calibration.fitting.bundling import fit_bundle
from fbft_calibration.fitting.feature_cache import FeatureCache
from fbft_calibration.fitting.settings import BundleSettings
from fbft_calibration.fitting.students import FitSettings
from fbft_edge.bundle.reading import Bundle
from fbft_edge.errors import ArgumentError
from fbft_edge.frames.images import write_image
from fbft_edge.synthetic import render_part
from fbft_export.graph import PatchDistanceModel


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for seed in range(2):
        write_image(tmp_path / "images" / f"{seed}.png", render_part(seed, 140, 182).pixels)
    return tmp_path / "images"


def images_of(folder: Path) -> tuple[NominalImage, ...]:
    return scan_nominal(folder).images


def cache_of(folder: Path, model: PatchDistanceModel, bundle: Bundle, said: Said, overlap: int = 1) -> FeatureCache:
    geometry = replace(bundle.tile, overlap_patches=overlap)
    return FeatureCache(folder.parent / "cache", model, geometry, said)


def test_what_is_there_is_not_computed_again(
    folder: Path, small_model: PatchDistanceModel, small_bundle: Bundle
) -> None:
    cache_of(folder, small_model, small_bundle, Said()).fill(images_of(folder)[:1])
    said = Said()
    cache_of(folder, small_model, small_bundle, said).fill(images_of(folder))
    assert said.work == {"teacher features": 1}


def test_a_changed_image_is_not_taken_from_the_cache(
    folder: Path, small_model: PatchDistanceModel, small_bundle: Bundle
) -> None:
    cache_of(folder, small_model, small_bundle, Said()).fill(images_of(folder))
    write_image(folder / "0.png", render_part(7, 140, 182).pixels)
    said = Said()
    cache_of(folder, small_model, small_bundle, said).fill(images_of(folder))
    assert said.work == {"teacher features": 1}


def test_an_image_that_changes_after_it_was_scanned_has_no_features(
    folder: Path, small_model: PatchDistanceModel, small_bundle: Bundle
) -> None:
    scanned = images_of(folder)
    write_image(folder / "0.png", render_part(7, 140, 182).pixels)
    with pytest.raises(ArgumentError, match=r"0\.png changed"):
        cache_of(folder, small_model, small_bundle, Said()).fill(scanned)


def test_what_other_settings_left_is_cleared_with_a_word(
    folder: Path, small_model: PatchDistanceModel, small_bundle: Bundle
) -> None:
    cache_of(folder, small_model, small_bundle, Said()).fill(images_of(folder))
    said = Said()
    cache_of(folder, small_model, small_bundle, said, overlap=2).fill(images_of(folder))
    assert (said.work, "other settings" in said.text, len(list((folder.parent / "cache").iterdir()))) == (
        {"teacher features": 2},
        True,
        1,
    )


def test_a_file_that_is_not_whole_is_computed_again(
    folder: Path, small_model: PatchDistanceModel, small_bundle: Bundle
) -> None:
    cache, image = cache_of(folder, small_model, small_bundle, Said()), images_of(folder)[0]
    whole = np.array(cache.of(image))
    file = next((folder.parent / "cache").rglob("*.npy"))
    os.truncate(file, file.stat().st_size // 2)
    np.testing.assert_array_equal(cache.of(image), whole)


# A fit that was killed


class GoneOn(NamedTuple):
    """What a fit left that was killed, and the next one."""

    left: int
    said: Said
    bundle: Bundle


@pytest.fixture(scope="module")
def gone_on(small_bundle: Bundle, nominal_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> GoneOn:
    out = tmp_path_factory.mktemp("killed") / "part.fbft"
    cache = out.with_name(".part.fbft.feature-cache")
    options = ["--out", str(out), "--tile", "112", "--steps", "20", "--prototypes", "32"]
    with subprocess.Popen([sys.executable, "-m", "fbft_calibration", "fit", str(nominal_folder), *options]) as fit:
        while len(list(cache.rglob("*.npy"))) < 2 and fit.poll() is None:
            time.sleep(0.002)
        fit.send_signal(signal.SIGKILL)
    left, said = len(list(cache.rglob("*.npy"))), Said()
    settings = BundleSettings(tile_px=112, students=FitSettings(steps=20), prototypes=32)
    return GoneOn(left, said, fit_bundle(nominal_folder, out, settings, said))


def test_a_killed_fit_leaves_features_from_which_the_next_goes_on(gone_on: GoneOn) -> None:
    assert gone_on.left >= 2
    assert gone_on.said.work["teacher features"] == 12 - gone_on.left


def test_a_fit_that_went_on_ends_as_one_that_was_never_killed(gone_on: GoneOn, small_bundle: Bundle) -> None:
    found, expected = gone_on.bundle.require_thresholds(), small_bundle.require_thresholds()
    assert (found.image, found.pixel) == pytest.approx((expected.image, expected.pixel), rel=1e-6)


def test_a_fit_that_ends_leaves_its_bundle_alone(gone_on: GoneOn) -> None:
    assert [path.name for path in gone_on.bundle.path.parent.iterdir()] == ["part.fbft"]
