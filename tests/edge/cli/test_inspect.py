"""`fbft-edge inspect` and `demo` as a user meets them, with a bundle that finds bright patches."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fbft_edge.bundle.reading import Bundle, Thresholds, open_bundle
from fbft_edge.cli.main import main
from fbft_edge.frames.images import read_image, write_image
from fbft_edge.jobs.demo_parts import DEFECT_SIZES_PX, DemoPart, stamped_parts, write_stamp
from fbft_edge.synthetic import render_part

TILE = 140
DEMO_SIDE = 700


BrightBundle = Callable[..., Bundle]


@pytest.fixture(scope="module")
def bundle(bright_bundle: BrightBundle) -> Path:
    return bright_bundle(TILE, frame_sizes=((TILE, TILE),)).path


def write_part(path: Path, is_bright: bool = False, height: int = TILE, width: int = TILE) -> Path:
    pixels = np.full((height, width, 3), 40, np.uint8)
    if is_bright:
        pixels[42:98, 56:112] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, pixels)
    return path


def inspect(bundle: Path, out: Path, *arguments: Path | str) -> int:
    return main(["inspect", "--bundle", str(bundle), *map(str, arguments), "--out", str(out)])


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_ok_and_anomalous_images_both_end_with_status_0(bundle: Path, tmp_path: Path) -> None:
    paths = write_part(tmp_path / "dark.png"), write_part(tmp_path / "bright.png", is_bright=True)

    assert inspect(bundle, tmp_path / "out", *paths) == 0
    assert [line["verdict"] for line in lines(tmp_path / "out")] == ["ok", "anomalous"]


def test_sharpened_masks_are_written_when_that_is_asked_for(bundle: Path, tmp_path: Path) -> None:
    path = write_part(tmp_path / "bright.png", is_bright=True)
    inspect(bundle, tmp_path / "coarse", path)
    inspect(bundle, tmp_path / "sharp", path, "--sharpen")
    coarse, sharp = (read_image(tmp_path / each / "masks/bright.png") > 0 for each in ("coarse", "sharp"))
    defect = read_image(path) > 200
    assert (defect ^ sharp).sum() < (defect ^ coarse).sum()
    assert [lines(tmp_path / each)[0]["score"] for each in ("coarse", "sharp")] == [
        lines(tmp_path / "coarse")[0]["score"]
    ] * 2


def test_an_anomalous_image_fails_when_that_is_asked_for(bundle: Path, tmp_path: Path) -> None:
    path = write_part(tmp_path / "bright.png", is_bright=True)

    assert inspect(bundle, tmp_path / "out", path, "--fail-on-anomaly") == 1


def test_an_unreadable_image_ends_with_status_1_after_all_others(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    write_part(tmp_path / "in/whole.png")

    assert inspect(bundle, tmp_path / "out", tmp_path / "in") == 1
    assert [line["verdict"] for line in lines(tmp_path / "out")] == ["fault", "ok"]


def test_a_line_carries_the_bundle_and_its_thresholds(bundle: Path, tmp_path: Path) -> None:
    inspect(bundle, tmp_path / "out", write_part(tmp_path / "a.png"))
    (line,) = lines(tmp_path / "out")

    assert line["bundle_sha256"] == open_bundle(bundle).sha256
    assert (line["image_threshold"], line["pixel_threshold"]) == (0.5, 0.6)


def test_a_line_says_which_threshold_decided_and_where_the_peak_lies(bundle: Path, tmp_path: Path) -> None:
    inspect(
        bundle,
        tmp_path / "out",
        *(write_part(tmp_path / f"{it}.png", is_bright=it == "bright") for it in ("bright", "dark")),
    )
    bright, dark = lines(tmp_path / "out")
    (region,) = bright["regions"]
    (x, y), (left, top, right, bottom) = bright["peak_xy"], region["box_xyxy"]

    assert (left <= x < right, top <= y < bottom, bright["peak"]) == (True, True, region["peak"])
    assert (bright["decided_by"], dark["decided_by"]) == ("both" if bright["score"] > 0.5 else "pixel", None)


def test_the_mask_lies_where_the_part_is_bright(bundle: Path, tmp_path: Path) -> None:
    inspect(bundle, tmp_path / "out", write_part(tmp_path / "a.png", is_bright=True))
    mask = read_image(tmp_path / "out/masks/a.png")[..., 0] > 0

    assert mask[70, 84]
    assert not mask[:28].any()
    assert not mask[:, :42].any()


def test_the_regions_of_a_line_lie_in_the_mask(bundle: Path, tmp_path: Path) -> None:
    inspect(bundle, tmp_path / "out", write_part(tmp_path / "a.png", is_bright=True))
    (region,) = lines(tmp_path / "out")[0]["regions"]
    mask = read_image(tmp_path / "out/masks/a.png")[..., 0] > 0
    left, top, right, bottom = region["box_xyxy"]

    assert mask[top:bottom, left:right].sum() == mask.sum() == region["area_px"]


def test_images_of_foreign_sizes_have_no_verdict_and_end_with_status_1(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [
        write_part(tmp_path / "a.png"),
        write_part(tmp_path / "b.png", height=200, width=290),
        write_part(tmp_path / "c.png", height=30, width=20),
    ]

    assert inspect(bundle, tmp_path / "out", *paths) == 1
    assert [(line["height"], line["width"], line["verdict"]) for line in lines(tmp_path / "out")] == [
        (140, 140, "ok"),
        (200, 290, "fault"),
        (30, 20, "fault"),
    ]
    assert "290x200" in capsys.readouterr().out


def test_a_folder_that_has_results_is_refused_unless_it_is_said_what_becomes_of_them(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_part(tmp_path / "a.png")
    options: list[list[str]] = [[], [], ["--resume"], ["--overwrite"]]
    assert [inspect(bundle, tmp_path / "out", path, *given) for given in options] == [0, 2, 0, 0]
    assert "--resume" in capsys.readouterr().err


def test_subfolders_are_inspected_when_that_is_asked_for(bundle: Path, tmp_path: Path) -> None:
    write_part(tmp_path / "in/day/a.png")
    assert inspect(bundle, tmp_path / "out", tmp_path / "in") == 2
    assert inspect(bundle, tmp_path / "out", tmp_path / "in", "--recursive") == 0
    assert lines(tmp_path / "out")[0]["overlay"] == "overlays/day/a.jpg"


def test_the_table_goes_to_stdout_and_the_progress_to_stderr(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inspect(bundle, tmp_path / "out", write_part(tmp_path / "a.png"))
    printed = capsys.readouterr()

    assert "anomalous" in printed.out
    assert "Inspecting" in printed.err
    assert "Inspecting" not in printed.out


def test_a_bundle_without_thresholds_is_refused(
    bright_bundle: BrightBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = bright_bundle(TILE, thresholds=None).path

    assert inspect(raw, tmp_path / "out", write_part(tmp_path / "a.png")) == 2
    assert "fbft-calibrate threshold" in capsys.readouterr().err


def test_an_altered_bundle_is_refused(
    bright_bundle: BrightBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    altered = bright_bundle(TILE).path
    with (altered / "model.onnx").open("ab") as file:
        file.write(b"\0")

    assert inspect(altered, tmp_path / "out", write_part(tmp_path / "a.png")) == 2
    assert "was altered" in capsys.readouterr().err


def test_a_full_disk_ends_with_status_2_and_one_line(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.jsonl").symlink_to("/dev/full")

    assert inspect(bundle, tmp_path / "out", write_part(tmp_path / "a.png")) == 2
    assert "No space left" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "inspect"])
def test_help_needs_neither_engine_nor_images(command: str) -> None:
    code = f"from fbft_edge.cli.main import main\ntry: main([{command!r}, '--help'])\nexcept SystemExit: pass\n"
    code += "import sys; print([name for name in ('openvino', 'cv2', 'torch') if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert shown.stdout.splitlines()[-1] == "[]"


def demo_folder(out: Path, bright_bundle: BrightBundle) -> list[DemoPart]:
    """A demo folder as a former run leaves it, with a bundle that finds nothing."""
    nothing = Thresholds(2.0, 2.0, 0.01, 0.01, 0.05, 100)
    bright_bundle(TILE, nothing, ((DEMO_SIDE, DEMO_SIDE),), path=out / "demo.fbft")
    parts = [DemoPart(f"{size_px:03}-x", size_px, "pit", (300, 300, 340, 340)) for size_px in DEFECT_SIZES_PX]
    parts += [DemoPart("900-nominal", 0, "nominal", (400, 450, 500, 550))]
    pixels = render_part(0, DEMO_SIDE, DEMO_SIDE).pixels
    (out / "test").mkdir()
    for part in parts:
        write_image(out / "test" / f"{part.name}.png", pixels)
    write_stamp(out, parts)
    return parts


def test_a_second_demo_runs_line_and_inspection_with_the_bundle_that_is_there(
    bright_bundle: BrightBundle, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = demo_folder(tmp_path, bright_bundle)
    sealed = (tmp_path / "demo.fbft/bundle.json").read_bytes()
    status = main(["demo", "--out", str(tmp_path), "--seconds", "1"])
    printed = capfd.readouterr().out

    assert status == 0
    assert "--fresh" in printed
    assert re.search(r"[1-9]\d* received, 0 lost", printed)
    assert "0 of 1" in printed
    assert printed.splitlines()[-1] == str(tmp_path / "demo.png")
    assert read_image(tmp_path / "demo.png").shape[1] > 2000
    assert (tmp_path / "demo.fbft/bundle.json").read_bytes() == sealed
    assert stamped_parts(tmp_path) == parts
