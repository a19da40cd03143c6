"""What a bundle says of its nominal images: scores and pictures in, the limits that drift is told by out.

Knows nothing about messages or lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fbft_edge.bundle.reading import Bundle
from fbft_edge.errors import BundleError
from fbft_edge.strict_json import integer, members, number

NOTE = "nominal_statistics"
SCORE = "score"
STATISTICS = ("level", "red", "blue", "sharpness", "contrast", SCORE)


@dataclass(frozen=True, slots=True)
class Reference:
    """One statistic of calibration's nominal images.

    Attributes:
        images: How many.
        rank: How many of them do not lie inside either limit: 1 when the limits are the least and the largest value.
        low: Lower limit.
        median: Of all.
        high: Upper limit.
    """

    images: int
    rank: int
    low: float
    median: float
    high: float


def nominal_statistics(scores: Sequence[float], pictures: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What a bundle stores under `NOTE`.

    Args:
        scores: Of held-out nominal images, at least 1.
        pictures: What `picture_statistics` says about nominal images, fitted on or not, at least 1.
    """
    values = {name: [picture[name] for picture in pictures] for name in pictures[0]}
    # Frames above the threshold are no part of the window, so the largest score could never be exceeded often.
    references = {SCORE: _reference(scores, max(1, (len(scores) + 1) // 4))}
    references |= {name: _reference(column, 1) for name, column in values.items()}
    return {name: asdict(reference) for name, reference in references.items()}


def references_of(bundle: Bundle) -> dict[str, Reference]:
    """The statistics that a bundle holds; empty when it is from before there were any.

    Raises:
        BundleError: They are not what calibration writes.
    """
    try:
        stored = members(bundle.notes.get(NOTE, {}))
        return {name: _reference_from_json(stored[name]) for name in STATISTICS if name in stored}
    except (ValueError, KeyError) as error:
        raise BundleError(
            f"{bundle.path} has a {NOTE} that cannot be used ({error}); run fbft-calibrate threshold again"
        ) from error


def _reference(values: Sequence[float], rank: int) -> Reference:
    ordered = sorted(float(value) for value in values)
    return Reference(len(ordered), rank, ordered[rank - 1], ordered[len(ordered) // 2], ordered[-rank])


def _reference_from_json(value: Any) -> Reference:
    contents = members(value)
    images = integer(contents["images"], 1, 1 << 40)
    rank = integer(contents["rank"], 1, (images + 1) // 2)
    low, median, high = (number(contents[name], -1e6, 1e6) for name in ("low", "median", "high"))
    if not low <= median <= high:
        raise ValueError(f"{low:g}, {median:g} and {high:g} are not in order")
    return Reference(images, rank, low, median, high)
