"""VisA's split is a list, not folders: what it names for fitting is fitted on, and nothing else that lies beside it."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from fbft_calibration.benchmark.result import CategoryResult, read_result
from fbft_calibration.cli import main
from fbft_edge.bundle.reading import open_bundle
from fbft_edge.frames.images import write_image
from fbft_edge.synthetic import render_part

SIZE = (140, 182)
FAST = ["--steps", "2", "--tile", "112", "--false-alarm-rate", "0.2", "--precision", "f32"]
NUM_FITTED, NUM_GOOD, NUM_DEFECTIVE = 12, 3, 2


@pytest.fixture(scope="module")
def visa(nominal_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Category `parts` as VisA lays it out: all good images in one folder, masks that number the defects from 1."""
    root = tmp_path_factory.mktemp("data") / "VisA"
    data = root / "parts/Data"
    for folder in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"):
        (data / folder).mkdir(parents=True)
    rows = []
    for number, path in enumerate(sorted(nominal_folder.iterdir())):
        shutil.copy(path, data / f"Images/Normal/{number:04d}.png")
        rows.append(("parts", "train", "normal", f"parts/Data/Images/Normal/{number:04d}.png", ""))
    for number in range(NUM_FITTED, NUM_FITTED + NUM_GOOD):
        write_image(data / f"Images/Normal/{number:04d}.png", render_part(500 + number, *SIZE).pixels)
        rows.append(("parts", "test", "normal", f"parts/Data/Images/Normal/{number:04d}.png", ""))
    for number in range(NUM_DEFECTIVE):
        part = render_part(600 + number, *SIZE, (16.0,))
        write_image(data / f"Images/Anomaly/{number:03d}.JPG", part.pixels)
        write_image(data / f"Masks/Anomaly/{number:03d}.png", part.mask.astype(np.uint8))
        image, mask = (f"parts/Data/{kind}/Anomaly/{number:03d}" for kind in ("Images", "Masks"))
        rows.append(("parts", "test", "anomaly", f"{image}.JPG", f"{mask}.png"))
    (root / "split_csv").mkdir()
    with (root / "split_csv/1cls.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("object", "split", "label", "image", "mask"), *rows])
    return root


@pytest.fixture(scope="module")
def out(visa: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="fitting needs the extra calibration")
    folder = tmp_path_factory.mktemp("results") / "visa"
    assert main(["benchmark", str(visa), "--out", str(folder), *FAST]) == 0
    return folder


@pytest.fixture(scope="module")
def result(out: Path) -> CategoryResult:
    return read_result(out / "parts.json")


def test_exactly_the_images_for_fitting_are_fitted_on_or_kept_for_thresholds(out: Path, result: CategoryResult) -> None:
    thresholds = open_bundle(out / "parts/parts.fbft").require_thresholds()
    assert result.bundle["fitted_on"] + thresholds.num_images == NUM_FITTED


def test_every_test_image_is_inspected(result: CategoryResult) -> None:
    assert [image.file for image in result.images] == [
        *(f"parts/Data/Images/Anomaly/{number:03d}.JPG" for number in range(NUM_DEFECTIVE)),
        *(f"parts/Data/Images/Normal/{NUM_FITTED + number:04d}.png" for number in range(NUM_GOOD)),
    ]


def test_masks_that_number_the_defects_are_read(result: CategoryResult) -> None:
    assert (result.problems, result.figures["thresholds"]["components"]) == ((), NUM_DEFECTIVE)


def test_the_folder_of_links_is_gone_afterwards(out: Path) -> None:
    assert {path.name for path in (out / "parts").iterdir()} == {"parts.fbft", "fit.json", "pictures"}


def test_the_data_set_stays_as_it_was(visa: Path, out: Path) -> None:
    normal = visa / "parts/Data/Images/Normal"
    assert (len(list(normal.iterdir())), any(path.is_symlink() for path in normal.iterdir())) == (
        NUM_FITTED + NUM_GOOD,
        False,
    )


def test_a_finished_category_is_kept(visa: Path, out: Path) -> None:
    before = (out / "parts.json").stat().st_mtime_ns
    status = main(["benchmark", str(visa), "--out", str(out), *FAST])
    assert (status, (out / "parts.json").stat().st_mtime_ns) == (0, before)


def test_the_report_of_the_bundle_names_images_as_the_data_set_does(visa: Path, out: Path) -> None:
    report = (out / "parts/parts.fbft/report.html").read_text(encoding="utf-8")
    named = re.findall(r"<figcaption>([^<,]+),", report)
    assert named
    assert {*named} <= {path.name for path in (visa / "parts/Data/Images/Normal").iterdir()}
