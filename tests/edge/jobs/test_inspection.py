from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rich.console import Console

from fbft_edge.bundle.manifest import TileGeometry
from fbft_edge.bundle.nominal_statistics import Reference
from fbft_edge.bundle.notes import Notes
from fbft_edge.bundle.reading import Bundle, TeacherIdentity, Thresholds
from fbft_edge.cli.main import main
from fbft_edge.cli.reports import show_inspection
from fbft_edge.cli.terminal import TerminalProgress
from fbft_edge.detectors.judge import find_regions
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.errors import ArgumentError, BundleError, ImageError, MapError
from fbft_edge.frames.frame import Detection, Uint8, Verdict
from fbft_edge.frames.images import read_image, write_image
from fbft_edge.frames.pixel_format import FrameLayout
from fbft_edge.jobs.earlier_results import Earlier
from fbft_edge.jobs.inspection import Inspection, expanded, inspect, inspect_images, output_names
from fbft_edge.plain_file import file_sha256


class RedDetector:
    """Finds red pixels; stands in for an engine."""

    def __init__(self, height: int = 0, width: int = 0) -> None:
        self.size, self.is_closed = (height, width), False

    def detect(self, pixels: Uint8) -> Detection:
        anomaly_map = (pixels[..., 0].astype(np.float32) - pixels[..., 2]) / 255
        mask = anomaly_map > 0.5
        score = float(anomaly_map.max())
        return Detection(score, score, mask, find_regions(mask, anomaly_map), bool(mask.any()))

    frames_in_flight = 1

    def begin(self, pixels: Uint8) -> Callable[[], Detection]:
        return partial(self.detect, pixels)

    def close(self) -> None:
        self.is_closed = True


THRESHOLDS = Thresholds(0.4, 0.5, 0.01, 0.01, 0.02, 100)

NO_NOTES = Notes()


def bundle(
    thresholds: Thresholds | None = THRESHOLDS,
    frame_sizes: tuple[tuple[int, int], ...] = (),
    notes: Notes = NO_NOTES,
) -> Bundle:
    return Bundle(
        path=Path("b.fbft"),
        product="p",
        created="2026-01-01T00:00:00Z",
        teacher=TeacherIdentity("t", "0" * 64, 384, (5, 8)),
        tile=TileGeometry(28, 14, 0),
        frame_sizes=frame_sizes,
        thresholds=thresholds,
        notes=notes,
        sha256="ab" * 32,
    )


def write_part(path: Path, red: bool = False, height: int = 40, width: int = 50) -> Path:
    pixels = np.full((height, width, 3), 128, np.uint8)
    if red:
        pixels[10:14, 20:25] = (255, 0, 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_image(path, pixels)
    return path


def run(paths: list[Path], out: Path, **of_bundle: Any) -> Inspection:
    return inspect_images(bundle(**of_bundle), paths, out, RedDetector().detect)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def test_every_image_gets_one_line_in_order(tmp_path: Path) -> None:
    paths = [write_part(tmp_path / f"{name}.png", red=name == "b") for name in "abc"]
    run(paths, tmp_path / "out")

    assert [(line["file"], line["verdict"]) for line in lines(tmp_path / "out")] == [
        (str(paths[0]), "ok"),
        (str(paths[1]), "anomalous"),
        (str(paths[2]), "ok"),
    ]


def test_a_line_says_everything_about_an_image(tmp_path: Path) -> None:
    path = write_part(tmp_path / "part.png", red=True)
    run([path], tmp_path / "out")

    assert lines(tmp_path / "out") == [
        {
            "bundle_sha256": "ab" * 32,
            "file": str(path),
            "file_sha256": file_sha256(path),
            "height": 40,
            "image_threshold": 0.4,
            "mask": "masks/part.png",
            "overlay": "overlays/part.jpg",
            "decided_by": None,
            "peak": 1.0,
            "peak_xy": None,
            "pixel_threshold": 0.5,
            "reason": None,
            "regions": [{"area_px": 20, "box_xyxy": [20, 10, 25, 14], "centroid_xy": [22.0, 11.5], "peak": 1.0}],
            "score": 1.0,
            "verdict": "anomalous",
            "width": 50,
        }
    ]


def test_a_mono_image_has_no_verdict_where_the_nominal_ones_have_colour(tmp_path: Path) -> None:
    colour = Notes(nominal_statistics={"colour": Reference(9, 1, 1.0, 1.0, 1.0)})
    paths = [write_part(tmp_path / "grey.png"), write_part(tmp_path / "red.png", red=True)]
    inspection = run(paths, tmp_path / "out", notes=colour)
    verdicts = [line["verdict"] for line in lines(tmp_path / "out")]
    assert (verdicts, inspection.foreign_look, inspection.exit_status(False)) == (["fault", "anomalous"], 1, 1)


def test_an_image_with_colour_has_no_verdict_where_the_nominal_ones_have_none(tmp_path: Path) -> None:
    mono = Notes(nominal_statistics={"colour": Reference(9, 1, 0.0, 0.0, 0.0)})
    run([write_part(tmp_path / "red.png", red=True)], tmp_path / "out", notes=mono)
    (line,) = lines(tmp_path / "out")
    words = "red.png has colour, and the bundle was fitted on mono images"
    assert (line["verdict"], words in line["reason"]) == ("fault", True)


def test_the_keys_of_a_line_are_sorted(tmp_path: Path) -> None:
    run([write_part(tmp_path / "a.png")], tmp_path / "out")
    (line,) = lines(tmp_path / "out")

    assert list(line) == sorted(line)


def test_all_lines_have_the_same_keys(tmp_path: Path) -> None:
    run([write_part(tmp_path / "a.png", red=True), tmp_path / "missing.png"], tmp_path / "out")
    found, missing = lines(tmp_path / "out")

    assert found.keys() == missing.keys()


def test_masks_are_black_and_white(tmp_path: Path) -> None:
    run([write_part(tmp_path / "a.png", red=True)], tmp_path / "out")
    mask = read_image(tmp_path / "out/masks/a.png")[..., 0]

    assert np.array_equal(np.unique(mask), [0, 255])
    assert np.argwhere(mask == 255).min(axis=0).tolist() == [10, 20]
    assert (mask == 255).sum() == 20


def test_an_overlay_has_the_size_of_its_image(tmp_path: Path) -> None:
    run([write_part(tmp_path / "a.png", red=True)], tmp_path / "out")

    assert read_image(tmp_path / "out/overlays/a.jpg").shape == (40, 50, 3)


def test_an_unreadable_image_is_a_fault_with_its_reason_and_the_others_go_on(tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    inspection = run([broken, write_part(tmp_path / "b.png")], tmp_path / "out")
    first, second = lines(tmp_path / "out")

    assert (first["verdict"], first["score"], first["height"]) == ("fault", None, None)
    assert "not a readable image" in first["reason"]
    assert second["verdict"] == "ok"
    assert inspection.counts == Counter({Verdict.FAULT: 1, Verdict.OK: 1})


def test_a_detection_that_is_not_finite_is_a_fault(tmp_path: Path) -> None:
    def detect(pixels: Uint8) -> Detection:
        if pixels.shape[0] == 64:
            raise MapError("the map holds values that are not numbers")
        return Detection(0.0, 0.0, np.zeros(pixels.shape[:2], bool), (), False)

    write_image(tmp_path / "a.png", np.zeros((64, 64, 3), np.uint8))
    inspect_images(bundle(), [tmp_path / "a.png", write_part(tmp_path / "b.png")], tmp_path / "out", detect)
    first, second = lines(tmp_path / "out")

    assert (first["verdict"], first["score"], first["mask"]) == ("fault", None, None)
    assert "not numbers" in first["reason"]
    assert second["verdict"] == "ok"


def test_files_of_the_same_name_keep_their_own_outputs(tmp_path: Path) -> None:
    paths = [write_part(tmp_path / "x/a.png", red=True), write_part(tmp_path / "y/a.png")]
    run(paths, tmp_path / "out")
    first, second = (read_image(tmp_path / "out" / line["mask"]) for line in lines(tmp_path / "out"))

    assert first.any()
    assert not second.any()


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.png", "b.png"], ["a", "b"]),
        (["a.png", "a.jpg"], ["a", "a-2"]),
        (["x/a.png", "y/A.png"], ["a", "A-2"]),
        (["x/a.png", "y/a.png", "a-2.png"], ["a", "a-2", "a-2-2"]),
        (["a-2.png", "x/a.png", "y/a.png"], ["a-2", "a", "a-3"]),
        (["a.b.png"], ["a.b"]),
    ],
)
def test_output_names_are_unique(paths: list[str], names: list[str]) -> None:
    assert output_names([Path(path) for path in paths]) == names


def test_a_folder_stands_for_its_images_and_a_file_for_itself(tmp_path: Path) -> None:
    first, second = write_part(tmp_path / "in/a.png"), write_part(tmp_path / "in/b.png")
    (tmp_path / "in/notes.txt").write_text("no image")

    assert expanded([tmp_path / "in", second]) == [first, second, second]


def test_nothing_to_inspect_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="no images"):
        expanded([])


def test_a_folder_without_images_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="holds no image"):
        expanded([tmp_path])


def test_a_bundle_without_thresholds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="threshold"):
        run([write_part(tmp_path / "a.png")], tmp_path / "out", thresholds=None)

    assert not (tmp_path / "out").exists()


def test_a_bundle_that_does_not_exist_is_a_user_error(tmp_path: Path) -> None:
    path = write_part(tmp_path / "a.png")

    with pytest.raises(BundleError):
        inspect(tmp_path / "none.fbft", [path], tmp_path / "out")


def test_the_command_ends_with_status_2_and_one_line_on_a_user_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = write_part(tmp_path / "a.png")
    status = main(["inspect", "--bundle", str(tmp_path / "none"), str(image), "--out", str(tmp_path / "out")])

    assert status == 2
    assert "is not a bundle" in capsys.readouterr().err


def test_one_detector_is_made_for_each_size() -> None:
    made: list[RedDetector] = []

    def make(layout: FrameLayout) -> RedDetector:
        made.append(RedDetector(*layout.size))
        return made[-1]

    pool = DetectorPool(make)
    for size in ((40, 50), (30, 20), (40, 50)):
        pool.detect(np.zeros((*size, 3), np.uint8))
    pool.close()

    assert [detector.size for detector in made] == [(40, 50), (30, 20)]
    assert all(detector.is_closed for detector in made)


def test_of_many_sizes_only_the_last_few_hold_a_model() -> None:
    made: list[RedDetector] = []

    def make(layout: FrameLayout) -> RedDetector:
        made.append(RedDetector(*layout.size))
        return made[-1]

    with DetectorPool(make) as pool:
        for height in (30, 31, 32, 30, 33, 34, 35):
            pool.detect(np.zeros((height, 20, 3), np.uint8))
        assert [detector.size[0] for detector in made if not detector.is_closed] == [30, 33, 34, 35]


def test_sizes_that_the_thresholds_were_not_found_on_are_counted(tmp_path: Path) -> None:
    paths = [write_part(tmp_path / "a.png"), write_part(tmp_path / "b.png", height=60)]
    inspection = run(paths, tmp_path / "out", frame_sizes=((40, 50),))

    assert inspection.foreign_sizes == Counter({(60, 50): 1})


def test_a_line_is_on_disk_before_the_next_image_is_read(tmp_path: Path) -> None:
    paths = [write_part(tmp_path / f"{name}.png") for name in "ab"]
    seen = []

    def detect(pixels: Uint8) -> Detection:
        seen.append(len(lines(tmp_path / "out")))
        return RedDetector().detect(pixels)

    inspect_images(bundle(), paths, tmp_path / "out", detect)

    assert seen == [0, 1]


def test_an_interruption_keeps_the_lines_so_far(tmp_path: Path) -> None:
    paths = [write_part(tmp_path / "a.png"), write_part(tmp_path / "b.png", red=True)]

    def detect(pixels: Uint8) -> Detection:
        detection = RedDetector().detect(pixels)
        if detection.is_anomalous:
            raise KeyboardInterrupt
        return detection

    with pytest.raises(KeyboardInterrupt):
        inspect_images(bundle(), paths, tmp_path / "out", detect)

    assert [line["verdict"] for line in lines(tmp_path / "out")] == ["ok"]


def test_a_full_disk_is_a_user_error_that_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/results.jsonl").symlink_to("/dev/full")

    with pytest.raises(ImageError, match=r"results\.jsonl cannot be written: No space left"):
        run([write_part(tmp_path / "a.png")], tmp_path / "out")


def test_an_output_folder_that_is_a_file_is_a_user_error(tmp_path: Path) -> None:
    path = write_part(tmp_path / "a.png")

    with pytest.raises(ImageError, match="cannot be written"):
        run([path], path)


# Results of an earlier run


def seen_again(folder: Path, earlier: Earlier = Earlier.RESUMED, sha256: str = "ab" * 32) -> list[str]:
    """Names of the images in `folder/in` that a second run into `folder/out` inspects."""
    seen: list[str] = []
    paths = sorted((folder / "in").glob("*.png"))
    by_level = {int(read_image(path)[0, 0, 0]): path.name for path in paths if path.stat().st_size > 20}

    def detect(pixels: Uint8) -> Detection:
        seen.append(by_level[int(pixels[0, 0, 0])])
        return RedDetector().detect(pixels)

    inspect_images(replace(bundle(), sha256=sha256), paths, folder / "out", detect, earlier=earlier)
    return seen


@pytest.fixture
def half_done(tmp_path: Path) -> Path:
    """`in` has three images of their own gray, `out` what a run said of two that was cut within its third line."""
    (tmp_path / "in").mkdir()
    for level, name in enumerate("abc", 100):
        write_image(tmp_path / f"in/{name}.png", np.full((20, 30, 3), level, np.uint8))
    run([tmp_path / f"in/{name}.png" for name in "ab"], tmp_path / "out")
    with (tmp_path / "out/results.jsonl").open("a") as file:
        file.write('{"file": "c.png", "verd')
    return tmp_path


def test_results_of_an_earlier_run_are_in_the_way_and_stay(half_done: Path) -> None:
    before = (half_done / "out/results.jsonl").read_bytes()
    with pytest.raises(ArgumentError, match=r"has 2 results of an earlier run; .* --resume, .* --overwrite"):
        seen_again(half_done, Earlier.REFUSED)
    assert (half_done / "out/results.jsonl").read_bytes() == before


def test_a_resumed_run_inspects_what_has_no_whole_line_yet(half_done: Path) -> None:
    assert seen_again(half_done) == ["c.png"]
    assert [Path(line["file"]).name for line in lines(half_done / "out")] == ["a.png", "b.png", "c.png"]


def test_a_resumed_run_counts_earlier_verdicts(half_done: Path) -> None:
    paths = [half_done / f"in/{name}.png" for name in "abc"]
    inspection = inspect_images(bundle(), paths, half_done / "out", RedDetector().detect, earlier=Earlier.RESUMED)
    assert inspection.counts == Counter({Verdict.OK: 3})


def test_a_file_that_became_another_picture_is_inspected_again(half_done: Path) -> None:
    path = half_done / "in/a.png"
    stat = path.stat()
    write_image(path, np.full((20, 30, 3), 90, np.uint8))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # as a copy that keeps times would do
    assert seen_again(half_done) == ["a.png", "c.png"]


def test_a_file_that_is_written_while_it_is_inspected_gets_no_verdict(tmp_path: Path) -> None:
    path = write_part(tmp_path / "in/a.ppm")
    whole = path.read_bytes()
    path.write_bytes(whole[:3000] + bytes(len(whole) - 3000))  # its size is there already, its pixels are not

    def detect(pixels: Uint8) -> Detection:
        path.write_bytes(whole)
        return RedDetector().detect(pixels)

    inspect_images(bundle(), [path], tmp_path / "out", detect)
    (line,) = lines(tmp_path / "out")
    assert (line["verdict"], line["mask"]) == ("fault", None)
    assert "changed while it was inspected" in line["reason"]


def test_an_image_without_a_verdict_is_tried_again(half_done: Path) -> None:
    (half_done / "in/c.png").write_bytes(b"not a picture")
    seen_again(half_done)
    write_image(half_done / "in/c.png", np.full((20, 30, 3), 102, np.uint8))
    assert seen_again(half_done) == ["c.png"]


def test_results_of_another_bundle_are_not_resumed(half_done: Path) -> None:
    with pytest.raises(ArgumentError, match=r"results of bundle abababababababab, this one is cdcdcdcdcdcdcdcd"):
        seen_again(half_done, sha256="cd" * 32)


def test_a_resumed_run_takes_no_picture_of_another_image(tmp_path: Path) -> None:
    first, second = write_part(tmp_path / "x/a.png", red=True), write_part(tmp_path / "y/a.png")
    run([first], tmp_path / "out")
    inspect_images(bundle(), [second], tmp_path / "out", RedDetector().detect, earlier=Earlier.RESUMED)
    assert [line["mask"] for line in lines(tmp_path / "out")] == ["masks/a.png", "masks/a-2.png"]


def test_an_overwriting_run_leaves_no_picture_of_the_earlier_one(half_done: Path) -> None:
    (half_done / "in/a.png").unlink()
    seen_again(half_done, Earlier.OVERWRITTEN)
    found = {path.name for folder in ("masks", "overlays") for path in (half_done / "out" / folder).iterdir()}
    assert found == {"b.png", "c.png", "b.jpg", "c.jpg"}


def test_an_overwriting_run_removes_nothing_outside_of_its_folder(half_done: Path) -> None:
    precious = write_part(half_done / "precious.png")
    for name in ("../precious.png", str(precious)):
        line = {"file": "a.png", "mask": name, "overlay": name}
        (half_done / "out/results.jsonl").write_text(json.dumps(line) + "\n")
        seen_again(half_done, Earlier.OVERWRITTEN)
    assert precious.exists()


# Folders in folders


def test_images_in_subfolders_are_taken_when_asked_for_and_their_pictures_keep_the_folders(tmp_path: Path) -> None:
    for name in ("b.png", "left/a.png", "right/deep/a.png"):
        write_part(tmp_path / "in" / name)
    paths = expanded([tmp_path / "in"], recursive=True)
    inspect_images(bundle(), paths, tmp_path / "out", RedDetector().detect, folders=[tmp_path / "in"])
    masks = [line["mask"] for line in lines(tmp_path / "out")]
    assert masks == ["masks/b.png", "masks/left/a.png", "masks/right/deep/a.png"]
    assert all((tmp_path / "out" / mask).is_file() for mask in masks)


def test_pictures_of_the_results_are_no_images_to_inspect(tmp_path: Path) -> None:
    path = write_part(tmp_path / "in/day/a.png")
    run([path], tmp_path / "in/out")
    assert expanded([tmp_path / "in"], recursive=True, out=tmp_path / "in/out") == [path]


def test_a_folder_of_nothing_but_folders_names_the_option_that_takes_them(tmp_path: Path) -> None:
    for name in ("x/a.png", "y/b.png"):
        write_part(tmp_path / name)
    with pytest.raises(ImageError, match="holds no image, its subfolders hold 2; --recursive takes them"):
        expanded([tmp_path])


def test_images_in_subfolders_are_not_left_out_without_a_word(tmp_path: Path) -> None:
    first = write_part(tmp_path / "a.png")
    write_part(tmp_path / "x/b.png")
    out = io.StringIO()
    assert expanded([tmp_path], progress=TerminalProgress(Console(file=out, width=300))) == [first]
    assert f"1 images in subfolders of {tmp_path} are left out; --recursive takes them" in out.getvalue()


# Sizes and levels


def test_an_image_of_a_size_that_was_not_fitted_on_has_no_verdict(tmp_path: Path) -> None:
    inspection = run([write_part(tmp_path / "a.png", height=60)], tmp_path / "out", frame_sizes=((40, 50),))
    (line,) = lines(tmp_path / "out")
    assert (line["verdict"], line["score"], inspection.exit_status(False)) == ("fault", None, 1)
    assert "has 50x60 pixels (width x height), the bundle was fitted on 50x40 pixels (width x height)" in line["reason"]


def test_an_image_of_several_pages_has_no_verdict(tmp_path: Path) -> None:
    pages = [np.full((40, 50, 3), level, np.uint8) for level in (90, 250)]
    assert cv2.imwritemulti(str(tmp_path / "a.tif"), pages)
    inspection = run([tmp_path / "a.tif"], tmp_path / "out")
    assert inspection.exit_status(False) == 1
    assert "holds 2 pictures" in lines(tmp_path / "out")[0]["reason"]


def test_twelve_bits_kept_in_sixteen_are_told_with_their_largest_value(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 50), 4095, np.uint16))
    inspection = run([tmp_path / "a.png", write_part(tmp_path / "b.png")], tmp_path / "out")
    console = Console(file=io.StringIO(), width=300)
    show_inspection(inspection, Path("out"), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 16-bit images are very dark: none has a value above 4095 of 65535 (a.png)" in text


def test_the_overview_shows_at_most_twelve_images(tmp_path: Path) -> None:
    paths = [write_part(tmp_path / f"{index}.png", red=index == 3) for index in range(14)]
    run(paths[:12], tmp_path / "twelve")
    run(paths, tmp_path / "fourteen")
    sizes = {read_image(tmp_path / name / "overview.png").shape for name in ("twelve", "fourteen")}

    assert len(sizes) == 1


def test_without_a_readable_image_there_is_no_overview(tmp_path: Path) -> None:
    run([tmp_path / "missing.png"], tmp_path / "out")

    assert not (tmp_path / "out/overview.png").exists()


@pytest.mark.parametrize(
    ("counts", "fail_on_anomaly", "status"),
    [
        ({Verdict.OK: 3}, False, 0),
        ({Verdict.OK: 3}, True, 0),
        ({Verdict.ANOMALOUS: 1}, False, 0),
        ({Verdict.ANOMALOUS: 1}, True, 1),
        ({Verdict.OK: 3, Verdict.FAULT: 1}, False, 1),
    ],
)
def test_the_exit_status_tells_images_without_a_verdict(
    counts: dict[Verdict, int], fail_on_anomaly: bool, status: int
) -> None:
    assert Inspection(Counter(counts)).exit_status(fail_on_anomaly) == status


def test_the_report_counts_verdicts_and_names_foreign_sizes() -> None:
    inspection = Inspection(Counter({Verdict.OK: 7, Verdict.ANOMALOUS: 5, Verdict.FAULT: 2}), Counter({(60, 50): 3}))
    console = Console(file=io.StringIO(), width=100)
    show_inspection(inspection, Path("out"), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]

    assert [[cell.strip() for cell in row.split("│")[1:3]] for row in text.splitlines() if "│" in row] == [
        ["ok", "7"],
        ["anomalous", "5"],
        ["no verdict", "2"],
    ]
    assert "3 images have 50x60 pixels (width x height)" in text
