"""Folders of results in; one page and one Markdown file that put the runs side by side out.

Means are over the categories that all runs have, so that none gains by leaving a hard one out. Knows nothing about how
figures were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console

from fbft_calibration.benchmark.charts import line_chart
from fbft_calibration.benchmark.result import CategoryResult, Run, read_run
from fbft_calibration.benchmark.tables import (
    COLUMNS,
    FIGURE_HEADINGS,
    NOT_APPLICABLE_NOTE,
    NOT_THERE,
    Column,
    Row,
    flagged,
    html_table,
    markdown_table,
    markdown_text,
)
from fbft_calibration.page import heading, paragraph, side_by_side, write_page
from fbft_edge.errors import ArgumentError

PAGE = "comparison.html"
MARKDOWN = "comparison.md"
_DRAWN_PERCENT = (30, 5)


def compare_runs(folders: Sequence[Path], out: Path, console: Console) -> None:
    """Read results and write `comparison.html` and `comparison.md`.

    Args:
        folders: Of results, one per run.
        out: Made if it does not exist.
        console: Told where it is.

    Raises:
        ArgumentError: A folder holds no results, or the runs have no category in common.
    """
    runs = _named_apart([read_run(folder) for folder in folders])
    shared = shared_categories(runs)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKDOWN).write_text("\n\n".join(_markdown(runs, shared)) + "\n", encoding="utf-8")
    write_page(out / PAGE, "Runs side by side", _page(runs, shared))
    console.print(f"open {out / PAGE}", style="bold green", markup=False)


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


def cautions(runs: Sequence[Run], shared: Sequence[str]) -> list[str]:
    """A line for whatever keeps figures from being comparable."""
    lines = [f"{run.name}: {line}" for run in runs for line in mixed(run.results)]
    for name in shared:
        results = [_result(run, name) for run in runs]
        if len({result.data_sha256 for result in results}) > 1:
            lines.append(f"{name} was not measured on the same files in all runs")
        if len({str(result.provenance["machine"]) for result in results}) > 1:
            lines.append(f"{name} was not measured on the same machine in all runs; seconds do not compare")
    return lines


def mixed(results: Sequence[CategoryResult]) -> list[str]:
    """A line for whatever is not the same in all results of one run, so that their mean is of no one thing."""
    kinds: dict[str, Callable[[CategoryResult], object]] = {
        "versions": lambda result: (result.provenance.get("versions"), result.provenance.get("commit")),
        "machines": lambda result: result.provenance["machine"],
        "precisions": lambda result: result.bundle.get("precision"),
    }
    found = {kind: {str(of(result)) for result in results} for kind, of in kinds.items()}
    return [
        f"its categories were measured with {len(values)} different {kind}; --out of its own keeps runs apart"
        for kind, values in found.items()
        if len(values) > 1
    ]


def means_as_html(runs: Sequence[Run], shared: Sequence[str]) -> Iterator[str]:
    """Means over the shared categories and what keeps them from being comparable, part by part."""
    yield paragraph(_lead(shared), "lead")
    yield from (paragraph(line, "caution") for line in cautions(runs, shared))
    yield html_table(("run", *FIGURE_HEADINGS), *_means(runs, shared))
    yield from (paragraph(line, "note") for line in _notes(runs))
    yield side_by_side(*(_drawing(runs, shared, percent) for percent in _DRAWN_PERCENT))


def means_as_markdown(runs: Sequence[Run], shared: Sequence[str]) -> Iterator[str]:
    """The same in Markdown."""
    yield markdown_text(_lead(shared))
    yield from (markdown_text(line) for line in cautions(runs, shared))
    yield markdown_table(("run", *FIGURE_HEADINGS), *_means(runs, shared))
    yield from (markdown_text(line) for line in _notes(runs))


def _lead(shared: Sequence[str]) -> str:
    return f"Means over the shared categories: {', '.join(shared)}."


def _notes(runs: Sequence[Run]) -> list[str]:
    every = all(result.has_thresholds for run in runs for result in run.results)
    return [] if every else [NOT_APPLICABLE_NOTE]


def _named_apart(runs: Sequence[Run]) -> list[Run]:
    """Runs under the names of their folders; where two are equal, with the folder above."""
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return list(runs)
    longer = [Run("/".join(run.folder.resolve().parts[-2:]), run.folder, run.results) for run in runs]
    if len({run.name for run in longer}) < len(longer):
        raise ArgumentError(f"the same folder of results is named twice among {', '.join(names)}; name each once")
    return longer


def _page(runs: Sequence[Run], shared: Sequence[str]) -> Iterator[str]:
    """HTML, part by part."""
    yield from means_as_html(runs, shared)
    for column in COLUMNS:
        yield heading(column.heading, 3)
        yield html_table(("category", *(run.name for run in runs)), _per_category(runs, column))


def _markdown(runs: Sequence[Run], shared: Sequence[str]) -> Iterator[str]:
    """Markdown, part by part."""
    yield "# Runs side by side"
    yield from means_as_markdown(runs, shared)
    for column in COLUMNS:
        yield f"## {column.heading}"
        yield markdown_table(("category", *(run.name for run in runs)), _per_category(runs, column))


def _means(runs: Sequence[Run], shared: Sequence[str]) -> tuple[list[Row], list[str | None]]:
    """A row per run, and the best text of each column."""
    of_run = [[_result(run, name) for name in shared] for run in runs]
    means = [[column.mean(results) for column in COLUMNS] for results in of_run]
    rows: list[Row] = [
        (run.name, *flagged(results), *(column.text(value) for column, value in zip(COLUMNS, values, strict=True)))
        for run, results, values in zip(runs, of_run, means, strict=True)
    ]
    best = [column.best([values[index] for values in means]) for index, column in enumerate(COLUMNS)]
    return rows, [*[None] * (len(rows[0]) - len(best)), *best]


def _per_category(runs: Sequence[Run], column: Column) -> list[Row]:
    names = sorted({result.category for run in runs for result in run.results})
    return [
        (name, *(column.text(column.value(found)) if (found := _found(run, name)) else NOT_THERE for run in runs))
        for name in names
    ]


def _drawing(runs: Sequence[Run], shared: Sequence[str], percent: int) -> str:
    lines = {run.name: [_mean_aupro(run, shared, index, percent) for index in range(4)] for run in runs}
    title = f"AUPRO {percent} % by size of the defects: smallest quarter, half, three quarters, all"
    return paragraph(title) + line_chart(title, ["Q1", "Q2", "Q3", "Q4"], lines)


def _mean_aupro(run: Run, shared: Sequence[str], index: int, percent: int) -> float | None:
    bins = [_result(run, name).figures["size_bins"] for name in shared]
    values = [part[index][f"aupro_{percent}"] for part in bins if part]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _result(run: Run, name: str) -> CategoryResult:
    return next(result for result in run.results if result.category == name)


def _found(run: Run, name: str) -> CategoryResult | None:
    return next((result for result in run.results if result.category == name), None)
