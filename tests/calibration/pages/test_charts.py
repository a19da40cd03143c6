"""Charts show every value, label every line where it ends, and keep labels apart and inside."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fbft_calibration.pages.charts import bar_chart, line_chart

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def labels(chart: str) -> list[tuple[float, float, str]]:
    """x, y and words of the labels at the ends of lines."""
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*text-anchor="start"[^>]*>([^<]*)<', chart)
    return [(float(x), float(y), words) for x, y, words in found]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_labels_of_lines_never_touch(ends: list[float]) -> None:
    heights = sorted(y for _, y, _ in labels(line_chart("t", ["a"], {str(i): [end] for i, end in enumerate(ends)})))
    assert all(lower - upper > 13 for upper, lower in pairwise(heights))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.text("mw", min_size=1, max_size=200))
def test_labels_of_lines_stay_inside(ends: list[float], name: str) -> None:
    chart = line_chart("t", ["a"], {f"{name}{i}": [end] for i, end in enumerate(ends)})
    bottom = float(re.findall(r'viewBox="0 0 560 (\d+)"', chart)[0])
    assert all(0 < y < bottom and x + 7.8 * len(words) <= 560 for x, y, words in labels(chart))


@given(st.text("mw", min_size=1, max_size=200))
def test_the_longest_names_leave_a_line_more_than_a_third_of_the_drawing(name: str) -> None:
    left, right = re.findall(r'cx="([\d.]+)"', line_chart("t", ["a", "b"], {name: [0.5, 0.5]}))
    assert 2 * (float(right) - float(left)) > 560 / 3


def test_a_shortened_name_keeps_both_ends_and_is_told_in_full_below_a_pointer() -> None:
    name = "first" + 40 * "-" + "last"
    label, in_full = re.findall(r">(first[^<]*)<title>([^<]*)<", line_chart("t", ["a"], {name: [0.5]}))[0]
    assert (label.endswith("last: 0.500"), in_full) == (True, name)


def test_no_two_of_eighteen_lines_look_alike() -> None:
    chart = line_chart("t", ["a", "b"], {str(i): [0.5, 0.5] for i in range(18)})
    assert len({re.sub('points="[^"]*"', "", line) for line in re.findall("<polyline[^>]*>", chart)}) == 18


def test_ticks_of_three_lines_stay_inside() -> None:
    chart = bar_chart("t", {"a\nb\nc": (1, 2)})
    bottom = float(re.findall(r'viewBox="0 0 560 (\d+)"', chart)[0])
    assert max(float(y) for y in re.findall(r'<text x="[\d.]+" y="([\d.]+)"', chart)) < bottom


@given(SHARES)
def test_every_value_of_a_line_is_a_point(values: list[float]) -> None:
    assert line_chart("t", [""] * len(values), {"line": values}).count("<circle") == len(values)


def test_a_value_that_does_not_exist_is_no_point() -> None:
    assert line_chart("t", ["a", "b"], {"line": [None, 0.5]}).count("<circle") == 1


def test_a_line_without_values_has_no_label() -> None:
    assert labels(line_chart("t", ["a"], {"line": [None]})) == []


def test_a_bar_says_its_counts() -> None:
    assert re.findall(r">(\d+ of \d+|none)<", bar_chart("t", {"a": (1, 4), "b": (0, 0)})) == ["1 of 4", "none"]


def test_foreign_names_are_shown_as_text() -> None:
    assert "<b>" not in line_chart("<b>", ["<b>"], {"<b>": [0.5]}) + bar_chart("<b>", {"<b>": (1, 2)})
