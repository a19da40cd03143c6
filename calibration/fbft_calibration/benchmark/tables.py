"""Which figures of a result stand in tables, and tables of text as Markdown.

Knows nothing about pages.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fbft_calibration.benchmark.result import CategoryResult

NOT_THERE = "-"
MISSING = "missing"
NOT_APPLICABLE = "n/a"
NOT_APPLICABLE_NOTE = (
    f"{NOT_APPLICABLE}: not applicable; only fbft-edge has thresholds with a stated false-alarm rate, and so flags."
)

Row = Sequence[str]


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of a category.

    Attributes:
        name: In `summary.json`.
        heading: Above the column.
        value: None where the figure does not exist.
        form: Of the number.
        is_cost: Seconds or memory, which depend on what else the machine does; no cost is called the best.
    """

    name: str
    heading: str
    value: Callable[[CategoryResult], float | None]
    form: str = ".4f"
    is_cost: bool = False

    def mean(self, results: Sequence[CategoryResult]) -> float | None:
        """Over results; None unless all of them have the figure."""
        values = [value for result in results if (value := self.value(result)) is not None]
        return statistics.fmean(values) if values and len(values) == len(results) else None

    def text(self, value: float | None) -> str:
        """A value of this column."""
        return shown(value, self.form)

    def best(self, values: Sequence[float | None]) -> str | None:
        """The text of the largest of several values; None where they do not differ, and of costs."""
        known = [value for value in values if value is not None]
        do_differ = len({self.text(value) for value in known}) > 1
        return self.text(max(known)) if do_differ and not self.is_cost else None


def _column(name: str, heading: str) -> Column:
    def value(result: CategoryResult) -> float | None:
        found: float | None = result.figures.get(name)
        return found

    return Column(name, heading, value)


def _peak_memory_gib(result: CategoryResult) -> float | None:
    return None if result.peak_memory_bytes is None else result.peak_memory_bytes / 2**30


COLUMNS = (
    _column("image_auroc", "image AUROC"),
    _column("image_f1_max", "image F1 max"),
    _column("pixel_auroc", "pixel AUROC"),
    _column("pixel_ap", "pixel AP"),
    _column("pixel_f1_max", "pixel F1 max"),
    _column("aupro_30", "AUPRO 30 %"),
    _column("aupro_5", "AUPRO 5 %"),
    _column("rho_5", "rho 5 %"),
    Column("image_median_s", "s per image", lambda result: result.seconds.get("image_median"), ".3f", is_cost=True),
    Column("peak_memory_gib", "peak memory, GiB", _peak_memory_gib, ".2f", is_cost=True),
)


def shown(value: float | None, form: str = ".4f") -> str:
    """A number, or the sign for none."""
    return NOT_THERE if value is None else format(value, form)


FIGURE_HEADINGS = ("flagged", "false alarms", "defects touched", *(column.heading for column in COLUMNS))
RESULT_HEADINGS = ("category", *FIGURE_HEADINGS)


def result_rows(results: Sequence[CategoryResult]) -> list[Row]:
    """One row per category under `RESULT_HEADINGS`, and their mean where there are several."""
    rows: list[Row] = [
        (result.category, *flagged([result]), *(column.text(column.value(result)) for column in COLUMNS))
        for result in results
    ]
    if len(results) > 1:
        rows.append(("mean", *flagged(results), *(column.text(column.mean(results)) for column in COLUMNS)))
    return rows


def flagged(results: Sequence[CategoryResult]) -> tuple[str, str, str]:
    """Defective and nominal images that were flagged, defects that were touched, of all there are."""
    if not all(result.has_thresholds for result in results):
        return NOT_APPLICABLE, NOT_APPLICABLE, NOT_APPLICABLE
    thresholds = [result.figures["thresholds"] for result in results]
    return (
        _of([result.flagged(is_defective=True) for result in results]),
        _of([result.flagged(is_defective=False) for result in results]),
        _of([(figures["components_found"], figures["components"]) for figures in thresholds]),
    )


def _of(counts: Sequence[tuple[int, int]]) -> str:
    return f"{sum(part for part, _ in counts)} of {sum(whole for _, whole in counts)}"


def markdown_table(headings: Row, rows: Sequence[Row], best: Sequence[str | None] = ()) -> str:
    """A table whose columns after the first are numbers.

    Args:
        headings: Of the columns.
        rows: Text, shown as it is.
        best: By column, the text that is set in bold.
    """
    wanted = best or [None] * len(headings)
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    for row in rows:
        cells = [markdown_text(cell) for cell in row]
        lines.append([f"**{cell}**" if row[i] == wanted[i] else cell for i, cell in enumerate(cells)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in text).replace("\n", " ")
