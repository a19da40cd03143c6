"""What of a data set is measured: chosen categories, what each holds, and by what its files are known again.

Knows nothing about detectors, figures or results.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from fbft_calibration.benchmark.result import SUMMARY
from fbft_calibration.data.layouts import Category
from fbft_calibration.data.nominal import MIN_IMAGES
from fbft_edge.errors import ArgumentError
from fbft_edge.plain_file import file_sha256


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


def listing_problems(found: Sequence[Category]) -> list[str]:
    """A line for whatever is seen to be wrong with categories before any of their files is opened."""
    lines = []
    for category in found:
        lines += [f"{category.name}: {problem}" for problem in category.problems]
        if 0 < len(category.nominal) < MIN_IMAGES:
            lines.append(
                f"{category.name}: {len(category.nominal)} nominal images, at least {MIN_IMAGES} are needed; add "
                "images of good parts, a few dozen serve well"
            )
    return lines


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


def data_sha256(category: Category) -> str:
    """Identity of a category's images and masks: names and contents, wherever they lie, and the types of defects."""
    types = [test.defect_type for test in category.tests]
    tests = [path for test in category.tests for path in (test.path, *(test.mask_files or (None,)))]
    return _sha256([types, _listing(category.nominal), _listing(tests)])


def nominal_sha256(category: Category) -> str:
    """Identity of the images that a category is fitted on: names and contents, wherever they lie."""
    return _sha256(_listing(category.nominal))


def _listing(paths: Iterable[Path | None]) -> list[tuple[str, str | None] | None]:
    return [(path.name, _contents_sha256(path)) if path else None for path in paths]


def _contents_sha256(path: Path) -> str | None:
    """None where the file cannot be read; that it cannot is said when it is used."""
    try:
        return file_sha256(path)
    except OSError:
        return None


def _sha256(listing: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(listing).encode()).hexdigest()
