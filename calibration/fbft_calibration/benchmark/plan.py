"""What of a data set is measured: chosen categories, what each holds, and by what its files are known again.

Knows nothing about detectors, figures or results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.table import Table

from fbft_calibration.benchmark.result import SUMMARY
from fbft_calibration.layouts import Category
from fbft_edge.errors import ArgumentError


def choose(found: Sequence[Category], names: Sequence[str], root: Path) -> list[Category]:
    """The categories of these names, in the data set's order; all of them when there is no name.

    Raises:
        ArgumentError: A name that the data set does not have.
    """
    unknown = sorted(set(names) - {category.name for category in found})
    if unknown:
        raise ArgumentError(
            f"{root} has no category {', '.join(unknown)}; choose from {', '.join(c.name for c in found)}"
        )
    return [category for category in found if not names or category.name in names]


def category_table(found: Sequence[Category], title: str) -> Table:
    """What a data set holds."""
    table = Table("category", "layout", "nominal", "test good", "test defective", "masks", title=title)
    for column in table.columns[2:]:
        column.justify = "right"
    for category in found:
        table.add_row(category.name, category.layout, *(str(count) for count in counts(category).values()))
    return table


def counts(category: Category) -> dict[str, int]:
    """Images by what they are: `nominal`, `test_nominal`, `test_defective`; and `masks` of the latter."""
    defective = [test for test in category.tests if test.is_defective]
    return {
        "nominal": len(category.nominal),
        "test_nominal": len(category.tests) - len(defective),
        "test_defective": len(defective),
        "masks": sum(test.mask is not None for test in defective),
    }


def require_own_file(category: Category) -> None:
    """Stop here if a category's name would put its results in the place of the summary, or of anything elsewhere.

    Raises:
        ArgumentError: It would.
    """
    name = category.name
    if name in (SUMMARY, "..") or Path(name).name != name:
        raise ArgumentError(f"{name!r} cannot name results: {name}.json has another use; rename the category")


def data_sha256(category: Category, root: Path) -> str:
    """Identity of a category's files: their names below `root` and their sizes; contents are not read."""
    tests = [path for test in category.tests for path in (test.path, test.mask) if path]
    return listing_sha256((*category.nominal, *tests), root)


def listing_sha256(paths: Iterable[Path], root: Path) -> str:
    """Identity of files: their names below `root` and their sizes; contents are not read."""
    listing = [(path.relative_to(root).as_posix(), path.stat().st_size if path.is_file() else None) for path in paths]
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
