"""A page shows as text whatever no template made, and is there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from fbft_calibration.pages.page import fact_table, figure, heading, inline_jpeg, number_table, paragraph, write_page

HOSTILE = '<b class="x">\'&amp;'


def written(folder: Path, *parts: str) -> str:
    write_page(folder / "page.html", HOSTILE, parts)
    return (folder / "page.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "part",
    [
        HOSTILE,
        paragraph(HOSTILE),
        heading(HOSTILE, 2),
        fact_table([(HOSTILE, HOSTILE)]),
        number_table([HOSTILE], [[HOSTILE]]),
        figure([inline_jpeg(b"")], HOSTILE),
    ],
)
def test_text_never_becomes_a_tag(part: str, tmp_path: Path) -> None:
    page = written(tmp_path, part)
    assert ("<b " in page, "&lt;b class" in page.split("</h1>")[1]) == (False, True)


def test_a_template_is_not_escaped_again(tmp_path: Path) -> None:
    assert "<p>a &amp; b</p>" in written(tmp_path, paragraph("a & b"))


def test_the_best_of_a_column_is_bold_and_numbers_stand_to_the_right() -> None:
    table = number_table(["name", "score"], [["a", "1"], ["b", "2"]], [None, "2"])
    assert table.count('<td class="n">1') == table.count('<td class="n best">2') == 1


def test_a_page_that_fails_leaves_the_one_that_was_there(tmp_path: Path) -> None:
    before = written(tmp_path, paragraph("good"))
    with pytest.raises(ZeroDivisionError):
        write_page(tmp_path / "page.html", "t", (paragraph(str(1 / number)) for number in (1, 0)))
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == before
