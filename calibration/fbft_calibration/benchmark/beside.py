"""Our own run and those of peers in; the section of the report that puts them side by side out.

Knows nothing about how figures were found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from markupsafe import Markup

from fbft_calibration.benchmark.comparison import means_as_html, means_as_markdown, shared_categories
from fbft_calibration.benchmark.origins import origins
from fbft_calibration.benchmark.result import Run
from fbft_calibration.benchmark.tables import markdown_text
from fbft_calibration.pages.page import fact_table, heading, paragraph
from fbft_calibration.peers import NOT_RUN
from fbft_edge.errors import ArgumentError

TITLE = "Beside other methods"

_OURS = "fbft-edge"
_NOT_RUN = "Not run"


def beside_as_html(run: Run, peers: Sequence[Run], failed: Mapping[str, str]) -> Iterator[Markup]:
    """The section, part by part.

    Args:
        run: Ours.
        peers: Those that finished something; may be none.
        failed: What failed, with its cause.
    """
    yield heading(TITLE, 2)
    yield from (paragraph(line, "note") for line in _conditions(run))
    runs = _named(run, peers)
    try:
        yield from means_as_html(runs, shared_categories(runs))
    except ArgumentError as error:
        yield paragraph(str(error), "caution")
    yield fact_table(origins(peers))
    yield heading(_NOT_RUN, 3)
    yield fact_table({**failed, **NOT_RUN}.items())


def beside_as_markdown(run: Run, peers: Sequence[Run], failed: Mapping[str, str]) -> Iterator[str]:
    """The same in Markdown."""
    yield f"## {TITLE}"
    yield from (markdown_text(line) for line in _conditions(run))
    runs = _named(run, peers)
    try:
        yield from means_as_markdown(runs, shared_categories(runs))
    except ArgumentError as error:
        yield markdown_text(str(error))
    yield "\n".join(f"- {markdown_text(f'{name}: {said}')}" for name, said in origins(peers))
    yield f"### {_NOT_RUN}"
    yield "\n".join(f"- {markdown_text(f'{name}: {cause}')}" for name, cause in {**failed, **NOT_RUN}.items())


def _named(run: Run, peers: Sequence[Run]) -> list[Run]:
    return [Run(_OURS, run.folder, run.results), *peers]


def _conditions(run: Run) -> Iterator[str]:
    """What is equal for all methods, and what is not."""
    fitted_on = sum(result.bundle["fitted_on"] for result in run.results)
    kept = sum(result.bundle["thresholds"]["num_images"] for result in run.results)
    nominal = sum(result.counts["nominal"] for result in run.results)
    yield (
        "All methods were given the same good images and the same test images, and the same code made their figures. "
        f"{_OURS} is fitted on {fitted_on} of the {nominal} good images and finds its thresholds on {kept} others; "
        "the others have no such thresholds and are fitted on all of them."
    )
