"""The report is one file that opens anywhere, says what holds, and shows foreign text as text."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fbft_calibration.data.nominal import NominalImage, scan_nominal
from fbft_calibration.fitting.report import write_report
from fbft_calibration.fitting.thresholds import explain
from fbft_edge.bundle.reading import REPORT, Bundle
from fbft_edge.detectors.host import OpenVinoDetector
from fbft_edge.detectors.model import DetectorPool
from fbft_edge.frames.images import write_image
from fbft_edge.synthetic import render_part

HOSTILE = '<script>alert("1")</script>&amp;"\'</title>'

ReadPage = Callable[[str], Any]


@pytest.fixture(scope="module")
def page(small_bundle: Bundle) -> str:
    return small_bundle.file(REPORT).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(read_page: ReadPage, small_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of a bundle in which every text is an attack."""
    folder = tmp_path_factory.mktemp("hostile")
    for seed in range(4):
        write_image(folder / f"<b>{seed}&.png", render_part(seed, 140, 182).pixels)
    images: list[NominalImage] = list(scan_nominal(folder))
    bundle = dataclasses.replace(
        small_bundle,
        product=HOSTILE,
        created=HOSTILE,
        teacher=dataclasses.replace(small_bundle.teacher, name=HOSTILE),
        notes=dataclasses.replace(small_bundle.notes, left_out=((HOSTILE, HOSTILE),)),
    )
    with DetectorPool(partial(OpenVinoDetector, small_bundle)) as detectors:
        write_report(bundle, images, detectors, folder / REPORT)
    return read_page((folder / REPORT).read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_elsewhere(read_page: ReadPage, page: str) -> None:
    assert [link[:40] for link in read_page(page).links if not link.startswith("data:image/jpeg;base64,")] == []


@pytest.mark.parametrize("pattern", ["https?:", "url\\(", "@import", "<script", "<iframe", "<link"])
def test_nothing_in_it_reaches_out(page: str, pattern: str) -> None:
    assert re.findall(pattern, page) == []


def test_it_says_what_the_thresholds_hold(read_page: ReadPage, page: str, small_bundle: Bundle) -> None:
    text = read_page(page).text
    assert [line for line in explain(small_bundle.require_thresholds()) if line[1:] not in text] == []


def test_it_names_teacher_blocks_and_engine(read_page: ReadPage, page: str, small_bundle: Bundle) -> None:
    wanted = [small_bundle.teacher.name, small_bundle.teacher.weights_sha256, "blocks 5 and 8", "openvino-"]
    assert [fact for fact in wanted if fact not in read_page(page).text] == []


def test_every_held_out_image_is_a_dot_in_both_plots(read_page: ReadPage, page: str, small_bundle: Bundle) -> None:
    assert read_page(page).tags.count("circle") == 2 * small_bundle.require_thresholds().num_images


def test_the_most_unusual_images_are_shown_with_their_maps(read_page: ReadPage, page: str) -> None:
    assert read_page(page).tags.count("img") == 2 * 3


def test_it_is_laid_out_for_printing(page: str) -> None:
    assert "@media print" in page


def test_no_number_in_it_is_not_a_number(page: str) -> None:
    assert re.findall(r'[ ",](nan|inf)[ ",]', re.sub('base64,[^"]*', "", page)) == []


def test_foreign_text_never_becomes_a_tag(read_page: ReadPage, hostile: Any, page: str) -> None:
    assert sorted(set(hostile.tags)) == sorted(set(read_page(page).tags))


def test_foreign_text_is_shown_as_it_is(hostile: Any) -> None:
    assert hostile.text.count(HOSTILE) >= 4


def test_the_report_is_small_enough_to_mail(small_bundle: Bundle) -> None:
    assert Path(small_bundle.file(REPORT)).stat().st_size < 2_000_000
