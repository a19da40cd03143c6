"""A report's strips show the few images that tell most, the true defect in blue and what was found in amber."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fbft_calibration.benchmark.pictures import (
    CLEAREST,
    HARDEST,
    PANELS,
    SUSPICIOUS,
    Album,
    picture_strip,
    verdict_in_words,
)
from fbft_calibration.benchmark.result import InspectedImage
from fbft_edge.detectors.judge import find_regions
from fbft_edge.frames.frame import Bool, Detection, Float32, Uint8
from fbft_edge.frames.images import read_image

BLUE, AMBER = (70, 140, 255), (255, 176, 0)
SIZE = (200, 500)


def image(
    score: float, *, is_defective: bool = True, is_flagged: bool | None = True, is_located: bool | None = True
) -> InspectedImage:
    return InspectedImage(f"{score}.png", "pit", is_defective, score, is_flagged, is_located, 0.1)


def square(top: int, left: int, side: int) -> Bool:
    mask = np.zeros(SIZE, np.bool_)
    mask[top : top + side, left : left + side] = True
    return mask


def found_in(mask: Bool) -> tuple[Detection, Float32]:
    anomaly_map = mask.astype(np.float32)
    return Detection(1.0, 1.0, mask, find_regions(mask, anomaly_map), bool(mask.any())), anomaly_map


def panels_of(truth: Bool | None, mask: Bool) -> list[Uint8]:
    strip = picture_strip(np.full((*SIZE, 3), 120, np.uint8), truth, *found_in(mask), full_scale=1.0)
    return [strip[:, start : start + 300] for start in range(0, strip.shape[1], 306)]


def has(panel: Uint8, colour: tuple[int, int, int]) -> bool:
    return bool((panel == colour).all(axis=2).any())


def test_a_strip_has_a_panel_for_every_name() -> None:
    assert [panel.shape for panel in panels_of(square(50, 50, 20), square(52, 52, 20))] == [(300, 300, 3)] * len(PANELS)


@pytest.mark.parametrize(("panel", "colours"), [(0, (True, True)), (1, (False, False)), (2, (True, True))])
def test_outlines_stand_in_the_whole_picture_and_in_the_marked_close_up(panel: int, colours: tuple[bool, bool]) -> None:
    shown = panels_of(square(50, 50, 20), square(60, 60, 20))[panel]
    assert (has(shown, BLUE), has(shown, AMBER)) == colours


def test_a_true_defect_of_one_pixel_is_outlined_in_the_whole_picture() -> None:
    assert has(panels_of(square(100, 400, 1), np.zeros(SIZE, np.bool_))[0], BLUE)


def test_the_close_up_shows_the_defect_that_was_not_touched() -> None:
    truth = square(20, 20, 60) | square(150, 450, 8)
    assert not has(panels_of(truth, square(20, 20, 60))[2], AMBER)


def test_the_close_up_of_what_stands_out_shows_the_largest_defect_that_was_touched(tmp_path: Path) -> None:
    pixels = np.full((*SIZE, 3), 120, np.uint8)
    untouched, larger, smaller = square(10, 10, 60), square(120, 430, 20), square(190, 490, 4)
    found = found_in(larger | smaller)
    album = Album(1.0, num_each=1)
    for score in (0.1, 0.9):
        album.offer(pixels, untouched | larger | smaller, *found, image(score))
    shown = [read_image(tmp_path / picture.file) for picture in album.write(tmp_path / "pictures", tmp_path)]
    wanted = [picture_strip(pixels, one, *found, full_scale=1.0) for one in (untouched, larger)]
    close_up = slice(612, 912)
    differences = [
        np.abs(a[:, close_up].astype(int) - b[:, close_up]).mean() for a, b in zip(shown, wanted, strict=True)
    ]
    assert max(differences) < 5


def test_a_close_up_of_a_good_part_shows_what_was_marked() -> None:
    assert has(panels_of(np.zeros(SIZE, np.bool_), square(150, 450, 8))[2], AMBER)


def album_of(*images: InspectedImage) -> Album:
    album = Album(1.0, num_each=2)
    for entry in images:
        mask = square(50, 50, 20)
        album.offer(np.full((*SIZE, 3), 120, np.uint8), mask if entry.is_defective else None, *found_in(mask), entry)
    return album


def captions(album: Album, group: str, folder: Path) -> list[str]:
    return [p.caption.split(":")[0] for p in album.write(folder / "pictures", folder) if p.group == group]


def test_missed_defects_come_before_the_lowest_scores(tmp_path: Path) -> None:
    album = album_of(image(0.1), image(0.3, is_flagged=False, is_located=False), image(0.2), image(0.9))
    assert captions(album, HARDEST, tmp_path) == ["0.3.png", "0.1.png"]


def test_the_highest_scores_stand_out_most(tmp_path: Path) -> None:
    album = album_of(*(image(score / 10) for score in range(1, 7)))
    assert captions(album, CLEAREST, tmp_path) == ["0.6.png", "0.5.png"]


def test_false_alarms_are_more_suspicious_than_good_parts_that_passed(tmp_path: Path) -> None:
    good = [
        image(0.5, is_defective=False, is_flagged=False),
        image(0.4, is_defective=False),
        image(0.1, is_defective=False),
    ]
    assert captions(album_of(*good), SUSPICIOUS, tmp_path) == ["0.4.png", "0.1.png"]


def test_without_verdicts_the_scores_decide(tmp_path: Path) -> None:
    album = album_of(*(image(score / 10, is_flagged=None, is_located=None) for score in range(1, 5)))
    assert captions(album, HARDEST, tmp_path) == ["0.1.png", "0.2.png"]


def test_what_was_flagged_without_a_mask_stands_between_what_was_not_found_and_what_was(tmp_path: Path) -> None:
    album = album_of(image(0.1), image(0.9, is_located=None), image(0.8, is_located=False))
    assert captions(album, HARDEST, tmp_path) == ["0.8.png", "0.9.png"]


def test_no_image_is_shown_twice(tmp_path: Path) -> None:
    pictures = album_of(image(0.1), image(0.2)).write(tmp_path / "pictures", tmp_path)
    assert len({picture.caption for picture in pictures}) == len(pictures) == 2


def test_strips_of_an_earlier_run_are_gone(tmp_path: Path) -> None:
    album_of(*(image(score / 10) for score in range(1, 7))).write(tmp_path / "pictures", tmp_path)
    pictures = album_of(image(0.1)).write(tmp_path / "pictures", tmp_path)
    assert [path.name for path in (tmp_path / "pictures").iterdir()] == [Path(pictures[0].file).name]


def test_every_picture_is_a_file_below_the_root(tmp_path: Path) -> None:
    pictures = album_of(image(0.1)).write(tmp_path / "part/pictures", tmp_path)
    assert [read_image(tmp_path / picture.file).shape for picture in pictures] == [(300, 1218, 3)]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (image(1), "found"),
        (image(1, is_located=None), "flagged, no mask to say where"),
        (image(1, is_located=False), "flagged, but not at the defect"),
        (image(1, is_flagged=False), "missed"),
        (image(1, is_flagged=None, is_located=None), "no verdict"),
        (image(1, is_defective=False, is_flagged=None), "no verdict"),
        (image(1, is_defective=False), "false alarm"),
        (image(1, is_defective=False, is_flagged=False), "passed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_verdict_is_worth_what_is_true(entry: InspectedImage, words: str) -> None:
    assert verdict_in_words(entry) == words
