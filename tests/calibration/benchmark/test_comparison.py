"""Runs are put side by side over the categories they share, the best figure of each column in bold."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbft_calibration.benchmark.comparison import (
    MARKDOWN,
    PAGE,
    means_as_html,
    means_as_markdown,
)
from fbft_calibration.benchmark.origins import cautions, mixed, origins
from fbft_calibration.benchmark.result import Run, read_run, write_result
from fbft_calibration.benchmark.tables import (
    COLUMNS,
    MISSING,
    NOT_APPLICABLE,
    markdown_table,
    markdown_text,
)
from fbft_calibration.cli import main
from fbft_calibration.pages.page import number_table


@pytest.fixture
def better(bright_run: Run, tmp_path: Path) -> Path:
    """The results of a run that finds more, and has one category that the other run lacks."""
    folder = tmp_path / "better"
    shutil.copytree(bright_run.folder, folder)
    result = bright_run.results[0]
    figures = {**result.figures, "aupro_5": 0.9999}
    write_result(dataclasses.replace(result, figures=figures), folder / "parts.json")
    write_result(dataclasses.replace(result, category="extra"), folder / "extra.json")
    return folder


@pytest.fixture
def compared(bright_run: Run, better: Path, tmp_path: Path) -> Path:
    out = tmp_path / "out"
    assert main(["benchmark", "--compare", str(bright_run.folder), str(better), "--out", str(out)]) == 0
    return out


def test_the_best_figure_of_a_column_is_bold(compared: Path) -> None:
    rows = (compared / MARKDOWN).read_text(encoding="utf-8").splitlines()
    assert [row.count("**0.9999**") for row in rows if row.startswith("| better |")] == [1, 0, 1]


def test_nothing_is_bold_where_the_files_differ(bright_run: Run, better: Path) -> None:
    other = read_run(better)
    changed = tuple(dataclasses.replace(result, data_sha256="0") for result in other.results)
    parts = list(means_as_markdown([bright_run, dataclasses.replace(other, results=changed)], ["parts"]))
    assert [part for part in parts if "**" in part] == []


def test_only_shared_categories_count_for_the_means_and_the_others_are_named(compared: Path) -> None:
    said = "the categories that all runs have: parts. Left out: extra (bright lacks it)."
    assert said in (compared / MARKDOWN).read_text(encoding="utf-8")


def test_a_category_that_a_run_lacks_is_shown_as_missing(compared: Path) -> None:
    rows = (compared / MARKDOWN).read_text(encoding="utf-8").split("### ")[1].splitlines()
    assert rows[0] == "extra"
    assert [set(row.split(" | ")[1:-1]) for row in rows if row.startswith("| bright |")] == [{MISSING}]


def test_the_page_says_what_each_run_is_and_what_its_words_mean(
    compared: Path, read_page: Callable[[str], Any], bright_run: Run
) -> None:
    text = read_page((compared / PAGE).read_text(encoding="utf-8")).text
    wanted = [
        "brightness, blocks 5 and 8",
        "in f32",
        bright_run.results[0].provenance["created"][:10],
        "students.steps",
    ]
    wanted += ["AUROC", "touched", "false alarm", "s per image", "12 good images to fit on, 4 good and 4 defective"]
    assert [words for words in wanted if words not in text] == []


def test_of_our_runs_settings_that_differ_stand_with_each_and_the_others_once(bright_run: Run) -> None:
    result = bright_run.results[0]
    other = dataclasses.replace(result, settings={**result.settings, "students": {"steps": 3}, "seed": 1})
    said = dict(origins([bright_run, Run("other", bright_run.folder, (other,))]))
    assert said["all of fbft-edge"] == "teacher brightness"
    assert ("students.steps 2, seed not recorded" in said["bright"], "students.steps 3, seed 1" in said["other"]) == (
        True,
        True,
    )


def test_a_size_is_drawn_only_where_every_category_has_it(bright_run: Run) -> None:
    result = bright_run.results[0]
    without = dataclasses.replace(result, category="other", figures={**result.figures, "size_bins": []})
    run = dataclasses.replace(bright_run, results=(result, without))
    assert "<circle" not in "".join(means_as_html([run], ["other", "parts"]))


def test_every_run_is_a_line_in_every_drawing(compared: Path) -> None:
    assert (compared / PAGE).read_text(encoding="utf-8").count("<polyline") == 2 * 2


def test_the_same_folder_twice_ends_with_status_2_and_one_line(
    bright_run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["benchmark", "--compare", *[str(bright_run.folder)] * 2, "--out", str(tmp_path)])
    assert (status, capsys.readouterr().err.count("\n")) == (2, 1)


def test_runs_of_equal_names_are_told_apart_by_the_folder_above(bright_run: Run, tmp_path: Path) -> None:
    for above in ("today", "yesterday"):
        shutil.copytree(bright_run.folder, tmp_path / above / "run")
    main(
        ["benchmark", "--compare", *(str(tmp_path / a / "run") for a in ("today", "yesterday")), "--out", str(tmp_path)]
    )
    assert "| yesterday/run |" in (tmp_path / MARKDOWN).read_text(encoding="utf-8").replace("\\", "")


def test_runs_without_a_common_category_are_refused(bright_run: Run, tmp_path: Path) -> None:
    write_result(dataclasses.replace(bright_run.results[0], category="extra"), tmp_path / "extra.json")
    assert main(["benchmark", "--compare", str(bright_run.folder), str(tmp_path), "--out", str(tmp_path)]) == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data_sha256": "0"}, "parts: not measured on the same files"),
        ({"provenance": {"machine": {"cpu": "another"}}}, "parts: not measured on the same machine"),
    ],
)
def test_what_does_not_compare_is_said(bright_run: Run, change: dict[str, object], words: str) -> None:
    other = Run("other", bright_run.folder, (dataclasses.replace(bright_run.results[0], **change),))
    assert [words in line for line in cautions([bright_run, other])] == [True]


def test_what_differs_between_files_is_named(bright_run: Run) -> None:
    result = dataclasses.replace(bright_run.results[0], data_sha256="0")
    fewer = dataclasses.replace(result, counts={**result.counts, "masks": 1})
    renamed = dataclasses.replace(result.images[0], file="parts/test/good/renamed.png")
    others = {
        "3 masks (bright); ": fewer,
        "2 test images": dataclasses.replace(result, images=(renamed, *result.images[1:])),
    }
    others["the same names"] = result
    lines = {said: cautions([bright_run, Run("o", bright_run.folder, (one,))]) for said, one in others.items()}
    assert [said for said, (line,) in lines.items() if said not in line] == []


def test_files_have_the_same_names_whether_the_data_set_or_its_category_was_named(bright_run: Run) -> None:
    result = bright_run.results[0]
    images = tuple(dataclasses.replace(i, file=i.file.removeprefix("parts/")) for i in result.images)
    other = Run("other", bright_run.folder, (dataclasses.replace(result, images=images, data_sha256="0"),))
    assert ["the same names" in line for line in cautions([bright_run, other])] == [True]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"provenance": {"machine": {"cpu": "another"}}}, "the same machine"),
        ({"provenance": {"commit": "another"}}, "another (later)"),
        ({"bundle": {"precision": "another"}}, "f32 (parts); another (later)"),
    ],
)
def test_a_mean_over_what_was_measured_differently_is_said(
    bright_run: Run, change: dict[str, dict[str, object]], words: str
) -> None:
    first = bright_run.results[0]
    changed = {name: {**getattr(first, name), **values} for name, values in change.items()}
    later = dataclasses.replace(first, category="later", **changed)
    assert [words in line for line in mixed([first, later])] == [True]
    assert mixed([first, first]) == []


def test_equal_runs_need_no_caution(bright_run: Run) -> None:
    assert cautions([bright_run, bright_run]) == []


@pytest.fixture
def without_thresholds(bright_run: Run) -> Run:
    """The same run by a detector that flags nothing."""
    result = bright_run.results[0]
    images = tuple(dataclasses.replace(image, is_flagged=None, is_located=None) for image in result.images)
    unflagged = dataclasses.replace(result, images=images, figures={**result.figures, "thresholds": None})
    return Run("other", bright_run.folder, (unflagged,))


def test_what_only_thresholds_can_tell_is_never_shown_as_0(bright_run: Run, without_thresholds: Run) -> None:
    parts = list(means_as_markdown([bright_run, without_thresholds], ["parts"]))
    row = next(line for part in parts for line in part.splitlines() if line.startswith("| other |"))
    assert row.split(" | ")[1:4] == [NOT_APPLICABLE] * 3


def test_one_note_says_what_is_not_applicable(bright_run: Run, without_thresholds: Run) -> None:
    runs = [bright_run, without_thresholds, dataclasses.replace(without_thresholds, name="third")]
    assert "".join(means_as_html(runs, ["parts"])).count("not applicable") == 1


def test_where_every_run_has_thresholds_there_is_no_such_note(bright_run: Run) -> None:
    assert "not applicable" not in "".join(means_as_html([bright_run, bright_run], ["parts"]))


def test_memory_is_shown_in_gib(bright_run: Run) -> None:
    column = next(column for column in COLUMNS if column.name == "peak_memory_gib")
    assert column.value(bright_run.results[0]) == 0.5


@pytest.mark.parametrize("name", ["image_median_s", "peak_memory_gib"])
def test_no_cost_is_called_the_best(name: str) -> None:
    assert next(column for column in COLUMNS if column.name == name).best([0.2, 0.1]) is None


def test_where_all_are_equal_none_is_called_the_best() -> None:
    assert COLUMNS[0].best([0.5, 0.50001]) is None


def test_a_lone_figure_is_not_called_the_best() -> None:
    assert COLUMNS[0].best([0.5, None]) is None


def test_a_mean_needs_every_figure(bright_run: Run) -> None:
    result = bright_run.results[0]
    without = dataclasses.replace(result, figures={**result.figures, "image_auroc": None})
    assert COLUMNS[0].mean([result, without]) is None


@pytest.mark.parametrize("text", ["a|b", "<b>", "*x*", "[x](y)", "`x`"])
def test_markdown_signs_in_text_are_escaped(text: str) -> None:
    assert markdown_text(text) != text


def test_tables_show_foreign_text_as_text() -> None:
    assert "<b>" not in number_table(["a"], [["<b>"]]) + markdown_table(["a"], [["<b>"]])
