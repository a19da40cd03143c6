"""The report of a benchmark is one file that opens anywhere, says what holds, and shows foreign text as text."""

from __future__ import annotations

import dataclasses
import html
import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbft_calibration.benchmark.report import MARKDOWN, REPORT, in_words, write_summary
from fbft_calibration.benchmark.result import CategoryResult, Run, read_result, read_run, write_result
from fbft_edge.errors import ArgumentError

WRITTEN = (REPORT, MARKDOWN, "summary.json")
HOSTILE = "<script>alert('1')</script>&amp;|`*_</title>"

ReadPage = Callable[[str], Any]


@pytest.fixture(scope="module")
def folder(bright_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("report")
    write_summary(bright_run, out)
    return out


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return (folder / REPORT).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def hostile(read_page: ReadPage, bright_run: Run, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The report of results in which every text is an attack."""
    result = bright_run.results[0]
    types = [{**kind, "defect_type": HOSTILE} for kind in result.figures["types"]]
    attack = dataclasses.replace(
        result,
        category=HOSTILE,
        dataset=HOSTILE,
        layout=HOSTILE,
        settings={HOSTILE: HOSTILE},
        figures={**result.figures, "types": types},
        pictures=tuple(dataclasses.replace(picture, caption=HOSTILE) for picture in result.pictures),
        problems=(HOSTILE,),
    )
    out = tmp_path_factory.mktemp("hostile")
    write_summary(dataclasses.replace(bright_run, results=(attack,)), out)
    return read_page((out / REPORT).read_text(encoding="utf-8"))


def test_nothing_is_loaded_from_elsewhere(read_page: ReadPage, page: str) -> None:
    assert [link[:40] for link in read_page(page).links if not link.startswith("data:image/jpeg;base64,")] == []


@pytest.mark.parametrize("pattern", ["https?:", "url\\(", "@import", "<script", "<iframe", "<link"])
def test_nothing_in_it_reaches_out(page: str, pattern: str) -> None:
    assert re.findall(pattern, page) == []


def test_every_picture_is_inside(read_page: ReadPage, page: str, bright_run: Run) -> None:
    assert read_page(page).tags.count("img") == len(bright_run.results[0].pictures) > 0


def test_pictures_come_before_curves_and_those_before_facts(page: str) -> None:
    assert page.index("<img") < page.index("<polyline") < page.index("Facts")


def test_scores_can_be_held_against_the_thresholds(page: str, bright_run: Run) -> None:
    thresholds = bright_run.results[0].bundle["thresholds"]
    assert f"its score exceeds {thresholds['image']:.4g}, or its anomaly map {thresholds['pixel']:.4g}" in page


def test_what_is_wrong_with_files_is_counted_before_the_pictures_and_listed_after_everything(
    page: str, bright_run: Run
) -> None:
    counted = ["1 of 8 test images cannot be read", "2 of 4 defective images have no usable mask"]
    above, below = page.split("<img", 1)
    assert [above.count(line) for line in counted] == [1, 1]
    listed = below.split("<h3>Facts")[1].split("<h2>Words")[0]
    assert [line for line in bright_run.results[0].problems if listed.count(line) != 1] == []


def test_what_concerns_more_than_single_files_stands_above_the_pictures(bright_run: Run, tmp_path: Path) -> None:
    result = dataclasses.replace(bright_run.results[0], cautions=("3 of them are upside down",))
    write_summary(dataclasses.replace(bright_run, results=(result,)), tmp_path)
    assert "upside down" in (tmp_path / REPORT).read_text(encoding="utf-8").split("<img")[0]


def test_a_category_that_could_not_be_measured_is_named_above_the_table_and_in_the_summary(
    bright_run: Run, tmp_path: Path
) -> None:
    write_summary(dataclasses.replace(bright_run, refused={"cups": "it has no <b>image</b>"}), tmp_path)
    page, markdown, summary = ((tmp_path / name).read_text(encoding="utf-8") for name in WRITTEN)
    said = "Caution: cups could not be measured: it has no"
    assert said in page.split("<table>")[0]
    assert said in markdown.split("| ---")[0]
    assert json.loads(summary)["refused"] == {"cups": "it has no <b>image</b>"}


def test_every_problem_has_its_line(read_page: ReadPage, page: str, bright_run: Run) -> None:
    text = read_page(page).text
    assert [line for line in bright_run.results[0].problems if text.count(line) != 1] == []


def test_every_type_has_its_row(page: str) -> None:
    assert {"pit", "scratch"} <= set(re.findall(r"<td>(\w+)", page))


def test_a_size_bin_is_a_point_on_every_line(read_page: ReadPage, page: str) -> None:
    assert read_page(page).tags.count("circle") == 4 * 4


def test_no_number_in_it_is_not_a_number(page: str) -> None:
    assert re.findall(r'[ ",>](nan|inf|None)[ ",<]', re.sub('base64,[^"]*', "", page)) == []


def sized(run: Run, **figures: object) -> CategoryResult:
    """The run's result with other figures at the thresholds."""
    result = run.results[0]
    return dataclasses.replace(
        result, figures={**result.figures, "thresholds": {**result.figures["thresholds"], **figures}}
    )


MISSED = {"components": 9, "components_found": 6, "smallest_found_px": 3.0, "smallest_found_mm": None}
MISSED |= {"largest_missed_px": 20.0, "largest_missed_mm": None}


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (5, "20 px across, and all 5 larger ones were touched (48% to 100% in the long run);"),
        (1, "20 px across, and the only larger one was touched (3% to 100% in the long run);"),
        (0, "20 px across, and none was larger;"),
        (None, "20 px across;"),
    ],
)
def test_words_say_how_many_defects_were_larger_than_the_largest_missed(
    bright_run: Run, count: int | None, words: str
) -> None:
    said = in_words(sized(bright_run, **MISSED, components_larger=count))
    assert ("6 of 9 defects were touched, the smallest 3 px across;" in said, words in said) == (True, True)


def test_where_nothing_was_missed_words_say_how_far_so_few_defects_can_be_trusted(bright_run: Run) -> None:
    said = in_words(sized(bright_run, components=9, components_found=9))
    assert "All 9 defects were touched (66% to 100% in the long run), the smallest" in said


def test_shares_of_a_size_have_their_range(bright_run: Run, tmp_path: Path) -> None:
    sizes = [
        {**size, "components": 5, "components_found": 5}
        for size in bright_run.results[0].figures["thresholds"]["sizes"]
    ]
    write_summary(dataclasses.replace(bright_run, results=(sized(bright_run, sizes=sizes),)), tmp_path)
    assert (tmp_path / MARKDOWN).read_text(encoding="utf-8").count("| 5 | 5 | 48% to 100% |") == len(sizes)


@pytest.mark.parametrize(("pixel_size_mm", "length"), [(0.05, "Q4, to 20 px, to 1 mm"), (None, "Q4, to 20 px")])
def test_bins_of_size_are_told_as_diameters_in_millimetres_too(
    bright_run: Run, tmp_path: Path, pixel_size_mm: float | None, length: str
) -> None:
    result = bright_run.results[0]
    bins = [{**part, "largest_area_px": 100 * math.pi} for part in result.figures["size_bins"]]
    settings, figures = {**result.settings, "pixel_size_mm": pixel_size_mm}, {**result.figures, "size_bins": bins}
    told = dataclasses.replace(result, settings=settings, figures=figures)
    write_summary(dataclasses.replace(bright_run, results=(told,)), tmp_path)
    assert f"| {length} |" in (tmp_path / MARKDOWN).read_text(encoding="utf-8")


def test_the_error_of_the_papers_thresholds_is_stated(page: str, bright_run: Run) -> None:
    assert f"thresholds within {bright_run.results[0].figures['paper_quantisation_error']:.1e}" in html.unescape(page)


def test_words_are_explained(page: str) -> None:
    wanted = ["flagged", "false alarm", "marked", "touched", "image score", "anomaly map", "AP", "F1 max", "teacher"]
    wanted += ["tiles", "s per image", "in the long run"]
    assert [word for word in wanted if f"<tr><th>{word}<td>" not in page] == []


def test_foreign_text_never_becomes_a_tag(read_page: ReadPage, hostile: Any, page: str) -> None:
    assert set(hostile.tags) <= set(read_page(page).tags)


def test_foreign_text_is_shown_as_it_is(hostile: Any) -> None:
    assert hostile.text.count(HOSTILE) >= 8


def test_every_picture_of_the_markdown_is_a_file(folder: Path, bright_run: Run) -> None:
    files = re.findall(r"!\[.*\]\(<(.*)>\)", (folder / MARKDOWN).read_text(encoding="utf-8"))
    assert [(bright_run.folder / file).is_file() for file in files] == [True] * len(bright_run.results[0].pictures)


def test_rows_of_a_markdown_table_are_as_long_as_its_head(folder: Path) -> None:
    blocks = (folder / MARKDOWN).read_text(encoding="utf-8").split("\n\n")
    lengths = [{line.count("|") for line in block.splitlines()} for block in blocks if block.startswith("|")]
    assert [len(length) for length in lengths] == [1] * len(lengths)


def test_the_summary_has_the_figures_of_the_results(folder: Path, bright_run: Run) -> None:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert summary["categories"]["parts"]["pixel_auroc"] == bright_run.results[0].figures["pixel_auroc"]


def test_several_categories_have_a_mean(bright_run: Run, tmp_path: Path) -> None:
    result = bright_run.results[0]
    other = dataclasses.replace(result, category="other", figures={**result.figures, "image_auroc": 0.0})
    write_summary(dataclasses.replace(bright_run, results=(result, other)), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["mean"]["image_auroc"] == result.figures["image_auroc"] / 2


def test_words_name_what_was_flagged_and_the_pixel_size_in_millimetres(bright_run: Run) -> None:
    assert re.search(
        r"of 4 defective images .* of 3 good ones .* defects .* px \(.* mm\)", in_words(bright_run.results[0])
    )


def located(bright_run: Run, *located: bool | None) -> CategoryResult:
    """Flagged defective images, at the defect or not; and one that was missed."""
    template = next(image for image in bright_run.results[0].images if image.is_defective)
    images = [dataclasses.replace(template, is_flagged=True, is_located=which) for which in located]
    missed = dataclasses.replace(template, is_flagged=False, is_located=False)
    return dataclasses.replace(bright_run.results[0], images=(*images, missed))


@pytest.mark.parametrize(
    ("which", "words"),
    [
        (
            (True, False, None, None),
            "4 of 5 defective images were flagged (1 of the 2 with a usable mask at the defect);",
        ),
        ((True, False), "2 of 3 defective images were flagged (1 of them at the defect);"),
        ((None, None), "2 of 3 defective images were flagged;"),
    ],
)
def test_images_without_a_mask_say_nothing_about_where_they_were_flagged(
    bright_run: Run, which: tuple[bool | None, ...], words: str
) -> None:
    assert in_words(located(bright_run, *which)).startswith(words)


def test_words_without_a_good_image_are_whole_sentences(bright_run: Run) -> None:
    said = in_words(located(bright_run, True))
    assert re.match(r"1 of 2 defective images were flagged \(.*\); with 95% confidence, that is \d+% to \d+% in", said)


def test_a_result_of_an_earlier_version_is_read(bright_run: Run, tmp_path: Path) -> None:
    write_result(bright_run.results[0], tmp_path / "parts.json")
    contents = json.loads((tmp_path / "parts.json").read_text(encoding="utf-8"))
    del contents["cautions"]
    (tmp_path / "parts.json").write_text(json.dumps(contents, indent=2), encoding="utf-8")
    assert read_result(tmp_path / "parts.json").cautions == ()


def test_a_result_is_read_as_it_was_written(bright_run: Run, tmp_path: Path) -> None:
    write_result(bright_run.results[0], tmp_path / "parts.json")
    assert read_result(tmp_path / "parts.json").images == bright_run.results[0].images


@pytest.mark.parametrize("contents", ["", "[]", "{}", '{"schema": "fbft.benchmark/1"}', '{"schema": "other"}'])
def test_what_is_no_result_is_refused(tmp_path: Path, contents: str) -> None:
    (tmp_path / "parts.json").write_text(contents, encoding="utf-8")
    with pytest.raises(ArgumentError, match="not a benchmark result"):
        read_result(tmp_path / "parts.json")


def test_other_json_files_beside_results_do_no_harm(bright_run: Run, tmp_path: Path) -> None:
    write_result(bright_run.results[0], tmp_path / "parts.json")
    (tmp_path / "notes.json").write_text("{}", encoding="utf-8")
    assert [result.category for result in read_run(tmp_path).results] == ["parts"]
