"""`fbft-calibrate refine` and `fbft-edge inspect --refine` as a user meets them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="refinement needs the extra calibration")

from fbft_calibration.cli import main
from fbft_calibration.refinement.pictures import Changes, before_and_after
from fbft_edge.bundle.reading import Bundle
from fbft_edge.bundle.sealing import seal_bundle
from fbft_edge.cli.main import main as edge_main
from fbft_edge.detectors.judge import find_regions
from fbft_edge.frames.frame import Bool, Detection
from fbft_edge.frames.images import read_image, write_image
from fbft_edge.synthetic import render_part

SIZE = (140, 182)
FILES = ["defect.png", "good.png", "tiny.png", "torn.png"]


def lines(out: Path) -> dict[str, dict[str, Any]]:
    parsed = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    return {Path(line["file"]).name: line for line in parsed}


def mask(out: Path, name: str) -> Bool:
    return read_image(out / "masks" / f"{name}.png")[..., 0] > 0


@dataclass(frozen=True)
class Runs:
    """The same images inspected, refined, and refined while they were inspected."""

    images: Path
    inspected: Path
    refined: Path
    both: Path
    statuses: tuple[int, int, int]


@pytest.fixture(scope="module")
def runs(small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("refine")
    images, inspected, refined, both = (folder / name for name in ("images", "inspected", "refined", "both"))
    images.mkdir()
    write_image(images / "defect.png", render_part(600, *SIZE, (30.0,)).pixels)
    write_image(images / "good.png", render_part(0, *SIZE).pixels)
    write_image(images / "tiny.png", np.full((3, 5, 3), (0, 255, 0), np.uint8))
    (images / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    bundle = str(small_bundle.path)
    statuses = (
        edge_main(["inspect", "--bundle", bundle, str(images), "--out", str(inspected)]),
        main(["refine", bundle, str(images), "--out", str(refined), "--iterations", "2"]),
        edge_main(["inspect", "--bundle", bundle, str(images), "--out", str(both), "--refine"]),
    )
    return Runs(images, inspected, refined, both, statuses)


def test_an_unreadable_image_ends_with_status_1_after_all_others(runs: Runs) -> None:
    found = lines(runs.refined)
    assert runs.statuses == (1, 1, 1)
    assert list(found) == FILES
    assert [name for name, line in found.items() if line["fault"]] == ["tiny.png", "torn.png"]


def test_a_line_tells_what_became_of_an_image(runs: Runs, small_bundle: Bundle) -> None:
    line, coarse = lines(runs.refined)["defect.png"], lines(runs.inspected)["defect.png"]
    assert (line["height"], line["width"], line["bundle_sha256"]) == (*SIZE, small_bundle.sha256)
    assert line["flagged"]
    assert line["regions_before"] == coarse["regions"]
    assert line["area_px_before"] == mask(runs.inspected, "defect").sum()
    assert line["area_px_after"] == mask(runs.refined, "defect").sum()
    assert line["area_px_after"] == sum(region["area_px"] for region in line["regions_after"])
    assert 1 <= len(line["energies"]) <= 2
    assert line["seconds"] > 0
    assert line["settings"]["iterations"] == 2


def test_an_image_without_a_flagged_region_has_an_empty_mask(runs: Runs) -> None:
    line = lines(runs.refined)["good.png"]
    assert (line["flagged"], line["area_px_after"], line["energies"]) == (False, 0, [])
    assert not mask(runs.refined, "good").any()


def test_pictures_show_both_masks_side_by_side(runs: Runs) -> None:
    height, width = read_image(runs.refined / "overlays/defect.jpg").shape[:2]
    assert height > SIZE[0]
    assert width > 2 * SIZE[1]
    assert read_image(runs.refined / "overview.png").shape[1] > 1000


def test_a_former_run_is_not_replaced_by_itself(
    runs: Runs, small_bundle: Bundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(runs.refined, tmp_path / "out")
    status = main(["refine", str(small_bundle.path), str(runs.images), "--out", str(out)])
    told = "results of an earlier run; name another folder, or replace them with --overwrite"
    assert (status, told in capsys.readouterr().err, lines(out)) == (2, True, lines(runs.refined))


def test_a_run_over_a_former_one_replaces_it_when_asked(runs: Runs, small_bundle: Bundle, tmp_path: Path) -> None:
    again = shutil.copytree(runs.refined, tmp_path / "again")
    arguments = ["refine", str(small_bundle.path), str(runs.images), "--out", str(again), "--iterations", "2"]
    assert main([*arguments, "--overwrite"]) == 1
    before, after = lines(runs.refined), lines(again)
    assert [{**line, "seconds": 0} for line in after.values()] == [{**line, "seconds": 0} for line in before.values()]
    assert np.array_equal(mask(again, "defect"), mask(runs.refined, "defect"))


def test_inspecting_with_refinement_changes_masks_and_regions_alone(runs: Runs) -> None:
    coarse, refined = lines(runs.inspected), lines(runs.both)
    kept = ("verdict", "score", "peak", "reason", "image_threshold", "pixel_threshold", "bundle_sha256", "mask")
    assert {name: [line[key] for key in kept] for name, line in refined.items()} == {
        name: [line[key] for key in kept] for name, line in coarse.items()
    }
    assert refined["defect.png"]["regions"] != coarse["defect.png"]["regions"]
    assert sum(region["area_px"] for region in refined["defect.png"]["regions"]) == mask(runs.both, "defect").sum()
    assert not np.array_equal(mask(runs.both, "defect"), mask(runs.inspected, "defect"))


WRONG = {
    "no bundle": ["{tmp}/none.fbft", "{images}"],
    "folder without images": ["{bundle}", "{tmp}"],
    "bundle without thresholds": ["{raw}", "{images}"],
    "weights that are missing": ["{bundle}", "{images}", "--weights", "{tmp}/w.safetensors"],
    "weights of another kind": ["{bundle}", "{images}", "--weights", "{bundle}/students.safetensors"],
    "another teacher": ["{foreign}", "{images}"],
    "iterations 0": ["{bundle}", "{images}", "--iterations", "0"],
    "seed -1": ["{bundle}", "{images}", "--seed", "-1"],
    "out below a file": ["{bundle}", "{images}", "--out", "{images}/good.png/out"],
    "out is a file": ["{bundle}", "{images}", "--out", "{images}/good.png"],
}


@pytest.fixture(scope="module")
def places(runs: Runs, small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    teacher = replace(small_bundle.teacher, weights_sha256="0" * 64)
    for name, bundle in {
        "raw": replace(small_bundle, thresholds=None),
        "foreign": replace(small_bundle, teacher=teacher),
    }.items():
        shutil.copytree(small_bundle.path, folder / f"{name}.fbft")
        seal_bundle(replace(bundle, path=folder / f"{name}.fbft"))
    return {
        "bundle": small_bundle.path,
        "images": runs.images,
        "raw": folder / "raw.fbft",
        "foreign": folder / "foreign.fbft",
    }


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_refined_ends_with_status_2_and_one_line(
    what: str, places: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [part.format(**places, tmp=tmp_path) for part in WRONG[what]]
    out = [] if "--out" in given else ["--out", str(tmp_path / "out")]
    status = main(["refine", *given, *out])
    assert (status, capsys.readouterr().err.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()


def detection(found: Bool) -> Detection:
    regions = find_regions(found, found.astype(np.float32))
    return Detection(1.0, 1.0, found, regions, bool(regions))


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (1, 40_000), (65_500, 1)])
def test_images_of_any_size_can_be_shown_side_by_side(size: tuple[int, int], tmp_path: Path) -> None:
    found = np.ones(size, np.bool_)
    shown = before_and_after(np.zeros((*size, 3), np.uint8), detection(found), detection(~found))
    write_image(tmp_path / "shown.jpg", shown)
    assert (tmp_path / "shown.jpg").stat().st_size > 0


def test_the_overview_keeps_the_images_that_changed_most() -> None:
    changes, pixels, before = Changes(), np.full((40, 50, 3), 90, np.uint8), np.ones((40, 50), np.bool_)
    assert changes.overview() is None
    changes.offer("same", pixels, detection(before), detection(before))
    assert changes.overview() is None
    heights = []
    for number in range(9):
        after = before.copy()
        after[: number + 1] = False
        changes.offer(f"{number}", pixels, detection(before), detection(after))
        heights.append(changes.overview().shape[0])  # type: ignore[union-attr]
    assert heights == sorted(heights)
    assert heights[-1] == heights[5] > heights[4]
