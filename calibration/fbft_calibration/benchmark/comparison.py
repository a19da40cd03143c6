"""Folders of results in; one page and one Markdown file that put the runs side by side out.

Means are over the categories that all runs have, so that none gains by leaving a hard one out. Knows nothing about how
figures were found.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from fbft_calibration.benchmark.glossary import glossary
from fbft_calibration.benchmark.origins import are_of_same_files, cautions, every_category, images_in_words, origins
from fbft_calibration.benchmark.result import Run, read_run
from fbft_calibration.benchmark.tables import (
    COLUMNS,
    FIGURE_HEADINGS,
    MISSING,
    NOT_APPLICABLE_NOTE,
    Row,
    flagged,
    markdown_table,
    markdown_text,
)
from fbft_calibration.pages.charts import line_chart
from fbft_calibration.pages.page import fact_table, heading, number_table, paragraph, side_by_side, write_page
from fbft_edge.errors import ArgumentError
from fbft_edge.progress import SILENT, Progress

PAGE = "comparison.html"
MARKDOWN = "comparison.md"
_DRAWN_PERCENT = (30, 5)
_RUNS = "What the runs are"
_CATEGORIES = "Category by category"
_BOLD = (
    "Bold: the best of its column as printed, where all were measured on the same files. A small lead on few images "
    "may be chance. Seconds and memory are not bold: what else the machine did moves them."
)
_COST = (
    "Other methods are fitted on all good images and see them scaled to the size that is told of them; fbft-edge keeps "
    "some for its thresholds, and sees native pixels unless its scale says otherwise. Seconds of others end with map "
    "and score, ours with the verdict. Peak memory of ours is that of a process that opens the bundle, as on the line; "
    "the others were fitted in the same process, and what that left behind counts."
)


def compare_runs(folders: Sequence[Path], out: Path, progress: Progress = SILENT) -> None:
    """Read results and write `comparison.html` and `comparison.md`.

    Args:
        folders: Of results, one per run.
        out: Made if it does not exist.
        progress: Told where it is.

    Raises:
        ArgumentError: A folder holds no results, or the runs have no category in common.
    """
    runs = _named_apart([read_run(folder) for folder in folders])
    shared = shared_categories(runs)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKDOWN).write_text("\n\n".join(_markdown(runs, shared)) + "\n", encoding="utf-8")
    write_page(out / PAGE, "Runs side by side", _page(runs, shared))
    progress.say(f"open {out / PAGE}", "done")


def shared_categories(runs: Sequence[Run]) -> list[str]:
    """Names of the categories that every run has.

    Raises:
        ArgumentError: There is none.
    """
    names = [{result.category for result in run.results} for run in runs]
    shared = sorted(set.intersection(*names))
    if not shared:
        held = "; ".join(f"{run.name}: {', '.join(sorted(own))}" for run, own in zip(runs, names, strict=True))
        raise ArgumentError(f"the runs have no category in common ({held}); measure one with all of them")
    return shared


def means_as_html(runs: Sequence[Run], shared: Sequence[str]) -> Iterator[Markup]:
    """Means over the shared categories and what keeps them from being comparable, part by part."""
    yield paragraph(_lead(runs, shared), "lead")
    yield from (paragraph(line, "caution") for line in cautions(runs))
    yield number_table(("run", *FIGURE_HEADINGS), *_rows(runs, shared))
    yield from (paragraph(line, "note") for line in _notes(runs))
    yield side_by_side(*(_drawing(runs, shared, percent) for percent in _DRAWN_PERCENT))


def means_as_markdown(runs: Sequence[Run], shared: Sequence[str]) -> Iterator[str]:
    """The same in Markdown."""
    yield markdown_text(_lead(runs, shared))
    yield from (markdown_text(line) for line in cautions(runs))
    yield markdown_table(("run", *FIGURE_HEADINGS), *_rows(runs, shared))
    yield from (markdown_text(line) for line in _notes(runs))


def _lead(runs: Sequence[Run], shared: Sequence[str]) -> str:
    left_out = [f"{name} ({_lacking(runs, name)})" for name in every_category(runs) if name not in shared]
    ending = f" Left out: {'; '.join(left_out)}." if left_out else ""
    return (
        f"Means, and sums of images and defects, over the categories that all runs have: {', '.join(shared)}.{ending}"
    )


def _lacking(runs: Sequence[Run], name: str) -> str:
    lacking = [run.name for run in runs if run.find(name) is None]
    return f"{', '.join(lacking)} {'lacks' if len(lacking) == 1 else 'lack'} it"


def _notes(runs: Sequence[Run]) -> list[str]:
    every = all(result.has_thresholds for run in runs for result in run.results)
    return [_BOLD] if every else [_BOLD, NOT_APPLICABLE_NOTE, _COST]


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs under the names of their folders; where two are equal, with the folder above."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return list(runs)
    longer = [Run("/".join(run.folder.resolve().parts[-2:]), run.folder, run.results) for run in runs]
    if len({run.name for run in longer}) < len(longer):
        raise ArgumentError(f"the same folder of results is named twice among {', '.join(names)}; name each once")
    return longer


def _page(runs: Sequence[Run], shared: Sequence[str]) -> Iterator[Markup]:
    """HTML, part by part."""
    yield from means_as_html(runs, shared)
    yield heading(_RUNS, 2)
    yield fact_table(origins(runs))
    yield heading(_CATEGORIES, 2)
    for name in every_category(runs):
        yield heading(name, 3)
        yield paragraph(_images(runs, name), "note")
        yield number_table(("run", *FIGURE_HEADINGS), *_rows(runs, [name]))
    yield from glossary()


def _markdown(runs: Sequence[Run], shared: Sequence[str]) -> Iterator[str]:
    """Markdown, part by part."""
    yield "# Runs side by side"
    yield from means_as_markdown(runs, shared)
    yield f"## {_RUNS}"
    yield "\n".join(f"- {markdown_text(f'{name}: {said}')}" for name, said in origins(runs))
    yield f"## {_CATEGORIES}"
    for name in every_category(runs):
        yield f"### {markdown_text(name)}"
        yield markdown_text(_images(runs, name))
        yield markdown_table(("run", *FIGURE_HEADINGS), *_rows(runs, [name]))


def _rows(runs: Sequence[Run], names: Sequence[str]) -> tuple[list[Row], list[str | None]]:
    """A row per run, its means over these categories, and the best text of each column."""
    of_run = [[found for name in names if (found := run.find(name))] for run in runs]
    means = [[column.mean(results) for column in COLUMNS] for results in of_run]
    rows: list[Row] = [
        (run.name, *flagged(results), *(column.text(value) for column, value in zip(COLUMNS, values, strict=True)))
        if results
        else (run.name, *[MISSING] * len(FIGURE_HEADINGS))
        for run, results, values in zip(runs, of_run, means, strict=True)
    ]
    compare = all(are_of_same_files([found for run in runs if (found := run.find(name))]) for name in names)
    best = [
        column.best([values[index] for values in means]) if compare else None for index, column in enumerate(COLUMNS)
    ]
    return rows, [*[None] * (len(rows[0]) - len(best)), *best]


def _images(runs: Sequence[Run], name: str) -> str:
    return "; ".join(dict.fromkeys(images_in_words(found) for run in runs if (found := run.find(name)))) + "."


def _drawing(runs: Sequence[Run], shared: Sequence[str], percent: int) -> Markup:
    lines = {run.name: [_mean_aupro(run, shared, index, percent) for index in range(4)] for run in runs}
    title = f"AUPRO {percent} % by size of the defects, the smallest quarter to all"
    return paragraph(title) + line_chart(title, ["Q1", "Q2", "Q3", "Q4"], lines)


def _mean_aupro(run: Run, shared: Sequence[str], index: int, percent: int) -> float | None:
    """None unless all of these categories have the figure."""
    bins = [result.figures["size_bins"] for name in shared if (result := run.find(name))]
    values = [part[index][f"aupro_{percent}"] for part in bins if part]
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(shared) else None
