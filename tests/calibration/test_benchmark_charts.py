"""Charts show every value, label every line where it ends, and keep labels apart and inside."""

from __future__ import annotations

import re
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from fbft_calibration.benchmark.charts import bar_chart, line_chart

SHARES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def labels(chart: str) -> list[tuple[float, float, str]]:
    """x, y and words of the labels at the ends of lines."""
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*text-anchor="start"[^>]*>([^<]*)<', chart)
    return [(float(x), float(y), words) for x, y, words in found]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10))
def test_labels_of_lines_never_touch(ends: list[float]) -> None:
    heights = sorted(y for _, y, _ in labels(line_chart("t", ["a"], {str(i): [end] for i, end in enumerate(ends)})))
    assert all(lower - upper > 13 for upper, lower in pairwise(heights))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=10), st.text("mw", min_size=1, max_size=25))
def test_labels_of_lines_stay_inside(ends: list[float], name: str) -> None:
    chart = line_chart("t", ["a"], {f"{name}{i}": [end] for i, end in enumerate(ends)})
    assert all(0 < y < 300 and x + 7.8 * len(words) <= 560 for x, y, words in labels(chart))


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
