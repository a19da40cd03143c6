"""`fbft-calibrate benchmark` measures what can be measured, says what cannot, and does nothing twice."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from fbft_calibration.benchmark.measurement import measure
from fbft_calibration.benchmark.pictures import Album
from fbft_calibration.benchmark.plan import data_sha256, nominal_sha256
from fbft_calibration.benchmark.result import CategoryResult, read_result, source_commit
from fbft_calibration.benchmark.settings import BenchmarkSettings, paper_settings
from fbft_calibration.cli import main, parsed
from fbft_calibration.data.layouts import Category, categories
from fbft_calibration.fitting.settings import BundleSettings
from fbft_calibration.metrics import CategoryFigures
from fbft_edge.bundle.reading import GRAPH, PROTOTYPES, STUDENTS, open_bundle
from fbft_edge.detectors.host import OpenVinoEngine
from fbft_edge.detectors.judge import image_score
from fbft_edge.frames.frame import Detection, Float32, Uint8
from fbft_edge.frames.images import write_image
from fbft_edge.synthetic import render_part
from fbft_export.graph import PatchDistanceModel
from fbft_export.prototypes import PATCH_DISTANCE
from fbft_export.students import load_students, patch_distance
from fbft_export.teacher import load_teacher

FAST = ["--steps", "2", "--tile", "112", "--false-alarm-rate", "0.2", "--precision", "f32"]
AGAIN = ["--category", "parts", "--pixel-size-mm", "0.05", *FAST]
WRONG = {
    "no data set": [],
    "missing folder": ["{tmp}/missing"],
    "folder that is no data set": ["{tmp}"],
    "unknown category": ["{data}", "--category", "cups"],
    "pixel size 0": ["{data}", "--pixel-size-mm", "0"],
    "pixel size nan": ["{data}", "--pixel-size-mm", "nan"],
    "steps 0": ["{data}", "--steps", "0"],
    "comparison of nothing": ["--compare", "{tmp}"],
    "unknown peer": ["{data}", "--peer", "nosuch"],
    "peer that is not run": ["{data}", "--peer", "all", "--peer", "efficient-ad"],
    "list of an unknown category": ["{data}", "--list", "--category", "cups"],
}
# What cannot be a folder of results: an existing file, a place below one, a name that is too long.
NO_FOLDER = ["file", "file/below", "x" * 300]
IDLE = {
    "--pixel-size-mm": ["--compare", "{tmp}", "--pixel-size-mm", "0.1"],
    "DATASET_ROOT": ["{data}", "--compare", "{tmp}"],
    "--list": ["--compare", "{tmp}", "--list"],
    "--peer": ["{data}", "--list", "--peer", "padim"],
    "--false-alarm-rate": ["{data}", "--list", "--false-alarm-rate", "0.2"],
    "--preset": ["{data}", "--list", "--preset", "paper"],
    "--out": ["{data}", "--list", "--out", "{tmp}"],
}


def copied(benchmarked: Path, tmp_path: Path) -> Path:
    shutil.copytree(benchmarked, tmp_path / "first")
    return tmp_path / "first"


def run(root: Path, out: Path, options: list[str] = AGAIN) -> int:
    return main(["benchmark", str(root), "--out", str(out), *options])


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_measured_ends_with_status_2_and_one_line(
    what: str, part_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.format(data=part_dataset, tmp=tmp_path) for part in WRONG[what]]
    out = [] if "--list" in given else ["--out", str(tmp_path / "out")]
    assert (main(["benchmark", *given, *out]), capsys.readouterr().err.count("\n")) == (2, 1)


@pytest.mark.parametrize("what", IDLE)
def test_arguments_without_effect_are_refused_by_name(
    what: str, part_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.format(data=part_dataset, tmp=tmp_path) for part in IDLE[what]]
    assert (main(["benchmark", *given]), f"error: {what} would change nothing" in capsys.readouterr().err) == (2, True)


@pytest.mark.parametrize("name", NO_FOLDER)
@pytest.mark.parametrize("is_comparison", [False, True], ids=["measure", "compare"])
def test_results_that_could_not_be_written_are_refused_before_anything_is_fitted(
    name: str, is_comparison: bool, part_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    given = ["--compare", str(tmp_path)] if is_comparison else [str(part_dataset)]
    status = main(["benchmark", *given, "--out", str(tmp_path / name)])
    said = capsys.readouterr()
    assert (status, "choose another --out" in said.err, "nominal images" in said.out) == (2, True, False)


@pytest.mark.skipif(find_spec("anomalib") is not None, reason="anomalib is installed")
def test_peers_without_anomalib_end_with_status_2_and_the_remedy_before_anything_is_fitted(
    part_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = run(part_dataset, tmp_path / "out", ["--peer", "all"])
    said = 'pip install "fbft-edge[calibration,peers]"' in capsys.readouterr().err
    assert (status, said, (tmp_path / "out").exists()) == (2, True, False)


@pytest.mark.parametrize("name", ["summary", ".."])
def test_a_category_whose_results_would_take_another_place_is_refused(
    name: str, part_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "data", tmp_path / "results/out"
    (data / "split_csv").mkdir(parents=True)
    rows = ["object,split,label,image,mask", f"{name},train,normal,good.png,", f"{name},test,normal,good.png,"]
    (data / "split_csv/1cls.csv").write_text("\n".join(rows))
    shutil.copy(part_dataset / "parts/test/good/0.png", data / "good.png")
    status = run(data, out, FAST)
    written = [path.name for path in (tmp_path / "results").rglob("*")] if (tmp_path / "results").exists() else []
    assert (status, "rename the category" in capsys.readouterr().err, written) == (2, True, ["out"])


def test_the_memory_of_a_process_that_inspects_is_measured(benchmarked: Path) -> None:
    peak_memory = read_result(benchmarked / "parts.json").peak_memory_bytes
    assert peak_memory is not None
    assert 2**26 < peak_memory < 2**32


def test_a_list_of_categories_says_what_each_holds(part_dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["benchmark", str(part_dataset), "--list"])
    row = next(line for line in capsys.readouterr().out.splitlines() if "parts" in line)
    assert row.replace("│", " ").split() == ["parts", "mvtec-ad", "12", "4", "4", "3"]


def test_a_list_says_what_is_wrong_with_the_chosen_categories(
    part_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(part_dataset, tmp_path / "data"))
    (data / "few/test/good").rename(data / "few/test/OK")
    main(["benchmark", str(data), "--list", "--category", "few"])
    said = capsys.readouterr().out
    assert [said.count(words) for words in ("4 images of type OK", "few: 1 nominal images", "mvtec-ad")] == [1, 1, 1]


def test_an_interrupted_benchmark_says_what_is_kept(part_dataset: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-u", "-m", "fbft_calibration", "benchmark", str(part_dataset), "--category", "parts"]
    with subprocess.Popen([*command, "--out", str(tmp_path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "parts, 1 of 1\n"
        process.send_signal(signal.SIGINT)
        said = process.stdout.read()
    assert (process.returncode, f"what is finished in {tmp_path} is kept" in said) == (130, True)


def test_a_category_leaves_its_result_its_bundle_and_a_summary(benchmarked: Path) -> None:
    assert {path.name for path in benchmarked.iterdir()} == {
        *("parts", "parts.json", "report.html", "summary.json", "summary.md")
    }


def test_the_bundle_of_a_category_is_whole(benchmarked: Path) -> None:
    result = read_result(benchmarked / "parts.json")
    assert open_bundle(benchmarked / "parts/parts.fbft").sha256 == result.bundle["sha256"]


@pytest.mark.parametrize("about", ["torn.png", "2.png", "3_mask.png"])
def test_every_file_that_does_not_serve_gets_one_line(benchmarked: Path, about: str) -> None:
    problems = read_result(benchmarked / "parts.json").problems
    assert [about in line for line in problems].count(True) == 1


def test_a_result_never_says_where_the_data_lie(benchmarked: Path, part_dataset: Path) -> None:
    assert str(part_dataset) not in (benchmarked / "parts.json").read_text(encoding="utf-8")


def test_every_readable_test_image_is_in_the_result(benchmarked: Path) -> None:
    files = [image.file for image in read_result(benchmarked / "parts.json").images]
    assert files == [
        *(f"parts/test/good/{i}.png" for i in range(3)),
        *(f"parts/test/pit/{i}.png" for i in (0, 1)),
        *(f"parts/test/scratch/{i}.png" for i in (2, 3)),
    ]


def test_lengths_in_millimetres_are_those_in_pixels_times_the_pixel_size(benchmarked: Path) -> None:
    sizes = read_result(benchmarked / "parts.json").figures["thresholds"]["sizes"]
    assert [size["from_mm"] for size in sizes] == pytest.approx([0.05 * size["from_px"] for size in sizes])


def test_a_result_holds_nothing_that_is_not_a_number(benchmarked: Path) -> None:
    def refuse(text: str) -> Any:
        raise ValueError(text)

    assert json.loads((benchmarked / "parts.json").read_text(encoding="utf-8"), parse_constant=refuse)


def figures_of(root: Path, without: str = "nothing") -> CategoryFigures:
    """Of `parts`, where brightness is the anomaly; test images whose path has `without` in it are left out."""
    parts = next(category for category in categories(root) if category.name == "parts")
    kept = dataclasses.replace(parts, tests=tuple(test for test in parts.tests if without not in str(test.path)))
    return measure(kept, root, brightness, Album(0.5), None).figures


def brightness(pixels: Uint8) -> tuple[Detection, Float32]:
    anomaly_map = np.asarray(pixels.mean(axis=2) / 255, np.float32)
    return Detection(image_score(anomaly_map), float(anomaly_map.max()), anomaly_map > 0.8, (), True), anomaly_map


def test_dark_test_images_of_16_bits_are_told(part_dataset: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(part_dataset, tmp_path / "data"))
    cv2.imwrite(str(data / "parts/test/good/dim.png"), np.full((140, 182), 4095, np.uint16))
    parts = next(category for category in categories(data) if category.name == "parts")
    (caution,) = measure(parts, data, brightness, Album(0.5), None).cautions
    assert "1 16-bit images are very dark: none has a value above 4095" in caution


def test_a_corrupt_image_changes_no_figure(part_dataset: Path) -> None:
    assert figures_of(part_dataset) == figures_of(part_dataset, without="torn.png")


def test_images_whose_masks_do_not_serve_change_no_pixel_figure(part_dataset: Path) -> None:
    every, sound = figures_of(part_dataset), figures_of(part_dataset, without="scratch")
    assert (every.pixel_auroc, every.aupro, every.images_without_truth) == (sound.pixel_auroc, sound.aupro, 2)


def test_a_finished_category_is_kept(benchmarked: Path, part_dataset: Path, tmp_path: Path) -> None:
    out = copied(benchmarked, tmp_path)
    before = (out / "parts.json").stat().st_mtime_ns
    assert (run(part_dataset, out), (out / "parts.json").stat().st_mtime_ns) == (0, before)


def test_an_interrupted_category_goes_on_with_its_complete_bundle(
    benchmarked: Path, part_dataset: Path, tmp_path: Path
) -> None:
    out = copied(benchmarked, tmp_path)
    (out / "parts.json").unlink()
    run(part_dataset, out)
    first, second = read_result(benchmarked / "parts.json"), read_result(out / "parts.json")
    assert (second.bundle["sha256"], second.figures) == (first.bundle["sha256"], first.figures)


def test_a_bundle_that_was_not_completed_is_fitted_again(benchmarked: Path, part_dataset: Path, tmp_path: Path) -> None:
    out = copied(benchmarked, tmp_path)
    (out / "parts.json").unlink()
    (out / "parts/parts.fbft/model.onnx").write_bytes(b"half of it")
    status = run(part_dataset, out)
    assert (status, read_result(out / "parts.json").bundle["sha256"]) == (
        0,
        open_bundle(out / "parts/parts.fbft").sha256,
    )


def test_other_settings_never_overwrite_results(
    benchmarked: Path, part_dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (benchmarked / "parts.json").read_bytes()
    status = run(part_dataset, benchmarked, [*AGAIN, "--seed", "1"])
    assert (status, capsys.readouterr().err.count("\n"), (benchmarked / "parts.json").read_bytes()) == (2, 1, before)


def test_another_pixel_size_changes_lengths_in_millimetres_and_measures_nothing(
    benchmarked: Path, part_dataset: Path, tmp_path: Path
) -> None:
    out = copied(benchmarked, tmp_path)
    run(part_dataset, out, ["--category", "parts", *FAST])
    without = read_result(out / "parts.json")
    run(part_dataset, out)
    again, first = read_result(out / "parts.json"), read_result(benchmarked / "parts.json")
    assert (without.settings["pixel_size_mm"], without.figures["thresholds"]["sizes"][1]["from_mm"]) == (None, None)
    assert again == first


@pytest.fixture(scope="module")
def altered(
    benchmarked: Path, part_dataset: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CategoryResult, Path]:
    """The result after two test images were added, one of another size, and the data set that has them."""
    folder = tmp_path_factory.mktemp("altered")
    out, data = copied(benchmarked, folder), folder / part_dataset.name
    shutil.copytree(part_dataset, data)
    write_image(data / "parts/test/good/new.png", render_part(700, 140, 182).pixels)
    write_image(data / "parts/test/good/small.png", render_part(701, 120, 150).pixels)
    run(data, out)
    return read_result(out / "parts.json"), data


def test_changed_test_images_are_measured_again(altered: tuple[CategoryResult, Path]) -> None:
    assert "parts/test/good/new.png" in [image.file for image in altered[0].images]


def test_test_images_of_a_size_that_a_line_would_refuse_are_told(altered: tuple[CategoryResult, Path]) -> None:
    (caution,) = altered[0].cautions
    assert "1 test images have a size that the thresholds were not found on (width x height 150x120: 1)" in caution


def part_of(root: Path) -> Category:
    return next(category for category in categories(root) if category.name == "parts")


@pytest.mark.parametrize("name", ["test/pit/0.png", "ground_truth/pit/0_mask.png", "train/good/part00.png"])
def test_a_file_with_other_contents_is_another_file_though_its_size_is_the_same(
    name: str, part_dataset: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(part_dataset, tmp_path / "data"))
    before = part_of(data)
    identities = [data_sha256(before), nominal_sha256(before)]
    contents = bytearray((data / "parts" / name).read_bytes())
    contents[-1] ^= 1
    (data / "parts" / name).write_bytes(contents)
    changed = [data_sha256(before) != identities[0], nominal_sha256(before) != identities[1]]
    assert changed == [True, "train" in name]


def test_a_category_has_the_same_identity_alone_and_in_its_data_set(part_dataset: Path) -> None:
    assert data_sha256(part_of(part_dataset / "parts")) == data_sha256(part_of(part_dataset))


def test_an_image_of_another_type_is_another_one(part_dataset: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(part_dataset, tmp_path / "data"))
    before = data_sha256(part_of(data))
    for folder in ("test", "ground_truth"):
        (data / f"parts/{folder}/pit").rename(data / f"parts/{folder}/hole")
    assert data_sha256(part_of(data)) != before


def test_a_category_that_cannot_be_measured_does_not_keep_the_others_from_it(
    benchmarked: Path, part_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = copied(benchmarked, tmp_path)
    (out / "parts.json").unlink()
    status = run(part_dataset, out, ["--pixel-size-mm", "0.05", *FAST])
    said = capsys.readouterr()
    assert (status, "1 of 2 categories" in said.err, (out / "parts.json").is_file()) == (2, True, True)
    assert f"open {out / 'report.html'}" in said.out
    assert "few could not be measured: 1 usable nominal images" in (out / "report.html").read_text(encoding="utf-8")


def test_the_paper_preset_passes_fifty_times_over_the_fitted_images() -> None:
    settings = paper_settings(BundleSettings(held_out=0.25), None, None).for_images(100)
    assert (settings.students.steps, settings.students.learning_rate) == (50 * math.ceil(75 / 4), 1e-3)


def test_the_paper_preset_makes_the_papers_patch_distance(part_dataset: Path, tmp_path: Path) -> None:
    small = ["--teacher", "dinov2-small-offline", "--scale", "1", *FAST]
    assert run(part_dataset, tmp_path, ["--category", "parts", "--preset", "paper", *small]) == 0
    bundle = open_bundle(tmp_path / "parts/parts.fbft")
    model = PatchDistanceModel(load_teacher(tile_px=112), load_students(bundle.file(STUDENTS)))
    tiles = np.random.default_rng(1).integers(0, 256, (2, 112, 112, 3), np.uint8)
    with torch.inference_mode():
        expected = patch_distance(model.students, *model.features(torch.from_numpy(tiles))).reshape(2, 8, 8).numpy()
    found = np.empty((2, 8, 8), np.float32)
    OpenVinoEngine(bundle.read(GRAPH), 112, "f32").infer(tiles, found)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert PROTOTYPES not in bundle.files


@pytest.mark.parametrize(("count", "distance"), [(0, None), (64, PATCH_DISTANCE)])
def test_the_settings_say_which_patch_distance_they_lead_to(count: int, distance: str | None) -> None:
    assert BenchmarkSettings(BundleSettings(prototypes=count)).of_fit().get("patch_distance") == distance


def test_without_epochs_a_bundle_is_made_as_told() -> None:
    bundle = BundleSettings(scale="0.5")
    assert BenchmarkSettings(bundle).for_images(100) == bundle


@pytest.mark.parametrize(
    ("option", "name", "wins"),
    [
        ([], "teacher", "dinov2-base-reg"),
        (["--teacher", "dinov2-small-offline"], "teacher", "dinov2-small-offline"),
        ([], "scale", "1036px"),
        (["--scale", "1"], "scale", "1"),
        ([], "steps", None),
        (["--steps", "600"], "steps", 600),
        ([], "prototypes", 0),
        (["--prototypes", "64"], "prototypes", 64),
    ],
    ids=str,
)
def test_what_is_given_wins_over_the_preset(option: list[str], name: str, wins: Any) -> None:
    assert vars(parsed(["benchmark", "data", *option, "--preset", "paper"]))[name] == wins


def test_a_file_outside_a_checkout_has_no_commit(tmp_path: Path) -> None:
    (tmp_path / "module.py").touch()
    assert source_commit(tmp_path / "module.py") is None
